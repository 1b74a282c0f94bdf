"""What lies where: files of a run for nodes that do not see its folder, on folders in the place of nodes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rllc.runs.engines import ray_worker
from rllc.runs.engines.job import Files
from rllc.runs.engines.placing import Placing
from rllc.runs.engines.ray_worker import Delivery


def names(delivery: Delivery | None) -> list[str]:
    """What a delivery brings, by its path in the run folder."""
    assert delivery is not None
    return [name.removeprefix(f"{delivery.inside}/") for name, _ in delivery.files]


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A store that is a list, and nodes that are folders."""
    held: list[bytes] = []
    monkeypatch.setattr("rllc.runs.engines.placing._PIECE", 64)
    monkeypatch.setattr(ray_worker.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", type("Ray", (), {"get": staticmethod(lambda reference: held[reference])}))
    return held


def placing_in(objects: list[bytes], **most: int) -> Placing:
    """What puts its pieces into that store."""

    def put(piece: Any) -> int:
        objects.append(bytes(piece))
        return len(objects) - 1

    return Placing("here", put, **most)


def checkpoints_in(root: Path, byte: int = 0) -> Files[int]:
    """A corpus and three checkpoints, of 100 and 60 bytes, that works 1 to 3 read."""
    for name, size in {"corpus/tokens": 100, "checkpoints/1": 60, "checkpoints/2": 60, "checkpoints/3": 60}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes([byte]) * size)
    return Files(root, lambda step: [root / "corpus/tokens", root / f"checkpoints/{step}"], lambda step, there: there / f"checkpoints/{step}")


def test_files_go_once_to_every_node_and_the_longest_unused_go_first(tmp_path, objects):
    root = tmp_path / "run"
    files, placing = checkpoints_in(root), placing_in(objects, stored=250, kept=230)
    assert placing.begin("here", files, 1) is None
    assert placing.begin("far", None, 1) is None
    assert placing.nodes == ()

    first = placing.begin("far", files, 1)
    assert first is not None
    assert names(first) == ["corpus/tokens", "checkpoints/1"]
    assert len(objects) == 3  # two pieces of the corpus, and one
    beside = placing.begin("far", files, 2)  # before the first has arrived: whoever comes first writes
    assert beside is not None
    assert names(beside) == ["corpus/tokens", "checkpoints/2"]
    assert len(objects) == 4
    there = ray_worker.place(first)
    assert ray_worker.place(beside) == there
    assert {path.name for path in there.rglob("*") if path.is_file()} == {"tokens", "1", "2"}
    assert (there / "corpus/tokens").read_bytes() == (root / "corpus/tokens").read_bytes()
    for step in (1, 2):
        placing.end("far", files, step, arrived=True)

    third = placing.begin("far", files, 3)
    assert third is not None
    assert names(third) == ["checkpoints/3"]
    assert third.drop == ()
    ray_worker.place(third)
    placing.end("far", files, 3, arrived=True)
    fourth = placing.begin("far", files, 3)  # 280 bytes by now, of 230: the one that was longest unused goes
    assert fourth is not None
    assert (fourth.files, fourth.drop) == ((), (f"{fourth.inside}/checkpoints/1",))
    assert not (ray_worker.place(fourth) / "checkpoints/1").exists()
    again = placing.begin("far", files, 1)
    assert again is not None
    assert names(again) == ["checkpoints/1"]
    assert placing.begin("other", files, 1) is not None
    assert placing.nodes == ("far", "other")


def test_what_was_to_be_dropped_stays_where_a_worker_was_given_it_again_before_that(tmp_path, objects):
    """Deliveries reach workers in any order: the second is there first, or both."""
    files, placing = checkpoints_in(tmp_path / "run"), placing_in(objects, kept=230)
    for step in (1, 2, 3):
        ray_worker.place(placing.begin("far", files, step))
        placing.end("far", files, step, arrived=True)
    dropping = placing.begin("far", files, 3)
    assert dropping is not None
    assert dropping.drop == (f"{dropping.inside}/checkpoints/1",)
    again = placing.begin("far", files, 1)  # while the other is on its way
    assert names(again) == ["checkpoints/1"]
    there = ray_worker.place(again) / "checkpoints/1"
    assert there.is_file()
    ray_worker.place(dropping)
    assert there.is_file(), "it was taken away under the worker that reads it"
    placing.end("far", files, 1, arrived=True)
    placing.end("far", files, 3, arrived=True)
    last = placing.begin("far", files, 3)
    assert last is not None
    assert last.drop  # it may go later
    ray_worker.place(last)
    assert not all((there.parent / name).exists() for name in "12")


def test_two_run_folders_have_files_of_the_same_names_apart(tmp_path, objects):
    placing = placing_in(objects)
    for byte, run in enumerate(("one", "two")):
        files = checkpoints_in(tmp_path / run, byte)
        there = ray_worker.place(placing.begin("far", files, 1))
        assert (there / "checkpoints/1").read_bytes() == bytes([byte]) * 60
        placing.end("far", files, 1, arrived=True)

"""What the engines decide without a cluster: names, retries, room, what lies where."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.main import main
from rllc.runs.engines import cluster, on_ray, ray_worker, registry
from rllc.runs.engines.cluster import Room, check_versions
from rllc.runs.engines.job import Files, Job
from rllc.runs.engines.local import LocalEngine
from rllc.runs.engines.placing import Placing
from rllc.runs.engines.ray_worker import Delivery, Hello
from rllc.runs.engines.waiting import TRIES, Item, Waiting
from rllc.runs.experiment import parse
from rllc.runs.settings import EngineSettings


def test_engines_have_names_and_stay_open(tiny, monkeypatch):
    with pytest.raises(RllcError, match=r"There is no engine 'slurm'\. Choose one of: local, ray"):
        parse(tiny.replace("[engine]", '[engine]\nkind = "slurm"'))
    here = registry.engine(EngineSettings(workers=3))
    assert isinstance(here, LocalEngine)
    assert here.at_once == 3
    assert registry.engine(EngineSettings(workers=3)) is here
    registry.close()
    assert registry.engine(EngineSettings(workers=3)) is not here
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RllcError, match=r"needs Ray, which is not installed here. pip install 'rllc\[ray\]'"):
        registry.engine(EngineSettings(kind="ray"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "slurm"], "There is no engine 'slurm'. Choose one of: local, ray."),
        (["--address", "auto"], 'Give engine.kind = "ray" with them, or --engine ray.'),
        (["--engine", "ray", "--gpus-per-worker", "3"], "a unit is computed on one device"),
        (["--shard", "9/8"], "A shard is called '9/8'."),
    ],
)
def test_wrong_flags_end_in_a_sentence(flags, message, tiny, tmp_path, capsys):
    (tmp_path / "experiment.toml").write_text(tiny)
    for verb in ("run", "sample"):
        assert main([verb, str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run"), *flags]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus_per_worker": 2, "kind": "ray"}, "a unit is computed on one device"),
        ({"gpus_per_worker": 0.5}, "are for the engine ray"),
        ({"address": "auto"}, "are for the engine ray"),
        ({"unit_timeout": -1}, "unit_timeout is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(RllcError, match=message):
        EngineSettings(**settings)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def half(work: int) -> int:
    if work <= 1:
        raise RllcError("There is nothing smaller.", "")
    return work // 2


def test_what_is_lost_waits_longer_every_time_and_is_smaller_from_the_second_on():
    clock = Clock()
    waiting = Waiting([8, 5], clock, back_off=1.0)
    item = waiting.next()
    assert item == Item(8)
    again = waiting.lost(item, "why", "n1", half)
    assert (again.work, again.tries, again.after, again.avoid) == (8, 1, 1.0, "n1")
    assert waiting.soonest() == 0.0
    assert waiting.next() == Item(5)
    assert waiting.next() is None
    assert waiting.soonest() == 1.0
    clock.now = 1.0
    item = waiting.next()
    assert item == again
    assert len(waiting) == 0
    again = waiting.lost(item, "why", "n1", half)
    assert (again.work, again.after) == (4, 3.0)
    again = waiting.lost(again, "why", "n1", half)
    assert (again.work, again.after) == (2, 5.0)
    with pytest.raises(RllcError, match=f"tried {TRIES} times.*The last time: the end"):
        waiting.lost(again, "the end", "n1", half)


def test_what_was_lost_for_want_of_memory_is_smaller_at_once_and_told_where_it_cannot_be():
    waiting = Waiting([2], Clock())
    again = waiting.lost(waiting.next(), "memory", "n", half, memory=True)
    assert again.work == 1
    with pytest.raises(RllcError, match="nothing smaller"):
        waiting.lost(again, "memory", "n", half, memory=True)


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("settings", "nodes", "workers", "gpus"),
    [
        ({}, [node(4), node(3)], 7, 0.0),
        ({"threads": 2}, [node(4), node(3)], 3, 0.0),  # no worker is on two nodes
        ({}, [node(4), node(8, alive=False)], 4, 0.0),
        ({}, [node(16, 4), node(16)], 4, 1.0),  # there are GPUs: they are used
        ({"device": "cpu"}, [node(16, 4)], 16, 0.0),
        ({"gpus_per_worker": 0.25}, [node(16, 2)], 8, 0.25),
        ({"gpus_per_worker": 0.25, "threads": 4}, [node(16, 2)], 4, 0.25),
        ({"device": "cuda"}, [node(16)], 0, 1.0),
        ({}, [], 0, 0.0),
    ],
)
def test_room_is_what_whole_workers_fit_into(settings, nodes, workers, gpus):
    room = Room.of(EngineSettings(kind="ray", **settings), nodes)
    assert (room.workers, room.options["num_gpus"]) == (workers, gpus)


def test_more_workers_than_there_is_room_for_are_told():
    told: list[str] = []
    settings = EngineSettings(kind="ray", workers=9)
    Room.of(settings, [node(4)]).check(settings, told.append)
    assert told == ["9 workers of 1 CPU were asked for; the cluster has room for 4."]
    with pytest.raises(RllcError, match="at most 0 CPUs"):
        Room.of(settings, []).check(settings, told.append)


def test_a_node_with_another_version_is_refused():
    hello = Hello("n", "far", 1, {"rllc": "1", "torch": "2", "estimator": "e"})
    check_versions(hello, {"rllc": "1", "torch": "2"})
    with pytest.raises(RllcError, match="far has torch 2, and others 3"):
        check_versions(hello, {"rllc": "1", "torch": "3"})


@pytest.mark.parametrize("address", ["ray://host:10001", "nowhere"])
def test_an_address_that_is_none_is_told_before_anything_starts(address):
    pytest.importorskip("ray")
    with pytest.raises(RllcError, match=r"address is 'ray://|no Ray cluster to join at 'nowhere'"):
        cluster.connect(EngineSettings(kind="ray", address=address))


def test_a_ray_that_does_not_start_is_tried_again_and_then_told(monkeypatch):
    ray, calls = pytest.importorskip("ray"), list[str]()

    def init(**_: Any) -> None:
        calls.append("init")
        raise Exception("The current node timed out during startup. It may be busy.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    with pytest.raises(RllcError, match="Ray did not start on this machine: The current node timed out"):
        cluster.connect(EngineSettings(kind="ray"))
    assert calls == ["init", "shutdown"] * 3


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


def test_a_unit_s_own_error_comes_home_as_it_is(tmp_path: Path):
    def wrong(work: str) -> None:
        raise RllcError(work, "Mend it.")

    answer = ray_worker.Worker("n", 1).compute(wrong, "a fault", None, None)
    assert isinstance(answer, RllcError)
    assert (answer.problem, answer.remedy) == ("a fault", "Mend it.")


def test_the_local_engine_tells_what_it_begins_and_who_has_finished_it():
    begun: list[int] = []
    heard: list[dict[str, Any]] = []
    job = Job(abs, [-3, 2], begun=begun.append, hear=lambda event, **facts: heard.append({"event": event, **facts}))
    done = dict(LocalEngine(EngineSettings(workers=1)).run(job))
    assert done == {-3: 3, 2: 2}
    assert begun == [-3, 2]
    assert heard == [{"event": "work_finished", "work": work, "worker": os.getpid()} for work in (-3, 2)]


def whose(work: int) -> int:
    """The process that computes it."""
    time.sleep(0.2)  # so that the other worker takes its share
    return os.getpid()


def test_workers_stay_for_the_next_job_but_one_that_an_ended_job_was_still_at():
    engine = LocalEngine(EngineSettings(workers=2))
    try:
        first = {pid for _, pid in engine.run(Job(whose, range(4)))}
        assert len(first) == 2
        assert {pid for _, pid in engine.run(Job(whose, range(4)))} == first
        results = engine.run(Job(whose, range(4)))
        next(results)
        results.close()  # nobody wants the rest: at least one worker was at a unit then
        assert len(first & {pid for _, pid in engine.run(Job(whose, range(8)))}) <= 1
        alive = {pid for _, pid in engine.run(Job(whose, range(4)))}
    finally:
        engine.close()
    assert not [pid for pid in first | alive if Path(f"/proc/{pid}").exists()]


class FakeRay:
    """Workers that say hello at once; of their works only `a` ever comes home the first time, everything the second. Waiting turns the clock on."""

    class exceptions:  # noqa: N801
        RayError = ConnectionError

    def __init__(self, clock: Clock) -> None:
        self.clock, self.sent = clock, list[tuple[str, Any]]()

    def nodes(self) -> list[dict[str, Any]]:
        return [node(2)]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def put(self, piece: Any) -> Any:
        return piece

    def remote(self, _: Any) -> Any:
        def send(kind: str, what: Any) -> int:
            self.sent.append((kind, what))
            return len(self.sent) - 1

        hello = SimpleNamespace(remote=lambda: send("hello", Hello("here", "host", 1, ray_worker.versions())))
        compute = SimpleNamespace(remote=lambda function, work, moved, delivery: send("work", work))  # noqa: ARG005
        actor = SimpleNamespace(hello=hello, compute=compute)
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: actor))

    def wait(self, references: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:  # noqa: ARG002
        for reference in references:
            kind, what = self.sent[reference]
            if kind == "hello" or what == "a" or self.sent.index((kind, what)) < reference:
                return [reference], []
        self.clock.now += max(timeout, 0.01)
        assert self.clock.now < 5000, "the limit of the beginning was kept"
        return [], []

    def get(self, reference: int) -> Any:
        return self.sent[reference][1]

    def kill(self, actor: Any) -> None:
        pass


def test_on_ray_the_limit_of_a_unit_follows_what_others_have_taken_since(monkeypatch):
    clock, told, done = Clock(), list[str](), list[str]()
    ray = FakeRay(clock)
    monkeypatch.setattr(cluster, "connect", lambda settings: (ray, False))  # noqa: ARG005
    monkeypatch.setattr(on_ray, "time", SimpleNamespace(monotonic=clock, sleep=lambda seconds: setattr(clock, "now", clock.now + seconds)))
    monkeypatch.setattr(on_ray.RayEngine, "back_off", 0.0)
    engine = on_ray.RayEngine(EngineSettings(kind="ray", workers=2))
    job = Job(str, ["hangs", "a"], tell=told.append, seconds=lambda work: 900.0 if done else 1e9)  # noqa: ARG005
    for work, _ in engine.run(job):
        done.append(work)
    assert done == ["a", "hangs"]
    assert told == ["a worker was lost on host: no answer within 900 s. Its unit is tried again, try 2."]
    assert 900 <= clock.now < 905

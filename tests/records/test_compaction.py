from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import rllc.records.compaction as compaction
from rllc.core.errors import RllcError
from rllc.records.compaction import compact, open_compacted
from rllc.records.store import Store
from rllc.records.table import SparseError, dataset


def fill(store: Store, steps: range, llc: float | None = 1.0, draws: int = 7) -> None:
    for step in steps:
        for part in ("0:0", "1:10", "1:2", "full"):
            rng = np.random.default_rng([step, len(part)])
            meta: dict[str, Any] = {"step": step, "part": part, "data": "mix", "llc": llc, "chains": 4, "outcome": "ok", "reason": "ü"}
            store.put("sample", {"step": step, "part": part}, {"losses": rng.normal(size=(4, draws)), "baseline": rng.normal(size=draws)}, meta)


def files(path: Path) -> dict[Path, int]:
    return {found: found.stat().st_mtime_ns for found in path.rglob("*") if found.is_file()}


def test_the_compacted_table_is_the_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(5))
    loaded = open_compacted(store, run="demo")
    xr.testing.assert_identical(loaded.drop_encoding(), dataset(store.records("sample"), run="demo"))
    assert float(loaded["llc"].sel(step=3, part="1:10", data="mix")) == 1.0


def test_compaction_is_idempotent_and_follows_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    fill(store, range(3))
    first = compact(store)
    before = files(first)
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_write", lambda *_: pytest.fail("an up-to-date copy was written again"))
        assert compact(store) == first
    assert files(first) == before
    fill(store, range(4))
    second = compact(store)
    assert second != first
    assert [path.name for path in (tmp_path / "compacted").iterdir()] == [second.name]
    assert open_compacted(store).sizes["step"] == 4
    assert store.kinds() == ["sample"]


def test_only_older_copies_go_and_nothing_is_made_behind_a_link(tmp_path: Path) -> None:
    store, mine = Store(tmp_path / "store"), tmp_path / "mine"
    (mine / "precious.zarr").mkdir(parents=True)
    (mine / f"{'a' * 16}.zarr").mkdir()
    (tmp_path / "store" / "compacted" / "precious.zarr").mkdir(parents=True)
    fill(store, range(2))
    compact(store)
    fill(store, range(3))
    second = compact(store)
    assert sorted(path.name for path in second.parent.iterdir()) == sorted([second.name, "precious.zarr"])
    second.parent.rename(tmp_path / "before")
    second.parent.symlink_to(mine)
    with pytest.raises(RllcError, match="compacted is a link, and nothing is written where it leads"):
        compact(store)
    assert sorted(path.name for path in mine.iterdir()) == [f"{'a' * 16}.zarr", "precious.zarr"]


def test_a_removed_record_leaves_the_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(2))
    compact(store)
    for path in (tmp_path / "sample").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RllcError, match="was damaged"):
        compact(store)
    assert open_compacted(store).sizes["step"] == 0


def test_chunks_that_are_all_nan_are_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(2), llc=None)
    path = compact(store)
    assert any(found.is_file() for found in (path / "llc" / "c").rglob("*"))
    assert np.isnan(open_compacted(store)["llc"]).all()


def test_a_grid_makes_few_files_however_long_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for steps in (2, 30):
        store = Store(tmp_path / str(steps))
        fill(store, range(steps))
        counts.append(len(files(compact(store))))
    assert counts[0] == counts[1]
    monkeypatch.setattr(compaction, "_CHUNK_BYTES", 4 * 4 * 7 * 8 * 3)  # three checkpoints of traces
    monkeypatch.setattr(compaction, "_SHARD_BYTES", 4 * 4 * 7 * 8 * 6)
    store = Store(tmp_path / "small")
    fill(store, range(20))
    path = compact(store)
    assert len(files(path / "losses" / "c")) == 4  # 20 checkpoints, six a shard
    np.testing.assert_array_equal(open_compacted(store)["losses"], dataset(store.records("sample"))["losses"])


def test_a_full_disk_leaves_the_older_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    fill(store, range(2))
    older = compact(store)
    fill(store, range(3))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", full)
        with pytest.raises(RllcError, match="The disk is full"):
            compact(store)
    assert [found.name for found in (tmp_path / "compacted").iterdir()] == [older.name]
    assert open_compacted(store).sizes["step"] == 3


def test_a_second_writer_of_the_same_copy_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    fill(store, range(2))
    write = compaction._write

    def overtaken(labelled: xr.Dataset, path: Path) -> None:
        write(labelled, path)
        target = tmp_path / "compacted" / path.name
        if not target.exists():
            write(labelled, target)

    monkeypatch.setattr(compaction, "_write", overtaken)
    path = compact(store)
    assert [found.name for found in (tmp_path / "compacted").iterdir()] == [path.name]
    assert open_compacted(store).sizes["step"] == 2


@pytest.mark.parametrize("apart", [True, False])
def test_of_a_grid_that_is_nearly_empty_there_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    """Of 200 cells whose steps, parts and data all differ the arrays would have 8 million places; nothing of that size is made."""
    store = Store(tmp_path)
    fill(store, range(1))
    older = compact(store)
    made: list[int] = []
    full = np.full

    def counted(shape: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(int(np.prod(shape)))
        assert made[-1] < 10**6
        return full(shape, *args, **kwargs)

    for i in range(200):
        meta = {
            "step": i if apart else 0,
            "part": f"{i}:0" if apart else "0:0",
            "data": f"d{i}",
            "llc": 1.0,
            "chains": 4,
            "outcome": "ok",
            "reason": "",
        }
        store.put("sample", {"i": i}, {"losses": np.zeros((4, 5))}, meta)
    monkeypatch.setattr(np, "full", counted)
    if not apart:
        compact(store)
    else:
        with pytest.raises(SparseError, match=r"204 cells would be nearly empty: 200 step × 203 part .* GB") as told:
            compact(store)
        assert isinstance(told.value, RllcError)
        assert list((tmp_path / "compacted").glob("*.zarr")) == []
    assert made
    assert not older.exists()


def test_traces_of_very_different_lengths_are_not_padded_without_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(50))
    fill(store, range(50, 51), draws=100_000)
    with pytest.raises(SparseError, match="of lengths too different for an array: 204 would take"):
        compact(store)


def test_an_empty_store_compacts(tmp_path: Path) -> None:
    assert dict(open_compacted(Store(tmp_path / "new")).sizes) == {"step": 0, "part": 0, "data": 0}

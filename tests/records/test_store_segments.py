"""Records of several segments, and records that are not what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rllc.records.index import opened
from rllc.records.store import DamagedRecordError, Record, Store

from .test_store import KEY, META, arrays


def test_a_damaged_segment_takes_those_behind_it_along(tmp_path: Path) -> None:
    """They went on from it; what is computed in its place is another beginning."""
    store = Store(tmp_path)
    for segment in range(3):
        name = store.put("sample", KEY, arrays(segment), META, segment)
    store.put("sample", {"i": 1}, arrays(), META)
    (tmp_path / "sample" / f"{name}-1.npz").write_bytes(b"no record")
    with pytest.raises(DamagedRecordError, match=r"-1\.npz was damaged.*with it the 1 behind it") as caught:
        store.get("sample", name)
    assert caught.value.files == (f"{name}-1.npz", f"{name}-2.npz")
    assert store.segments("sample", name) == 1
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == [f"sample-{name}-{n}.npz" for n in (1, 2)]
    assert len(list(store.records("sample"))) == 2


def test_looking_through_a_store_survives_a_damaged_first_segment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for segment in range(3):
        name = store.put("sample", KEY, arrays(), META, segment)
    (tmp_path / "sample" / f"{name}-0.npz").write_bytes(b"")
    (problem,) = Store(tmp_path, sets_aside=False).check()
    assert len(problem.files) == 3
    assert len(store.check()) == 1
    assert store.digests("sample") == []


def test_a_segment_written_where_one_was_missing_is_not_followed_by_another_s(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for segment in range(2):
        name = store.put("sample", KEY, arrays(segment), META, segment)
    (tmp_path / "sample" / f"{name}-0.npz").unlink()
    store.put("sample", KEY, arrays(), META)
    assert store.segments("sample", name) == 1
    assert store.get("sample", name).segments == 1
    assert (tmp_path / "damaged" / f"sample-{name}-1.npz").exists()


def test_a_record_that_fails_its_check_is_damaged(tmp_path: Path) -> None:
    """A digest tells that nothing changed since it was written, and not that it is a record of what it says."""

    def check(record: Record, segment: int, earlier: Sequence[Record]) -> str:
        assert len(earlier) in (0, segment)
        return "" if "llc" in record.meta else "it has no llc"

    plain = Store(tmp_path)
    good, bad = plain.put("sample", KEY, arrays(), META), plain.put("sample", {"i": 1}, {}, {"step": 1})
    assert len(opened(plain, "sample").stamps) == 2
    store = Store(tmp_path, checks={"sample": check})
    assert list(opened(store, "sample").stamps) == [f"{good}-0.npz"]  # though an index of both is there
    assert not store.has("sample", bad)
    plain.put("sample", {"i": 1}, {}, {"step": 1})
    with pytest.raises(DamagedRecordError, match="it has no llc"):
        store.get("sample", bad)

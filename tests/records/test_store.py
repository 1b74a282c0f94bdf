from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.records.store import FORMAT, DamagedRecordError, Store

KEY = {"weights": "abc", "part": "1:6", "sampler": {"step_size": 1e-3, "chains": 4}}
META = {"step": 10, "llc": 1.5, "outcome": "ok"}


def arrays(seed: int = 0, draws: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"losses": rng.normal(size=(4, draws)), "baseline": rng.normal(size=draws), "count": np.arange(draws, dtype=np.int32)}


def only_file(store: Store) -> Path:
    (path,) = (store.root / "sample").iterdir()
    return path


def test_what_was_put_comes_back_by_key_and_by_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.put("sample", KEY, arrays(), {**META, "scores": (np.float32(0.5), np.int64(3)), "names": ["a"]})
    for record in (store.get("sample", KEY), Store(tmp_path).get("sample", name)):
        assert (record.kind, record.digest, record.key, record.segments) == ("sample", name, KEY, 1)
        assert record.meta == {**META, "scores": [0.5, 3], "names": ["a"]}
        assert list(record.arrays) == list(arrays())
        for array_name, array in arrays().items():
            assert record.arrays[array_name].dtype == array.dtype
            np.testing.assert_array_equal(record.arrays[array_name], array)


def test_the_key_names_the_record_whatever_its_order_and_its_kind_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.put("sample", KEY, arrays(), META)
    assert store.put("sample", dict(reversed(KEY.items())), arrays(), META) == name
    assert store.has("sample", KEY)
    assert not store.has("sample", {**KEY, "part": "1:7"})
    assert not store.has("behaviour", KEY)
    assert store.put("behaviour", KEY, {}, {}) != name
    assert store.kinds() == ["behaviour", "sample"]


def test_numbers_that_are_not_finite_are_null_in_meta_and_kept_in_arrays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, {"losses": np.array([np.nan, np.inf])}, {"llc": float("nan"), "rhat": np.float64("inf"), "list": [float("-inf")]})
    record = store.get("sample", KEY)
    assert record.meta == {"llc": None, "rhat": None, "list": [None]}
    np.testing.assert_array_equal(record.arrays["losses"], [np.nan, np.inf])


def test_a_key_must_be_finite_json_and_arrays_plain(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.put("sample", {"step_size": float("nan")}, {}, {})
    with pytest.raises(TypeError, match="'bad' holds Python objects"):
        store.put("sample", KEY, {"bad": np.array([{}], dtype=object)}, {})
    with pytest.raises(ValueError, match="not a kind"):
        store.put("../sample", KEY, {}, {})
    with pytest.raises(ValueError, match="not a kind"):
        store.has("damaged", KEY)
    assert not (tmp_path / "sample").exists()


def test_segments_extend_a_record_and_the_newest_meta_speaks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for segment in range(3):
        store.put("sample", KEY, arrays(segment), {"draws": 6 * (segment + 1)}, segment=segment)
    record = store.get("sample", KEY)
    assert record.segments == store.segments("sample", KEY) == 3
    assert record.meta == {"draws": 18}
    np.testing.assert_array_equal(record.arrays["losses"], np.concatenate([arrays(i)["losses"] for i in range(3)], axis=1))
    assert record.arrays["baseline"].shape == (18,)
    assert len(store.digests("sample")) == 1


def test_segments_after_a_gap_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = ""
    for segment in range(3):
        name = store.put("sample", KEY, arrays(segment), {"draws": segment}, segment=segment)
    (tmp_path / "sample" / f"{name}-1.npz").unlink()
    assert store.segments("sample", KEY) == 1
    assert store.get("sample", KEY).meta == {"draws": 0}
    assert store.has("sample", KEY, segment=2)


def test_a_record_is_never_rewritten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(0), {"seconds": 1.0})
    store.put("sample", KEY, arrays(1), {"seconds": 2.0})
    assert store.get("sample", KEY).meta == {"seconds": 1.0}


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    for store in (one, two):
        store.put("sample", KEY, arrays(), META)
    assert only_file(one).read_bytes() == only_file(two).read_bytes()


def test_many_writers_of_the_same_records_do_no_harm(tmp_path: Path) -> None:
    def write() -> None:
        store = Store(tmp_path)
        for i in range(20):
            store.put("sample", {"i": i}, arrays(i), {"i": i})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(Store(tmp_path).records("sample"))
    assert sorted(record.meta["i"] for record in records) == list(range(20))
    assert [record.digest for record in records] == Store(tmp_path).digests("sample")
    assert all(path.suffix == ".npz" for path in (tmp_path / "sample").iterdir())


def test_what_does_not_exist_is_a_key_error_and_an_empty_store_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    with pytest.raises(KeyError, match="sample/"):
        store.get("sample", KEY)
    assert list(store.records("sample")) == []
    assert store.kinds() == []
    assert store.check() == ()
    assert not store.root.exists()


def test_a_damaged_record_is_set_aside_and_computed_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    name = store.put("sample", KEY, arrays(), META)
    path = only_file(store)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DamagedRecordError, match=r"sample/[0-9a-f]{64}-0\.npz was damaged.*Run the same command again"):
        store.get("sample", KEY)
    assert not store.has("sample", KEY)
    assert (tmp_path / "damaged" / f"sample-{name}-0.npz").exists()
    assert store.kinds() == ["sample"]
    store.put("sample", KEY, arrays(), META)
    assert store.get("sample", KEY).meta == META


def test_a_sound_archive_with_other_numbers_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)
    path = only_file(store)
    with np.load(path) as archive:
        members = dict(archive)
    members["array/baseline"][0] += 1e-12
    with path.open("wb") as stream:
        np.savez_compressed(stream, **members)
    with pytest.raises(DamagedRecordError, match="does not fit its digest"):
        store.get("sample", KEY)


def test_a_record_under_a_foreign_name_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)
    path = only_file(store)
    path.rename(path.with_name("0" * 64 + "-0.npz"))
    with pytest.raises(DamagedRecordError, match="does not fit its digest"):
        store.get("sample", "0" * 64)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_never_changes_an_answer(tmp_path_factory: pytest.TempPathFactory, position: float, bit: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.put("sample", KEY, arrays(), META)
    path = only_file(store)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        record = store.get("sample", KEY)
    except DamagedRecordError:
        assert not path.exists()
    else:
        assert record.meta == META
        assert record.key == KEY
        for name, array in arrays().items():
            np.testing.assert_array_equal(record.arrays[name], array)


def test_iteration_gives_the_sound_records_and_then_tells_of_the_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = sorted(store.put("sample", {"i": i}, arrays(i), {"i": i}) for i in range(4))
    for name in (names[0], names[2]):
        (tmp_path / "sample" / f"{name}-0.npz").write_bytes(b"not a record")
    found = []
    with pytest.raises(DamagedRecordError, match=f"{names[0]}.*{names[2]}"):
        found.extend(record.digest for record in store.records("sample"))
    assert found == [names[1], names[3]]
    assert [record.digest for record in store.records("sample")] == [names[1], names[3]]


def test_check_tells_of_every_damaged_record_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for i in range(3):
        name = store.put("sample", {"i": i}, {}, {})
        if i:
            (tmp_path / "sample" / f"{name}-0.npz").write_bytes(b"")
    assert len(store.check()) == 2
    assert store.check() == ()


def test_a_damaged_record_that_cannot_be_moved_is_named_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)
    only_file(store).write_bytes(b"x")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DamagedRecordError, match=r"could not be set aside.*Delete it"):
        store.get("sample", KEY)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("rllc.records.places.read_regular", refuse)
    with pytest.raises(RllcError, match=r"could not be read: Permission denied"):
        store.get("sample", KEY)
    assert store.has("sample", KEY)


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)
    before = sorted(tmp_path.rglob("*"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RllcError, match=r"The disk is full.*finished work is kept"):
            store.put("sample", {**KEY, "part": "0:0"}, arrays(), META)
    assert sorted(tmp_path.rglob("*")) == before
    assert store.get("sample", KEY).meta == META
    store.put("sample", {**KEY, "part": "0:0"}, arrays(), META)
    assert len(list(store.records("sample"))) == 2


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    Store(tmp_path).put("sample", KEY, arrays(), META)
    marker = tmp_path / "store.json"
    assert json.loads(marker.read_text()) == {"format": FORMAT}
    marker.write_text(json.dumps({"format": FORMAT + 1}))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(RllcError, match=f"format {FORMAT + 1} by a newer version.*Update rllc"):
        Store(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def forged(tmp_path: Path, **header: Any) -> Store:
    """A store with one record in whose header other things stand; its digest is that of the honest one."""
    store = Store(tmp_path)
    store.put("sample", KEY, arrays(), META)
    path = only_file(store)
    with np.load(path) as archive:
        members = dict(archive)
    text = json.loads(members["record.json"].tobytes()) | header
    members["record.json"] = np.frombuffer(json.dumps(text).encode(), dtype=np.uint8)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **members)
    return store


def test_a_newer_version_is_believed_by_its_digest_alone(tmp_path: Path) -> None:
    """A header that merely says so is damaged, and does not stop a run."""
    store = forged(tmp_path, format=FORMAT + 1)
    with pytest.raises(DamagedRecordError, match="does not fit its digest"):
        store.get("sample", KEY)
    assert not store.has("sample", KEY)


def test_a_newer_record_in_an_older_store_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr("rllc.records.packing.FORMAT", FORMAT + 1)
    name = store.put("sample", KEY, arrays(), META)
    monkeypatch.undo()
    with pytest.raises(RllcError, match="by a newer version"):
        store.get("sample", name)
    assert store.has("sample", name)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "new"}'])
def test_a_broken_marker_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(RllcError, match=r"store\.json does not tell the format"):
        Store(tmp_path)


def test_the_fingerprint_follows_the_set_of_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen = [store.fingerprint("sample")]
    for i in range(2):
        store.put("sample", {"i": i}, {}, {})
        seen.append(store.fingerprint("sample"))
    store.put("behaviour", {}, {}, {})
    assert len(set(seen)) == 3
    assert store.fingerprint("sample") == seen[-1]

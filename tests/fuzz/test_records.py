"""Record files that were damaged or made by somebody else: set aside, never believed, never executed."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.records.store import DamagedRecordError, Record, Store

from .bounds import examples, outcome, refused

KEY = {"step": 1, "part": "1:6"}
ARRAYS = {"losses": np.arange(24, dtype=np.float64).reshape(2, 12), "baseline": np.arange(12, dtype=np.float32)}


def stored(folder: Path) -> tuple[Store, Path]:
    store = Store(folder)
    name = store.put("sample", KEY, ARRAYS, {"llc": 1.5, "outcome": "ok"})
    return store, folder / "sample" / f"{name}-0.npz"


def damaged(store: Store, path: Path, content: bytes) -> RllcError | Record:
    """What reading gives once the file holds other bytes; nothing may appear outside the store."""
    path.write_bytes(content)
    return outcome(lambda: store.get("sample", KEY))


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@examples(30)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 3000))
def test_changed_and_cut_bytes(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], kept: int) -> None:
    store, path = stored(tmp_path_factory.mktemp("records"))
    sound = path.read_bytes()
    content = bytearray(sound)
    for place, value in changes:
        content[place % len(content)] = value
    for bad in (bytes(content), sound[: kept % len(sound)]):
        found = damaged(store, path, bad)
        if isinstance(found, Record):  # bytes that nobody reads: times of a zip's entries
            assert all(np.array_equal(found.arrays[name], array) for name, array in ARRAYS.items())


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def header(shape: str, dtype: str = "'<f8'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_no_pickle_within_a_record_is_run(tmp_path: Path) -> None:
    store, path = stored(tmp_path / "store")
    proof = tmp_path / "proof"
    array = np.empty(1, dtype=object)
    array[0] = Touch(proof)
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    for name in ("record.json.npy", "array/losses.npy"):
        assert isinstance(damaged(store, path, archive({name: buffer.getvalue()})), DamagedRecordError)
    assert isinstance(damaged(store, path, pickle.dumps(Touch(proof))), DamagedRecordError)
    assert not proof.exists()


@pytest.mark.parametrize("shape", ["(10**15,)", "(1000000000000000,)", "(-1,)", "(2**70,)", "(9" * 30 + ",)" * 30, "(" * 5000])
@pytest.mark.parametrize("dtype", ["'<f8'", "'|O'", "'<U1000000000'", "[('a', '<f8', (1000000, 1000000))]"])
def test_a_header_that_claims_what_is_not_there(tmp_path: Path, shape: str, dtype: str) -> None:
    store, path = stored(tmp_path)
    assert isinstance(damaged(store, path, archive({"record.json.npy": header(shape, dtype)})), DamagedRecordError)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("array/losses.npy", "w", force_zip64=True) as member:
        for _ in range(600):
            member.write(bytes(2**20))
    path.write_bytes(buffer.getvalue())
    assert "damaged" in str(refused(lambda: store.get("sample", KEY), megabytes=150))


def test_names_within_a_record_write_nothing_elsewhere(tmp_path: Path) -> None:
    store, path = stored(tmp_path / "store")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    bad = archive({"../../escaped.npy": buffer.getvalue(), "/tmp/escaped.npy": buffer.getvalue(), "array/../../x.npy": buffer.getvalue()})
    assert isinstance(damaged(store, path, bad), DamagedRecordError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": "x"}', '{"format": 1e400}', "[" * 100_000, "9" * 5000, '{"format": []}', "\xff\xfe"])
def test_a_broken_marker_is_a_sentence(tmp_path: Path, text: str) -> None:
    stored(tmp_path)
    (tmp_path / "store.json").write_bytes(text.encode("latin-1"))
    refused(lambda: Store(tmp_path))


@examples(40)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=5))
def test_any_marker(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("marker")
    (folder / "store.json").write_text(json.dumps({"format": value}))
    outcome(lambda: Store(folder))

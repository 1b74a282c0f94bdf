from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rllc.records.store as store_module
from rllc.core.errors import RllcError
from rllc.records.columns import Column, joined, of_rows, stacked
from rllc.records.index import fresh_problems, opened, parsed, path_of
from rllc.records.packing import pack, unpack
from rllc.records.places import LocalPlace
from rllc.records.store import Store
from rllc.records.table import frame, stored_frame

VALUES = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.text(max_size=3), st.booleans())


def meta(i: int, **more: Any) -> dict[str, Any]:
    outcome = "unstable" if i % 5 == 4 else "ok"
    said = {"step": i // 3, "part": ("1:10", "1:2", "full")[i % 3], "data": "code" if i % 2 else "mixture", "outcome": outcome, "llc": i / 7}
    return {**said, "chains": 4, "reason": "ü", "control_variate": False, "geweke": None, "segments": [[7, 1]], **more}


def fill(store: Store, numbers: range, **more: Any) -> list[str]:
    return [store.put("sample", {"i": i}, {"losses": np.full((2, 3), i / 3)}, meta(i, **more)) for i in numbers]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records were read and proven."""
    count = [0]
    unpack = store_module.unpack

    def counted(content: bytes, what: str) -> Any:
        count[0] += 1
        return unpack(content, what)

    monkeypatch.setattr(store_module, "unpack", counted)
    return count


def test_the_table_of_the_index_is_the_table_of_the_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, range(12))
    fill(store, range(12, 15), twin=0.5, step_size=1)
    store.put("sample", {"i": 3}, {}, meta(3, llc=9.0, prolonged="more"), segment=1)
    store.put("sample", {"i": 5}, {}, meta(5, llc=99.0), segment=2)  # behind a gap
    expected = frame(store.records("sample"), "demo")
    for _ in range(2):  # made, and then read
        pd.testing.assert_frame_equal(stored_frame(Store(tmp_path), "demo"), expected)
    assert 9.0 in set(expected["llc"])
    assert 99.0 not in set(expected["llc"])
    assert expected.loc[expected.outcome == "unstable", "llc"].isna().all()
    assert list(expected["part"][expected.step == 1][expected.data == "code"]) == ["1:10", "full"]


def test_only_what_is_new_is_read(tmp_path: Path, reads: list[int]) -> None:
    store = Store(tmp_path)
    fill(store, range(6))
    assert len(stored_frame(store)) == reads[0] == 6
    assert len(stored_frame(Store(tmp_path))) == reads[0] == 6
    names = fill(store, range(8))
    assert len(stored_frame(store)) == reads[0] == 8
    (tmp_path / "sample" / f"{names[2]}-0.npz").unlink()
    assert len(stored_frame(Store(tmp_path))) == 7
    assert reads[0] == 8
    assert fresh_problems(store) == ()


def test_a_damaged_file_is_told_of_once_and_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = fill(store, range(4))
    opened(store, "sample")
    path = tmp_path / "sample" / f"{names[1]}-0.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert names[1] in str(fresh_problems(store)[0])
    assert fresh_problems(store) == ()
    assert len(stored_frame(store)) == 3
    fill(store, range(4))
    assert len(stored_frame(store)) == 4


@settings(max_examples=40)
@given(position=st.floats(0, 1, exclude_max=True), keep=st.booleans())
def test_a_torn_or_altered_index_is_never_believed(tmp_path_factory: pytest.TempPathFactory, position: float, keep: bool) -> None:
    """It is written without a flush, so that a power loss may leave anything."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root)
    fill(store, range(3))
    expected = stored_frame(store)
    path = root / path_of("sample")
    content = bytearray(path.read_bytes())
    place = int(position * len(content))
    content[place] ^= 0x10
    path.write_bytes(content if keep else content[:place])
    pd.testing.assert_frame_equal(stored_frame(Store(root)), expected)


# what is done to the arrays of an index, whose digest is then made right
ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a column of fewer rows": lambda a: a.update({"number/llc": a["number/llc"][:2]}),
    "a column of two axes": lambda a: a.update({"number/llc": a["number/llc"][:, None]}),
    "a column of another type": lambda a: a.update({"count/step": a["count/step"].astype(np.float32)}),
    "a number beyond all": lambda a: a.update({"number/llc": np.full_like(a["number/llc"], np.inf)}),
    "a text that is not there": lambda a: a.update({"text/outcome": np.full_like(a["text/outcome"], 99)}),
    "a text before the first": lambda a: a.update({"text/outcome": np.full_like(a["text/outcome"], -2)}),
    "counts of which nothing tells": lambda a: a.pop("present/step"),
    "a gap too few": lambda a: a.update({"present/step": a["present/step"][:2]}),
    "texts that are none": lambda a: a.update(texts=changed(a["texts"], b'\\"ok\\"', b'["ok"]')),
    "half a character": lambda a: a.update(texts=changed(a["texts"], b"ok", b"\\\\ud800")),
    "a file that is no record": lambda a: a.update(files=np.array([b"x", *a["files"][1:]])),
    "a file twice": lambda a: a.update(files=a["files"][[0, 0, *range(2, len(a["files"]))]]),
    "sizes that are none": lambda a: a.update(sizes=a["sizes"].astype(np.float64)),
}


def changed(texts: np.ndarray, old: bytes, new: bytes) -> np.ndarray:
    assert old in texts.tobytes()
    return np.frombuffer(texts.tobytes().replace(old, new), dtype=np.uint8)


@pytest.mark.parametrize("way", ALTERED)
def test_an_index_of_nonsense_is_made_anew_though_its_digest_is_right(tmp_path: Path, way: str) -> None:
    store = Store(tmp_path)
    fill(store, range(6))
    expected = stored_frame(store)
    path = tmp_path / path_of("sample")
    record, _ = unpack(path.read_bytes())
    arrays = dict(record.arrays)
    ALTERED[way](arrays)
    path.write_bytes(pack("index", record.key, arrays, {}, 0))
    assert parsed(path.read_bytes(), store, "sample") is None
    pd.testing.assert_frame_equal(stored_frame(Store(tmp_path)), expected)
    assert parsed(path.read_bytes(), store, "sample") is not None


def test_an_index_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    store = Store(tmp_path)
    fill(store, range(3))

    def refuse(*args: object, **kwargs: object) -> None:
        raise RllcError("The disk is full.", "Free some space.")

    monkeypatch.setattr(LocalPlace, "write", refuse)
    for times in (1, 2):
        assert len(stored_frame(store)) == 3
        assert reads[0] == 3 * times
    assert not (tmp_path / path_of("sample")).exists()


@given(st.lists(VALUES, max_size=12))
def test_a_column_gives_back_what_it_was_made_of(values: list[Any]) -> None:
    column = Column.of(values)
    numbers = {type(value) for value in values} - {type(None)} == {int, float}
    assert column.plain() == values
    assert numbers or [type(value) for value in column.plain()] == [type(value) for value in values]
    assert column.gaps.tolist() == [value is None for value in values]
    assert column.take(np.arange(len(values))[::-1]).plain() == values[::-1]


@given(st.lists(st.lists(VALUES, max_size=4), min_size=1, max_size=4))
def test_columns_one_behind_the_other(blocks: list[list[Any]]) -> None:
    together = [value for block in blocks for value in block]
    column = joined([Column.of(block) for block in blocks])
    assert column.plain() == together
    assert column.kind == Column.of(together).kind


def test_a_column_that_a_block_lacks_is_absent_there() -> None:
    columns = stacked([(2, of_rows([{"a": 1}, {"a": 2, "list": [1]}])), (1, of_rows([{"b": "x"}]))])
    assert {name: column.plain() for name, column in columns.items()} == {"a": [1, 2, None], "b": [None, None, "x"]}
    assert columns["a"].shown("count").tolist() == [1, 2, pd.NA]
    assert columns["b"].shown("text").tolist() == ["", "", "x"]
    np.testing.assert_array_equal(columns["a"].shown("number"), [1.0, 2.0, np.nan])

"""A damaged record is set aside by one process, once, while others read and write beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rllc.records.store as store_module
from rllc.core.errors import RllcError
from rllc.records.store import DamagedRecordError, Store

KEY = {"weights": "abc", "part": "1:6"}
META = {"step": 10, "llc": 1.5, "outcome": "ok"}
ARRAYS = {"losses": np.arange(24.0).reshape(4, 6)}


def only_file(store: Store) -> Path:
    (path,) = (Path(store.root) / "sample").iterdir()
    return path


@pytest.mark.parametrize("anew", [True, False])
def test_what_another_process_has_set_aside_meanwhile_is_not_set_aside_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    name = store.put("sample", KEY, ARRAYS, META)
    path = only_file(store)
    good, bad, unpack = path.read_bytes(), path.read_bytes()[:-200], store_module.unpack
    path.write_bytes(bad)

    def overtaken(content: bytes, what: str) -> Any:
        monkeypatch.setattr(store_module, "unpack", unpack)
        try:
            return unpack(content, what)
        finally:
            with pytest.raises(DamagedRecordError):
                other.get("sample", name)
            if anew:
                other.put("sample", KEY, ARRAYS, META)

    monkeypatch.setattr(store_module, "unpack", overtaken)
    if anew:
        assert store.get("sample", name).meta == META
        assert path.read_bytes() == good
    else:
        with pytest.raises(DamagedRecordError, match="Another process has set it aside"):
            store.get("sample", name)
    assert [found.read_bytes() for found in (tmp_path / "damaged").iterdir()] == [bad]


def test_a_record_that_is_damaged_twice_lies_there_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for content in (b"one", b"two"):
        name = store.put("sample", KEY, ARRAYS, META)
        only_file(store).write_bytes(content)
        with pytest.raises(DamagedRecordError, match=r"It now lies in .*damaged/sample-"):
            store.get("sample", KEY)
    there = {path.name: path.read_bytes() for path in (tmp_path / "damaged").iterdir()}
    assert there == {f"sample-{name}-0.npz": b"one", f"sample-{name}-0.npz.1": b"two"}


def test_nothing_is_changed_in_a_folder_that_is_a_link(tmp_path: Path) -> None:
    """Its records are read; the store itself may lie behind a link."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "store").symlink_to(mine)
    store = Store(tmp_path / "store")
    name = store.put("sample", KEY, {}, {})
    (mine / "sample").rename(tmp_path / "theirs")
    (mine / "sample").symlink_to(tmp_path / "theirs")
    assert store.get("sample", name).key == KEY
    with pytest.raises(RllcError, match="store/sample is a link, and nothing is written where it leads"):
        store.put("sample", KEY, {}, {}, segment=1)
    torn = tmp_path / "theirs" / f"{name}-0.npz"
    torn.write_bytes(b"torn")
    with pytest.raises(DamagedRecordError, match=r"could not be set aside.*is a link"):
        store.get("sample", name)
    (mine / "sample").unlink()
    (tmp_path / "theirs").rename(mine / "sample")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / f"sample-{name}-0.npz").write_text("mine")
    (mine / "damaged").symlink_to(tmp_path / "theirs")
    with pytest.raises(DamagedRecordError, match=r"could not be set aside.*is a link"):
        store.get("sample", name)
    assert [path.read_text() for path in (tmp_path / "theirs").iterdir()] == ["mine"]

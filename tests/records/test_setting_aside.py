"""What a store moves away replaces nothing, and goes nowhere that a link leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from rllc.core.errors import RllcError
from rllc.records.store import DamagedRecordError, Store

KEY = {"part": "1:6"}


def test_what_was_set_aside_before_stays(tmp_path: Path) -> None:
    """The second damage to a record has a number behind its name, of which the sentence tells."""
    store = Store(tmp_path)
    for number in range(3):
        name = store.put("sample", KEY, {}, {})
        (tmp_path / "sample" / f"{name}-0.npz").write_bytes(b"torn %d" % number)
        with pytest.raises(DamagedRecordError, match=f"damaged/sample-{name}-0.npz{f'.{number}' if number else ''}\\."):
            store.get("sample", name)
    assert sorted(path.read_bytes() for path in (tmp_path / "damaged").iterdir()) == [b"torn 0", b"torn 1", b"torn 2"]


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

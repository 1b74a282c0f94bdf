"""Nothing half-written is ever visible under its final name, whatever the disk does."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rllc.core.errors import RllcError
from rllc.core.files import LARGEST, disk_error, read_regular, read_text, too_large, write_aside, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["text with ü and 漢\n", b"\x00\xff" * 1000, "", b""])
def test_content_arrives_whole_in_a_folder_that_is_made(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, content)
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(path.parent) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def write(temporary: Path) -> None:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".file.")
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_aside(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_content_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("rename"), replace(self, target))[1])
    write_atomic(tmp_path / "file", "x")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize(("code", "sentence"), [
    (errno.ENOSPC, r"The disk is full: .*file could not be written\. Free some space and run the same command again"),
    (errno.EDQUOT, r"The disk is full: .*file could not be written"),
    (errno.EACCES, r"file may not be written here\. Choose a folder that you may write to"),
    (errno.EROFS, r"file may not be written here"),
    (errno.EIO, r"file could not be written: Input/output error\. Check the folder"),
])  # fmt: skip
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str, where: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    if where == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RllcError, match=sentence):
        write_aside(path, refuse if where == "write" else lambda temporary: temporary.write_text("new") and None)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        with Path("/dev/full").open("wb") as stream:
            stream.write(b"x")

    with pytest.raises(RllcError, match="The disk is full"):
        write_aside(tmp_path / "file", write)
    assert names(tmp_path) == []


def test_a_file_larger_than_its_like_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    os.truncate(path, LARGEST + 1)
    with pytest.raises(OSError, match="it has 100,000,001 bytes, where such files have 100,000,000 at most") as told:
        read_regular(path)
    assert too_large(told.value)
    with pytest.raises(OSError, match="where such files have 99 at most"):
        read_text(path, most=99)
    os.truncate(path, 100)
    assert read_regular(path, most=100) == read_regular(path, most=None) == b"x" * 100


def test_a_file_where_a_folder_should_be_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RllcError, match=r"could not be written: (Not a directory|File exists)"):
        write_atomic(tmp_path / "taken" / "file", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RllcError, match="could not be written: Is a directory"):
        write_atomic(tmp_path / "folder", "x")
    assert names(tmp_path) == ["folder", "taken"]


def test_an_error_without_a_number_is_told_by_its_words(tmp_path: Path) -> None:
    assert "could not be written: odd." in str(disk_error(tmp_path, OSError("odd")))


def test_core_imports_neither_torch_nor_anything_beyond_numpy() -> None:
    modules = ["digest", "errors", "files", "names", "outcome", "seeds"]
    code = f"import sys; import {', '.join('rllc.core.' + m for m in modules)}; print(sorted({{m.split('.')[0] for m in sys.modules}} & "
    code += "{'torch', 'scipy', 'pandas', 'xarray', 'zarr', 'jaxtyping'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""Writing that is never half visible: aside, flushed, then renamed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Put `content` at `path` whole or not at all, and durable. Raises RllcError where the disk refuses."""
    data = content.encode() if isinstance(content, str) else content

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_aside(path, write)


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`.

    Raises RllcError where the disk is full or refuses; nothing is left behind under either name.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for everything that is none, tables within tables without end and numbers beyond all floats too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def disk_error(path: Path, error: OSError) -> RllcError:
    """The sentence for a disk that refused to write `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RllcError(f"The disk is full: {path} could not be written.", "Free some space and run the same command again; finished work is kept.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RllcError(f"{path} may not be written here.", "Choose a folder that you may write to.")
    return RllcError(f"{path} could not be written: {error.strerror or error}.", "Check the folder and run the same command again.")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, after a rename. Raises OSError where the disk refuses."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

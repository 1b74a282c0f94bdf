"""Writing that is never half visible: aside, flushed, then renamed.

Two flushes to the disk make a file durable: of its content before the rename, or a power loss may leave an empty file under the final name; of its
folder after the rename, or the name itself may be lost. Both cost milliseconds, where what is written took seconds to compute (docs/log.md), so that
only what can be made again from the rest at once does without.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError

_LEFTOVER = re.compile(r"^\..+\.[a-z0-9_]{8}\.tmp$")


def write_atomic(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Put `content` at `path` whole or not at all; whoever reads it always sees one or the other.

    `durable`: it outlives a loss of power too. Without, what is there then may be torn, so that its reader has to prove it by a digest of its own.

    Raises RllcError where the disk refuses.
    """
    data = content.encode() if isinstance(content, str) else content

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_aside(path, write, durable=durable)


def write_aside(path: Path, write: Callable[[Path], None], *, durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`; `durable` as in `write_atomic`.

    Raises RllcError where the disk is full or refuses; nothing is left behind under either name. Only a kill leaves the temporary file, which
    `is_leftover` knows.
    """
    temporary: Path | None = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        if durable:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
        if durable:
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


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, each name durable in the one above. Raises OSError where the disk refuses."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is what an interrupted write left beside its target, and nobody's work.

    >>> is_leftover(".table.csv.k3_x9w0q.tmp"), is_leftover("notes.tmp")
    (True, False)
    """
    return bool(_LEFTOVER.match(name))


def disk_error(path: Path, error: OSError) -> RllcError:
    """The sentence for a disk that refused to write `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RllcError(f"The disk is full: {path} could not be written.", "Free some space and run the same command again; finished work is kept.")
    if error.errno == errno.EFBIG:
        return RllcError(f"{path} would be larger than files may be here.", "Raise the limit (`ulimit -f`) and run the same command again.")
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

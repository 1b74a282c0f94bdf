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
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rllc.core.errors import RllcError

# What a machine refuses without a fault of this program.
_REFUSED = {getattr(errno, name) for name in (
    "EACCES", "EPERM", "EROFS", "EFBIG", "EIO", "ELOOP", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENODEV", "ENOTDIR", "ENXIO", "ESTALE", "ETIMEDOUT",
)}  # fmt: skip
LARGEST = 100_000_000  # bytes of the small files of a run, which are read whole: some hundred times what any was ever seen to have
LARGEST_SETTINGS = 10_000_000  # bytes of a file that somebody wrote by hand
RESUMED = f"resume-{'[0-9a-f]' * 16}.safetensors"  # what the tensors of a resume state are called, as a pattern of `glob`
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


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises ValueError for everything that is none, tables within tables without end too."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read. Raises OSError where there is none, or what is there is no file of bytes: whoever opens a pipe waits without end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(_regular(handle), "rb")


def read_regular(path: Path, most: int | None = LARGEST) -> bytes:
    """The content of a file of at most so many bytes; None: of any number, which is for what has no bound of its own.

    Raises OSError as `open_regular` does, and one of `too_large`, without reading it, for a larger one.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, where such files have {most:,} at most")
        return stream.read()


def too_large(error: OSError) -> bool:
    """Whether a file was not read for its size."""
    return error.errno == errno.EFBIG


def read_text(path: Path, most: int | None = LARGEST) -> str:
    """The text of a file. Raises OSError as `read_regular` does, and ValueError where it is not UTF-8."""
    return read_regular(path, most).decode("utf-8")


def open_own(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file to write into, made where it is missing, and never what a link of its name leads to; its handle.

    Raises OSError where the disk refuses, the name is a link, or what is there is no file of bytes.
    """
    return _regular(os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644))


def _regular(handle: int) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no file of bytes")


def remove(path: Path) -> None:
    """Take away a file, a folder with all in it, or a link without what it leads to. Raises OSError where the disk refuses."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
    if error.errno == errno.ELOOP:
        return RllcError(f"{path} is a link, and nothing is written where it leads.", "Remove the link and run the same command again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RllcError(f"{path} may not be written here.", "Choose a folder that you may write to.")
    return RllcError(f"{path} could not be written: {error.strerror or error}.", "Check the folder and run the same command again.")


def unreadable(path: Path | str, error: OSError) -> RllcError:
    """The sentence for a file or folder that the system does not give."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return RllcError(f"{path} may not be read here.", "Ask whoever owns it for the right to, and run the same command again.")
    return RllcError(f"{path} could not be used: {error.strerror or error}.", "Look after it, and run the same command again.")


def refusal(error: BaseException) -> RllcError | None:
    """The sentence for an error by which the system refuses a file or folder, wherever it comes up.

    None for any other: a file that is missing, for one, is what a program has to expect.
    """
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a write seldom says of which file
        return disk_error(Path(error.filename or "a file"), error)
    return unreadable(error.filename, error) if error.filename and error.errno in _REFUSED else None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, after a rename. Raises OSError where the disk refuses."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Where the bytes of a store lie: a folder of this machine, or whatever fsspec reaches (an object store, the memory of this process).

Paths are relative to the store's root, "sample/abc-0.npz". Whatever goes wrong is an OSError here, and a sentence one level up.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Protocol

from rllc.core.errors import RllcError
from rllc.core.files import disk_error, is_leftover, open_regular, read_regular, too_large, write_atomic

Stamp = tuple[int, str]  # size in bytes, and what changes when a file of that name is written anew

# Their put is whole or not at all; on other file systems a file is written aside and then renamed.
_WHOLE_PUTS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
_STAMPS = ("ETag", "etag", "md5", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
# A few questions are asked one by one, as a worker has them; after that the folder is listed once, as whoever goes through a whole grid wants.
_QUESTIONS = 32
_BATCH = 256
_GIST = 200  # characters of what a library has to say


class Place(Protocol):
    """What a store asks of the place where it lies."""

    def shown(self, path: str) -> str:
        """The path as a user knows it."""
        ...

    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError where there is none, OSError where it cannot be read, or is too large (`too_large`)."""
        ...

    def read_each(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """The content of many files, or why one could not be read, in their order."""
        ...

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a file there whole or not at all. Raises RllcError or OSError where the place refuses."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        ...

    def listing(self, folder: str) -> dict[str, Stamp]:
        """The files of a folder by name; none where there is no such folder."""
        ...

    def folders(self) -> list[str]:
        """The folders below the root, sorted."""
        ...

    def move(self, path: str, target: str) -> str:
        """Give a file another name, or where that is taken one with a number behind it; the name. Raises RllcError or OSError as `write` does."""
        ...

    def remove(self, path: str) -> None:
        """Take a file away. Raises RllcError or OSError as `write` does."""
        ...


class LocalPlace:
    """A folder of this machine. It may be a link; the folders in it are its own, and nothing is changed where one of them leads elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def shown(self, path: str) -> str:
        """The path as a user knows it."""
        return str(self.root / path)

    def read(self, path: str) -> bytes:
        """The content of a file; of more than some hundred megabytes only where it ends as an archive does, and so may be a record."""
        full = self.root / path
        try:
            return read_regular(full)
        except OSError as error:
            if not (too_large(error) and path.endswith(".npz") and _ends_as_archive(full)):
                raise
        return read_regular(full, most=None)

    def read_each(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """The content of many files, or why one could not be read."""
        for path in paths:
            try:
                yield path, self.read(path)
            except OSError as error:
                yield path, error

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Put a file there whole or not at all."""
        write_atomic(self._own(path), content, durable=durable)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return (self.root / path).is_file()

    def listing(self, folder: str) -> dict[str, Stamp]:
        """The files of a folder by name, with size and time of writing."""
        found: dict[str, Stamp] = {}
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    if entry.is_file():
                        stat = entry.stat()
                        found[entry.name] = (stat.st_size, str(stat.st_mtime_ns))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def folders(self) -> list[str]:
        """The folders below the root, sorted."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else []

    def move(self, path: str, target: str) -> str:
        """Give a file another name."""
        source = self._own(path)
        self._own(target).parent.mkdir(exist_ok=True)
        free = next(name for name in _names(target) if not os.path.lexists(self.root / name))
        source.replace(self.root / free)
        return free

    def remove(self, path: str) -> None:
        """Take a file away."""
        self._own(path).unlink()

    def _own(self, path: str) -> Path:
        """Where to change a file. Raises RllcError where its folder is a link."""
        full = self.root / path
        if full.parent != self.root and full.parent.is_symlink():
            raise disk_error(full.parent, OSError(errno.ELOOP, "it is a link"))
        return full


class RemotePlace:
    """Whatever fsspec reaches by a URL; how to get in is fsspec's own configuration (environment variables, or files in ~/.config/fsspec).

    Raises RllcError for a protocol that nothing here speaks, and a place that cannot be reached.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self.fs, root = fsspec.url_to_fs(self.url)
        except ImportError as error:
            problem = f"The records lie at {url}, which needs a package that is not installed: {error}."
            raise RllcError(problem, "Install it and try again.") from error
        except ValueError as error:
            raise RllcError(f"{url!r} is no place for records: {error}.", "Give a URL that fsspec knows, such as s3://bucket/folder.") from error
        except Exception as error:  # each library has its own: no server, no way in, half an address
            gist = " ".join(str(error).split())[:_GIST].rstrip(".")
            problem = f"The records lie at {url}, which cannot be reached: {f'{type(error).__name__}: {gist}'.removesuffix(': ')}."
            raise RllcError(problem, "Check the address and the way there, and try again.") from error
        self._root = str(root).rstrip("/")
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        self._whole_puts = bool(protocols & _WHOLE_PUTS)
        self._made: set[str] = set()
        self._asked: dict[str, int] = {}
        self._known: dict[str, set[str]] = {}

    def shown(self, path: str) -> str:
        """The path as a user knows it."""
        return f"{self.url}/{path}"

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return self._told(self.fs.cat_file, self._full(path))

    def read_each(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """The content of many files, many at a time where the file system can."""
        for some in _batches(paths, _BATCH):
            found = self._told(self.fs.cat, [self._full(path) for path in some], on_error="return")
            for path in some:
                content = found[self._full(path)]
                yield path, content if isinstance(content, bytes) else as_os_error(content)

    def write(self, path: str, content: bytes, *, durable: bool = True) -> None:  # noqa: ARG002
        """Put a file there whole or not at all; what such a place has taken, it keeps."""
        folder, _, name = path.rpartition("/")
        if folder not in self._made:
            self._told(self.fs.makedirs, self._full(folder), exist_ok=True)
            self._made.add(folder)
        if self._whole_puts:
            self._told(self.fs.pipe_file, self._full(path), content)
        else:
            aside = self._full(f"{folder}/.{name}.{os.urandom(4).hex()}.tmp".lstrip("/"))
            try:
                self._told(self.fs.pipe_file, aside, content)
                self._told(self.fs.mv, aside, self._full(path))
            except OSError:
                if self._is_file(aside):
                    self.fs.rm_file(aside)
                raise
        self._known.get(folder, set()).add(name)

    def exists(self, path: str) -> bool:
        """Whether there is such a file; after some questions, whether there was when its folder was listed."""
        folder, _, name = path.rpartition("/")
        if folder in self._known:
            return name in self._known[folder]
        self._asked[folder] = self._asked.get(folder, 0) + 1
        if self._asked[folder] <= _QUESTIONS:
            return self._is_file(self._full(path))
        return name in self.listing(folder)

    def listing(self, folder: str) -> dict[str, Stamp]:
        """The files of a folder by name, with size and what the place says of their content or time."""
        self.fs.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._told(self.fs.ls, self._full(folder), detail=True)
        except FileNotFoundError:
            entries = []
        found: dict[str, Stamp] = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
            if entry["type"] == "file" and not is_leftover(name):
                found[name] = (int(entry["size"]), next((str(entry[key]) for key in _STAMPS if entry.get(key)), ""))
        self._known[folder] = set(found)
        return found

    def folders(self) -> list[str]:
        """The folders below the root, sorted."""
        self.fs.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._told(self.fs.ls, self._root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(str(entry["name"]).rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def move(self, path: str, target: str) -> str:
        """Give a file another name: a copy, then the old one goes."""
        content = self.read(path)
        free = next(name for name in _names(target) if not self._is_file(self._full(name)))
        self.write(free, content)
        self.remove(path)
        return free

    def remove(self, path: str) -> None:
        """Take a file away."""
        folder, _, name = path.rpartition("/")
        self._told(self.fs.rm_file, self._full(path))
        self._known.get(folder, set()).discard(name)

    def _is_file(self, full: str) -> bool:
        """Whether there is such a file now: not by an earlier listing, which the library keeps, and not "no" where nobody would answer."""
        for listed in (full, full.rpartition("/")[0]):
            self.fs.invalidate_cache(listed)
        try:
            return self._told(self.fs.info, full)["type"] == "file"
        except FileNotFoundError:
            return False

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _told(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # each cloud's library has its own: no way in, no answer, no right
            raise as_os_error(error) from error


def open_place(root: Path | str) -> Place:
    """The place of a folder or a URL; "file://" is a folder. Raises RllcError as `RemotePlace` does."""
    if isinstance(root, str) and "://" in root:
        protocol, _, path = root.partition("://")
        return LocalPlace(Path(path)) if protocol in ("file", "local") else RemotePlace(root)
    return LocalPlace(Path(root))


def as_os_error(error: BaseException) -> OSError:
    """An error of any library as one of the operating system's kind, with its own words."""
    if isinstance(error, OSError):
        return error
    return OSError(errno.EIO, f"{type(error).__name__}: {error}")


def _ends_as_archive(path: Path) -> bool:
    with open_regular(path) as stream:
        return zipfile.is_zipfile(stream)  # which reads the end alone


def _names(path: str) -> Iterator[str]:
    """A name, then the same with numbers behind it."""
    return chain([path], (f"{path}.{n}" for n in count(1)))


def _batches(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(paths)
    while some := list(islice(rest, size)):
        yield some

"""The content-addressed store: one immutable file a record, found by the digest of its key (ANCHORS, principle 13; STACK, Store).

    store.json                  the version of the format
    sample/<digest>-0.npz       segment 0 of the record whose key has that digest
    sample/<digest>-1.npz       more draws of the same cell
    damaged/                    files whose content no longer fits their own digest, set aside by whoever read them
    compacted/                  copies for fast reading, made from the records and made again where they are missing

Nothing is ever appended to or rewritten, so writers need no lock, and two writers of one record are harmless. A folder holds 10⁵ files as well as
ten: they are found by name and listed in a second (benchmarks/store.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import disk_error, parse_json, too_large
from rllc.records.packing import FORMAT, Record, joined, key_digest, newer, pack, unpack
from rllc.records.places import LocalPlace, Stamp, open_place

DAMAGED, COMPACTED, MARKER = "damaged", "compacted", "store.json"
_RESERVED = (DAMAGED, COMPACTED)
_BYTES = "its content does not fit its digest"
_KIND = re.compile(r"^[a-z][a-z0-9_]*$")
_FILE = re.compile(r"^([0-9a-f]{64})-(0|[1-9][0-9]{0,8})\.npz$")


# What is wrong with a segment whose digest is right, in words; empty where nothing is. It is given the segment as a record, its number, and the
# segments before it, of which there are none where they were not read.
Check = Callable[[Record, int, Sequence[Record]], str]
# The same of what an index says of all records of a kind, by columns.
RowsCheck = Callable[[Mapping[str, Any]], str]


class DamagedRecordError(RllcError):
    """Files whose content is not as it was written. They have been set aside, so the store no longer holds those records.

    Args:
        files: names of the damaged file, and of those of the same record behind it.
    """

    def __init__(self, problem: str, remedy: str, files: Sequence[str] = ()) -> None:
        super().__init__(problem, remedy)
        self.files = tuple(files)


class Store:
    """Records of several kinds ("sample", "behaviour", "attention", …) in one folder, or at a URL that fsspec reaches.

    A folder that is no store yet becomes one with the first `put`.

    Args:
        root: a folder, or a URL such as "s3://bucket/mine" or "memory://mine".
        sets_aside: move damaged files to `damaged/` when they are found; otherwise only tell of them.
        checks: by kind, what else is asked of a record's content when it is read; one that fails is damaged.
        rows: by kind, what is asked of the columns of an index; one that fails is made anew.

    Raises RllcError for a store written by a newer version of rllc, and for a place that cannot be reached.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        sets_aside: bool = True,
        checks: Mapping[str, Check] | None = None,
        rows: Mapping[str, RowsCheck] | None = None,
    ) -> None:
        self.place = open_place(root)
        self.root = root
        self.sets_aside = sets_aside
        self.checks, self.rows = checks or {}, rows or {}
        self._marked = _check_format(self.place.shown(MARKER), self._content(MARKER))

    def put(self, kind: str, key: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], segment: int = 0) -> str:
        """Write one segment of a record, whole or not at all, and return the digest of its key. What is already there stays as it is.

        Segments behind one that was not there went on from another: they are set aside.

        Numbers of `meta` that are not finite are stored as null. Raises RllcError where the disk refuses, ValueError or TypeError for a
        key that is not plain finite JSON and for arrays of Python objects.
        """
        name = key_digest(kind, key)
        path = _path(kind, name, segment)
        if not self._exists(path):
            content = pack(kind, key, arrays, meta, segment)
            self._mark()
            self.retire(kind, self._behind(kind, name, segment))
            self._write(path, content)
        return name

    def has(self, kind: str, key: Mapping[str, Any] | str, segment: int = 0) -> bool:
        """Whether this segment is there, by key or digest. Its content is proven when it is read, not here."""
        return self._exists(_path(kind, _name(kind, key), segment))

    def segments(self, kind: str, key: Mapping[str, Any] | str) -> int:
        """How many segments can be read: those from 0 on without a gap."""
        name, n = _name(kind, key), 0
        while self._exists(_path(kind, name, n)):
            n += 1
        return n

    def get(self, kind: str, key: Mapping[str, Any] | str) -> Record:
        """The record with this key or digest.

        Raises KeyError where there is none, and DamagedRecordError where a file is damaged; that file has then been moved to `damaged/`,
        so that `has` is false and the next run computes it anew.
        """
        name = _name(kind, key)
        n = self.segments(kind, name)
        if n == 0:
            raise KeyError(f"{kind}/{name}")
        parts: list[Record] = []
        for segment in range(n):
            parts.append(self.proven(kind, f"{name}-{segment}.npz", earlier=parts))
        return joined(parts)

    def denied(self, record: Record, why: str) -> DamagedRecordError:
        """What to raise where whoever reads a record beside others finds that it is none; its files are set aside."""
        return self._set_aside(record.kind, f"{record.digest}-0.npz", why, gone=False)

    def retire(self, kind: str, files: Sequence[str]) -> dict[str, str]:
        """Move files of a kind to `damaged/`, the last first, so that no segment is ever without the one before it; where each of them lies now.

        What lies in `damaged/` already stays. Raises RllcError where the disk refuses.
        """
        moved: dict[str, str] = {}
        for file in reversed(files):
            path = f"{_folder(kind)}/{file}"
            target = f"{DAMAGED}/{path.replace('/', '-')}"
            try:
                moved[file] = self.place.move(path, target)
            except FileNotFoundError:
                continue  # another reader was here first
            except OSError as error:
                raise disk_error(Path(self.place.shown(target)), error) from error
        return moved

    def files(self, kind: str = "", key: Mapping[str, Any] | str = "") -> list[Path]:
        """The files of one record, segment by segment, none where there is none; of the store itself where no record is named.

        A store that is no folder on a disk has none: whoever needs its records reads them where they lie.
        """
        if not isinstance(self.place, LocalPlace):
            return []
        paths = [_path(kind, _name(kind, key), segment) for segment in range(self.segments(kind, key))] if kind else [MARKER] * self._marked
        return [self.place.root / path for path in paths]

    def digests(self, kind: str) -> list[str]:
        """Digests of all records of a kind, sorted."""
        return sorted(name for name, segment in map(named, self.listing(kind)) if segment == 0)

    def records(self, kind: str) -> Iterator[Record]:
        """Every record of a kind, ordered by digest.

        Where files are damaged all sound records come first; then DamagedRecordError names the damaged ones, which have been set aside.
        """
        problems: list[DamagedRecordError] = []
        for name in self.digests(kind):
            try:
                yield self.get(kind, name)
            except DamagedRecordError as error:
                problems.append(error)
        if problems:
            raise DamagedRecordError(" ".join(error.problem for error in problems), problems[0].remedy)

    def kinds(self) -> list[str]:
        """Kinds of which there is a folder, sorted."""
        return [name for name in self._told(self.place.folders, "") if name not in _RESERVED and _KIND.match(name)]

    def check(self) -> tuple[DamagedRecordError, ...]:
        """Read everything; set aside what is damaged and tell of it, one error a file, so that a run can go on and compute it anew."""
        problems: list[DamagedRecordError] = []
        for kind in self.kinds():
            parts: dict[str, list[Record]] = {}
            for file in sorted(self.listing(kind), key=named):
                name, segment = named(file)
                before = parts.setdefault(name, [])
                if problems and file in problems[-1].files:
                    continue
                try:
                    before.append(self.proven(kind, file, earlier=before if len(before) == segment else ()))
                except DamagedRecordError as error:
                    problems.append(error)
        return tuple(problems)

    def listing(self, kind: str) -> dict[str, Stamp]:
        """The files of a kind by name, with what changes whenever one is written anew."""
        listing = self._told(self.place.listing, _folder(kind))
        return {name: stamp for name, stamp in listing.items() if _FILE.match(name)}

    def fingerprint(self, kind: str) -> str:
        """Digest of which files of a kind there are, without reading them; it changes whenever one is added, set aside or replaced."""
        return digest.of_json(sorted([name, *stamp] for name, stamp in self.listing(kind).items()))

    def proven(self, kind: str, file: str, content: bytes | OSError | None = None, earlier: Sequence[Record] = ()) -> Record:
        """What one file holds; its `content` may be at hand, and the segments before it.

        Raises DamagedRecordError where it is damaged, and RllcError where it cannot be read.
        """
        path = f"{_folder(kind)}/{file}"
        try:
            content = self.place.read(path) if content is None else content
            if isinstance(content, OSError):
                raise content
        except OSError as error:
            if not too_large(error):
                raise self._unreadable(path, error) from error
            content = b""  # as in `_content`
        name, segment = named(file)
        problem, cause = _BYTES, None
        try:
            record, number = unpack(content, f"The record {self.place.shown(path)}")
        except RllcError:
            raise
        except Exception as error:  # numpy, zipfile, zlib and json each have their own ways of saying that bytes are wrong
            cause = error
        else:
            if (record.kind, record.digest, number) == (kind, name, segment):
                problem = self.checks[kind](record, segment, earlier) if kind in self.checks else ""
            if not problem:
                return record
        again = self._content(path)
        if again not in (None, content):  # a run has set it aside meanwhile, and computed it anew
            return self.proven(kind, file, again, earlier)
        raise self._set_aside(kind, file, problem, gone=again is None) from cause

    def tried(self, kind: str, file: str, content: bytes | OSError | None = None) -> Record | DamagedRecordError:
        """As `proven`, but a damaged file is returned as its error."""
        try:
            return self.proven(kind, file, content)
        except DamagedRecordError as error:
            return error

    def _mark(self) -> None:
        if not self._marked:
            self._write(MARKER, (json.dumps({"format": FORMAT}) + "\n").encode())
            self._marked = True

    def _write(self, path: str, content: bytes) -> None:
        try:
            self.place.write(path, content)
        except OSError as error:  # of a place that is no disk; a disk has its own sentences
            raise disk_error(Path(path), error) from error

    def _exists(self, path: str) -> bool:
        return self._told(self.place.exists, path)

    def _content(self, path: str) -> bytes | None:
        """What a file holds; None where there is none, and nothing of one that is larger than any: it is damaged, as an empty one is."""
        try:
            return self.place.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if too_large(error):
                return b""
            raise self._unreadable(path, error) from error

    def _told(self, ask: Any, path: str) -> Any:
        try:
            return ask(path) if path else ask()
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> RllcError:
        reason = error.strerror or error
        return RllcError(f"{self.place.shown(path)} could not be read: {reason}.", "Check that the file may be read and try again.")

    def _behind(self, kind: str, name: str, segment: int) -> list[str]:
        """The files of the segments behind one, as far as there is no gap."""
        return [f"{name}-{n}.npz" for n in takewhile(lambda n: self._exists(_path(kind, name, n)), count(segment + 1))]

    def _set_aside(self, kind: str, file: str, why: str, *, gone: bool) -> DamagedRecordError:
        what = self.place.shown(f"{kind}/{file}")
        again = "Run the same command again; what is missing will be computed anew."
        if gone:
            return DamagedRecordError(f"The record {what} was damaged: {why}. Another process has set it aside.", again, (file,))
        behind = self._behind(kind, *named(file))
        files = (file, *behind)
        more = f", and with it the {len(behind)} behind it, which went on from it" if behind else ""
        if not self.sets_aside:
            return DamagedRecordError(f"The record {what} is damaged: {why}.", f"`rllc doctor --repair` sets it aside{more}.", files)
        try:
            target = self.place.shown(self.retire(kind, files).get(file, DAMAGED))
        except RllcError as error:
            return DamagedRecordError(f"The record {what} is damaged and could not be set aside.", f"Delete it{more}. {error}", files)
        return DamagedRecordError(f"The record {what} was damaged: {why}. It now lies in {target}{more}.", again, files)


def named(file: str) -> tuple[str, int]:
    """Digest and segment of a file's name. Raises ValueError for a name that is no record's."""
    match = _FILE.match(file)
    if match is None:
        raise ValueError(f"{file!r} is not the name of a record")
    return match[1], int(match[2])


def _folder(kind: str) -> str:
    if not _KIND.match(kind) or kind in _RESERVED:
        raise ValueError(f"{kind!r} is not a kind of record")
    return kind


def _path(kind: str, name: str, segment: int) -> str:
    return f"{_folder(kind)}/{name}-{segment}.npz"


def _name(kind: str, key: Mapping[str, Any] | str) -> str:
    return key if isinstance(key, str) else key_digest(kind, key)


def _check_format(marker: str, content: bytes | None) -> bool:
    """Whether there is a marker. Raises RllcError where it tells no format, or a newer one."""
    if content is None:
        return False
    try:
        version = int(parse_json(content)["format"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RllcError(
            f"{marker} does not tell the format of the store.",
            f'Restore it from a copy, or write {{"format": {FORMAT}}} into it if no newer rllc used this folder.',
        ) from error
    if version > FORMAT:
        raise newer(marker.removesuffix(f"/{MARKER}"), version)
    return True

"""The content-addressed store: one immutable file a record, found by the digest of its key (ANCHORS, principle 13; STACK, Store).

    store.json                  the version of the format
    sample/<digest>-0.npz       segment 0 of the record whose key has that digest
    sample/<digest>-1.npz       more draws of the same cell
    damaged/                    files whose content no longer fits their own digest, set aside by whoever read them

Nothing is ever appended to or rewritten, so writers need no lock, and two writers of one record are harmless.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import disk_error, parse_json, write_atomic

FORMAT = 1
_SMALL, _RATIO = 100_000_000, 200  # bytes of a record that may be of any ratio of compression, and the ratio of larger ones
_DAMAGED = "damaged"
_RESERVED = (_DAMAGED, "compacted")
_HEADER = "record.json"
_KIND = re.compile(r"^[a-z][a-z0-9_]*$")
_FILE = re.compile(r"^([0-9a-f]{64})-(\d+)\.npz$")


class DamagedRecordError(RllcError):
    """Files whose content does not fit their own digest. They have been set aside, so the store no longer holds those records."""


@dataclass(frozen=True)
class Record:
    """One record as it was put, its segments joined.

    `arrays` of several segments are concatenated along their last axis, the draws; `meta` is that of the newest segment,
    which speaks for all of them.
    """

    kind: str
    digest: str
    key: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    segments: int = 1


class Store:
    """Records of several kinds ("sample", "behaviour", "attention", …) in one folder.

    A folder that is no store yet becomes one with the first `put`. Raises RllcError for a store written by a newer version of rllc.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._marker = self.root / "store.json"
        if self._marker.exists():
            _check_format(self._marker)

    def put(self, kind: str, key: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], segment: int = 0) -> str:
        """Write one segment of a record, whole or not at all, and return the digest of its key. What is already there stays as it is.

        Numbers of `meta` that are not finite are stored as null. Raises RllcError where the disk refuses, ValueError or TypeError for a
        key that is not plain finite JSON and for arrays of Python objects.
        """
        name = key_digest(kind, key)
        path = self._path(kind, name, segment)
        if not path.exists():
            content = _pack(kind, key, arrays, meta, segment)
            if not self._marker.exists():
                write_atomic(self._marker, json.dumps({"format": FORMAT}) + "\n")
            write_atomic(path, content)
        return name

    def has(self, kind: str, key: Mapping[str, Any] | str, segment: int = 0) -> bool:
        """Whether this segment is there, by key or digest. Its content is proven when it is read, not here."""
        return self._path(kind, _name(kind, key), segment).exists()

    def segments(self, kind: str, key: Mapping[str, Any] | str) -> int:
        """How many segments can be read: those from 0 on without a gap."""
        name, n = _name(kind, key), 0
        while self._path(kind, name, n).exists():
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
        return _join([self._read(kind, name, segment) for segment in range(n)])

    def digests(self, kind: str) -> list[str]:
        """Digests of all records of a kind, sorted."""
        return sorted({match[1] for path in self._files(kind) if (match := _FILE.match(path.name)) and match[2] == "0"})

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
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [folder.name for folder in folders if folder.is_dir() and folder.name not in _RESERVED and _KIND.match(folder.name)]

    def check(self) -> tuple[DamagedRecordError, ...]:
        """Read everything; set aside what is damaged and tell of it, one error a record, so that a run can go on and compute it anew."""
        problems: list[DamagedRecordError] = []
        for kind in self.kinds():
            for name in self.digests(kind):
                try:
                    self.get(kind, name)
                except DamagedRecordError as error:
                    problems.append(error)
        return tuple(problems)

    def fingerprint(self, kind: str) -> str:
        """Digest of which files of a kind there are, without reading them; it changes whenever one is added, set aside or replaced."""
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files(kind)]
        return digest.of_json(sorted(stats))

    def _files(self, kind: str) -> list[Path]:
        folder = self._folder(kind)
        return [path for path in folder.iterdir() if _FILE.match(path.name)] if folder.is_dir() else []

    def _folder(self, kind: str) -> Path:
        if not _KIND.match(kind) or kind in _RESERVED:
            raise ValueError(f"{kind!r} is not a kind of record")
        return self.root / kind

    def _path(self, kind: str, name: str, segment: int) -> Path:
        return self._folder(kind) / f"{name}-{segment}.npz"

    def _read(self, kind: str, name: str, segment: int) -> Record:
        path = self._path(kind, name, segment)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RllcError(f"{path} could not be read: {error.strerror or error}.", "Check that the file may be read and try again.") from error
        try:
            record, number = _unpack(content)
        except RllcError:
            raise
        except Exception as error:  # numpy, zipfile, zlib and json each have their own ways of saying that bytes are wrong
            raise self._set_aside(path) from error
        if (record.kind, record.digest, number) != (kind, name, segment):
            raise self._set_aside(path)
        return record

    def _set_aside(self, path: Path) -> DamagedRecordError:
        target = self.root / _DAMAGED / f"{path.parent.name}-{path.name}"
        try:
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        except OSError as error:
            return DamagedRecordError(f"The record {path} is damaged and could not be set aside.", f"Delete it. {disk_error(target, error)}")
        return DamagedRecordError(
            f"The record {path} was damaged: its content does not fit its digest. It now lies in {target}.",
            "Run the same command again; what is missing will be computed anew.",
        )


def key_digest(kind: str, key: Mapping[str, Any]) -> str:
    """The digest that names a record: of its kind, its key and the version of the format."""
    return digest.of_json({"kind": kind, "format": FORMAT, "key": dict(key)})


def plain(value: Any) -> Any:
    """A value as strict JSON holds it: numpy scalars and tuples become plain, numbers that are not finite become None.

    >>> plain({"llc": float("nan"), "draws": (np.int64(3),)})
    {'llc': None, 'draws': [3]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _name(kind: str, key: Mapping[str, Any] | str) -> str:
    return key if isinstance(key, str) else key_digest(kind, key)


def _check_format(marker: Path) -> None:
    try:
        version = int(parse_json(marker.read_text())["format"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RllcError(
            f"{marker} does not tell the format of the store.",
            f'Restore it from a copy, or write {{"format": {FORMAT}}} into it if no newer rllc used this folder.',
        ) from error
    if version > FORMAT:
        raise _newer(str(marker.parent), version)


def _newer(what: str, version: int) -> RllcError:
    return RllcError(
        f"{what} was written in format {version} by a newer version of rllc; this version reads formats up to {FORMAT}.",
        "Update rllc, or choose another folder. Nothing was changed.",
    )


def _pack(kind: str, key: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], segment: int) -> bytes:
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"the array {name!r} holds Python objects")
    header = {"format": FORMAT, "kind": kind, "segment": segment, "key": dict(key), "meta": plain(meta), "arrays": digest.of_arrays(arrays)}
    header["content"] = digest.of_json(header)
    buffer = io.BytesIO()
    text = json.dumps(header, allow_nan=False).encode()
    members: dict[str, Any] = {_HEADER: np.frombuffer(text, dtype=np.uint8), **{f"array/{name}": array for name, array in arrays.items()}}
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def _unpack(content: bytes) -> tuple[Record, int]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > max(_SMALL, _RATIO * len(content)):
            raise ValueError("it claims to hold far more than was ever written")
        # whole members, so that zip's own checksum speaks before numpy trusts a header's shape
        contents = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    members = {name: np.lib.format.read_array(stream, allow_pickle=False) for name, stream in contents.items()}
    header: dict[str, Any] = json.loads(members.pop(_HEADER).tobytes())
    if int(header["format"]) > FORMAT:
        raise _newer(f"The record {header['kind']}/{key_digest(header['kind'], header['key'])}", header["format"])
    arrays = {name.removeprefix("array/"): array for name, array in members.items()}
    content_digest = header.pop("content")
    if digest.of_json(header) != content_digest or digest.of_arrays(arrays) != header["arrays"]:
        raise ValueError("the content does not fit its digest")
    kind, key = header["kind"], header["key"]
    return Record(kind, key_digest(kind, key), key, arrays, header["meta"]), header["segment"]


def _join(parts: Iterable[Record]) -> Record:
    *older, newest = parts
    if not older:
        return newest
    every = [*older, newest]
    arrays = {name: np.concatenate([part.arrays[name] for part in every], axis=-1) for name in newest.arrays}
    return Record(newest.kind, newest.digest, newest.key, arrays, newest.meta, len(every))

"""A record as bytes: a numpy archive whose header tells kind, key and meta, and the digest of all of it."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import parse_json

T = TypeVar("T")
FORMAT = 1
_SMALL, _RATIO = 100_000_000, 200  # bytes of a record that may be of any ratio of compression, and the ratio of larger ones
_HEADER = "record.json"


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


def newer(what: str, version: int) -> RllcError:
    """The sentence for what a newer version has written."""
    return RllcError(
        f"{what} was written in format {version} by a newer version of rllc; this version reads formats up to {FORMAT}.",
        "Update rllc, or choose another folder. Nothing was changed.",
    )


def pack(
    kind: str, key: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], segment: int, *, compressed: bool = True
) -> bytes:
    """One segment of a record as bytes. Raises ValueError or TypeError for a key that is not plain finite JSON and for arrays of Python objects.

    The header's `content` is the digest of the rest of the header in every format, by which one of a newer version is told from a damaged one.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"the array {name!r} holds Python objects")
    header = {"format": FORMAT, "kind": kind, "segment": segment, "key": dict(key), "meta": plain(meta), "arrays": digest.of_arrays(arrays)}
    header["content"] = digest.of_json(header)
    buffer = io.BytesIO()
    text = json.dumps(header, allow_nan=False).encode()
    members: dict[str, Any] = {_HEADER: np.frombuffer(text, dtype=np.uint8), **{f"array/{name}": array for name, array in arrays.items()}}
    (np.savez_compressed if compressed else np.savez)(buffer, **members)
    return buffer.getvalue()


def unpack(content: bytes, what: str = "A record") -> tuple[Record, int]:
    """The record in these bytes and the number of its segment, proven by its digest; `what` to call it in an error.

    Raises RllcError for one of a newer version, and any exception at all for bytes that are no record or not as they were written.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > max(_SMALL, _RATIO * len(content)):
            raise ValueError("it claims to hold far more than was ever written")
        # whole members, so that zip's own checksum speaks before numpy trusts a header's shape
        contents = {name.removesuffix(".npy"): io.BytesIO(archive.read(name)) for name in archive.namelist()}
    members = {name: np.lib.format.read_array(stream, allow_pickle=False) for name, stream in contents.items()}
    header: dict[str, Any] = parse_json(members.pop(_HEADER).tobytes())
    if header.pop("content") != digest.of_json(header):
        raise ValueError("the header does not fit its digest")
    json.dumps(header, ensure_ascii=False).encode()  # halves of characters, which JSON can hold, cannot be written anywhere
    if _typed(header, "format", int) > FORMAT:
        raise newer(what, header["format"])
    arrays = {name.removeprefix("array/"): array for name, array in members.items()}
    if digest.of_arrays(arrays) != header["arrays"]:
        raise ValueError("the content does not fit its digest")
    kind, key, meta = _typed(header, "kind", str), _typed(header, "key", dict), _typed(header, "meta", dict)
    return Record(kind, key_digest(kind, key), key, arrays, meta), _typed(header, "segment", int)


def _typed(header: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = header[name]
    if type(value) is not kind:
        raise TypeError(f"{name} is no {kind.__name__}")
    return value


def joined(parts: Iterable[Record]) -> Record:
    """The segments of one record as one: arrays end to end along the draws, and what the newest says."""
    *older, newest = parts
    if not older:
        return newest
    every = [*older, newest]
    arrays = {name: np.concatenate([part.arrays[name] for part in every], axis=-1) for name in newest.arrays}
    return Record(newest.kind, newest.digest, newest.key, arrays, newest.meta, len(every))

"""What the records of a kind say, without their arrays: a row a file, kept beside the records so that a run of 10⁵ cells opens in seconds.

    compacted/index-sample.npz

The index is a copy. It holds name, size and time of every file that it was made from; whoever opens it lists the folder and reads, and proves, only
what is new or changed since. It is replaced whole, proven by a digest of its own, and made again where it is missing, torn, of an older program, or
says what no records say. What it cannot see is a file whose bytes changed under an unchanged size and time, as a failing disk may do it, and other
numbers that somebody wrote into the index itself under a digest that is right: such a record is found when it is read, and both by `rllc doctor`,
which reads everything and holds the index against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.core.files import parse_json
from rllc.records.columns import Column, of_rows, stacked
from rllc.records.packing import Record, pack, unpack
from rllc.records.places import Stamp
from rllc.records.store import COMPACTED, DamagedRecordError, Store, named

REVISION = 2
OF_KEY = "key/"  # before the names of what is of a record's key and not of its meta
_KIND = "index"
_BLOCK = 4096  # records whose headers are in memory as they came


@dataclass(frozen=True)
class Index:
    """The files of one kind and what they say.

    Args:
        stamps: size and time of each file, by name; its order is that of the rows.
        columns: single values of the records' meta by name, each [files]; and of their keys, by "key/" and the name.
        problems: what was found damaged on the way.
    """

    stamps: Mapping[str, Stamp]
    columns: Mapping[str, Column]
    problems: tuple[DamagedRecordError, ...] = field(default=(), compare=False)

    def newest(self) -> tuple[list[str], dict[str, Column]]:
        """One row a record, ordered by digest: its digest, and what its newest segment says that can be reached without a gap."""
        rows: dict[str, dict[int, int]] = {}
        for row, file in enumerate(self.stamps):
            digest, segment = named(file)
            rows.setdefault(digest, {})[segment] = row
        last: dict[str, int] = {}
        for digest in sorted(rows):
            segments = rows[digest]
            n = next(n for n in range(len(segments) + 1) if n not in segments)
            if n:
                last[digest] = segments[n - 1]
        places = np.array(list(last.values()), dtype=np.int64)
        return list(last), {name: column.take(places) for name, column in self.columns.items()}


def opened(store: Store, kind: str, *, keep: bool = True) -> Index:
    """The index of a kind as its folder is now; files that are new since are read and proven, and damaged ones set aside.

    Of a record of several segments all are read where one is new, since they are proven against each other.

    Args:
        keep: write it down for the next time; where that is refused, on a read-only disk for instance, nothing is lost but time.

    Raises RllcError where the folder or a file cannot be read.
    """
    listing = store.listing(kind)
    before = _kept(store, kind)
    problems = _whole(store, kind, listing, before.stamps)
    bad = {file for problem in problems for file in problem.files}
    listing = {file: stamp for file, stamp in listing.items() if file not in bad}
    same = [row for row, (file, stamp) in enumerate(before.stamps.items()) if listing.get(file) == stamp]
    old = list(before.stamps)
    stamps = {old[row]: before.stamps[old[row]] for row in same}
    new = sorted((file for file in listing if file not in stamps), key=named)
    if not new and not problems and len(same) == len(old):
        return before
    rows = np.array(same, dtype=np.int64)
    blocks: list[tuple[int, Mapping[str, Column]]] = [(len(same), {name: column.take(rows) for name, column in before.columns.items()})]
    for start in range(0, len(new), _BLOCK):
        metas: list[dict[str, Any]] = []
        for file, found in _read(store, kind, new[start : start + _BLOCK]):
            if isinstance(found, DamagedRecordError):
                problems.append(found)
            else:
                stamps[file] = listing[file]
                metas.append(row_of(found))
        blocks.append((len(metas), of_rows(metas)))
    index = Index(stamps, stacked(blocks), tuple(problems))
    if keep:
        _keep(store, kind, index)
    return index


def row_of(record: Record) -> dict[str, Any]:
    """What the index holds of a record, by column; lists and tables among it are left out of the columns."""
    return record.meta | {f"{OF_KEY}{name}": value for name, value in record.key.items()}


def fresh_problems(store: Store) -> tuple[DamagedRecordError, ...]:
    """As `Store.check`, but reading only what is new or changed since it was last read whole."""
    return tuple(problem for kind in store.kinds() for problem in opened(store, kind).problems)


def _whole(store: Store, kind: str, listing: Mapping[str, Stamp], before: Mapping[str, Stamp]) -> list[DamagedRecordError]:
    """What is damaged in records of several segments of which one is new or gone."""
    several = {digest for digest, segment in map(named, listing) if segment}
    touched = {named(file)[0] for file in {*listing, *before} if listing.get(file) != before.get(file)} if several else set[str]()
    problems: list[DamagedRecordError] = []
    for digest in sorted(several & touched):
        try:
            store.get(kind, digest)
        except KeyError:
            continue  # its first segment is missing, and what lies behind the gap is not counted
        except DamagedRecordError as error:
            problems.append(error)
    return problems


def _read(store: Store, kind: str, files: Sequence[str]) -> Iterable[tuple[str, Record | DamagedRecordError]]:
    for path, content in store.place.read_each(f"{kind}/{file}" for file in files):
        if not isinstance(content, FileNotFoundError):  # another reader has set it aside since the listing
            file = path.rpartition("/")[2]
            yield file, store.tried(kind, file, content)


def path_of(kind: str) -> str:
    """Where the index of a kind lies in its store."""
    return f"{COMPACTED}/index-{kind}.npz"


def parsed(content: bytes, store: Store, kind: str) -> Index | None:
    """The index of a kind in these bytes; None where they are none that this program wrote of such a store's records."""
    try:
        index = _unpacked(content, kind, kind in store.checks)
    except Exception:  # a torn or foreign file says so in many ways, and is then made anew
        return None
    return None if index.stamps and kind in store.rows and store.rows[kind](index.columns) else index


def _kept(store: Store, kind: str) -> Index:
    try:
        return parsed(store.place.read(path_of(kind)), store, kind) or Index({}, {})
    except OSError:
        return Index({}, {})


def _keep(store: Store, kind: str, index: Index) -> None:
    files, stamps = list(index.stamps), list(index.stamps.values())
    arrays: dict[str, NDArray[Any]] = {
        "files": np.array(files, dtype=np.bytes_),
        "sizes": np.array([size for size, _ in stamps], dtype=np.int64),
        "times": np.array([time.encode() for _, time in stamps], dtype=np.bytes_),
    }
    texts: dict[str, list[str]] = {}
    for name, column in index.columns.items():
        arrays[f"{column.kind}/{name}"] = column.values
        if column.present is not None:
            arrays[f"present/{name}"] = column.present
        if column.kind == "text":
            texts[name] = list(column.texts)
    arrays["texts"] = np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)
    try:
        key = {"of": kind, "revision": REVISION, "checked": kind in store.checks}
        store.place.write(path_of(kind), pack(_KIND, key, arrays, {}, 0, compressed=False), durable=False)
    except (OSError, RllcError):
        return  # it is a copy, and the next reader makes it


def _unpacked(content: bytes, kind: str, checked: bool) -> Index:
    """The index in these bytes. Raises any exception at all where a reader could stumble over it: a right digest does not say by whom."""
    record, _ = unpack(content)
    keys = [{"of": kind, "revision": REVISION, "checked": told} for told in {True, checked}]
    if record.kind != _KIND or record.key not in keys:
        raise ValueError("it is no index of this kind")
    arrays = record.arrays
    files = [name.decode() for name in arrays["files"].tolist()]
    sizes, times = arrays["sizes"].tolist(), [time.decode() for time in arrays["times"].tolist()]
    stamps = dict(zip(files, zip(sizes, times, strict=True), strict=True))
    if len(stamps) < len(files) or not all(type(size) is int and named(file) for file, (size, _) in stamps.items()):
        raise ValueError("its rows are not each of a file of their own")
    texts = parse_json(arrays["texts"].tobytes())
    columns: dict[str, Column] = {}
    for label, values in arrays.items():
        of, _, name = label.partition("/")
        if of in ("number", "count", "text") and name:
            columns[name] = Column(of, values, arrays.get(f"present/{name}"), tuple(texts[name]) if of == "text" else ())
            columns[name].check(len(files))
    return Index(stamps, columns)

"""What `rllc doctor` looks at in a store: every record by its digest, every number by its traces, and the copies made for fast reading."""

from __future__ import annotations

import json
from pathlib import Path

import xarray as xr

from rllc.core.errors import RllcError
from rllc.core.files import disk_error, parse_json, remove, too_large
from rllc.records.compaction import COPIES
from rllc.records.index import parsed, path_of
from rllc.records.packing import FORMAT, Record, joined
from rllc.records.places import LocalPlace, open_place
from rllc.records.store import COMPACTED, DAMAGED, MARKER, DamagedRecordError, Store, named
from rllc.runs.agreement import untrue
from rllc.runs.examining import Chart
from rllc.runs.examining_index import Told, described
from rllc.runs.keys import ESTIMATOR, KIND


def records(chart: Chart) -> None:
    """The store of a run, wherever it lies."""
    store = _opened(chart)
    if store is None:
        return
    counts: dict[str, int] = {}
    for kind in store.kinds():
        try:
            files = store.listing(kind)
        except RllcError as error:
            chart.wrong(error.problem, error.remedy)
            continue
        told = Told(files)
        counts[kind] = _kind(chart, store, kind, told)
        if foreign := [name for name in store.place.listing(kind) if name not in files]:
            foreign = [name for name in foreign if not name.endswith(".tmp")]
        if foreign:
            chart.remark(f"{store.place.shown(kind)} holds {len(foreign)} files that are no records, {foreign[0]} among them; they are left alone.")
        _index(chart, store, kind, told)
    _zarr(chart, store, counts.get(KIND, 0))
    if aside := len(store.place.listing(DAMAGED)):
        chart.remark(f"{aside} damaged files lie in {store.place.shown(DAMAGED)}; nothing reads them, and they may be deleted.")
    if counts:
        chart.remark(f"Records that were read and proven: {', '.join(f'{count} {kind}' for kind, count in counts.items())}.")


def _opened(chart: Chart) -> Store | None:
    where = chart.folder.records
    try:
        return chart.folder.store(sets_aside=chart.repair)
    except RllcError as error:
        place = open_place(where)
        try:
            content = place.read(MARKER)
        except OSError as unread:
            if not too_large(unread):
                chart.wrong(error.problem, error.remedy)
                return None
            content = b""
        if _format(content) > FORMAT:
            chart.wrong(error.problem, error.remedy)
            return None

        def mend() -> str:
            place.move(MARKER, f"{DAMAGED}/{MARKER}")
            place.write(MARKER, (json.dumps({"format": FORMAT}) + "\n").encode())
            return f"It was written again for format {FORMAT}; each record tells its own."

        chart.wrong(error.problem, "Each record tells its own format.", mend)
        return chart.folder.store() if chart.repair and not chart.findings[-1].open else None


def _format(content: bytes) -> int:
    """What a marker tells; 0 where it tells nothing."""
    try:
        return int(parse_json(content)["format"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0


def _kind(chart: Chart, store: Store, kind: str, told: Told) -> int:
    """Read and prove every record of a kind, and take in what it says; how many are sound."""
    segments: dict[str, list[int]] = {}
    for digest, segment in sorted(map(named, told.listing)):
        segments.setdefault(digest, []).append(segment)
    count = 0
    for digest, numbers in segments.items():
        parts = _proven(chart, store, kind, digest, numbers)
        for segment, part in enumerate(parts):
            told.take(f"{digest}-{segment}.npz", part)
        if len(parts) < len(numbers):
            continue
        count += 1
        if kind == KIND:
            _number(chart, store, joined(parts), [f"{digest}-{n}.npz" for n in numbers])
    return count


def _proven(chart: Chart, store: Store, kind: str, digest: str, numbers: list[int]) -> list[Record]:
    """The segments of a record from 0 on, up to the first with which something is wrong."""
    parts: list[Record] = []
    for place, number in enumerate(numbers):
        file = f"{digest}-{number}.npz"
        if number != place:
            _gap(chart, store, kind, place, [f"{digest}-{n}.npz" for n in numbers[place:]])
            break
        try:
            parts.append(store.proven(kind, file, earlier=parts))
        except DamagedRecordError as error:
            chart.wrong(error.problem, error.remedy, (lambda told=error: _moved(store, f"{kind}/{file}", told)) if store.sets_aside else None)  # noqa: B023
            break
        except RllcError as error:
            chart.wrong(error.problem, error.remedy)
            break
    return parts


def _gap(chart: Chart, store: Store, kind: str, missing: int, files: list[str]) -> None:
    """Segments behind one that is missing: they went on from what is not there, and belong to nothing that will be computed in its place."""

    def mend() -> str:
        store.retire(kind, files)
        return f"What lies behind the gap is now in {store.place.shown(DAMAGED)}."

    chart.wrong(f"The record {store.place.shown(kind)}/{files[0]} went on from segment {missing}, which is missing.", "Nothing can read it.", mend)


def _moved(store: Store, path: str, told: DamagedRecordError) -> str:
    if store.place.exists(path):
        raise told
    return "The next run computes it anew."


def _number(chart: Chart, store: Store, record: Record, files: list[str]) -> None:
    """Whether a record's number follows from its traces, where this program's estimator made it."""
    if record.meta.get("estimator") != ESTIMATOR or not (problem := untrue(record, _own(chart, record))):
        return

    def mend() -> str:
        store.retire(KIND, files)
        return f"It now lies in {store.place.shown(DAMAGED)}, and the next run computes it anew."

    what = f"The record {store.place.shown(f'{KIND}/{files[0]}')} contradicts itself, though its digest is right. {problem}"
    chart.wrong(what, "Nobody but a program could have done that: find out which.", mend)


def _own(chart: Chart, record: Record) -> Record | None:
    """The record of the same chains on their own data, beside one that was evaluated elsewhere; None where there is none that can be read."""
    key = {name: value for name, value in record.key.items() if name != "evaluated_on"}
    if key == record.key:
        return None
    try:
        store = chart.folder.store(sets_aside=False)
        return store.get(KIND, key) if store.has(KIND, key) else None
    except RllcError:
        return None  # it is told of by itself


def _index(chart: Chart, store: Store, kind: str, told: Told) -> None:
    """The index of a kind: it can be read, and says what its records say."""
    path = path_of(kind)
    try:
        index = parsed(store.place.read(path), store, kind)
    except FileNotFoundError:
        return
    except OSError:
        index = None

    def mend() -> str:
        store.place.remove(path)
        return "It was removed; it is a copy, and whoever reads next makes it."

    if index is None:
        what = "is damaged, or of another version."
    elif differing := told.differing(index, store.listing(kind)):
        what = f"says something else of {len(differing)} files than they say: the {described(differing)}."
    else:
        return
    chart.wrong(f"{store.place.shown(path)} {what}", "It is a copy of what the records say: remove it, and whoever reads next makes it.", mend)


def _zarr(chart: Chart, store: Store, count: int) -> None:
    """The copy with all traces: it opens. One that was made before its records changed is no fault: nothing but a reader of Zarr reads it."""
    if not isinstance(store.place, LocalPlace):
        return
    folder = store.place.root / COMPACTED
    for path in sorted(folder.glob(COPIES)) if not folder.is_symlink() else []:
        cells = _cells(path)
        if isinstance(cells, str):
            what = f"{path} is damaged: {cells}."
            chart.wrong(what, "It is a copy of the records, and `rllc analyse` makes it.", lambda path=path: _removed(path))
        elif cells != count:
            chart.remark(f"{path} holds {cells} cells of {count}; `rllc analyse` makes it anew.")


def _cells(path: Path) -> int | str:
    """How many cells a copy holds, or what keeps it from being read."""
    try:
        with xr.open_zarr(path, consolidated=True, chunks=None) as opened:
            loaded = opened.load()
        return sum(bool(key) for key in loaded["key"].values.ravel().tolist()) if "key" in loaded else 0
    except Exception as error:  # zarr, its codecs and json each have their own ways of saying that bytes are wrong
        return type(error).__name__


def _removed(path: Path) -> str:
    try:
        remove(path)
    except OSError as error:
        raise disk_error(path, error) from error
    return "It was removed."

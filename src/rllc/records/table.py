"""The labelled table, and the only namer of dimensions (ANCHORS, principle 11).

Records of kind "sample" become tidy rows (`frame`) or labelled arrays (`dataset`) with the dimensions `step`, `part` and `data`, and for traces
`chain` and `draw`. The dimension of parts is never called `head`: that name would hide `Dataset.head`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.outcome import Outcome
from rllc.records.columns import Column, of_rows, stacked
from rllc.records.index import OF_KEY, opened
from rllc.records.names import COLUMNS, TRACES
from rllc.records.packing import Record
from rllc.records.store import Store

Format = Literal["csv", "json", "parquet"]

DIMS = ("step", "part", "data")
_Traces = tuple[list[str], NDArray[np.float64]]  # one trace of some records: their digests, and [records, …] with NaN behind the end of the shorter
_BLOCK = 1024  # records that are in memory as they came
# Labelled arrays have a place for every step, part and data. They may take so many bytes in any case, and so many times what the records do.
_FREE, _TIMES = 2**28, 8
SETTING = "setting"  # comes first, and only where one cell was measured under several settings
_SETTINGS = ("evaluated_on", "sampler", "step_size", "localization", "nbeta", "chains", "draws", "burn_in", "estimator", "seed", "dtype", "loss")


class SparseError(RllcError):
    """Labelled arrays of these records would be nearly empty, and larger than is worth having."""


def frame(records: Iterable[Record], run: str = "") -> pd.DataFrame:
    """Tidy rows, one a sample record, ordered by data, part and step.

    The columns of `COLUMNS` come first, whatever else the records' meta holds as single values after them. Absent numbers are NaN, absent counts NA,
    absent texts "". A refused cell has no llc, whatever its record says.
    """
    digests, said, _ = _taken_in(records, traces=False)
    return frame_of(digests, said, run)


def stored_frame(store: Store, run: str = "") -> pd.DataFrame:
    """`frame` of all sample records that a store holds, from its index: no trace is read, so that it opens fast.

    Damaged files are left out and have been set aside; `rllc.records.index.opened` tells of them. Raises RllcError where something cannot be read.
    """
    return frame_of(*opened(store, "sample").newest(), run)


def frame_of(digests: Sequence[str], said: Mapping[str, Column], run: str = "") -> pd.DataFrame:
    """The rows of `frame` from what the records say by name, each [rows]."""
    rows = len(digests)
    given = {name: column for name, column in said.items() if name not in ("run", "key") and not name.startswith(OF_KEY)}
    names = [*COLUMNS, *sorted(given.keys() - COLUMNS.keys())]
    shown: dict[str, Any] = {}
    for name in names:
        column = given.get(name) or Column.absent(rows)
        shown[name] = column.shown(COLUMNS[name][0] if name in COLUMNS else column.kind)
    shown["run"] = np.full(rows, run, dtype=object)
    shown["key"] = np.array(digests, dtype=object)
    table = pd.DataFrame(shown)
    refused = table["outcome"].isin([outcome.value for outcome in Outcome if outcome.refused])
    table.loc[refused, ["llc", "stderr", "ci_low", "ci_high", "llc_unpaired"]] = np.nan
    table["step"] = table["step"].astype("int64")
    order = np.lexsort((table["key"].rank(), table["step"], _ranks(table["part"], part_order), _ranks(table["data"], str)))
    return table.iloc[order].reset_index(drop=True)


def columns(table: pd.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    """The table as plain arrays by column name, which is what `rllc.analysis` reads: float64, int64 (-1 where absent) or text, each [rows]."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name in table.columns:
        series = table[name]
        if pd.api.types.is_integer_dtype(series.dtype):
            arrays[name] = series.astype("Int64").fillna(-1).to_numpy(dtype=np.int64)
        elif pd.api.types.is_numeric_dtype(series.dtype):
            arrays[name] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            arrays[name] = np.array([str(value) for value in series], dtype=np.str_)
    return arrays


def export(table: pd.DataFrame, format: Format) -> bytes:  # noqa: A002
    """The table as the bytes of a CSV, JSON or Parquet file, every number with all its digits; absent values are empty or null.

    Raises RllcError for another format, and for parquet where pyarrow is not installed.
    """
    if format not in get_args(Format):
        raise RllcError(f"{format!r} is not a format of tables.", f"Choose one of {', '.join(get_args(Format))}.")
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n").encode()
    if format == "json":
        rows = [{name: None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict(orient="records")]
        return (json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, engine="pyarrow", index=False)
    except ImportError as error:
        problem = "Writing parquet needs pyarrow, which is not installed."
        raise RllcError(problem, 'Install it with: pip install "rllc[data]", or choose csv or json.') from error
    return buffer.getvalue()


def dataset(records: Iterable[Record], run: str = "") -> xr.Dataset:
    """Labelled arrays over (step, part, data): every number, count and text of the table, and the traces with (chain, draw) after them.

    Cells that do not exist are NaN, "" in texts and -1 in counts; traces shorter than the longest end in NaN. A dimension `setting` comes first where
    some cell was measured under several settings, and names the settings by what differs between them.

    Raises SparseError, before anything of that size is made, where the arrays would take many times what the records do.
    """
    digests, said, traces = _taken_in(records, traces=True)
    table = frame_of(digests, said, run)
    labels = _setting_labels(table)
    places: dict[str, list[Any]] = {
        "step": sorted(set(table["step"])),
        "part": sorted(set(table["part"]), key=part_order),
        "data": sorted(set(table["data"])),
    }
    at = [[places[dim].index(value) for value in table[dim]] for dim in DIMS]
    dims: tuple[str, ...] = DIMS
    if labels is not None:
        dims = (SETTING, *DIMS)
        places = {SETTING: sorted(set(labels)), **places}
        at = [[places[SETTING].index(label) for label in labels], *at]
    index = tuple(np.array(axis, dtype=np.int64) for axis in at)
    shape = tuple(len(places[dim]) for dim in dims)
    plain = columns(table)
    _check_dense(dims, shape, len(table), plain, traces)
    variables: dict[str, Any] = {}
    for name, values in plain.items():
        if name in DIMS or name == "run":
            continue
        full = np.full(shape, {"f": np.nan, "i": -1}.get(values.dtype.kind, ""), dtype=values.dtype)
        full[index] = values
        variables[name] = (dims, full, {"long_name": COLUMNS[name][1]} if name in COLUMNS else {})
    variables |= _traces(traces, table["key"].tolist(), dims, shape, index)
    coords = {dim: (dim, np.array(values, dtype=np.int64 if dim == "step" else np.str_)) for dim, values in places.items()}
    return xr.Dataset(variables, coords=coords, attrs={"run": run})


def _check_dense(
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    rows: int,
    plain: Mapping[str, np.ndarray[Any, Any]],
    traces: Mapping[str, Sequence[_Traces]],
) -> None:
    """Raises SparseError where arrays of that shape are not worth their size."""
    held = sum(values.nbytes for values in plain.values()) + sum(block.nbytes for blocks in traces.values() for _, block in blocks)
    each = sum(values.itemsize for values in plain.values())
    each += sum(8 * math.prod(np.max([block.shape[1:] for _, block in blocks], axis=0).tolist()) for blocks in traces.values())
    size = math.prod(shape) * each
    if size > max(_FREE, _TIMES * held):
        cells = " × ".join(f"{count:,} {dim}" for dim, count in zip(dims, shape, strict=True))
        raise SparseError(
            f"Arrays over all places of {rows:,} cells would be nearly empty: {cells} would take {size / 1e9:.1f} GB, where the cells have "
            f"{held / 1e6:.1f} MB.",
            "Read the table of the cells, or take fewer of them.",
        )


def part_order(part: str) -> tuple[bool, Any]:
    """Sorting key of parts: heads first, by layer and number, then everything else.

    >>> sorted(["full", "1:10", "1:2"], key=part_order)
    ['1:2', '1:10', 'full']
    """
    try:
        parsed = Part.parse(part)
    except RllcError:
        return True, (("~", -1, -1, "", part),)
    return parsed.head is None, tuple((atom.kind, atom.layer, atom.head, atom.piece, atom.tensor) for atom in parsed.atoms)


def _ranks(values: Any, order: Callable[[str], Any]) -> NDArray[np.int64]:
    """The place of each value among all of them, in that order."""
    codes, texts = pd.factorize(values)
    places = np.empty(len(texts), dtype=np.int64)
    places[sorted(range(len(texts)), key=lambda i: order(texts[i]))] = np.arange(len(texts))
    return places[codes]


def _setting_labels(table: pd.DataFrame) -> list[str] | None:
    """A label of each row's settings, or None where (step, part, data) alone tells the rows apart."""
    if not table.duplicated(list(DIMS)).any():
        return None
    differing = [name for name in _SETTINGS if name in table.columns and len(set(table[name].astype(str))) > 1]
    labels = [", ".join(f"{name}={row[name]}" for name in differing) for row in table.to_dict(orient="records")]
    clashes = table.assign(label=labels).duplicated([*DIMS, "label"], keep=False)
    return [f"{label} {key[:8]}".strip() if clash else label for label, key, clash in zip(labels, table["key"], clashes, strict=True)]


def _taken_in(records: Iterable[Record], *, traces: bool) -> tuple[list[str], dict[str, Column], dict[str, list[_Traces]]]:
    """Digests, what the records say [rows], and their traces by name; of a stream of records nothing else stays in memory."""
    digests: list[str] = []
    blocks: list[tuple[int, Mapping[str, Column]]] = []
    arrays: dict[str, list[_Traces]] = {}
    stream = iter(records)
    while block := list(islice(stream, _BLOCK)):
        digests += [record.digest for record in block]
        blocks.append((len(block), of_rows([record.meta for record in block])))
        for name in TRACES if traces else ():
            having = {record.digest: record.arrays[name] for record in block if name in record.arrays}
            if having:
                arrays.setdefault(name, []).append((list(having), _padded(having.values())))
    return digests, stacked(blocks), arrays


def _padded(arrays: Collection[NDArray[Any]]) -> NDArray[np.float64]:
    """Arrays of as many axes as one, each to the size of the largest with NaN behind its end. Raises SparseError where that is nearly all."""
    shape = len(arrays), *np.max([array.shape for array in arrays], axis=0).tolist()
    size, held = 8 * math.prod(shape), 8 * sum(array.size for array in arrays)
    if size > max(_FREE, _TIMES * held):
        raise SparseError(
            f"Traces are of lengths too different for an array: {len(arrays)} would take {size / 1e9:.1f} GB, where they have {held / 1e6:.1f} MB.",
            "Read the table of the cells, or take fewer of them.",
        )
    full = np.full(shape, np.nan)
    for row, array in zip(full, arrays, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return full


def _traces(
    traces: dict[str, list[_Traces]], digests: Sequence[str], dims: tuple[str, ...], shape: tuple[int, ...], index: tuple[Any, ...]
) -> Mapping[str, Any]:
    """The traces of all rows as labelled arrays. `traces` is emptied on the way, so that of one name alone there are two copies in memory."""
    variables: dict[str, Any] = {}
    row = {key: i for i, key in enumerate(digests)}
    for name in [name for name in TRACES if name in traces]:
        blocks = traces.pop(name)
        full = np.full((*shape, *np.max([block.shape[1:] for _, block in blocks], axis=0)), np.nan)
        for keys, block in blocks:
            rows = [row[key] for key in keys]
            full[(*(axis[rows] for axis in index), *map(slice, block.shape[1:]))] = block
        variables[name] = ((*dims, *TRACES[name]), full)
    return variables

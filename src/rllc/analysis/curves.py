"""From the columns of the table to curves over checkpoints, and which of them are complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.errors import reach
from rllc.analysis.findings import Curves, Floats
from rllc.core.errors import RllcError
from rllc.core.names import Atom, Part
from rllc.core.outcome import Outcome

_REFUSED = tuple(outcome.value for outcome in Outcome if outcome.refused)
_ARRAYS = ("llc", "stderr", "ci_low", "ci_high", "outcome", "df")


def curves_of(columns: Mapping[str, NDArray[Any]], *, heads: bool) -> dict[str, Curves]:
    """Curves by data name, of the whole heads (`heads` true) or of every other part.

    Args:
        columns: arrays by column name, each [rows]: step, part, data, llc, stderr, outcome; df, degrees of freedom of stderr, and
            evaluated_on where it differs from data. Data that is sampled on one kind and evaluated on another is named "code@prose".

    Intervals are of 95 %, by t, whatever confidence the rows' own have; where df is not told the error counts as known. A refused cell has no
    estimate, whatever its row says. Raises RllcError where two rows tell of the same part, checkpoint and data.
    """
    data = [str(name) for name in columns["data"]]
    if "evaluated_on" in columns:
        data = [name if str(on) in ("", name) else f"{name}@{on}" for name, on in zip(data, columns["evaluated_on"], strict=True)]
    parts = [str(part) for part in columns["part"]]
    wanted = [i for i, part in enumerate(parts) if is_head(part) == heads]
    found: dict[str, Curves] = {}
    for name in sorted({data[i] for i in wanted}):
        rows = [i for i in wanted if data[i] == name]
        found[name] = _curves(name, [parts[i] for i in rows], {column: values[rows] for column, values in columns.items()})
    return found


def is_head(part: str) -> bool:
    """Whether a part's name means exactly one whole head.

    >>> is_head("1:6"), is_head("1:6.Q"), is_head("full")
    (True, False, False)
    """
    try:
        return Part.parse(part).head is not None
    except RllcError:
        return False


def layer_of(head: str) -> int:
    """Layer of a head, counted from zero. Raises RllcError for another part."""
    parsed = Part.parse(head).head
    if parsed is None:
        raise RllcError(f"{head!r} is not a whole head.", 'Give parts such as "1:6".')
    return parsed.layer


def select(curves: Curves, parts: Sequence[str]) -> Curves:
    """The curves of these parts, in this order. Raises ValueError for a part that is not there."""
    return at(curves, [curves.parts.index(part) for part in parts], slice(None))


def at(curves: Curves, rows: Sequence[int] | slice, columns: NDArray[Any] | slice) -> Curves:
    """The curves of these rows at these checkpoints, by their places."""
    picked = {name: None if (values := getattr(curves, name)) is None else values[rows][:, columns] for name in _ARRAYS}
    parts = curves.parts[rows] if isinstance(rows, slice) else tuple(curves.parts[row] for row in rows)
    return replace(curves, parts=parts, steps=curves.steps[columns], **picked)


def complete(curves: Curves) -> tuple[Curves, tuple[str, ...], tuple[int, ...]]:
    """The parts that have an estimate with an error at every checkpoint; then the parts left out, then the checkpoints left out.

    Nothing is interpolated. A checkpoint at which more than half of the parts have no estimate is left out itself, for otherwise one bad checkpoint
    would cost every head; a part that lacks any of the rest is left out.
    """
    present = np.isfinite(curves.llc) & np.isfinite(curves.stderr)
    keep = present.sum(axis=0) * 2 >= len(curves.parts)
    whole: list[bool] = [bool(keep.any() and row.all()) for row in present[:, keep]]
    shortened = at(curves, slice(None), keep)
    inside = [part for part, complete_ in zip(curves.parts, whole, strict=True) if complete_]
    outside = tuple(part for part in curves.parts if part not in inside)
    return select(shortened, inside), outside, tuple(int(step) for step in curves.steps[~keep])


def _curves(data: str, parts: list[str], columns: Mapping[str, NDArray[Any]]) -> Curves:
    names = sorted(set(parts), key=_order)
    steps = np.unique(columns["step"].astype(np.int64))
    rows = np.array([names.index(part) for part in parts])
    places = np.searchsorted(steps, columns["step"])
    taken = np.zeros((len(names), len(steps)), dtype=np.int64)
    np.add.at(taken, (rows, places), 1)
    if taken.max() > 1:
        row, place = (int(axis[0]) for axis in np.nonzero(taken > 1))
        raise RllcError(
            f"The table holds {taken[row, place]} estimates of {names[row]} at step {steps[place]} on {data}, made with different settings.",
            "Choose the rows of one setting, or analyse them one after another.",
        )
    refused = np.isin(columns["outcome"], _REFUSED)
    numbers: dict[str, Floats] = {}
    for name in ("llc", "stderr"):
        numbers[name] = np.full(taken.shape, np.nan)
        numbers[name][rows, places] = np.where(refused, np.nan, columns[name].astype(np.float64))
    df = np.full(taken.shape, np.inf)
    if "df" in columns:
        told = columns["df"].astype(np.float64)
        df[rows, places] = np.where(np.isfinite(told) & (told > 0), told, np.inf)
    half = reach(numbers["stderr"], df)
    outcome = np.full(taken.shape, "", dtype="<U16")
    outcome[rows, places] = columns["outcome"]
    llc = numbers["llc"]
    return Curves(data, tuple(names), steps, llc, numbers["stderr"], llc - half, llc + half, outcome, df)


def _order(part: str) -> tuple[Atom, ...]:
    try:
        return Part.parse(part).atoms
    except RllcError:
        return (Atom("~", tensor=part),)

"""Choosing recorded cells of a run by the names of their part, data and step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Part
from rllc.core.outcome import Outcome
from rllc.records.index import Index
from rllc.records.store import Record
from rllc.records.table import part_order
from rllc.runs.experiment import MIXTURE

Axis = Literal["part", "data", "step"]
AXES: tuple[Axis, ...] = ("part", "data", "step")
PLURAL: dict[Axis, str] = {"part": "parts", "data": "data", "step": "steps"}
# Parts and steps by number; the training mixture behind the other data, so that it is what is subtracted.
ORDER: dict[Axis, Callable[[str], Any]] = {"part": part_order, "data": lambda name: (name == MIXTURE, name), "step": int}


def is_refused(record: Record) -> bool:
    """Whether the cell has no number."""
    return Outcome(record.meta["outcome"]).refused


def is_own(record: Record) -> bool:
    """Whether it is a learning coefficient: of the data that its chains moved by."""
    return record.meta["evaluated_on"] == record.meta["data"]


def canonical(axis: Axis, name: str) -> str:
    """A user's name as records spell it: "L1H6" is "1:6". Raises RllcError where it is none."""
    if axis == "part":
        return str(Part.parse(name))
    if axis == "data":
        return str(DataKey.parse(name))
    if not name.isdecimal():
        raise RllcError(f"{name!r} is not a training step.", "Give a whole number, such as 3000.")
    return str(int(name))


def record_name(record: Record, axis: Axis) -> str:
    """What the record is called along an axis; data with what it was evaluated on where that is another: "code@prose"."""
    if axis == "data":
        return str(DataKey.parse(record.meta["data"]).at(record.meta["evaluated_on"]))
    return str(record.meta[axis])


def said(index: Index) -> list[dict[str, Any]]:
    """What each record says, without what is a list or a table."""
    digests, columns = index.newest()
    plain_columns = {name: column.plain() for name, column in columns.items()}
    return [{name: values[row] for name, values in plain_columns.items()} for row in range(len(digests))]


def data_name(record: Mapping[str, Any]) -> str:
    """What the record's data is called, with what it was evaluated on where that is another: "code@prose"."""
    return str(DataKey.parse(record["data"]).at(record["evaluated_on"]))


def record_names(records: Iterable[Record], axis: Axis) -> list[str]:
    """All names along an axis, in its order."""
    return sorted({record_name(record, axis) for record in records}, key=ORDER[axis])


def title(record: Record, axes: Iterable[Axis]) -> str:
    """The record's names along some axes, for reading."""
    return ", ".join(f"step {record_name(record, axis)}" if axis == "step" else record_name(record, axis) for axis in axes)


def recorded(records: Sequence[Record]) -> str:
    """Where records are, in words: "code at steps 500, 3000; mixture at steps 0, 500"."""
    found: list[str] = []
    for data in record_names(records, "data"):
        steps = record_names([record for record in records if record_name(record, "data") == data], "step")
        found.append(f"{data} at step{'s' if len(steps) > 1 else ''} {', '.join(steps)}")
    return "; ".join(found)


def chosen(records: Sequence[Record], wanted: Mapping[Axis, set[str]], named: Mapping[Axis, Sequence[str]]) -> list[Record]:
    """The records of the wanted names, all where none is. Raises RllcError for a name given by the user that none of them has."""
    for axis in AXES:
        there = record_names(records, axis)
        for name in named[axis]:
            if name not in there:
                raise RllcError(f"No cell of {axis} {name} is recorded.", f"Recorded {PLURAL[axis]}: {', '.join(there)}.")
    selected = [record for record in records if all(not wanted[axis] or record_name(record, axis) in wanted[axis] for axis in AXES)]
    for axis in AXES:
        for name in named[axis]:
            if not any(record_name(record, axis) == name for record in selected):
                having = [record for record in records if record_name(record, axis) == name]
                raise RllcError(
                    f"No cell of {axis} {name} is recorded together with the other names given.", f"It is recorded on {recorded(having)}."
                )
    return selected

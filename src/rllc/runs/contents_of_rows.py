"""What an index of records must say of them for its readers: as `rllc.runs.contents` asks of each record, of all rows at once. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Part
from rllc.core.outcome import Outcome
from rllc.records.names import COLUMNS
from rllc.records.store import RowsCheck
from rllc.runs.keys import KIND, SHARES, STATE
from rllc.runs.measures.kinds import REVISIONS

if TYPE_CHECKING:
    from rllc.records.columns import Column, Kind

_KINDS: Mapping[str, tuple[Kind, ...]] = {"text": ("text",), "count": ("count",), "number": ("number", "count")}


def _told(check: Callable[[Mapping[str, Column]], None]) -> RowsCheck:
    def problem(columns: Mapping[str, Column]) -> str:
        try:
            check(columns)
        except (ValueError, KeyError, RllcError) as error:
            return str(error) or type(error).__name__
        return ""

    return problem


def _sample(columns: Mapping[str, Column]) -> None:
    _whole(
        columns, {"step": "count", "draws": "count", "chains": "count"} | dict.fromkeys(("part", "data", "evaluated_on", "outcome", "reason"), "text")
    )
    for name in columns.keys() & COLUMNS.keys():
        _fits(columns[name], COLUMNS[name][0])
    for outcome in columns["outcome"].distinct():
        Outcome(outcome)
    for part in columns["part"].distinct():
        Part.parse(part)
    data, where = columns["data"], columns["evaluated_on"]
    sampled, evaluated = data.distinct(), where.distinct()
    for first, second in np.unique(np.stack([data.values, where.values]), axis=1).T.tolist():
        DataKey.parse(sampled[first]).at(evaluated[second])


def _state(columns: Mapping[str, Column]) -> None:
    _whole(columns, {"key/of": "text", "key/segment": "count", "draws": "count"})


def _measure(columns: Mapping[str, Column]) -> None:
    _whole(columns, {"step": "count"})
    if "seconds" in columns:
        _fits(columns["seconds"], "number")


def _whole(columns: Mapping[str, Column], kinds: Mapping[str, str]) -> None:
    """These columns are there, with a value in each row."""
    for name, kind in kinds.items():
        if columns[name].gaps.any():
            raise ValueError(f"a row does not tell its {name}")
        _fits(columns[name], kind)


def _fits(column: Column, kind: str) -> None:
    if column.gaps.all():
        return
    if column.kind not in _KINDS[kind] or (kind == "count" and column.values.min() < 0):
        raise ValueError(f"a column of the kind {kind} holds something else")
    if kind == "text" and not all(isinstance(text, str) for text in column.distinct()):
        raise ValueError("a text is none")


# by kind of record, what a store asks of the columns of its index
ROWS: Mapping[str, RowsCheck] = MappingProxyType(
    {KIND: _told(_sample), STATE: _told(_state), SHARES: _told(_state), **dict.fromkeys(REVISIONS, _told(_measure))}
)

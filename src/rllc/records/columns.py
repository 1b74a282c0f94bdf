"""Typed columns of single values, each of a type of its own and with gaps: what a table of many records is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rllc.core.files import parse_json

Kind = Literal["text", "count", "number"]
_TYPES: dict[Kind, Any] = {"text": np.int32, "count": np.int64, "number": np.float64}
_ABSENT = -1
_LEAST, _MOST, _HUGE = -(2**63), 2**63 - 1, 10**308  # whole numbers beyond are kept as text, digit by digit


@dataclass(frozen=True)
class Column:
    """Values of one name, one a row; a value may be absent.

    Args:
        kind: "count" where all that is there are whole numbers of 64 bits, "number" where all are numbers, else "text".
        values: numbers with NaN for what is absent, float64 [rows]; or whole numbers, int64 [rows]; or places among `texts`, int32 [rows], -1 absent.
        present: of counts, bool [rows].
        texts: of texts, each once, as JSON, so that a truth value or a number among them stays what it was.
    """

    kind: Kind
    values: NDArray[Any]
    present: NDArray[np.bool_] | None = None
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, values: Sequence[Any]) -> Column:
        """The column of such values; None is absent."""
        there = [value for value in values if value is not None]
        types = set(map(type, there))
        if types == {int} and all(_LEAST <= value <= _MOST for value in there):
            present = np.array([value is not None for value in values], dtype=np.bool_)
            return cls("count", np.array([value or 0 for value in values], dtype=np.int64), present)
        if float in types and types <= {int, float} and all(abs(value) < _HUGE for value in there if type(value) is int):
            return cls("number", np.array([np.nan if value is None else value for value in values], dtype=np.float64))
        places: dict[str, int] = {}
        codes = [_ABSENT if value is None else places.setdefault(json.dumps(value, default=str), len(places)) for value in values]
        return cls("text", np.array(codes, dtype=np.int32), None, tuple(places))

    def check(self, rows: int) -> None:
        """Raises ValueError or TypeError where it is no column of so many rows, or holds what no record can say."""
        if self.values.shape != (rows,) or self.values.dtype != _TYPES[self.kind]:
            raise ValueError(f"it holds no {rows} values of kind {self.kind}")
        if self.kind == "number" and np.isinf(self.values).any():
            raise ValueError("one of its numbers is not finite")
        if self.kind == "count" and (self.present is None or self.present.shape != (rows,) or self.present.dtype != np.bool_):
            raise ValueError("it does not tell which of its counts are there")
        if self.kind == "text":
            texts = self.distinct()
            if not all(isinstance(value, str | bool | int | float) for value in texts):
                raise ValueError("its texts are not single values")
            if rows and not (self.values.min() >= _ABSENT and self.values.max() < len(texts)):
                raise ValueError("a row has none of its texts")
            json.dumps(texts, ensure_ascii=False).encode()  # halves of characters cannot be written anywhere

    @classmethod
    def absent(cls, rows: int) -> Column:
        """A column without any value."""
        return cls("text", np.full(rows, _ABSENT, dtype=np.int32))

    def plain(self) -> list[Any]:
        """The values as they were given."""
        if self.kind == "number":
            return [None if np.isnan(value) else value for value in self.values.tolist()]
        if self.kind == "count":
            assert self.present is not None
            return [value if there else None for value, there in zip(self.values.tolist(), self.present.tolist(), strict=True)]
        texts = self.distinct()
        return [None if code == _ABSENT else texts[code] for code in self.values.tolist()]

    def distinct(self) -> list[Any]:
        """The values among `texts`, in their order."""
        return [parse_json(text) for text in self.texts]

    def take(self, rows: NDArray[np.int64]) -> Column:
        """These rows of it, in this order."""
        return Column(self.kind, self.values[rows], None if self.present is None else self.present[rows], self.texts)

    def shown(self, kind: Kind) -> Any:
        """As a column of a table: float64 with NaN, Int64 with NA, or strings with "" for what is absent."""
        if kind == "text":
            return self._strings()
        if self.kind == "text":
            values = self.plain()
            if kind == "number":
                return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
            return pd.array([pd.NA if value is None else int(value) for value in values], dtype="Int64")
        if kind == "number":
            return np.where(self.gaps, np.nan, self.values.astype(np.float64))
        whole = np.where(self.gaps, 0, self.values).astype(np.int64)
        return pd.arrays.IntegerArray(whole, self.gaps)

    @property
    def gaps(self) -> NDArray[np.bool_]:
        """Where nothing is [rows]."""
        if self.kind == "number":
            return np.isnan(self.values)
        return self.values == _ABSENT if self.present is None else ~self.present

    def _strings(self) -> NDArray[Any]:
        if self.kind != "text":
            return np.array(["" if value is None else str(value) for value in self.plain()], dtype=object)
        texts = np.array([str(parse_json(text)) for text in self.texts] + [""], dtype=object)
        return texts[self.values]  # -1 is the last


def joined(parts: Sequence[Column]) -> Column:
    """Columns of one name, one behind the other."""
    filled = [part for part in parts if not part.gaps.all()]
    kinds: set[Kind] = {part.kind for part in filled}
    if len(kinds) > 1 and "text" in kinds:
        return Column.of([value for part in parts for value in part.plain()])
    kind: Kind = "number" if "number" in kinds else "count" if kinds == {"count"} else "text"
    if kind == "number":
        return Column(kind, np.concatenate([part.shown("number") for part in parts]))
    gaps = np.concatenate([part.gaps for part in parts])
    if kind == "count":
        return Column(kind, np.concatenate([np.where(part.gaps, 0, part.values).astype(np.int64) for part in parts]), ~gaps)
    places: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    for part in parts:
        if part.kind != "text":  # nothing is in it
            codes.append(np.full(len(part), _ABSENT, dtype=np.int32))
            continue
        places_here = np.array([*(places.setdefault(text, len(places)) for text in part.texts), _ABSENT], dtype=np.int32)
        codes.append(places_here[part.values])
    return Column(kind, np.concatenate(codes) if codes else np.zeros(0, np.int32), None, tuple(places))


def of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns of rows of single values; lists and tables among them are left out."""
    names = {name: None for row in rows for name, value in row.items() if not isinstance(value, dict | list)}
    return {name: Column.of([None if isinstance(value := row.get(name), dict | list) else value for row in rows]) for name in names}


def stacked(blocks: Sequence[tuple[int, Mapping[str, Column]]]) -> dict[str, Column]:
    """Blocks of (rows, columns) one below the other; a column that a block lacks is absent there."""
    names = {name: None for _, columns in blocks for name in columns}
    return {name: joined([columns.get(name) or Column.absent(rows) for rows, columns in blocks]) for name in names}

"""Whether an index says what the records say that it was made from: `rllc doctor` reads them all, and holds it against them. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from rllc.records.columns import Column, of_rows, stacked
from rllc.records.index import Index, row_of
from rllc.records.packing import Record
from rllc.records.places import Stamp

_BLOCK = 4096  # records whose headers are in memory as they came


class Told:
    """What the records of a kind say, taken in one by one as they are read.

    Args:
        listing: the files of the kind before any was read.
    """

    def __init__(self, listing: Mapping[str, Stamp]) -> None:
        self.listing = listing
        self._places: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._blocks: list[tuple[int, Mapping[str, Column]]] = []

    def take(self, file: str, record: Record) -> None:
        """Take in a file that was read and proven."""
        self._places[file] = len(self._places)
        self._rows.append(row_of(record))
        if len(self._rows) == _BLOCK:
            self._end_block()

    def differing(self, index: Index, now: Mapping[str, Stamp]) -> dict[str, str]:
        """The files of which an index says something else, each with the name of a value that differs.

        Args:
            index: what is held against the records.
            now: the files as they are since all were read. One that changed on the way, or since the index was made, is not judged: whoever opens the
                index reads it again.
        """
        self._end_block()
        same = [file for file, stamp in index.stamps.items() if file in self._places and self.listing.get(file) == stamp == now.get(file)]
        places = {file: row for row, file in enumerate(index.stamps)}
        ours, theirs = (np.array([at[file] for file in same], dtype=np.int64) for at in (self._places, places))
        said = stacked(self._blocks)
        found: dict[str, str] = {}
        for name in said.keys() | index.columns.keys():
            told = said[name].take(ours).plain() if name in said else [None] * len(same)
            kept = index.columns[name].take(theirs).plain() if name in index.columns else [None] * len(same)
            if told != kept:
                found |= {file: name for file, a, b in zip(same, told, kept, strict=True) if not _alike(a, b)}
        return found

    def _end_block(self) -> None:
        if self._rows:
            self._blocks.append((len(self._rows), of_rows(self._rows)))
            self._rows = []


def described(found: Mapping[str, str]) -> str:
    """Some of the differing files with the names of their values, for a sentence."""
    return ", ".join(f"{name} of {file}" for file, name in islice(sorted(found.items()), 3))


def _alike(a: Any, b: Any) -> bool:
    """Whether two values are one: whole numbers in a column of others lose digits there."""
    if isinstance(a, int | float) and isinstance(b, int | float) and isinstance(a, float) != isinstance(b, float):
        return float(a) == float(b)
    return a == b

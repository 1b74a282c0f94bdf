"""Shares of a run's units, for job arrays: several calls on one shared folder, none of which knows of the others. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rllc.core.errors import RllcError

T = TypeVar("T")
_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """Every `of`-th unit in the order of cost, from number `index` on, which counts from 1.

    >>> Shard.parse("2/3").share([5.0, 1.0, 4.0, 2.0, 3.0], cost=float)
    [4.0, 1.0]
    """

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard | None:
        """The shard that "2/5" names; None for an empty text. Raises RllcError for anything else."""
        if not text:
            return None
        match = _TEXT.fullmatch(text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise RllcError(f"A shard is called {text!r}.", "Call it i/n with i from 1 to n, such as 1/8, 2/8 and so on to 8/8.")
        return cls(int(match[1]), int(match[2]))

    def share(self, units: Sequence[T], cost: Callable[[T], float]) -> list[T]:
        """The units of this shard, which do not depend on what is finished. Those of equal cost are told apart by their names."""
        return sorted(units, key=lambda unit: (-cost(unit), str(unit)))[self.index - 1 :: self.of]

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

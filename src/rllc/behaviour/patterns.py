"""Where the n-grams and skip n-grams of the training text stand in some contexts. Numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.behaviour.ngrams import NgramTable, lookup
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

SKIP = "skip"  # the kind of a skip n-gram; an n-gram's is "2-gram", "3-gram", …


@dataclass(frozen=True)
class PatternRules:
    """When an n-gram or skip n-gram of the text counts as a pattern that can be known. [W] did not publish its thresholds: show results for several.

    Args:
        occurrences: how often it occurs in the counted text, at least.
        probability: how likely it makes its last token there, at least, given the tokens before it. Skip n-grams need it beside the criterion by
            which they came into their table.
    """

    occurrences: int = 10
    probability: float = 0.3

    def __post_init__(self) -> None:
        if self.occurrences < 1 or not 0 <= self.probability <= 1:
            raise RllcError(
                f"Patterns that occur {self.occurrences} times and have a probability of {self.probability} were asked for.",
                "Use 1 occurrence or more, and a probability of 0 to 1.",
            )

    def ngrams(self, table: NgramTable, n: int) -> Bool[Flags, " G"]:
        """Which n-grams of length n do, in the order of the table."""
        return (table.level(n).counts >= self.occurrences) & (table.probabilities(n) >= self.probability)

    def skips(self, table: SkipTable) -> Bool[Flags, " G"]:
        """Which skip n-grams do, in the order of the table."""
        return (table.counts >= self.occurrences) & (table.probabilities >= self.probability)


@dataclass(frozen=True)
class Patterns:
    """P patterns that stand in enough contexts, and their O occurrences; patterns nest, so one prediction may belong to several.

    Args:
        kinds: names of the kinds.
        kind: [P] index into `kinds`.
        tokens: [P, N] token ids, the last one that which is predicted; -1 behind the end of a shorter pattern.
        within: [P] the pattern that this one narrows: an n-gram's last n - 1 tokens, B → C of a skip n-gram; -1 for a bigram.
        contexts: [P] in how many contexts each stands.
        occurrences: [O, 3] pattern, context, prediction (0 … T-2, of the token after it); ascending.
    """

    kinds: tuple[str, ...]
    kind: Int[Ints, " P"]
    tokens: Int[Ints, "P N"]
    within: Int[Ints, " P"]
    contexts: Int[Ints, " P"]
    occurrences: Int[Ints, "O 3"]

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def cells(self) -> Int[Ints, " O"]:
        """A number for the pattern and context of each occurrence, counted from 0 in their order."""
        return np.cumsum(np.any(np.diff(self.occurrences[:, :2], axis=0, prepend=-1) != 0, axis=1)) - 1

    def text(self, index: int, names: Sequence[str]) -> str:
        """One pattern for reading, given a string for every token: "a b → c", and "a … b → c" for a skip n-gram."""
        tokens = [names[int(token)] for token in self.tokens[index] if token >= 0]
        gap = " … " if self.kinds[self.kind[index]] == SKIP else " "
        return f"{gap.join(tokens[:-1])} → {tokens[-1]}"


def find_patterns(
    tokens: Int[Ints, "B T"],
    table: NgramTable,
    skips: SkipTable,
    contexts: int = 5,
    rules: PatternRules | None = None,
    counted: Bool[Flags, "B S"] | None = None,
) -> Patterns:
    """The n-grams (n = 2 … `table.longest`) and skip n-grams that pass the rules and stand in `contexts` contexts or more.

    `counted` leaves predictions out, [B, T-1]: without those that repeat a bigram of their context, say, what is memorised is not mixed up with
    what is copied. Raises RllcError where `contexts` is below 2, which has no error, where a context does not begin with BOS, and for tokens
    outside the vocabulary, and where the table has no bigrams.
    """
    if contexts < 2:
        raise RllcError(f"Patterns that stand in {contexts} contexts were asked for.", "Ask for 2 or more: one has no standard error.")
    rules = rules or PatternRules()
    use = np.ones((len(tokens), tokens.shape[1] - 1), bool) if counted is None else counted
    # One row of `gathered` for each kind: tokens and wider patterns [p], numbers of contexts [p], occurrences [o, 3].
    gathered: list[tuple[Ints, Ints, Ints, Ints]] = []
    size = 0
    places = {1: np.full(table.vocabulary, -1)}  # the pattern that each n-gram of a level is, or -1
    for n in range(2, table.longest + 1):
        ids = table.ids(tokens, n)[:, 1:]
        good = rules.ngrams(table, n)
        rows, columns = np.nonzero((ids >= 0) & use & np.append(good, False)[ids])
        kept, number, found = _often(np.stack([ids[rows, columns], rows, columns], 1), contexts)
        places[n] = np.full(len(good), -1)
        places[n][kept] = size + np.arange(len(kept))
        found[:, 0] = places[n][found[:, 0]]
        gathered.append((table.tokens_of(n)[kept], _wider(places, table.suffixes(n)[kept], n - 1, table), number, found))
        size += len(kept)
    which, rows, columns = skips.occurrences(tokens)
    take = use[rows, columns] & rules.skips(skips)[which]
    kept, number, found = _often(np.stack([which, rows, columns], 1)[take], contexts)
    found[:, 0] = size + np.searchsorted(kept, found[:, 0])
    bigrams = lookup(table.level(2).keys, skips.tokens[kept, 1] * table.vocabulary + skips.tokens[kept, 2])
    within = np.where(bigrams >= 0, places[2][bigrams], -1)
    gathered.append((skips.tokens[kept], within, number, found))
    words, wider, numbers, occurrences = zip(*gathered, strict=True)
    width = max(table.longest, 3)
    return Patterns(
        kinds=(*(f"{n}-gram" for n in range(2, table.longest + 1)), SKIP),
        kind=np.repeat(np.arange(len(words)), [len(some) for some in words]),
        tokens=np.concatenate([np.pad(some, ((0, 0), (0, width - some.shape[1])), constant_values=-1) for some in words]),
        within=np.concatenate(wider),
        contexts=np.concatenate(numbers),
        occurrences=np.concatenate(occurrences),
    )


def _wider(places: dict[int, Ints], ids: Ints, n: int, table: NgramTable) -> Ints:
    """The longest pattern that ends as each of these n-grams does, itself included; -1 where none."""
    found = places[n][ids]
    return found if n == 1 else np.where(found >= 0, found, _wider(places, table.suffixes(n)[ids], n - 1, table))


def _often(found: Ints, contexts: int) -> tuple[Ints, Ints, Ints]:
    """Of rows (pattern, context, prediction): patterns in enough contexts, ascending; in how many; and their rows, ascending."""
    found = found[np.lexsort(found.T[::-1])]
    fresh = np.any(np.diff(found[:, :2], axis=0, prepend=-1) != 0, axis=1)  # the first row of a pattern in a context
    patterns, number = np.unique(found[fresh, 0], return_counts=True)
    kept = patterns[number >= contexts]
    return kept, number[number >= contexts], found[np.isin(found[:, 0], kept)]

"""Where the n-grams and skip n-grams of the training text stand in some contexts. Numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.behaviour.ngrams import NgramTable
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

SKIP = "skip"  # the kind of a skip n-gram; an n-gram's is "2-gram", "3-gram", …


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
    least: int = 10,
    counted: Bool[Flags, "B S"] | None = None,
) -> Patterns:
    """The n-grams (n = 2 … `table.longest`, at least `least` times in the counted text) and skip n-grams that stand in `contexts` contexts or more.

    `counted` leaves predictions out, [B, T-1]: without those that repeat a bigram of their context, say, what is memorised is not mixed up with
    what is copied. Raises RllcError where `contexts` is below 2, which has no error, and for tokens outside the vocabulary.
    """
    if contexts < 2:
        raise RllcError(f"Patterns that stand in {contexts} contexts were asked for.", "Ask for 2 or more: one has no standard error.")
    use = np.ones((len(tokens), tokens.shape[1] - 1), bool) if counted is None else counted
    kinds, kind, words, within, seen, occurrences = [], [], [], [], [], []
    width, before, size = max(table.longest, 3), np.zeros(0, np.int64), 0
    bigrams = before
    for n in range(2, table.longest + 1):
        ids = table.ids(tokens, n)[:, 1:]
        rows, columns = np.nonzero((ids >= 0) & use)
        ids = ids[rows, columns]
        often = table.level(n).counts[ids] >= least
        kept, number, found = _often(np.stack([ids, rows, columns], 1)[often], contexts)
        place = np.full(len(table.level(n).keys), -1)
        place[kept] = size + np.arange(len(kept))
        within.append(before[table.suffixes(n)[kept]] if n > 2 else np.full(len(kept), -1))
        words.append(_padded(table.tokens_of(n)[kept], width))
        kinds.append(f"{n}-gram")
        kind.append(np.full(len(kept), n - 2))
        seen.append(number)
        found[:, 0] = place[found[:, 0]]
        occurrences.append(found)
        before, size = place, size + len(kept)
        bigrams = place if n == 2 else bigrams
    patterns, rows, columns = skips.occurrences(tokens)
    those = use[rows, columns]
    kept, number, found = _often(np.stack([patterns, rows, columns], 1)[those], contexts)
    if len(bigrams):
        pairs = skips.tokens[kept, 1] * table.vocabulary + skips.tokens[kept, 2]
        index = np.searchsorted(table.level(2).keys, pairs)
        known = index < len(bigrams)
        known[known] = table.level(2).keys[index[known]] == pairs[known]
        within.append(np.where(known, bigrams[np.where(known, index, 0)], -1))
    else:
        within.append(np.full(len(kept), -1))
    words.append(_padded(skips.tokens[kept], width))
    kinds.append(SKIP)
    kind.append(np.full(len(kept), len(kinds) - 1))
    seen.append(number)
    found[:, 0] = size + np.searchsorted(kept, found[:, 0])
    occurrences.append(found)
    return Patterns(
        tuple(kinds), np.concatenate(kind), np.concatenate(words), np.concatenate(within), np.concatenate(seen), np.concatenate(occurrences)
    )


def _often(found: Ints, contexts: int) -> tuple[Ints, Ints, Ints]:
    """Of rows (pattern, context, prediction): patterns in enough contexts, ascending; in how many; and their rows, ascending."""
    found = found[np.lexsort(found.T[::-1])]
    fresh = np.any(np.diff(found[:, :2], axis=0, prepend=-1) != 0, axis=1)  # the first row of a pattern in a context
    patterns, number = np.unique(found[fresh, 0], return_counts=True)
    kept = patterns[number >= contexts]
    return kept, number[number >= contexts], found[np.isin(found[:, 0], kept)]


def _padded(tokens: Ints, width: int) -> Ints:
    return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])), constant_values=-1)

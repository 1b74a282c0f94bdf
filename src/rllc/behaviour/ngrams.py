"""What the training text holds of n-grams: how often each occurs, and what follows it (METHOD 6). Numpy alone, streamed over the text.

A text is one or more stretches: flat arrays of token ids in which BOS opens every document. Contexts [B, T] are a stretch too, `tokens.reshape(-1)`,
as each begins with BOS. No n-gram holds a BOS, so none crosses from one document into the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Stretch = NDArray[Any]  # token ids of any integer kind, memory-mapped or not

# Tokens looked at together, and n-grams sorted together (128 MB): a larger text is gone through several times, each time for a share of its n-grams.
_CHUNK = 1 << 20
_KEYS = 1 << 24


@dataclass(frozen=True)
class Level:
    """The n-grams of one length n that are kept, G of them; 32 bytes each.

    Args:
        keys: [G] ascending: the first n - 1 tokens as an index into the level below, times the vocabulary, plus the last token.
        counts: [G] how often each occurs.
        mass: [G] the same, each stretch weighted to its share of the training data.
        followed: [G] the mass of those occurrences behind which a token of the same document stands.
    """

    keys: Ints
    counts: Ints
    mass: Floats
    followed: Floats


@dataclass(frozen=True)
class NgramTable:
    """Counts and empirical distributions of n-grams, n = 1 … `longest`.

    All unigrams (the whole vocabulary) and bigrams are kept; of longer ones those that occur at least `least` times. What is kept is counted
    exactly: the beginning and the end of a kept n-gram are kept too.
    """

    vocabulary: int
    bos: int
    least: int
    levels: tuple[Level, ...]

    @property
    def longest(self) -> int:
        """The longest n."""
        return len(self.levels)

    def level(self, n: int) -> Level:
        """The n-grams of length n. Raises RllcError where they were not counted."""
        if not 1 <= n <= self.longest:
            raise RllcError(f"n-grams of {n} tokens were asked for, and those of 1 to {self.longest} were counted.", "Count longer ones.")
        return self.levels[n - 1]

    def ids(self, tokens: Int[Ints, "*B T"], n: int) -> Int[Ints, "*B T"]:
        """Which n-gram ends at each token, as an index into `level(n)`; -1 where none that is kept does. Rows are separate texts.

        Raises RllcError for a token outside the vocabulary, and as `level` does.
        """
        self.level(n)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise RllcError(
                f"The text holds tokens from {tokens.min()} to {tokens.max()}, but its vocabulary has the ids 0 to {self.vocabulary - 1}.",
                "Give the vocabulary of the corpus.",
            )
        found = np.where(tokens == self.bos, -1, tokens)
        for level in self.levels[1:n]:
            found = lookup(level.keys, _extended(found, tokens, self.vocabulary, self.bos))
        return found

    def tokens_of(self, n: int) -> Int[Ints, "G {n}"]:
        """The tokens of every kept n-gram of length n, in the order of `level(n)`, which is lexicographic."""
        index = np.arange(len(self.level(n).keys))
        columns = []
        for level in reversed(self.levels[:n]):
            index, last = np.divmod(level.keys[index], self.vocabulary)
            columns.append(last)
        return np.stack(columns[::-1], 1)

    def prefixes(self, n: int) -> Int[Ints, " G"]:
        """The first n - 1 tokens of every kept n-gram, n ≥ 2, as an index into `level(n - 1)`."""
        self._of_two(n)
        return self.level(n).keys // self.vocabulary

    def suffixes(self, n: int) -> Int[Ints, " G"]:
        """The last n - 1 tokens of every kept n-gram, n ≥ 2, as an index into `level(n - 1)`."""
        self._of_two(n)
        last = self.level(n).keys % self.vocabulary
        return last if n == 2 else lookup(self.level(n - 1).keys, self.suffixes(n - 1)[self.prefixes(n)] * self.vocabulary + last)

    def probabilities(self, n: int) -> Float[Floats, " G"]:
        """The empirical probability of each n-gram's last token given the tokens before it; for n = 1, of the token."""
        level = self.level(n)
        if n == 1:
            return level.mass / level.mass.sum()
        followed = self.level(n - 1).followed[self.prefixes(n)]
        return np.divide(level.mass, followed, out=np.zeros(len(followed)), where=followed > 0)  # 0 where only stretches of no share have it

    def entropies(self, n: int) -> Float[Floats, " G"]:
        """Entropy in nats of the token behind each (n-1)-gram, n ≥ 2, in the order of `level(n - 1)`; NaN where nothing ever follows.

        Where continuations were too rare to be kept (n ≥ 3, `least` above 1), these count as one outcome, which makes it a lower bound.
        """
        p, prefixes, size = self.probabilities(n), self.prefixes(n), len(self.level(n - 1).keys)
        kept = np.bincount(prefixes, p, size)
        rest = np.maximum(1 - kept, 0)
        rest[rest < 1e-12] = 0  # rounding
        entropy = np.bincount(prefixes, _surprise(p), size) + _surprise(rest)
        return np.where(self.level(n - 1).followed > 0, entropy, np.nan)

    def entropy(self, n: int) -> float:
        """Entropy in nats of a token given the n - 1 before it, over the text: the best loss of who knows n-grams alone. See `entropies`."""
        if n == 1:
            return float(_surprise(self.probabilities(1)).sum())
        weight = self.level(n - 1).followed
        return float(np.nansum(self.entropies(n) * weight) / weight.sum())

    def _of_two(self, n: int) -> None:
        if n < 2:
            raise RllcError(f"An n-gram of {n} token has no part that is an n-gram too.", "Ask for n of 2 or more.")


def count_ngrams(
    stretches: Sequence[Stretch], longest: int, vocabulary: int, bos: int, least: int = 10, shares: Sequence[float | int] | None = None
) -> NgramTable:
    """Count the n-grams of a text, n = 1 … `longest`, keeping longer ones than bigrams that occur at least `least` times.

    `shares` are the stretches' shares of the training tokens, such as the weights of a mixture of domains; without them every token counts alike.
    Memory: about 500 MB and 32 bytes for each n-gram kept, whatever the length of the text.

    Raises RllcError where the text holds no token, or one outside the vocabulary, and where settings make no sense.
    """
    if longest < 1 or least < 1:
        raise RllcError(f"n-grams of up to {longest} tokens that occur {least} times or more were asked for.", "Use 1 or more for both.")
    if shares is not None and (len(shares) != len(stretches) or min(shares) < 0 or sum(shares) <= 0):
        raise RllcError(f"{len(stretches)} stretches of text have the shares {list(shares)}.", "Give each stretch a share of 0 or more.")
    sizes = np.array([len(stretch) - sum(np.count_nonzero(part == bos) for part in _parts(stretch)) for stretch in stretches])
    if not sizes.sum():
        raise RllcError("The text whose n-grams are to be counted holds no token but BOS.", "Give the training tokens of a corpus.")
    given = sizes if shares is None else np.array(shares)
    weights = np.where(sizes, given / np.maximum(sizes, 1), 0)
    weights = weights * sizes.sum() / (weights @ sizes)
    table = NgramTable(vocabulary, bos, least, ())
    for n in range(1, longest + 1):
        table = NgramTable(vocabulary, bos, least, (*table.levels, _count(table, stretches, weights, n, 1 if n < 3 else least)))
    return table


def _count(table: NgramTable, stretches: Sequence[Stretch], weights: Floats, n: int, least: int) -> Level:
    """The level of length n, given those below."""
    keys = np.arange(table.vocabulary) if n == 1 else _frequent(table, stretches, n, least)
    counts, mass, followed = np.zeros(len(keys), np.int64), np.zeros(len(keys)), np.zeros(len(keys))  # filled below
    grown = NgramTable(table.vocabulary, table.bos, table.least, (*table.levels, Level(keys, counts, mass, followed)))
    for stretch, weight in zip(stretches, weights, strict=True):
        for tokens, fresh in _chunks(stretch, n):
            ids = grown.ids(tokens, n)
            here = ids[fresh]
            found = np.bincount(here[here >= 0], minlength=len(keys))
            counts += found
            mass += weight * found
            # An occurrence is followed where it ends one token before a fresh one: each is met once, whatever the chunks.
            behind = ids[fresh.start - 1 : -1] if fresh.start else ids[:-1]
            behind = behind[tokens[len(tokens) - len(behind) :] != table.bos]
            followed += weight * np.bincount(behind[behind >= 0], minlength=len(keys))
    return Level(keys, counts, mass, followed)


def _frequent(table: NgramTable, stretches: Sequence[Stretch], n: int, least: int) -> Ints:
    """Keys [G] of the n-grams that occur at least `least` times, ascending."""
    passes = max(1, -(-sum(map(len, stretches)) // _KEYS))
    kept = []
    for lot in range(passes):
        gathered = []
        for stretch in stretches:
            for tokens, fresh in _chunks(stretch, n):
                keys = _extended(table.ids(tokens, n - 1), tokens, table.vocabulary, table.bos)[fresh]
                gathered.append(keys[(keys >= 0) & (keys % passes == lot)])
        keys = np.concatenate(gathered)
        del gathered
        keys.sort()
        edges = np.flatnonzero(np.diff(keys, prepend=-1, append=-1))
        kept.append(keys[edges[:-1]][np.diff(edges) >= least] if len(keys) else keys)
    return np.sort(np.concatenate(kept))


def _chunks(stretch: Stretch, n: int) -> Iterator[tuple[Ints, slice]]:
    """Pieces of a stretch, and which of their tokens are fresh: before those stand as many as an n-gram that ends there needs, and one more."""
    for start in range(0, len(stretch), _CHUNK):
        before = min(start, n)
        yield np.asarray(stretch[start - before : start + _CHUNK]).astype(np.int64), slice(before, None)


def _parts(stretch: Stretch) -> Iterator[Stretch]:
    for start in range(0, len(stretch), _CHUNK):
        yield stretch[start : start + _CHUNK]


def _extended(ids: Ints, tokens: Ints, vocabulary: int, bos: int) -> Ints:
    """Keys of the n-grams that end at each token, given the (n-1)-grams that do; -1 where there is none."""
    keys = np.full(tokens.shape, -1)
    before, last = ids[..., :-1], tokens[..., 1:]
    keys[..., 1:] = np.where((before >= 0) & (last != bos), before * vocabulary + last, -1)
    return keys


def lookup(keys: Int[Ints, " G"], wanted: Int[Ints, "*N"]) -> Int[Ints, "*N"]:
    """Where each wanted key stands among the ascending keys; -1 where it does not."""
    if not len(keys):
        return np.full(wanted.shape, -1)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def _surprise(p: Floats) -> Floats:
    """-p ln p, and 0 at 0."""
    return -p * np.log(np.where(p > 0, p, 1))

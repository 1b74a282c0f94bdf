"""Skip n-grams of the training text, A … B → C: a token A some way before B makes C likelier than B alone does (METHOD 6). Numpy alone.

An occurrence of (A, B, C) is a token C with B right before it, and A at least once 2 to `window` tokens before B, all in one document: present
or not, however often. A right before B would make a plain trigram. A = C is left out: the token has stood there before, so that is copying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rllc.behaviour.ngrams import Stretch, lookup
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Tokens looked at together, and triples held together before equal ones are merged (256 MB with their counts).
_CHUNK = 1 << 18
_KEYS = 1 << 24


@dataclass(frozen=True)
class SkipTable:
    """The skip n-grams of a text that meet the criterion, G of them, by B, then C, then A.

    Args:
        tokens: [G, 3] A, B, C.
        counts: [G] occurrences.
        probabilities: [G] of C behind B where A is present.
        information: [G] nats: ln of that over the probability of C behind B anywhere.
        tested: how many triples occurred often enough to be tested.
    """

    vocabulary: int
    bos: int
    window: int
    tokens: Int[Ints, "G 3"]
    counts: Int[Ints, " G"]
    probabilities: Float[Floats, " G"]
    information: Float[Floats, " G"]
    tested: int

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def keys(self) -> Ints:
        """[G] ascending."""
        a, b, c = self.tokens.T
        return (b * self.vocabulary + c) * self.vocabulary + a

    def occurrences(self, tokens: Int[Ints, "B T"]) -> tuple[Int[Ints, " O"], Int[Ints, " O"], Int[Ints, " O"]]:
        """Which skip n-grams (index into the table) end in which context at which prediction (0 … T-2, of the token after it), sorted.

        Contexts begin with BOS. Raises RllcError where one does not.
        """
        if not (tokens[:, 0] == self.bos).all():
            raise RllcError("Skip n-grams were looked for in contexts that do not all begin with BOS.", "Give contexts of the corpus.")
        flat = tokens.reshape(-1)
        pairs = np.unique(self.keys // self.vocabulary)
        at = _ends(flat, self.bos)
        at = at[lookup(pairs, flat[at - 1] * self.vocabulary + flat[at]) >= 0]
        found, where = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for end, before in _present(flat, at, self.bos, self.window):
            hit = lookup(self.keys, (flat[end - 1] * self.vocabulary + flat[end]) * self.vocabulary + flat[before])
            found.append(hit[hit >= 0])
            where.append(end[hit >= 0])
        patterns, ends = np.concatenate(found), np.concatenate(where)
        order = np.lexsort((ends, patterns))
        rows, columns = np.divmod(ends[order], tokens.shape[1])
        return patterns[order], rows, columns - 1


def count_skips(
    stretches: Sequence[Stretch], vocabulary: int, bos: int, window: int = 16, least: int = 10, information: float = 1.0, chance: float = 0.05
) -> SkipTable:
    """The skip n-grams A … B → C of a text.

    One is kept where (1) it occurs at least `least` times; (2) ln p(C | A … B) / p(C | B) ≥ `information` nats; (3) so many occurrences are no
    chance: the binomial upper tail, with p(C | B) a trial, is at most `chance` divided by the number of triples tested (Bonferroni). Occurrences
    are taken as independent in (3), which a text that repeats itself within a document is not: a planted repetition finds its way in.

    Time grows as tokens × window (some 100 ns each), memory does not grow with the text but holds all triples of its most frequent last token B.
    Raises RllcError where settings make no sense, and for a token outside the vocabulary.
    """
    if window < 2 or least < 1 or not 0 < chance < 1:
        raise RllcError(
            f"Skip n-grams over a window of {window} tokens, {least} occurrences, at a chance of {chance} were asked for.",
            "Use a window of 2 or more, 1 occurrence or more, and a chance between 0 and 1.",
        )
    frequency = np.zeros(vocabulary, np.int64)
    for stretch in stretches:
        for start in range(0, len(stretch), _CHUNK):
            part = np.asarray(stretch[start : start + _CHUNK])
            if part.max() >= vocabulary or part.min() < 0:
                raise RllcError(
                    f"The text holds tokens up to {part.max()}, but its vocabulary has {vocabulary}.", "Give the vocabulary of the corpus."
                )
            frequency += np.bincount(part, minlength=vocabulary)
    frequency[bos] = 0
    lots = np.cumsum(frequency * window) // _KEYS
    tested, kept = 0, []
    for lot in np.unique(lots[frequency > 0]):
        keys, counts = _triples(stretches, vocabulary, bos, window, lots == lot)
        met, candidates = _informative(keys, counts, vocabulary, bos, least, information)
        tested += candidates
        kept.append(met)
    rows = np.concatenate(kept, 1) if kept else np.zeros((5, 0))
    rows = rows[:, rows[4] * max(tested, 1) <= chance]
    keys, counts = rows[:2].astype(np.int64)
    pair, a = np.divmod(keys, vocabulary)
    tokens = np.stack([a, *np.divmod(pair, vocabulary)], 1)
    return SkipTable(vocabulary, bos, window, tokens, counts, rows[2], rows[3], tested)


def _informative(keys: Ints, counts: Ints, vocabulary: int, bos: int, least: int, information: float) -> tuple[Floats, int]:
    """Of the triples that meet the first two conditions: keys, counts, probabilities, information, chances [5, G]; and how many meet the first."""
    pair, a = np.divmod(keys, vocabulary)
    b, c = np.divmod(pair, vocabulary)
    alone = a == bos  # BOS is never an A: its places hold how often C stands behind B at all
    behind = np.bincount(b[alone], counts[alone], vocabulary)  # [V] tokens behind B
    (present, which), plain = np.unique(b * vocabulary + a, return_inverse=True), pair[alone]
    with_a = np.bincount(which, counts, len(present))[which]  # tokens behind B where A is present
    take = (counts >= least) & ~alone & (a != c)
    rate = counts[alone][np.searchsorted(plain, pair[take])] / behind[b[take]]
    probability = counts[take] / with_a[take]
    gain = np.log(probability / rate)
    chance = stats.binom.sf(counts[take] - 1, with_a[take], rate)
    rows = np.stack([keys[take].astype(float), counts[take], probability, gain, chance])
    return rows[:, gain >= information], int(take.sum())


def _triples(stretches: Sequence[Stretch], vocabulary: int, bos: int, window: int, last: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Keys (B, C, A) of all triples whose B is one of `last` [V], ascending, and their counts; with A = BOS, of the pairs B, C."""
    held: list[tuple[Ints, Ints]] = []
    size = 0
    for stretch in stretches:
        for start in range(0, len(stretch), _CHUNK):
            before = min(start, window + 2)
            tokens = np.asarray(stretch[start - before : start + _CHUNK]).astype(np.int64)
            at = _ends(tokens, bos)
            at = at[(at >= before) & last[tokens[at - 1]]]
            pairs = tokens[at - 1] * vocabulary + tokens[at]
            gathered = [pairs * vocabulary + bos]
            for end, there in _present(tokens, at, bos, window):
                gathered.append((tokens[end - 1] * vocabulary + tokens[end]) * vocabulary + tokens[there])
            held.append(np.unique(np.concatenate(gathered), return_counts=True))
            size += len(held[-1][0])
            if size > _KEYS:
                held = [_merged(held)]
                size = len(held[0][0])
    return _merged(held)


def _merged(held: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    keys, which = np.unique(np.concatenate([k for k, _ in held]), return_inverse=True)
    return keys, np.bincount(which, np.concatenate([c for _, c in held]), len(keys)).astype(np.int64)


def _ends(tokens: Ints, bos: int) -> Ints:
    """Places of the tokens that another token of their document precedes."""
    return 1 + np.flatnonzero((tokens[1:] != bos) & (tokens[:-1] != bos))


def _present(tokens: Ints, at: Ints, bos: int, window: int) -> Iterator[tuple[Ints, Ints]]:
    """For the tokens at `at`: their places, and the place of every other token present 2 to `window` before the token before; each token once."""
    document = np.cumsum(tokens == bos)
    order = np.argsort(tokens, kind="stable")
    again = np.full(len(tokens), len(tokens))  # the next place with the same token
    same = tokens[order[1:]] == tokens[order[:-1]]
    again[order[:-1][same]] = order[1:][same]
    for distance in range(2, window + 1):
        end = at[at - 1 - distance >= 0]
        there = end - 1 - distance
        # of several equal tokens in reach the last counts
        good = (document[there] == document[end]) & (tokens[there] != bos) & (again[there] >= end - 2)
        yield end[good], there[good]

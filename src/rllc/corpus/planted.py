"""Planted domains: sequences whose structure is known exactly, as pure functions of a generator. All are vectorised over documents.

Echo teaches induction and nothing else; brackets (Dyck words) need a memory of what is open; a Markov table has a known best loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.corpus.tokens import Domain, Ints

if TYPE_CHECKING:
    from jaxtyping import Int

Pairs = Sequence[tuple[int, int]]


def echo(
    rng: np.random.Generator, n: int, length: int, segment: tuple[int, int], alphabet: Int[Ints, " A"]
) -> tuple[Int[Ints, "B T"], Int[Ints, " B"]]:
    """Documents that repeat one random segment: token t equals token t - p, p the length of the document's segment.

    Segments are i.i.d. uniform over `alphabet`, their lengths uniform over `segment`, both ends included.

    Returns:
        tokens [n, length] and segment lengths [n]
    """
    low, high = segment
    lengths = rng.integers(low, high + 1, size=n)
    segments = alphabet[rng.integers(0, len(alphabet), size=(n, high))]
    return np.take_along_axis(segments, np.arange(length)[None, :] % lengths[:, None], axis=1), lengths


def is_echo(tokens: Sequence[int] | Ints, period: int) -> bool:
    """Whether every token equals the one `period` places before it.

    >>> is_echo([5, 7, 5, 7, 5], 2), is_echo([5, 7, 5, 5], 2)
    (True, False)
    """
    row = np.asarray(tokens)
    return bool(np.array_equal(row[period:], row[:-period]))


def repeated_segments(
    rng: np.random.Generator, n: int, segment: int, repeats: int, vocabulary: int, bos: int, context: int | None = None
) -> Int[Ints, "B T"]:
    """The probe of prefix matching (METHOD 6): BOS, then a random segment `repeats` times [n, 1 + segment * repeats].

    Tokens are uniform over the vocabulary without `bos`; rows are cut to `context` tokens where given.
    """
    alphabet = np.delete(np.arange(vocabulary), bos)
    rows = np.tile(alphabet[rng.integers(0, len(alphabet), size=(n, segment))], (1, repeats))
    return np.concatenate([np.full((n, 1), bos), rows], axis=1)[:, :context]


def brackets(rng: np.random.Generator, n: int, length: int, pairs: Pairs) -> Int[Ints, "{n} {length}"]:
    """Dyck words over the given (opening, closing) ids [n, length], `length` even; every word is equally likely.

    From depth h with r brackets to come, (h + 2)(r - h) / 2r(h + 1) of the words that end balanced go up (ballot numbers).
    """
    if length % 2:
        raise ValueError(f"a Dyck word has an even length, not {length}")
    opening, closing = (np.array(ids, dtype=np.int64) for ids in zip(*pairs, strict=True))
    out = np.empty((n, length), dtype=np.int64)
    open_kinds = np.zeros((n, length // 2 + 1), dtype=np.int64)
    depth = np.zeros(n, dtype=np.int64)
    rows = np.arange(n)
    for t in range(length):
        remaining = length - t
        up = rng.random(n) * (2 * remaining * (depth + 1)) < (depth + 2) * (remaining - depth)
        kind = rng.integers(0, len(pairs), size=n)
        open_kinds[rows[up], depth[up]] = kind[up]
        depth += np.where(up, 1, -1)
        out[:, t] = np.where(up, opening[kind], closing[open_kinds[rows, np.maximum(depth, 0)]])
    return out


def is_dyck(tokens: Sequence[int] | Ints, pairs: Pairs, prefix: bool = False) -> bool:
    """Whether a row is a Dyck word over the pairs, or with `prefix` the beginning of one.

    >>> is_dyck([1, 3, 4, 2], [(1, 2), (3, 4)]), is_dyck([1, 3, 2, 4], [(1, 2), (3, 4)]), is_dyck([1], [(1, 2)], prefix=True)
    (True, False, True)
    """
    closes = dict(pairs)
    expected: list[int] = []
    for token in np.asarray(tokens).tolist():
        if token in closes:
            expected.append(closes[token])
        elif not expected or expected.pop() != token:
            return False
    return prefix or not expected


@dataclass(frozen=True)
class MarkovTable:
    """A known n-gram law: `probabilities[a, …, b, c]` is that of state c after the states a, …, b; state s is token `tokens[s]`."""

    tokens: Ints
    probabilities: NDArray[np.float64]

    @property
    def order(self) -> int:
        """How many preceding tokens the next one depends on."""
        return self.probabilities.ndim - 1

    def entropy_rate(self) -> float:
        """The loss of a model that knows the table, in nats per token, once the uniform beginning is forgotten: no model does better."""
        p = self.probabilities
        law = np.full(p.shape[:-1], 1.0 / p[..., 0].size)
        for _ in range(1_000):
            following = (law[..., None] * p).sum(axis=0)
            if np.abs(following - law).max() < 1e-14:
                break
            law = following
        surprise = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0).sum(axis=-1)
        return float((law * surprise).sum())


def markov_table(rng: np.random.Generator, alphabet: Int[Ints, " A"], states: int, order: int, concentration: float) -> MarkovTable:
    """A random table: `states` different tokens of the alphabet, each row Dirichlet with this concentration."""
    if states > len(alphabet):
        raise RllcError(f"A Markov table over {states} tokens does not fit a vocabulary of {len(alphabet)} usable ones.", "Lower `states`.")
    chosen = np.sort(rng.choice(alphabet, size=states, replace=False))
    weights = rng.standard_gamma(concentration, size=(states,) * (order + 1))
    weights += np.finfo(float).tiny  # at small concentrations a whole row may round to zero
    return MarkovTable(chosen, weights / weights.sum(axis=-1, keepdims=True))


def markov(rng: np.random.Generator, n: int, length: int, table: MarkovTable) -> Int[Ints, "{n} {length}"]:
    """Sequences of the table [n, length]; the first `order` tokens are uniform over its states."""
    states, order = len(table.tokens), table.order
    cumulative = table.probabilities.reshape(-1, states).cumsum(axis=1)
    cumulative[:, -1] = 1.0  # against rounding
    out = np.empty((n, length), dtype=np.int64)
    out[:, :order] = rng.integers(0, states, size=(n, min(order, length)))
    history = np.zeros(n, dtype=np.int64)
    for t in range(length):
        if t >= order:
            out[:, t] = (rng.random(n)[:, None] >= cumulative[history]).sum(axis=1)
        history = (history * states + out[:, t]) % states**order
    return table.tokens[out]


def markov_law(domain: Domain) -> MarkovTable:
    """The table that a built `markov` domain was drawn from. Raises RllcError for any other domain."""
    if domain.table is None:
        raise RllcError(f"The domain {domain.name!r} was not drawn from a Markov table.", "Ask a domain of kind markov.")
    return MarkovTable(np.array(domain.structure["tokens"], dtype=np.int64), domain.table)

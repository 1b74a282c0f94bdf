"""Refined data for a notebook: some contexts, some predictions, another model in place of the labels, mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool
from rllc.corpus.shuffled import shuffled
from rllc.model.batch import TokenBatch, counted, whole_or_counted
from rllc.runs.reference import Reference

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Refined:
    """Data of which not everything counts: a data distribution q' of its own (METHOD 1), for language models on either road.

    Args:
        data: token ids, texts or a data set, as `rllc.estimate` takes them, a mapping of `input_ids` and `attention_mask`, or a `Mixed`.
        positions: from token ids [n, T] to the tokens [n, T] whose prediction counts; None for all. The first of a row is predicted by nothing.
        contexts: from token ids [n, T] to the rows [n] that belong; None for all. Rows of which nothing counts never do.
        shuffled: the tokens of every row in random order behind its first, a control that keeps how often each occurs and nothing else; each row has
            one order, which follows from the seed of the call. The functions above see that order.
        reference: a model whose distribution of the next token takes the place of the labels: an object with `shape` and `params`, or a torch module.

    >>> Refined([[1, 2, 3]], positions=lambda ids: ids == 3).reference is None
    True
    """

    data: Any
    positions: Callable[[Ids], Any] | None = None
    contexts: Callable[[Ids], Any] | None = None
    reference: Any = None
    shuffled: bool = False


@dataclass(frozen=True)
class Mixed:
    """Several kinds of data as one: each context of a minibatch is drawn from one of them, with a chance in proportion to its weight.

    Args:
        data: by name, each as `rllc.estimate` takes it, `Refined` too where it has no reference of its own.
        weights: by the same names, above 0; equal ones unless given.

    >>> Mixed({"code": [[1, 2]], "prose": [[3, 4]]}, {"code": 3, "prose": 1}).shares
    {'code': 0.75, 'prose': 0.25}
    """

    data: Mapping[str, Any]
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not self.data:
            raise RllcError("A mixture of no data has nothing to draw from.", "Give data by name.")
        given = {} if self.weights is None else dict(self.weights)
        if self.weights is not None and set(given) != set(self.data):
            problem = f"The weights are of {', '.join(map(str, given)) or 'nothing'} and the data of {', '.join(map(str, self.data))}."
            raise RllcError(problem, "Give one weight to each.")
        if wrong := [name for name, weight in given.items() if not 0 < weight < math.inf]:
            raise RllcError(f"The weight of {wrong[0]!r} is {given[wrong[0]]}.", "Give a number above 0, or leave the data out.")

    @property
    def shares(self) -> dict[str, float]:
        """Weights that add up to 1."""
        weights = self.weights or dict.fromkeys(self.data, 1.0)
        return {name: weights[name] / sum(weights.values()) for name in self.data}


class Drawn(Protocol):
    """What contexts are drawn from, with the tokens whose prediction counts."""

    def rows(self, rng: np.random.Generator, n: int) -> tuple[Ids, Flags]:
        """`n` contexts [n, T], i.i.d. with replacement, and what of them counts [n, T]."""
        ...


@dataclass(frozen=True)
class MarkedRows:
    """Contexts [n, T] with the tokens whose prediction counts [n, T]."""

    tokens: Ids
    marked: Flags

    def rows(self, rng: np.random.Generator, n: int) -> tuple[Ids, Flags]:
        """`n` of them."""
        index = rng.integers(len(self.tokens), size=n)
        return self.tokens[index], self.marked[index]


@dataclass(frozen=True)
class PooledRows:
    """Contexts of a corpus, of which everything counts but a BOS behind the first token."""

    pool: ContextPool

    def rows(self, rng: np.random.Generator, n: int) -> tuple[Ids, Flags]:
        """`n` of them."""
        tokens = self.pool.draw(rng, n)
        return tokens, self.pool.marked(tokens)


@dataclass(frozen=True)
class MixedRows:
    """Contexts of several kinds, each with its chance."""

    pools: Sequence[Drawn]
    shares: Sequence[float]

    def rows(self, rng: np.random.Generator, n: int) -> tuple[Ids, Flags]:
        """`n` in all; how many of each is a draw of its own, so that they are independent of each other."""
        found = [pool.rows(rng, int(k)) for pool, k in zip(self.pools, rng.multinomial(n, self.shares), strict=True) if k]
        return np.concatenate([tokens for tokens, _ in found]), np.concatenate([marked for _, marked in found])


@dataclass(frozen=True)
class PoolBatches:
    """Minibatches of a corpus as the road of the model takes them, the same that a run on it has."""

    contexts: ContextPool
    native: bool

    def draw(self, rng: np.random.Generator, n: int) -> Any:
        """A minibatch of n contexts: their ids alone where none of them holds a BOS but at its beginning."""
        tokens = self.contexts.draw(rng, n)
        batch = whole_or_counted(torch.from_numpy(tokens), torch.from_numpy(self.contexts.marked(tokens)))
        return batch if self.native or isinstance(batch, Tensor) else as_mapping(batch)


@dataclass(frozen=True)
class RefinedBatches:
    """Minibatches of contexts of which not everything counts, as the road of the model takes them.

    The general road gets a mapping: `input_ids` [B, T], and as a `TokenBatch` has them the `rows` [n] that count and perhaps a `reference` [n, V].
    """

    contexts: Drawn
    reference: Reference | None
    native: bool

    def draw(self, rng: np.random.Generator, n: int) -> Any:
        """A minibatch of n contexts."""
        tokens, marked = (torch.from_numpy(array) for array in self.contexts.rows(rng, n))
        batch = counted(tokens, marked)
        if self.reference is not None:
            batch = self.reference.against(batch)
        return batch if self.native else as_mapping(batch)


def as_mapping(batch: TokenBatch) -> dict[str, Tensor]:
    """A batch as the general road takes it."""
    told: dict[str, Tensor | None] = {"input_ids": batch.tokens, "rows": batch.rows, "reference": batch.reference}
    return {name: value for name, value in told.items() if value is not None}


def marked_rows(tokens: Ids, real: Flags, refined: Refined | None, seed: int = 0) -> MarkedRows:
    """The contexts that belong, with what counts; `seed` is that of their order, where it is random.

    Raises RllcError where a function answers in another shape, or nothing is left.
    """
    if refined is not None and refined.shuffled:
        tokens = shuffled(tokens, seed, real=real)
    marked = real.copy()
    held = np.ones(len(tokens), dtype=bool)
    if refined is not None and refined.positions is not None:
        marked &= _answer("positions", refined.positions, tokens, tokens.shape)
    if refined is not None and refined.contexts is not None:
        held &= _answer("contexts", refined.contexts, tokens, (len(tokens),))
    held &= marked[:, 1:].any(1)
    if not held.any():
        raise RllcError(f"Of {len(tokens)} contexts none belongs to the refinement.", "Give it wider conditions, or more text.")
    return MarkedRows(tokens[held], marked[held])


def _answer(name: str, ask: Callable[[Ids], Any], tokens: Ids, shape: tuple[int, ...]) -> Flags:
    found = np.asarray(ask(tokens))
    if found.shape != shape or found.dtype != np.bool_:
        raise RllcError(
            f"{name} answered with {list(found.shape)} of {found.dtype}, but should give {list(shape)} of bool.",
            "Compare ids with numpy, for example.",
        )
    return found

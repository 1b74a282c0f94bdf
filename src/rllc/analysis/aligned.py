"""Errors of differences of λ̂ from what the cells share: minibatches, and the noise of their chains (METHOD 2, Error).

Of every cell the means of its chains and of its batches of draws are enough: both are linear, so that those of a difference are differences of those,
and whatever the cells share cancels before an error is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.errors import in_common, joined
from rllc.analysis.findings import Curves, Floats


@dataclass(frozen=True)
class Aligned:
    """λ̂ of the single chains and of the batches of draws of each cell on one kind of data, NaN where a cell has other draws than the rest.

    The same place along the last axis is the same chain or the same draws; those of one kind of data are on the same minibatches.
    """

    parts: tuple[str, ...]  # P
    steps: NDArray[np.int64]  # [S]
    chains: Floats  # [P, S, C]
    batches: Floats  # [P, S, B], averaged over chains


@dataclass(frozen=True)
class Cells:
    """Errors of some numbers [...], with what it takes to have those of their differences; see `cells`."""

    stderr: Floats  # [...]
    df: Floats  # [...]
    chains: Floats  # [..., C]; C is 0 where nothing is known of single chains
    batches: Floats  # [..., B]

    def __getitem__(self, at: int | slice | Sequence[int]) -> Cells:
        """Those at some places of the first axis."""
        return Cells(self.stderr[at], self.df[at], self.chains[at], self.batches[at])

    def __neg__(self) -> Cells:
        """Those of the numbers' negatives."""
        return replace(self, chains=-self.chains, batches=-self.batches)

    @property
    def one(self) -> tuple[float, float]:
        """The error and its degrees of freedom, where it is that of a single number. Raises ValueError for several."""
        return self.stderr.item(), self.df.item()


def cells(curves: Curves, aligned: Mapping[str, Aligned], parts: Sequence[str], steps: NDArray[np.int64] | None = None) -> Cells:
    """Errors [N, S] of these parts at these checkpoints, all of the curves unless given. Raises ValueError for a part that is not there."""
    wanted = curves.steps if steps is None else steps
    rows, columns = [curves.parts.index(part) for part in parts], np.searchsorted(curves.steps, wanted)
    stderr, df = curves.stderr[rows][:, columns], curves.freedom[rows][:, columns]
    known = aligned.get(curves.data)
    nothing = np.empty((*stderr.shape, 0))
    if known is None or not set(parts) <= set(known.parts) or not np.isin(wanted, known.steps).all():
        return Cells(stderr, df, nothing, nothing)
    rows, columns = [known.parts.index(part) for part in parts], np.searchsorted(known.steps, wanted)
    return Cells(stderr, df, known.chains[rows][:, columns], known.batches[rows][:, columns])


def error_of(chains: Floats, batches: Floats) -> Cells:
    """The error of a mean from its means of chains [..., C] and of batches [..., B]: the larger of both (METHOD 2, Error)."""
    first, second = _spread(chains), _spread(batches)
    return _larger(first, second, second, chains, batches)


def difference(one: Cells, other: Cells, *, shared_noise: bool = True) -> Cells:
    """Errors of the differences of numbers [...]: from aligned chains and batches where both have them, otherwise as of independent numbers.

    With the noise of chains shared (one part at two checkpoints or on two kinds of data) the spread is that of the chains' differences; without
    (two parts) it is that of both, joined. True is never wrong, only less sharp.
    """
    chains, batches = (
        a - b if a.shape[-1] == b.shape[-1] else np.empty((*one.stderr.shape, 0))
        for a, b in ((one.chains, other.chains), (one.batches, other.batches))
    )
    apart = joined((one.stderr, one.df), (other.stderr, other.df))
    if min(chains.shape[-1], batches.shape[-1]) < 2:
        return Cells(*apart, np.empty((*apart[0].shape, 0)), np.empty((*apart[0].shape, 0)))
    spread = _spread(chains) if shared_noise else joined(_spread(one.chains), _spread(other.chains))
    return _larger(spread, _spread(batches), apart, chains, batches)


def mean(of: Cells) -> Cells:
    """Errors [...] of means over the first axis [N, ...]: from chains and batches where they are known, otherwise as of numbers with one noise."""
    common = in_common(of.stderr, of.df)
    chains, batches = of.chains.mean(axis=0), of.batches.mean(axis=0)
    if min(chains.shape[-1], batches.shape[-1]) < 2:
        return Cells(*common, chains, batches)
    return _larger(_spread(chains), _spread(batches), common, chains, batches)


def _spread(means: Floats) -> tuple[Floats, Floats]:
    """The error of the mean of independent means [..., N], and its degrees of freedom."""
    n = means.shape[-1]
    stderr: Floats = means.std(axis=-1, ddof=1) / np.sqrt(n)
    return stderr, np.full(stderr.shape, n - 1.0)


def _larger(spread: tuple[Floats, Floats], batch: tuple[Floats, Floats], otherwise: tuple[Floats, Floats], chains: Floats, batches: Floats) -> Cells:
    """The larger of both errors (METHOD 2, Error); the other where one of them is not known or both are zero."""
    first = spread[0] > batch[0]
    stderr, df = np.where(first, spread[0], batch[0]), np.where(first, spread[1], batch[1])
    known = np.isfinite(spread[0] + batch[0])
    return Cells(np.where(known, stderr, otherwise[0]), np.where(known, df, otherwise[1]), chains, batches)

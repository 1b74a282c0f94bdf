"""Which tokens carry λ̂: nβ (E ℓ_x(w) - ℓ_x(w*)) / n of every prediction x of a fixed probe set (METHOD 7), with its error, and no history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rllc.posterior.estimate import BATCH_MEANS
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Shares:
    """What every prediction of a probe set adds to λ̂ on that set, for P parts; dimensionless.

    The n predictions' shares add up to `nβ (E l(w) - l(w*))`, l the mean loss of the probe set. Behind them, as number n + 1, comes that sum, since
    its error is not to be had from theirs: they are evaluated at the same draws. So there are n + 1 columns.
    """

    chain_means: Float[Floats, "P chains columns"]  # over the draws of each chain
    sq_stderr: Float[Floats, "P columns"]  # by batch means of the chain-averaged series
    draws: int  # per chain

    @property
    def share(self) -> Float[Floats, "P n"]:
        """Of every prediction."""
        return self.chain_means.mean(1)[:, :-1]

    @property
    def stderr(self) -> Float[Floats, "P n"]:
        """Standard error of each share over chains and draws, as that of λ̂ is taken (METHOD 2)."""
        return self._stderr[:, :-1]

    @property
    def total(self) -> Float[Floats, " P"]:
        """The sum of the shares: λ̂ evaluated on the probe set."""
        return self.chain_means.mean(1)[:, -1]

    @property
    def total_stderr(self) -> Float[Floats, " P"]:
        """Standard error of the sum over chains and draws; which predictions the probe set holds is not in it."""
        return self._stderr[:, -1]

    @property
    def _stderr(self) -> Floats:
        chains = self.chain_means.shape[1]
        if chains == 1:
            return np.sqrt(self.sq_stderr)
        return np.sqrt(np.maximum(self.sq_stderr, self.chain_means.var(1, ddof=1) / chains))

    def part(self, index: int) -> Shares:
        """Those of one part, with P = 1."""
        return replace(self, chain_means=self.chain_means[index : index + 1], sq_stderr=self.sq_stderr[index : index + 1])


def joined_shares(pieces: Sequence[Shares]) -> Shares:
    """The shares over consecutive stretches of the same chains, each weighted by its draws."""
    if len(pieces) == 1:
        return pieces[0]
    draws = sum(piece.draws for piece in pieces)
    weights = [piece.draws / draws for piece in pieces]
    means = sum((w * piece.chain_means for w, piece in zip(weights, pieces, strict=True)), np.zeros_like(pieces[0].chain_means))
    squares = sum((w**2 * piece.sq_stderr for w, piece in zip(weights, pieces, strict=True)), np.zeros_like(pieces[0].sq_stderr))
    return Shares(means, squares, draws)


class ShareTally:
    """Adds up a stretch of draws as they come: sums of each chain, and mean and squared deviations of the batches that an error is taken from.

    Args:
        baseline: [P, n] loss of every prediction at w*, in nats, by the kernel that evaluates the draws.
        chains: of each part.
        nbeta: nβ.
        draws: that will be added; four at least.
    """

    def __init__(self, baseline: Float[Tensor, "P n"], chains: int, nbeta: float, draws: int) -> None:
        self._baseline, self._scale = baseline.double(), nbeta / baseline.shape[1]
        parts, columns = baseline.shape[0], baseline.shape[1] + 1
        self._draws, self._number = draws, min(BATCH_MEANS, draws // 2)
        self._length = draws // self._number
        self._sums = self._baseline.new_zeros(parts, chains, columns)
        self._batch, self._mean, self._squares = (self._baseline.new_zeros(parts, columns) for _ in range(3))
        self._added = self._batches = 0

    def add(self, losses: Float[Tensor, "C n"]) -> None:
        """The loss of every prediction at one draw of every chain, part-major."""
        above = losses.double().view(*self._sums.shape[:2], -1) - self._baseline[:, None]
        above = torch.cat([above, above.sum(-1, keepdim=True)], -1) * self._scale
        self._sums += above
        self._added += 1
        # As in `standard_error`, what does not fill a batch is left out at the beginning.
        if (place := self._added - (self._draws - self._number * self._length)) <= 0:
            return
        self._batch += above.mean(1)
        if place % self._length == 0:
            value = self._batch / self._length
            self._batches += 1
            before = value - self._mean
            self._mean += before / self._batches
            self._squares += before * (value - self._mean)
            self._batch.zero_()

    def result(self) -> Shares:
        """The shares so far. Raises ValueError where other than the promised draws were added."""
        if self._added != self._draws:
            raise ValueError(f"{self._added} draws were added, and {self._draws} promised")
        squares = self._squares / (self._number - 1) / self._number
        return Shares((self._sums / self._draws).cpu().numpy(), squares.cpu().numpy(), self._draws)

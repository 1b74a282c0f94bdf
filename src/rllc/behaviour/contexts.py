"""Contexts to measure on, and which of their predictions count: the one place where losses and effects of predictions are averaged. Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Contexts:
    """Token ids [B, T], each row starting with BOS, and the predictions that count [B, T-1]; prediction p is that of token p + 1.

    As in sampling nothing counts as a prediction of a BOS between packed documents, nor in the padding of a row with one document
    (`ContextPool.marked`), so that a measurement and λ̂ are of the same loss: the mean over all predictions that count.

    Raises RllcError where flags are of other tokens, or nothing counts.
    """

    tokens: Int[Ints, "B T"]
    counted: Bool[Flags, "B S"]

    def __post_init__(self) -> None:
        rows, length = self.tokens.shape
        if self.counted.shape != (rows, length - 1):
            raise RllcError(
                f"Contexts of the shape {(rows, length)} have {self.counted.shape} flags of what counts.",
                "Give a flag for each token but the first of a row.",
            )
        if self.counted.size and not self.counted.any():
            raise RllcError("No prediction of the contexts counts, so they have no loss.", "Give contexts with a token behind a BOS.")

    @property
    def lengths(self) -> Int[Ints, " B"]:
        """Tokens up to the last whose prediction counts; what stands behind is padding, or a BOS at the very end."""
        width = self.counted.shape[1]
        return np.where(self.counted.any(1), 1 + width - self.counted[:, ::-1].argmax(1), 1)

    def totals(self, values: Float[Floats, "*X B S"]) -> Float[Floats, "*X B"]:
        """Of a value a prediction, the sum over those of a context that count."""
        return np.sum(values, -1, where=self.counted)

    def mean(self, values: Float[Floats, "*X B S"]) -> tuple[Float[Floats, "*X"], Float[Floats, "*X"]]:
        """Of a value a prediction, the mean over all that count, and its standard error over contexts."""
        return ratio_and_stderr(self.totals(values), self.counted.sum(1).astype(np.float64))

    def by_position(self, values: Float[Floats, "B S"]) -> Float[Floats, " S"]:
        """The mean over contexts at each position; NaN where none counts."""
        number = self.counted.sum(0)
        return np.divide(np.sum(values, 0, where=self.counted), number, out=np.full(len(number), np.nan), where=number > 0)


Given = Contexts | Ints  # where flags are not given, everything counts


def contexts_of(tokens: Contexts | Ints) -> Contexts:
    """Contexts with what counts of them; everything where only token ids [B, T] are given.

    Raises RllcError where these are no rows of two tokens or more.

    >>> contexts_of(np.zeros((2, 4), dtype=np.int64)).lengths.tolist()
    [4, 4]
    """
    if isinstance(tokens, Contexts):
        return tokens
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < 2:
        raise RllcError(f"The contexts have the shape {tokens.shape}.", "Give rows of token ids [B, T], BOS first.")
    return Contexts(tokens, np.ones((len(tokens), tokens.shape[1] - 1), dtype=bool))


def ratio_and_stderr(top: Float[Floats, "*X B"], bottom: Float[Floats, "*Y B"]) -> tuple[Floats, Floats]:
    """The sum of `top` over that of `bottom` over contexts, the last axis, and its standard error, of first order; NaN where the bottom is 0.

    Where the bottom is the same in every context this is the mean over contexts, and its error. One context has none: NaN.
    """
    total, n = bottom.sum(-1), bottom.shape[-1]
    ratio = np.divide(top.sum(-1), total, out=np.full(np.broadcast_shapes(top.shape[:-1], total.shape), np.nan), where=total != 0)
    if n < 2:
        return ratio, np.full_like(ratio, np.nan)
    left = top - np.nan_to_num(ratio)[..., None] * bottom
    stderr = np.sqrt(np.square(left).sum(-1) * n / (n - 1)) / np.where(total != 0, np.abs(total), np.nan)
    return ratio, np.asarray(stderr)

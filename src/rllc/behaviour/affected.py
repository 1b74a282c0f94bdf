"""Which predictions heads' ablations hurt most, and whether two heads hurt the same ones (METHOD 5, the multigram circuit). Numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def most_affected(
    effects: Float[Floats, "H B S"], counted: Bool[Flags, "B S"], most: int
) -> tuple[Int[Ints, "H {most}"], Int[Ints, "H {most}"], Float[Floats, "H {most}"]]:
    """Context, prediction and rise in nats of the `most` counted predictions whose loss each head's ablation raises most, largest first.

    Where fewer are counted, the last rows have a rise of -inf. A rise of 0 or less is none.
    """
    flat = np.where(counted, effects, -np.inf).reshape(len(effects), -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :most]
    order = np.pad(order, ((0, 0), (0, most - order.shape[1])), mode="edge")
    rises = np.take_along_axis(flat, order, 1)
    rises[:, flat.shape[1] :] = -np.inf
    context, place = np.divmod(order, counted.shape[1])
    return context, place, rises


def overlaps(effects: Float[Floats, "H B S"], counted: Bool[Flags, "B S"], fraction: float) -> Float[Floats, "H H"]:
    """Of two heads' most affected predictions, the share that is both's: twice those in common over the sum of both.

    NaN where no loss rises for one of them. A head's are the `fraction` of the counted predictions whose loss rises most, as far as it rises.
    Independent heads share about `fraction`. Raises RllcError where the fraction is none.
    """
    if not 0 < fraction <= 1:
        raise RllcError(f"The overlap of a share of {fraction} of all predictions was asked for.", "Give a number above 0 and up to 1.")
    flat = effects[:, counted]
    size = int(np.ceil(fraction * flat.shape[1] - 1e-9))
    order = np.argsort(-flat, axis=1, kind="stable")[:, :size]
    chosen = np.zeros(flat.shape, np.float64)
    np.put_along_axis(chosen, order, np.take_along_axis(flat, order, 1) > 0, 1)
    number = chosen.sum(1)
    both = (number[:, None] > 0) & (number[None] > 0)
    return np.divide(2 * chosen @ chosen.T, number[:, None] + number[None], out=np.full(both.shape, np.nan), where=both)


def correlations(effects: Float[Floats, "H B S"], counted: Bool[Flags, "B S"]) -> tuple[Float[Floats, "H H"], Float[Floats, "H H"]]:
    """Correlation over counted predictions of two heads' effects, and its standard error by leaving out one context after another.

    NaN where a head has no effect at all, or the same on every prediction. Raises RllcError where contexts are fewer than two.
    """
    if len(counted) < 2:
        raise RllcError("One context has no standard error.", "Give two contexts or more.")
    center = np.where(counted, effects, 0.0).sum((1, 2)) / max(counted.sum(), 1)
    kept = np.where(counted, effects - center[:, None, None], 0.0).swapaxes(0, 1)  # [B, H, S]
    number = counted.sum(1).astype(np.float64)  # [B]
    sums, products = kept.sum(2), kept @ kept.swapaxes(1, 2)  # [B, H], [B, H, H]
    whole = _correlation(number.sum()[None], sums.sum(0)[None], products.sum(0)[None])[0]
    left = _correlation(number.sum() - number, sums.sum(0) - sums, products.sum(0) - products)  # [B, H, H]
    n = len(counted)
    return whole, np.sqrt((n - 1) / n * np.square(left - left.mean(0)).sum(0))


def _correlation(number: Floats, sums: Floats, products: Floats) -> Floats:
    """From the number [B], sums [B, H] and products [B, H, H] of what is counted."""
    means = sums / number[:, None]
    covariance = products / number[:, None, None] - means[:, :, None] * means[:, None]
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    size = spread[:, :, None] * spread[:, None]
    return np.divide(covariance, size, out=np.full(covariance.shape, np.nan), where=size > 0)

"""Curves as the errors of their estimates allow them, and what is made of curves before heads are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.findings import Curves, Floats
from rllc.analysis.settings import Preprocessing, Time
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float


def redrawn(
    curves: Curves, count: int, generator: np.random.Generator, chains: Float[np.ndarray, "P S C"] | None = None
) -> Float[np.ndarray, "R P S"]:
    """`count` versions of every curve, drawn within the errors of its estimates; NaN where there is no estimate.

    Without `chains` each value gets a normal error of its standard error. With the estimates of the single chains the chains are drawn anew with
    replacement, widened by √(C/(C-1)) so that a mean of C keeps its variance, and what the standard error holds beyond the chains' spread (noise of
    batches, which chains share) is added as a normal error. The curves hold their noise once already, so what comes of redrawn curves errs on the
    side of doubt. Errors that heads share are treated as independent, which errs on the same side.

    Raises RllcError where `chains` is not [parts, steps, chains] or has fewer than two chains.
    """
    noise = generator.standard_normal((count, *curves.llc.shape))
    if chains is None:
        return curves.llc + curves.stderr * noise
    if chains.shape[:2] != curves.llc.shape or chains.shape[2] < 2:
        raise RllcError(
            f"The estimates of single chains have the shape {chains.shape}; these curves need {(*curves.llc.shape, 'C')} with at least C = 2.",
            "Give one estimate a part, checkpoint and chain, in the order of the curves.",
        )
    n = chains.shape[2]
    deviations = (chains - chains.mean(axis=2, keepdims=True)) * np.sqrt(n / (n - 1))
    picked = generator.integers(n, size=(count, *curves.llc.shape, n))
    of_chains = np.take_along_axis(deviations[None], picked, axis=3).mean(axis=3)
    rest = np.sqrt(np.maximum(curves.stderr**2 - chains.var(axis=2, ddof=1) / n, 0.0))
    return curves.llc + of_chains + rest * noise


def prepare(llc: Floats, preprocessing: Preprocessing, steps: NDArray[np.int64] | None = None, time: Time = "recorded") -> Floats:
    """Points [H, S] out of curves [H, S]: first on the asked-for time, then raw, standardised or stretched to 0..1.

    On "log" time a curve is read off, by straight lines between its checkpoints, at as many places evenly spaced in log(step + 1); "recorded" counts
    every checkpoint once, wherever it lies. A constant curve has no shape: it is zero throughout.
    """
    if time == "log":
        if steps is None:
            raise RllcError("Log time was asked for, but no steps were given.", "Give the checkpoints' steps.")
        x = np.log1p(steps.astype(np.float64))
        even: Floats = x[0] + (x[-1] - x[0]) * np.arange(len(x)) / (len(x) - 1)
        llc = np.array([np.interp(even, x, curve) for curve in llc], dtype=np.float64).reshape(llc.shape)
    if preprocessing == "raw":
        return llc
    if preprocessing == "standardised":
        origin, spread = llc.mean(axis=1, keepdims=True), llc.std(axis=1, keepdims=True)
    else:
        origin, spread = llc.min(axis=1, keepdims=True), np.ptp(llc, axis=1)[:, None]
    flat = spread <= 1e-12 * np.abs(llc).max(axis=1, keepdims=True)
    return np.where(flat, 0.0, (llc - origin) / np.where(flat, 1.0, spread))


def distinct(points: Floats) -> int:
    """How many points [H, S] differ by more than rounding."""
    largest = float(np.abs(points).max())
    return len({tuple(row) for row in np.round(points / largest, 9).tolist()}) if largest > 0 else 1

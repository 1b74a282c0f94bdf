"""Whether a series of draws has settled: R-hat, effective draws, drift, and the tests of older packages. numpy in, numbers out.

NaN stands where a number is not defined: too few draws, or a series without variance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from arviz_stats.base.array import array_stats
from numpy.typing import NDArray

from rllc.posterior.estimate import standard_error, t_quantile
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

_arviz: Any = array_stats  # its annotations are partial
_CRAMER_VON_MISES = 0.461  # upper 5 % point of ∫B² for a Brownian bridge B (Anderson & Darling 1952)


def telling(series: Floats, least: int) -> bool:
    """Finite, varying and long enough: arviz rates a constant chain 800 draws, and a chain with an inf R-hat 0.99989."""
    return series.shape[-1] >= least and bool(np.isfinite(series).all()) and bool(np.ptp(series) > 0)


def split_rhat(series: Float[Floats, " draws"]) -> float:
    """R-hat between the two halves of one series; NaN below 8 draws."""
    half = series.shape[-1] // 2
    halves = np.stack([series[:half], series[-half:]])
    if not telling(halves, 4) or not halves.std(axis=-1).any():
        return math.nan
    return float(_arviz.rhat(halves, method="identity"))


def rhat(series: Float[Floats, "chains draws"]) -> float:
    """Rank-normalised split R-hat between chains; NaN for one chain or fewer than 8 draws."""
    return float(_arviz.rhat(series, method="rank")) if series.shape[0] > 1 and telling(series, 8) else math.nan


def ess(series: Float[Floats, " draws"]) -> float:
    """Effective draws of one series for its mean; NaN below 8 draws."""
    return float(_arviz.ess(series[None], method="mean")) if telling(series, 8) else math.nan


def drift(series: Float[Floats, "P chains draws"], confidence: float) -> tuple[Float[Floats, " P"], Float[Floats, " P"]]:
    """Last third minus first third, and the reach of its two-sided interval; NaN below 12 draws.

    The thirds are subtracted draw by draw, so that the error is the same maximum as that of λ̂.
    """
    third = series.shape[-1] // 3
    if third < 4:
        nothing = np.full(series.shape[0], np.nan)
        return nothing, nothing
    difference = series[..., -third:] - series[..., :third]
    stderr, df = standard_error(difference)
    return difference.mean(axis=(-2, -1)), t_quantile(df, confidence) * stderr


def geweke(series: Float[Floats, " draws"]) -> float:
    """Z of the mean of the first tenth against that of the last half (Geweke 1992), errors from effective draws; NaN below 80 draws.

    Written down without a verdict: its first part is short, and at a few hundred draws its size is far from nominal.
    """
    first, last = series[: len(series) // 10], series[len(series) // 2 :]
    if not (telling(first, 8) and telling(last, 8)):
        return math.nan
    return float((first.mean() - last.mean()) / math.hypot(_error(first), _error(last)))


def heidelberger_welch(series: Float[Floats, " draws"]) -> tuple[float, float]:
    """What Heidelberger and Welch (1983) would leave out, and how precise the mean of the rest is; without a verdict.

    The bridge `B_k = (S_k - k mean)/√(n S(0))` of the series must pass the Cramér–von Mises test at 5 %; while it does not, a further
    tenth of the draws is left out, at most half. S(0) is taken from the second half, by effective draws.

    Returns:
        The share left out, NaN where even half was not enough or there are fewer than 16 draws; and the half width of the 95 %
        interval over the mean of the rest, which their test wants below 0.1.
    """
    half = series[len(series) // 2 :]
    if not (telling(series, 16) and telling(half, 8)):
        return math.nan, math.nan
    spectral = half.size * _error(half) ** 2
    for tenths in range(6):
        rest = series[len(series) * tenths // 10 :]
        bridge = (np.cumsum(rest) - np.arange(1, rest.size + 1) * rest.mean()) / math.sqrt(rest.size * spectral)
        if np.mean(bridge**2) < _CRAMER_VON_MISES:
            reach = 1.96 * _error(rest) / abs(rest.mean()) if telling(rest, 8) and rest.mean() else math.nan
            return tenths / 10, float(reach)
    return math.nan, math.nan


def raftery_lewis(series: Float[Floats, " draws"]) -> float:
    """How many times as many draws the median takes as independent draws would, burn-in included (Raftery and Lewis 1992); without a verdict.

    Whether a draw lies below the median is followed as a chain of two states, of every draw or of every second, third … one: the first thinning
    at which the draw before the last tells nothing more, by the BIC. From its two transition probabilities come the draws to leave out, until the
    state is forgotten to 0.001, and those for the median's rank to be known to 0.005 with 95 %. They have more than 5 inspected.

    NaN below 80 draws, or where a state is never left or entered in what thinning leaves.
    """
    if not telling(series, 80):
        return math.nan
    below = (series <= np.median(series)).astype(np.int64)
    thinning = next((k for k in range(1, len(below) // 20 + 1) if _first_order(below[::k])), 0)
    if not thinning:
        return math.nan
    counts = _transitions(below[::thinning], 2)
    if not (counts.sum(axis=1) > 0).all() or not counts[0, 1] or not counts[1, 0]:
        return math.nan
    up, down = counts[0, 1] / counts[0].sum(), counts[1, 0] / counts[1].sum()
    memory = abs(1 - up - down)
    forgotten = math.ceil(math.log(0.001 * (up + down) / max(up, down)) / math.log(memory)) if 0 < memory < 1 else 0
    independent = 0.25 * (1.96 / 0.005) ** 2
    wanted = up * down * (2 - up - down) / (up + down) ** 3 * (1.96 / 0.005) ** 2
    return thinning * (forgotten + wanted) / independent


def _first_order(states: NDArray[np.int64]) -> bool:
    """Whether three successive states are told by two, by the BIC of the second-order chain against the first."""
    seen = _transitions(states, 3).astype(np.float64)
    total = seen.sum(axis=(0, 2), keepdims=True)
    expected = seen.sum(axis=2, keepdims=True) * seen.sum(axis=0, keepdims=True) / np.where(total > 0, total, 1)
    found = seen > 0
    return bool(2 * np.sum(seen[found] * np.log(seen[found] / expected[found])) < 2 * math.log(len(states) - 2))


def _transitions(states: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """How often each word of so many successive states of a two-state chain occurs; [2, 2] or [2, 2, 2]."""
    words = np.lib.stride_tricks.sliding_window_view(states, length) @ 2 ** np.arange(length)[::-1]
    return np.bincount(words, minlength=2**length).reshape((2,) * length)


def _error(series: Float[Floats, " draws"]) -> float:
    return float(series.std(ddof=1) / math.sqrt(ess(series)))

"""Errors that are estimated from few chains: joined, drawn and turned into intervals by Student's t.

The standard error of λ̂ is itself an estimate, from batch means or from the spread of a few chains (METHOD 2, Error). Its degrees of freedom say how
rough it is: 7 for eight batches, 3 for four chains. A number over such an error is not normal, and the further out, the less so: with 3 degrees of
freedom 4 errors are passed at 3 % where a normal number passes them at 0.006 %. An error that is known has infinitely many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.special import digamma, ndtri, polygamma, stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from rllc.analysis.findings import Floats

CONFIDENCE = 0.95  # of every interval of λ̂ that is drawn
_FEWEST_TOLD = 4  # estimated errors, below which nothing is said of how errors are spread
_ALIKE = 1e6  # degrees of freedom of errors that do not differ by more than their estimates do


def quantile(share: float, df: ArrayLike | None = None) -> Floats:
    """What Student's t with these degrees of freedom [...] stays below with a probability of `share`; the normal's where they are infinite or None.

    >>> [round(float(quantile(0.975, df)), 3) for df in (3, 7, float("inf"))]
    [3.182, 2.365, 1.96]
    """
    freedom = np.asarray(np.inf if df is None else df, dtype=np.float64)
    few = np.isfinite(freedom)
    return np.asarray(np.where(few, stdtrit(np.where(few, freedom, 1.0), share), ndtri(share)), dtype=np.float64)


def reach(stderr: ArrayLike, df: ArrayLike | None = None, confidence: float = CONFIDENCE) -> Floats:
    """Half the width [...] of two-sided intervals of numbers with these errors."""
    return np.asarray(stderr, dtype=np.float64) * quantile((1 + confidence) / 2, df)


def as_normal(stderr: ArrayLike, df: ArrayLike | None = None) -> Floats:
    """Known errors [...] whose 95 % intervals are as wide, for what can take no other."""
    return reach(stderr, df) / quantile((1 + CONFIDENCE) / 2)


def moderated(stderr: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Errors [N] of alike numbers, each drawn towards what is usual among them as far as it is rough; and their degrees of freedom, which grow.

    A fit that weighs numbers by their errors runs after those whose error came out too small by luck: with 3 degrees of freedom one in thirteen is
    below two fifths of what it should be. Variances are taken to be spread as scaled inverse chi-square around a common s₀² with d₀ degrees of
    freedom, both from the mean and the variance of `log s²`, and each becomes `(d₀ s₀² + d s²)/(d₀ + d)` with d₀ + d degrees (Smyth 2004). Where they
    differ by more than that, d₀ is small and little is done. Known errors, zeros and fewer than four stay as they are.
    """
    rough = np.isfinite(df) & (stderr > 0)
    if rough.sum() < _FEWEST_TOLD:
        return stderr, df
    s, half = stderr[rough], df[rough] / 2
    logs = 2 * np.log(s) - _digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - _trigamma(half).mean())  # beyond what the estimates of equal errors would differ by
    alike = excess <= float(_trigamma(np.array(_ALIKE / 2)))
    prior = _ALIKE if alike else 2 * _inverse_trigamma(excess)
    usual = np.exp(logs.mean() + _digamma(np.array(prior / 2)) - np.log(prior / 2))
    found, freedom = np.array(stderr, np.float64), np.array(df, np.float64)
    found[rough] = np.sqrt((prior * usual + 2 * half * s**2) / (prior + 2 * half))
    freedom[rough] += prior
    return found, freedom


def _inverse_trigamma(trigamma: float) -> float:
    """Where the trigamma function has this value."""

    def beyond(x: float) -> float:
        return float(_trigamma(np.array(x))) - trigamma

    return float(brentq(beyond, 1e-6, _ALIKE / 2))  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def _digamma(x: Floats) -> Floats:
    return np.asarray(digamma(x), dtype=np.float64)


def _trigamma(x: Floats) -> Floats:
    return np.asarray(polygamma(1, x), dtype=np.float64)


def joined(*errors: tuple[ArrayLike, ArrayLike]) -> tuple[Floats, Floats]:
    """The error of a sum or difference of independent numbers, and its degrees of freedom by Welch and Satterthwaite.

    `s² = Σ s_i²` and `df = s⁴ / Σ (s_i⁴ / df_i)`. Where no number has an error, the degrees are the fewest of all.

    Args:
        errors: of each number, its standard error and degrees of freedom, of one shape.
    """
    flat = np.broadcast_arrays(*[np.asarray(value, dtype=np.float64) for pair in errors for value in pair])
    squares, freedom = np.stack(flat[::2]) ** 2, np.stack(flat[1::2])
    total = squares.sum(axis=0)
    share = squares / np.where(total > 0, total, 1.0)
    spread = (share**2 / freedom).sum(axis=0)
    fewest: Floats = freedom.min(axis=0)
    return np.sqrt(total), np.where(spread > 0, 1 / np.where(spread > 0, spread, 1.0), np.where(total > 0, np.inf, fewest))


def in_common(stderr: Floats, df: Floats) -> tuple[Floats, Floats]:
    """The error of a mean over the first axis [N, ...] of numbers that share their noise: the mean of the errors, and its degrees of freedom.

    Estimates of errors that share their noise err together, so that many of them know no more than one: the relative spread `√(1/2df)` of the mean
    is the mean of theirs, weighted by the errors.
    """
    total = stderr.sum(axis=0)
    rough = (stderr / np.sqrt(df)).sum(axis=0)
    return stderr.mean(axis=0), np.where(rough > 0, (total / np.where(rough > 0, rough, 1.0)) ** 2, np.where(total > 0, np.inf, df.min(axis=0)))


def noise(stderr: Floats, df: Floats, draws: int, generator: np.random.Generator) -> Floats:
    """Errors [draws, ...] of numbers whose standard errors [...] are estimates: Student's t times the error, the normal where it is known."""
    normal = generator.standard_normal((draws, *stderr.shape))
    few = np.isfinite(df)
    if not few.any():
        return stderr * normal
    freedom = np.where(few, df, 1.0)
    squares = generator.chisquare(freedom, size=normal.shape) / freedom
    return stderr * np.where(few, normal / np.sqrt(squares), normal)

"""Differences of two cells' λ̂ with errors of their own, and what many of them at once may claim (METHOD 2, Error)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtr  # pyright: ignore[reportMissingTypeStubs]

from rllc.posterior.estimate import series, standard_error, t_quantile
from rllc.posterior.traces import Floats, Traces

if TYPE_CHECKING:
    from jaxtyping import Float

# Below this many common draws there are no two batch means to take an error from, as in `SamplerSettings`.
LEAST_DRAWS = 4


@dataclass(frozen=True)
class Difference:
    """λ̂_a - λ̂_b with its error. Both λ̂ are means of the draws that entered here, so that the numbers of a difference add up."""

    llc_a: float
    llc_b: float
    difference: float
    stderr: float
    ci_low: float
    ci_high: float
    df: int  # degrees of freedom of the t interval and of p
    p: float  # two-sided, of the hypothesis that both λ̂ are equal
    stderr_independent: float  # what `stderr` would be if the cells shared no randomness
    draws_a: int  # per chain, that entered
    draws_b: int
    aligned: bool  # whether the error is that of the difference taken draw by draw

    def interval(self, confidence: float) -> tuple[float, float]:
        """The t interval at another confidence."""
        reach = float(t_quantile(self.df, confidence)) * self.stderr
        return self.difference - reach, self.difference + reach


def difference(a: Traces, b: Traces, *, shared_noise: bool = True, confidence: float = 0.90) -> Difference:
    """λ̂_a - λ̂_b of two cells of one run, with the standard error of the difference (METHOD 2, Error).

    `Δ_ct = x_a,ct - x_b,ct` for chain c and draw t, where λ̂ is the mean of x over both, and the error is `standard_error(Δ)`: whatever the cells
    share cancels in Δ before it is measured. They share

    - two parts at one checkpoint on one kind of data: the minibatches; the chains' noise ξ is each part's own;
    - two checkpoints of one part on one kind of data: minibatches and ξ, common random numbers;
    - two kinds of data for one part at one checkpoint: ξ of (part, chain); the texts are each data's own.

    Nothing needs to be shared for the error to hold: what is independent adds up in Δ as it should. But where ξ is not shared, chain c of one has
    nothing to do with chain c of the other, and pairing them throws away half of the degrees of freedom: the spread of the chains is then
    `√(spread_a² + spread_b²)` with those of Welch, beside the batch means of Δ. Covered is what the error of one λ̂ covers, noise and minibatches
    at these checkpoints; neither the bias of the discretisation nor anything about other seeds of the training.

    A cell that was prolonged is compared by the leading draws that it has in common with the other, chains that started again at w* included as
    far as both did. Cells of other settings or chains, or with fewer than four draws in common, have nothing to align: then all draws of both
    enter, the error is `√(s_a² + s_b²)` with Welch's degrees of freedom, and `aligned` is false. That is too large where what is shared moves both
    alike, and too small where it moves them apart.

    Args:
        a: of one part (P = 1).
        b: of one part; its λ̂ is what is subtracted.
        shared_noise: whether chain c of both drew the same ξ. True is never wrong, only less sharp where they did not.
        confidence: of the two-sided interval.
    """
    x_a, x_b = series(a)[0], series(b)[0]
    common = _common(a, b)
    aligned = common >= LEAST_DRAWS
    if aligned:
        x_a, x_b = x_a[:, :common], x_b[:, :common]
    (s_a, df_a), (s_b, df_b) = (_error(x) for x in (x_a, x_b))
    independent = float(np.hypot(s_a, s_b))
    stderr, df = _aligned_error(x_a, x_b, shared_noise) if aligned else (independent, _welch(s_a, df_a, s_b, df_b))
    llc_a, llc_b = float(x_a.mean()), float(x_b.mean())
    value = llc_a - llc_b
    reach = float(t_quantile(df, confidence)) * stderr
    return Difference(
        llc_a=llc_a,
        llc_b=llc_b,
        difference=value,
        stderr=stderr,
        ci_low=value - reach,
        ci_high=value + reach,
        df=df,
        p=p_value(value, stderr, df),
        stderr_independent=independent,
        draws_a=x_a.shape[1],
        draws_b=x_b.shape[1],
        aligned=aligned,
    )


def p_value(value: float, stderr: float, df: int) -> float:
    """Two-sided, by Student's t: `2 T_df(-|value|/stderr)`. Without any error it is 1 for zero and 0 for anything else.

    >>> round(p_value(1.895, 1.0, 7), 3)
    0.1
    """
    if stderr == 0:
        return float(value == 0)
    return 2 * float(stdtr(df, -abs(value) / stderr))


def holm(p: Float[Floats, " m"]) -> Float[Floats, " m"]:
    """Holm's step-down p values (Holm 1979): `max_{j ≤ i} min(1, (m - j + 1) p_(j))` for the i-th smallest of m.

    Calling those at or below α different errs anywhere with a probability of at most α, whatever the dependence between the m, which here share
    cells and minibatches.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def joint_confidence(confidence: float, m: int) -> float:
    """The confidence of each of m intervals that hold all at once with `confidence`, by Bonferroni: `1 - (1 - confidence)/m`.

    >>> round(joint_confidence(0.90, 10), 6)
    0.99
    """
    return 1 - (1 - confidence) / m


def _common(a: Traces, b: Traces) -> int:
    """How many leading draws of both are the same evaluations: same settings, and the same places in the same runs of evaluations."""
    if replace(a.settings, draws=b.settings.draws) != b.settings or (a.fixed_losses is None) != (b.fixed_losses is None):
        return 0
    n = min(a.settings.draws, b.settings.draws)
    # a chain that started again leaves out places, so that from the first place on that differs the two are no longer one evaluation
    return int(np.logical_and.accumulate(a.kept[:n] == b.kept[:n]).sum())


def _error(values: Float[Floats, "chains draws"]) -> tuple[float, int]:
    stderr, df = standard_error(values)
    return float(stderr), int(df)


def _aligned_error(x_a: Float[Floats, "chains draws"], x_b: Float[Floats, "chains draws"], shared_noise: bool) -> tuple[float, int]:
    chains = len(x_a)
    if shared_noise or chains == 1:
        return _error(x_a - x_b)
    stderr, df = _error((x_a - x_b).mean(axis=0, keepdims=True))
    spread_a, spread_b = (float(x.mean(axis=1).std(ddof=1)) / chains**0.5 for x in (x_a, x_b))
    spread = float(np.hypot(spread_a, spread_b))
    return (spread, _welch(spread_a, chains - 1, spread_b, chains - 1)) if spread > stderr else (stderr, df)


def _welch(s_a: float, df_a: int, s_b: float, df_b: int) -> int:
    """Welch and Satterthwaite's degrees of freedom of `√(s_a² + s_b²)`, rounded down; never below the smaller of the two."""
    least, spread = min(df_a, df_b), s_a**4 / df_a + s_b**4 / df_b
    # a hair more, so that 14 does not come out as 13.999…
    return least if spread == 0 else max(least, int((s_a**2 + s_b**2) ** 2 / spread + 1e-9))

"""Numbers that tell whether a cell's chains can be believed. None of them is a verdict: `result` draws those.

NaN stands where a number is not defined: too few draws, no gradient at w*, a series without variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from arviz_stats.base.array import array_stats

from rllc.posterior.estimate import paired, standard_error, t_quantile
from rllc.posterior.traces import Floats, OriginGradient, Traces

if TYPE_CHECKING:
    from jaxtyping import Float


_arviz: Any = array_stats  # its annotations are partial
_CARRIED_AT_LEAST = 5.0  # see `stiffness`


@dataclass(frozen=True)
class Diagnostics:
    """Health of the chains of one part."""

    rhat: float  # split R-hat of the chain-averaged paired series: shared minibatches make the chains look alike
    rhat_chains: float  # rank-normalised split R-hat between the chains
    ess: float  # effective draws of the chain-averaged paired series
    stein_ratio: float  # E[(w-w*)·∇U]/d
    stein_expected: float  # what the sampler's step size and minibatch noise make of 1, at stationarity
    gradient_ratio: float  # nβ E[(w-w*)·ĝ]/λ̂: 2 on a quadratic, 2k on w^{2k}
    drift: float  # λ̂ of the last third of the draws minus that of the first
    drift_reach: float  # half the width of the interval around the drift
    share_below_zero: float  # of paired differences
    sq_distance: float  # mean ‖w - w*‖²
    distance_share: float  # the largest ‖w - w*‖² of any draw, of what the localization allows
    excess_share: float  # the largest λ̂ of any chain, of the d/2 that equipartition allows a quadratic
    stiffness: float  # εA/4 of the directions that carry the loss, in the worst chain: SGLD's bias is 1/(1 - stiffness), steps are unstable at 1
    tilt: float  # the gradient's share in λ̂ at most: (nβ)²‖∇l(w*)‖²/γ
    tilt_stderr: float


def diagnose(traces: Traces, origin: OriginGradient | None = None, *, drift_confidence: float = 0.99) -> list[Diagnostics]:
    """Diagnostics of every part; what cannot be computed is NaN. `origin` is needed for the tilt alone."""
    with np.errstate(over="ignore", invalid="ignore"):  # a cell that diverged may overflow here; it will be refused
        series = paired(traces)
        llc = series.mean(axis=(-2, -1))
        ratio, expected = stein(traces)
        drifted, reach = drift(series, drift_confidence)
        moved = traces.settings.nbeta * traces.gradient_dot[..., traces.kept].mean(axis=(-2, -1))
        stiff = stiffness(traces, origin).max(axis=-1)
        distance = traces.sq_distance[..., traces.kept]
        allowed = allowed_sq_distance(traces, origin)
        tilts, tilt_errors = tilt(traces, origin)
        return [
            Diagnostics(
                rhat=split_rhat(series[p].mean(axis=0)),
                rhat_chains=rhat(series[p]),
                ess=ess(series[p].mean(axis=0)),
                stein_ratio=float(ratio[p]),
                stein_expected=float(expected[p]),
                gradient_ratio=float(moved[p] / llc[p]) if llc[p] else math.nan,
                drift=float(drifted[p]),
                drift_reach=float(reach[p]),
                share_below_zero=float((series[p] < 0).mean()),
                sq_distance=float(distance[p].mean()),
                distance_share=float(distance[p].max() / allowed[p]),
                excess_share=float(series[p].mean(axis=-1).max() / (_generous(traces.dimension) / 2)),
                stiffness=float(stiff[p]),
                tilt=float(tilts[p]),
                tilt_stderr=float(tilt_errors[p]),
            )
            for p in range(traces.parts)
        ]


def _telling(series: Floats, least: int) -> bool:
    """Finite, varying and long enough: arviz rates a constant chain 800 draws, and a chain with an inf R-hat 0.99989."""
    return series.shape[-1] >= least and bool(np.isfinite(series).all()) and bool(np.ptp(series) > 0)


def split_rhat(series: Float[Floats, " draws"]) -> float:
    """R-hat between the two halves of one series; NaN below 8 draws."""
    half = series.shape[-1] // 2
    halves = np.stack([series[:half], series[-half:]])
    if not _telling(halves, 4) or not halves.std(axis=-1).any():
        return math.nan
    return float(_arviz.rhat(halves, method="identity"))


def rhat(series: Float[Floats, "chains draws"]) -> float:
    """Rank-normalised split R-hat between chains; NaN for one chain or fewer than 8 draws."""
    return float(_arviz.rhat(series, method="rank")) if series.shape[0] > 1 and _telling(series, 8) else math.nan


def ess(series: Float[Floats, " draws"]) -> float:
    """Effective draws of one series for its mean; NaN below 8 draws."""
    return float(_arviz.ess(series[None], method="mean")) if _telling(series, 8) else math.nan


def stein(traces: Traces) -> tuple[Float[Floats, " P"], Float[Floats, " P"]]:
    """`E[(w-w*)·∇U]/d`, and what stationarity of the discrete chain makes of it (METHOD 3.2).

    `E‖w'‖² = E‖w‖²` gives, with Û = nβĝ + γ(w-w*): for SGLD `d + (ε/4) E‖Û‖²`; for Leimkuhler–Matthews
    `d + (ε/4)(E‖Û‖² - E tr∇²U)`, where Stein's identity for the last normal, `E[Û·ξ] = (√ε/2) E tr∇²U`, yields the trace.
    Under full gradients the latter is d; the remainder is minibatch noise. A ratio below means that ‖w-w*‖ still grows.
    """
    s = traces.settings
    dot, distance, gradient, noise = (
        trace[..., traces.kept].mean(axis=(-2, -1)) for trace in (traces.gradient_dot, traces.sq_distance, traces.sq_gradient, traces.noise_dot)
    )
    ratio = (s.nbeta * dot + s.localization * distance) / traces.dimension
    sq_drift = s.nbeta**2 * gradient + 2 * s.nbeta * s.localization * dot + s.localization**2 * distance
    if s.sampler == "leimkuhler-matthews":
        sq_drift = sq_drift - (s.localization * traces.dimension + 2 * s.nbeta * noise / math.sqrt(s.step_size))
    return ratio, 1 + s.step_size / 4 * sq_drift / traces.dimension


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


def _sq_batch_norm(traces: Traces, origin: OriginGradient | None) -> Float[Floats, " P"]:
    """‖ĝ(w*)‖² of a minibatch, noise included: the mean over separate minibatches, or the first evaluation's where there are none."""
    return traces.sq_gradient[:, 0, 0] if origin is None else origin.sq_batch_norm


def stiffness(traces: Traces, origin: OriginGradient | None) -> Float[Floats, "P chains"]:
    """εA/4 of the directions that carry the loss: a lower bound of the largest, from traces alone.

    On a quadratic `E‖ĝ‖²`, less its minibatch noise, over `E[(w-w*)·ĝ]` is the mean of h weighted by `h E[v²]`, what each
    direction adds to the loss. Beyond `εA = 4` a direction grows by `(1-εA/2)²` a step and takes all the weight; where the loss
    saturates it bounces between ±v with `(ε/4)(nβ ĝ/v + γ) = 1`, and the ratio reads 1 again. In both cases the weights may be
    finite and, one direction among thousands, hardly farther away: ‖w-w*‖² alone would not tell.

    Stable at r = εA/4, one direction carries `nβ (w-w*)·ĝ ≈ 1/(1-r)`, which is 5 at 0.8. Where a chain carries less the ratio is
    noise over noise and not read; it gets that of the prior, `εγ/4`. A bounce so small that other directions carry most of the
    loss only raises the ratio: between 0.25 and the limit, mistrust the number and halve ε.
    """
    s = traces.settings
    carried = s.nbeta * traces.gradient_dot[..., traces.kept].mean(axis=-1)
    excess = traces.sq_gradient[..., traces.kept].mean(axis=-1) - _sq_batch_norm(traces, origin)[:, None]
    telling = carried >= _CARRIED_AT_LEAST
    curvature = s.nbeta**2 * np.maximum(excess, 0) / np.where(telling, carried, 1)
    return s.step_size / 4 * (s.localization + np.where(telling, curvature, 0))


def _generous(dimension: int) -> float:
    """Dimension d raised by five standard deviations of χ²_d, which matters in few dimensions only."""
    return dimension + 5 * math.sqrt(2 * dimension)


def allowed_sq_distance(traces: Traces, origin: OriginGradient | None) -> Float[Floats, " P"]:
    """‖w-w*‖² that localization and tilt account for.

    A coordinate's stationary variance `1/(A(1-εA/4))` is largest in the flat directions, A = γ, for all `εA < 4 - εγ`, and a
    gradient shifts the mean by `nβ g/γ` at most; ‖g‖² is raised by two errors. Minibatch noise, which multiplies the variance by
    `1 + εσ²/4`, is not accounted for: where it heats the chain beyond the limit, a lower step size is the remedy too.
    """
    s = traces.settings
    spread = _generous(traces.dimension) / (s.localization * (1 - s.step_size * s.localization / 4))
    sq_norm = _sq_batch_norm(traces, origin) if origin is None else np.maximum(origin.sq_norm + 2 * origin.sq_norm_stderr, 0)
    return (math.sqrt(spread) + s.nbeta * np.sqrt(sq_norm) / s.localization) ** 2


def tilt(traces: Traces, origin: OriginGradient | None) -> tuple[Float[Floats, " P"], Float[Floats, " P"]]:
    """At most how far the gradient at w* lowers λ̂, and its standard error: `(nβ)²‖∇l(w*)‖²/γ`.

    A coordinate's term is `(nβ)² g² (½nβh + γ)/A²` with A = nβh + γ (METHOD 3.1b). For h ≥ 0, `½nβh + γ ≤ A`, so the factor is at
    most `1/A ≤ 1/γ`, with equality where the loss is flat but for its slope.
    """
    if origin is None:
        nothing = np.full(traces.parts, np.nan)
        return nothing, nothing
    factor = traces.settings.nbeta**2 / traces.settings.localization
    return factor * origin.sq_norm, factor * origin.sq_norm_stderr

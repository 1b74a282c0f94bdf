"""Numbers that tell whether a cell's chains can be believed. None of them is a verdict: `verdicts` draws those.

NaN stands where a number is not defined: too few draws, no gradient at w*, a series without variance, or a check that was not asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from rllc.posterior import convergence, equilibrium
from rllc.posterior.estimate import series
from rllc.posterior.traces import Floats, OriginGradient, Traces

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Extras:
    """Checks that cost sampling or gradients of their own, where they were asked for."""

    halving: Float[Floats, " P"] | None = None  # λ̂ at half the step size minus λ̂
    halving_stderr: Float[Floats, " P"] | None = None
    twin: Float[Floats, " P"] | None = None  # METHOD 3.1c

    def part(self, index: int) -> Extras:
        """Those of one part, with P = 1."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Extras(**{name: None if value is None else value[index : index + 1] for name, value in values.items()})


@dataclass(frozen=True)
class Diagnostics:
    """Health of the chains of one part."""

    rhat: float  # split R-hat of the chain-averaged paired series: shared minibatches make the chains look alike
    rhat_chains: float  # rank-normalised split R-hat between the chains
    ess: float  # effective draws of the chain-averaged paired series
    geweke: float  # z of the first tenth against the last half; no verdict
    hw_discard: float  # share that Heidelberger and Welch would leave out; no verdict
    hw_halfwidth: float  # ... and half width of the rest's interval over its mean
    stein_ratio: float  # E[(w-w*)·∇U]/d
    stein_expected: float  # what the sampler's step size and minibatch noise make of 1, at stationarity
    stein_stderr: float  # of their difference
    gradient_ratio: float  # nβ E[(w-w*)·ĝ]/λ̂: 2 on a quadratic, 2k on w^{2k}
    drift: float  # λ̂ of the last third of the draws minus that of the first
    drift_reach: float  # half the width of the interval around the drift
    distance_drift: float  # the same of ‖w - w*‖², as a share of its mean
    distance_drift_reach: float
    share_below_zero: float  # of paired differences
    sq_distance: float  # mean ‖w - w*‖²
    distance_share: float  # the largest ‖w - w*‖² of any draw, of what the localization allows
    excess_share: float  # the largest λ̂ of any chain, of the d/2 that equipartition allows a quadratic
    stiffness: float  # εA/4 of the directions that carry the loss, in the worst chain: SGLD's bias is 1/(1 - stiffness), steps are unstable at 1
    top_curvature: float  # largest eigenvalue of the part's Hessian at w*, by power iteration
    step_limit: float  # 4/(nβh + γ) of that eigenvalue: the step size from which it is unstable
    acceptance: float  # Metropolis'; no verdict
    gradient_step: float  # root mean square length of the gradient's term of a step
    prior_step: float  # ... of the localization's
    noise_step: float  # ... of the noise
    tilt: float  # the gradient's share in λ̂ at most: (nβ)²‖∇l(w*)‖²/γ
    tilt_stderr: float
    halving: float  # λ̂ at half the step size minus λ̂
    halving_stderr: float
    twin: float  # ½ tr[nβH(nβH + γ)⁻¹], what λ̂ would be if the loss were quadratic
    # What came later has a default: records of before are without it, and none the worse.
    raftery_lewis: float = math.nan  # how many times the draws that independent ones would take; no verdict


def diagnose(
    traces: Traces, origin: OriginGradient | None = None, extras: Extras | None = None, *, drift_confidence: float = 0.99
) -> list[Diagnostics]:
    """Diagnostics of every part; what cannot be computed is NaN. `origin` is needed for tilt, curvature and step limit."""
    extras, s = extras or Extras(), traces.settings
    nothing = np.full(traces.parts, np.nan)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a cell that diverged may overflow here; it will be refused
        values = series(traces)
        llc = values.mean(axis=(-2, -1))
        distance = traces.sq_distance[..., traces.kept]
        growth, growth_reach = convergence.drift(distance / distance.mean(axis=(-2, -1), keepdims=True), drift_confidence)
        curvature = nothing if origin is None else origin.top_curvature
        given = {name: nothing if value is None else value for name, value in vars(extras).items()}
        norms = equilibrium.step_norms(traces)
        columns: dict[str, Floats] = {
            **dict(zip(("stein_ratio", "stein_expected", "stein_stderr"), equilibrium.stein(traces), strict=True)),
            "gradient_ratio": np.where(llc == 0, np.nan, s.nbeta * traces.gradient_dot[..., traces.kept].mean(axis=(-2, -1)) / llc),
            **dict(zip(("drift", "drift_reach"), convergence.drift(values, drift_confidence), strict=True)),
            "distance_drift": growth,
            "distance_drift_reach": growth_reach,
            "share_below_zero": (values < 0).mean(axis=(-2, -1)),
            "sq_distance": distance.mean(axis=(-2, -1)),
            "distance_share": distance.max(axis=(-2, -1)) / equilibrium.allowed_sq_distance(traces, origin),
            "excess_share": values.mean(axis=-1).max(axis=-1) / (equilibrium.generous(traces.dimension) / 2),
            "stiffness": equilibrium.stiffness(traces, origin).max(axis=-1),
            "top_curvature": curvature,
            "step_limit": equilibrium.step_limit(curvature, s),
            "acceptance": equilibrium.acceptance(traces),
            **{f"{name}_step": norm for name, norm in norms.items()},
            **dict(zip(("tilt", "tilt_stderr"), equilibrium.tilt(traces, origin), strict=True)),
            **given,
        }
        return [Diagnostics(**_of_series(values[p]), **{name: float(column[p]) for name, column in columns.items()}) for p in range(traces.parts)]


def _of_series(values: Float[Floats, "chains draws"]) -> dict[str, float]:
    average = values.mean(axis=0)
    discard, halfwidth = convergence.heidelberger_welch(average)
    return {
        "rhat": convergence.split_rhat(average),
        "rhat_chains": convergence.rhat(values),
        "ess": convergence.ess(average),
        "geweke": convergence.geweke(average),
        "hw_discard": discard,
        "hw_halfwidth": halfwidth,
        "raftery_lewis": convergence.raftery_lewis(average),
    }

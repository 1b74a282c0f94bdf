"""From numbers to a verdict and a remedy in words, diagnostic by diagnostic, in the one vocabulary of outcomes (DESIGN, The engine)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rllc.core.outcome import Outcome
from rllc.posterior.diagnostics import Diagnostics
from rllc.posterior.estimate import Estimate
from rllc.posterior.settings import SamplerSettings, Verdicts
from rllc.posterior.traces import Traces


@dataclass(frozen=True)
class Check:
    """What one diagnostic says of a cell. An `ok` check with a text is advice: the number stands without a mark."""

    diagnostic: str
    outcome: Outcome
    text: str = ""  # what was seen and what to do; empty where all is well


def refusals(traces: Traces, p: int, d: Diagnostics, limits: Verdicts) -> list[Check]:
    """The checks that can refuse a cell. Where a chain was not finite, nothing else can be said."""
    first = traces.first_nonfinite()[p]
    if (first >= 0).any():
        chains = ", ".join(f"{chain} at step {t}" for chain, t in enumerate(first.tolist()) if t >= 0)
        return [Check("finite", Outcome.NONFINITE, f"Of {first.size} chains, counted from 0, these stopped being finite: {chains}.")]

    def check(name: str, value: float, limit: float, text: str) -> Check:
        return Check(name, Outcome.OK) if value < limit else Check(name, Outcome.UNSTABLE, f"{text}, where {limit:g} is the limit.")

    return [
        Check("finite", Outcome.OK),
        check("stiffness", d.stiffness, limits.stiffness, f"The directions that carry the loss have εA/4 = {d.stiffness:.3g}"),
        check("distance_share", d.distance_share, limits.distance, f"‖w - w*‖² reached {d.distance_share:.3g} times what the localization allows"),
        check(
            "excess_share",
            d.excess_share,
            limits.excess,
            f"The loss rose to {d.excess_share:.3g} times what equipartition allows at this temperature",
        ),
    ]


def remarks(e: Estimate, d: Diagnostics, settings: SamplerSettings, limits: Verdicts) -> list[Check]:
    """The checks that mark a number or advise on it, and never take it away."""
    return [
        _drift(e, d, limits),
        _rhat(d, limits),
        _stein(d, limits),
        _growth(d, limits),
        _tilt(e, d, limits),
        _ess(d, limits),
        _curvature(d, settings, limits),
        _halving(e, d, limits),
    ]


def _drift(e: Estimate, d: Diagnostics, limits: Verdicts) -> Check:
    if not abs(d.drift) > max(d.drift_reach, limits.drift_share * abs(e.llc)):
        return Check("drift", Outcome.OK)
    moved = f"The estimate moved by {d.drift:.3g} ± {d.drift_reach:.2g} from the first to the last third of the draws."
    if d.drift < 0:
        return Check("drift", Outcome.TILTED, f"{moved} The loss kept falling: the chains go downhill, so the checkpoint is not at a minimum.")
    return Check("drift", Outcome.DRIFTING, moved)


def _rhat(d: Diagnostics, limits: Verdicts) -> Check:
    # Of a stationary series R-hat² is 1 + (2/ESS) χ²₁: with few effective draws it is large by chance.
    if not d.rhat > max(limits.rhat, math.sqrt(1 + 2 * limits.rhat_chi2 / d.ess)):
        return Check("rhat", Outcome.OK)
    return Check("rhat", Outcome.DRIFTING, f"The two halves of the series disagree: split R-hat {d.rhat:.2f} at {d.ess:.0f} effective draws.")


def _stein(d: Diagnostics, limits: Verdicts) -> Check:
    short = d.stein_expected - d.stein_ratio
    if not short > max(limits.stein_share * d.stein_expected, limits.stein_errors * d.stein_stderr):
        return Check("stein_ratio", Outcome.OK)
    text = f"The weights have not spread as far as the prior lets them: Stein ratio {d.stein_ratio:.2f}, where {d.stein_expected:.2f} is expected."
    return Check("stein_ratio", Outcome.DRIFTING, text)


def _growth(d: Diagnostics, limits: Verdicts) -> Check:
    # what still grows has not equilibrated under the prior either: both must say so, for in few dimensions each errs by chance
    if not d.distance_drift > max(d.distance_drift_reach, limits.drift_share) or d.stein_ratio > d.stein_expected:
        return Check("distance_drift", Outcome.OK)
    text = f"‖w - w*‖² still grew, by {100 * d.distance_drift:.0f} % from the first to the last third of the draws."
    return Check("distance_drift", Outcome.DRIFTING, text)


def _tilt(e: Estimate, d: Diagnostics, limits: Verdicts) -> Check:
    if d.tilt > max(limits.tilt_errors * d.tilt_stderr, limits.tilt_share * abs(e.llc), limits.tilt_errors * e.stderr):
        return Check("tilt", Outcome.TILTED, f"The gradient at the checkpoint lowers the estimate by up to {d.tilt:.3g} ± {d.tilt_stderr:.2g}.")
    if e.llc < -limits.tilt_errors * e.stderr:
        return Check("tilt", Outcome.TILTED, f"The estimate {e.llc:.3g} ± {e.stderr:.2g} is negative, which no minimum allows.")
    return Check("tilt", Outcome.OK)


def _ess(d: Diagnostics, limits: Verdicts) -> Check:
    if not d.ess < limits.ess:
        return Check("ess", Outcome.OK)
    return Check("ess", Outcome.OK, f"The error rests on {d.ess:.0f} effective draws: raise draws before relying on it.")


def _curvature(d: Diagnostics, settings: SamplerSettings, limits: Verdicts) -> Check:
    if settings.sampler == "mala" or not settings.largest_step > limits.step_share * d.step_limit:
        return Check("step_limit", Outcome.OK)
    share = settings.largest_step / d.step_limit
    what = "is unstable there" if share >= 1 else f"reads {1 / (1 - share):.1f} times too high there"
    text = f"The steepest direction at the checkpoint has εA/4 = {share:.2g}: a quadratic of that curvature {what}. Halve step_size and compare."
    return Check("step_limit", Outcome.OK, text)


def _halving(e: Estimate, d: Diagnostics, limits: Verdicts) -> Check:
    if not abs(d.halving) > max(limits.halving_share * abs(e.llc), limits.halving_errors * d.halving_stderr):
        return Check("halving", Outcome.OK)
    text = f"At half the step size the estimate changes by {d.halving:.3g} ± {d.halving_stderr:.2g}: lower step_size, this number holds its bias."
    return Check("halving", Outcome.OK, text)

"""Whether a setting is healthy, and if not, why: in sentences, from numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.calibration.plateau import NO_SLOPES, Slopes
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Trial
from rllc.posterior.settings import SamplerName, Verdicts
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

Kind = Literal["refused", "drifting", "biased", "far"]
_ERRORS = 2.0  # standard errors beyond which a measured slope counts


@dataclass(frozen=True)
class Problem:
    """What makes a setting unhealthy. The first one of a setting is its name in tables and figures."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Health:
    """The numbers of one setting at one checkpoint, and what is wrong with them."""

    bias: float  # what the discretisation adds to λ̂ at least, relative, in the worst part
    tilt: float  # the gradient's term over λ̂ in a typical part
    removal: float  # rise of the loss over that of setting the weights to zero, in a typical part; NaN where nothing is known of it
    refused: float  # shares of the parts
    drifting: float
    tilted: float
    problems: tuple[Problem, ...]

    @property
    def healthy(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def predicted_bias(stiffness: Float[Floats, " P"], sampler: SamplerName) -> Float[Floats, " P"]:
    """What a quadratic says of the discretisation's share in λ̂, from εA/4 of the directions that carry the loss (METHOD 3.1).

    SGLD's factor on one direction is `1/(1 - εA/4)`, convex in A, so with the mean εA/4 of many directions this is the least that the bias can be.
    Leimkuhler–Matthews has none.

    >>> float(predicted_bias(np.array([0.5]), "sgld")[0])  # 100 % too high
    1.0
    """
    if sampler == "leimkuhler-matthews":
        return np.zeros_like(stiffness)
    return np.where(stiffness < 1, stiffness / np.maximum(1 - stiffness, 1e-9), np.inf)


def judge(
    trial: Trial,
    sampler: SamplerName,
    settings: CalibrationSettings,
    slopes: Slopes = NO_SLOPES,
    removal: Float[Floats, " P"] | None = None,
    verdicts: Verdicts | None = None,
) -> Health:
    """Judge one setting at one checkpoint.

    Args:
        trial: its readings.
        sampler: whose bias to predict.
        settings: the limits.
        slopes: how λ̂ answers to ε there, if that is known.
        removal: rise of the loss when a part's weights are set to zero, nats per token. A chain that raises the loss by more is not near the
            checkpoint in any useful sense: what it measures is no longer the part that was learnt. The typical part counts, since one
            that does nothing costs nothing to remove.
        verdicts: whose limit of stiffness holds for the steepest direction too.
    """
    problems: list[Problem] = []
    refused, drifting = trial.refused, trial.share(Outcome.DRIFTING)
    bias = float(predicted_bias(trial.column("stiffness"), sampler).max()) if not refused else np.inf
    steepest = float(np.nanmax(np.append(trial.column("step_share"), 0.0)))
    limit = (verdicts or Verdicts()).stiffness
    rise = _typical_share(trial.column("rise"), removal)
    if refused > settings.refused:
        problems.append(Problem("refused", f"{_percent(refused)} of the cells are refused: the steps are unstable or leave the neighbourhood."))
    elif steepest >= limit:
        problems.append(Problem("refused", f"The steepest direction has εA/4 = {steepest:.2g}, and at 1 a quadratic of that curvature diverges."))
    if not refused and bias > settings.bias:
        problems.append(Problem("biased", f"The step size adds at least {_percent(bias)} to λ̂ (METHOD 3.1, from εA/4 of what carries the loss)."))
    elif slopes.step_size - _ERRORS * slopes.step_size_error > settings.bias:
        text = f"λ̂ still depends on the step size: d log λ̂/d log ε = {slopes.step_size:.2f} ± {slopes.step_size_error:.2f}."
        problems.append(Problem("biased", text))
    if rise > settings.removal:
        problems.append(Problem("far", f"A typical part's chains raise the loss {rise:.1f} times as much as setting its weights to zero would."))
    if drifting > settings.drifting and _moves(trial):
        problems.append(Problem("drifting", f"{_percent(drifting)} of the cells still drift after the burn-in."))
    return Health(bias, _tilt(trial), rise, refused, drifting, trial.share(Outcome.TILTED), tuple(problems))


def _moves(trial: Trial) -> bool:
    """Whether the parts drift together: one chain does not see that its draws are correlated, and takes every excursion for a drift."""
    moved, reach = trial.settled()
    return not abs(moved) <= reach


def _typical_share(rise: Float[Floats, " P"], removal: Float[Floats, " P"] | None) -> float:
    if removal is None or not np.isfinite(rise).any():
        return float("nan")
    share = np.where(removal > 0, rise / np.where(removal > 0, removal, 1), np.inf)
    return float(np.median(share[np.isfinite(rise)]))


def _tilt(trial: Trial) -> float:
    llc, tilt = np.abs(trial.column("llc")), trial.column("tilt")
    known = np.isfinite(tilt) & (llc > 0)
    return float(np.median(np.maximum(tilt[known], 0) / llc[known])) if known.any() else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

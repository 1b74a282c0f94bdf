"""From trials to a recommendation: health first, then the smallest error budget, with the experiment's own settings given the benefit of doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rllc.posterior.calibration.grid import Setting, burn_in
from rllc.posterior.calibration.health import Health, Problem, judge
from rllc.posterior.calibration.plateau import Slopes, slopes
from rllc.posterior.calibration.ranking import Agreement, agreement
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Trial
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Budget:
    """What may part the λ̂ of a typical part from what it should be, each relative to λ̂."""

    bias: float  # of the discretisation
    noise: float  # sampling error at the experiment's chains and draws, the burn-in paid for out of them
    change: float  # what a slightly other γ and nβ would do (`CalibrationSettings.change`); NaN, and left out, where the grid does not tell
    tilt: float  # the gradient's term

    @property
    def total(self) -> float:
        """The root of the sum of squares."""
        return math.hypot(self.bias, self.noise, self.tilt, self.change if math.isfinite(self.change) else 0.0)


@dataclass(frozen=True)
class Surveyed:
    """One setting of the grid, after the short runs at the last checkpoint."""

    trial: Trial
    slopes: Slopes
    health: Health
    burn_in: int
    budget: Budget

    @property
    def setting(self) -> Setting:
        """Its place in the grid."""
        return self.trial.setting


@dataclass(frozen=True)
class Finalist:
    """One setting after longer runs at every chosen checkpoint."""

    surveyed: Surveyed
    trials: tuple[Trial, ...]  # one a checkpoint, the last one last
    halving: float  # bias that half the step size reveals at the last checkpoint, relative: twice the change of Σλ̂
    halving_error: float
    problems: tuple[Problem, ...]
    budget: Budget

    @property
    def setting(self) -> Setting:
        """Its place in the grid."""
        return self.surveyed.setting


@dataclass(frozen=True)
class Advice:
    """What to do, or that nothing in the grid will do."""

    chosen: Finalist | None
    own: Finalist
    kept: bool  # the experiment's own settings are as good as any
    agreements: tuple[tuple[Setting, Agreement], ...]  # the order of the parts at every other healthy setting, against the chosen one's


def survey(
    trials: Sequence[Trial], base: SamplerSettings, settings: CalibrationSettings, removal: Float[Floats, " P"] | None = None
) -> tuple[Surveyed, ...]:
    """Judge all settings of the short runs. `base` has the experiment's chains and draws, at which noise is counted."""
    found: list[Surveyed] = []
    for one in trials:
        slope = slopes(one.setting, trials)
        health = judge(one, base.sampler, settings, slope, removal)
        steps = burn_in(one.setting, settings.relaxation)
        found.append(Surveyed(one, slope, health, steps, _budget([one], [health], slope, steps, base, settings)))
    return tuple(found)


def shortlist(surveyed: Sequence[Surveyed], own: Setting, settings: CalibrationSettings) -> tuple[Setting, ...]:
    """Which settings deserve longer runs: the experiment's own, and the healthy ones with the smallest budgets."""
    healthy = sorted((s for s in surveyed if s.health.healthy and not s.setting.same(own)), key=lambda s: s.budget.total)
    return (own, *(s.setting for s in healthy[: settings.finalists]))


def finalist(
    surveyed: Surveyed,
    trials: Sequence[Trial],
    halved: Trial | None,
    base: SamplerSettings,
    settings: CalibrationSettings,
    removal: Float[Floats, " P"] | None = None,
) -> Finalist:
    """Judge a setting by its longer runs, the last of `trials` being that of the last checkpoint, where `removal` and `halved` belong.

    On a quadratic with one curvature `λ̂(ε)/λ̂(ε/2) = (1 - r/2)/(1 - r)` with r = εA/4, so twice the excess of that ratio over 1 is
    `r/(1 - r)`, the bias itself (METHOD 3.1).
    """
    last = len(trials) - 1
    healths = [judge(t, base.sampler, settings, surveyed.slopes, removal if i == last else None) for i, t in enumerate(trials)]
    problems = [Problem(p.kind, f"At step {t.step}: {p.text}") for t, h in zip(trials, healths, strict=True) for p in h.problems]
    halving, error = math.nan, math.nan
    if halved is not None and trials[last].total > 0 and halved.total > 0:
        ratio = trials[last].total / halved.total
        halving, error = 2 * (ratio - 1), 2 * ratio * math.hypot(trials[last].total_error, halved.total_error)
        if halving - 2 * error > settings.bias:
            text = f"Half the step size shows that the discretisation adds {100 * halving:.0f} ± {100 * error:.0f} %."
            problems.append(Problem("biased", text))
    # what two standard errors leave of it: the prediction is far more precise where it holds
    proven = max(0.0, halving - 2 * error) if math.isfinite(halving) else 0.0
    budget = _budget(trials, healths, surveyed.slopes, surveyed.burn_in, base, settings, proven)
    return Finalist(surveyed, tuple(trials), halving, error, tuple(problems), budget)


def advise(surveyed: Sequence[Surveyed], finalists: Sequence[Finalist], own: Setting, settings: CalibrationSettings) -> Advice:
    """Choose the healthy finalist with the smallest budget, or rather, of all that are nearly as good, the one nearest to the experiment's own.

    A change must pay: numbers compare with earlier ones only at equal settings.
    """
    mine = next(f for f in finalists if f.setting.same(own))
    healthy = sorted((f for f in finalists if not f.problems), key=lambda f: f.budget.total)
    if not healthy:
        return Advice(None, mine, False, ())
    good = [f for f in healthy if f.budget.total <= settings.gain * healthy[0].budget.total]
    chosen = min(good, key=lambda f: math.dist(f.setting.coordinates, own.coordinates))
    return Advice(chosen, mine, chosen is mine, tuple(_agreements(surveyed, finalists, chosen)))


def _agreements(surveyed: Sequence[Surveyed], finalists: Sequence[Finalist], chosen: Finalist) -> list[tuple[Setting, Agreement]]:
    reference, widen = chosen.trials[-1], _widening(finalists)
    llc, error = reference.column("llc"), reference.column("stderr")
    return [
        (s.setting, agreement(llc, error, s.trial.column("llc"), widen * s.trial.column("stderr")))
        for s in surveyed
        if s.health.healthy and not s.setting.same(chosen.setting)
    ]


def _widening(finalists: Sequence[Finalist]) -> float:
    """By what the errors of the short runs are too small: one chain does not see that its draws are correlated, the longer runs do."""
    ratios: list[float] = []
    for f in finalists:
        long, short = f.trials[-1], f.surveyed.trial
        if short.rises.shape[1] == 1 and math.isfinite(long.error) and 0 < short.error < math.inf:
            ratios.append(long.error / short.error * math.sqrt(long.rises[0].size / short.rises[0].size))
    return max(1.0, float(np.median(ratios))) if ratios else 1.0


def _budget(
    trials: Sequence[Trial],
    healths: Sequence[Health],
    slope: Slopes,
    steps: int,
    base: SamplerSettings,
    settings: CalibrationSettings,
    measured_bias: float = 0.0,
) -> Budget:
    """Bias and tilt of the worst checkpoint, noise of the last one.

    Noise is scaled from the trial's draws to the experiment's, and by `√((burn_in + draws)/draws)`: burn-in is paid for in draws.
    """
    last = trials[-1]
    chains, draws = last.rises.shape[1:]
    noise = last.error * math.sqrt(chains * draws / (base.chains * base.draws)) * math.sqrt((steps + base.draws) / base.draws)
    return Budget(
        bias=max(*(health.bias for health in healths), measured_bias),
        noise=noise,
        change=math.log(settings.change) * slope.size,
        tilt=max(health.tilt for health in healths),
    )


def summary(agreements: Sequence[tuple[Setting, Agreement]]) -> Mapping[str, float]:
    """Median and minimum of τ over the other healthy settings, the median that noise alone would give, and the fate of pairs told apart."""
    taus = np.array([a.tau for _, a in agreements if math.isfinite(a.tau)])
    if not taus.size:
        return {}
    known = [a for _, a in agreements if math.isfinite(a.tau)]
    weights = np.array([a.told_apart for a in known])
    kept = np.array([a.kept if math.isfinite(a.kept) else 0.0 for a in known])
    return {
        "settings": float(taus.size),
        "median": float(np.median(taus)),
        "minimum": float(taus.min()),
        "noise": float(np.median([a.noise_tau for a in known])),
        "told_apart": float(weights.mean()),
        "kept": float((kept * weights).sum() / weights.sum()) if weights.sum() else math.nan,
    }

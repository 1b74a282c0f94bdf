"""What the parts said at one setting and one checkpoint: the few numbers of each cell that a calibration reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.calibration.grid import Setting
from rllc.posterior.convergence import drift
from rllc.posterior.estimate import standard_error
from rllc.posterior.result import Result
from rllc.posterior.traces import Floats, Traces

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Reading:
    """Of one part; NaN where a number is not defined."""

    outcome: str
    llc: float  # NaN in a refused cell
    stderr: float
    rise: float  # mean l(w_t) - l(w*) of the draws, nats per token: λ̂/nβ, and defined at nβ = 0 too
    stiffness: float  # εA/4 of the directions that carry the loss
    step_share: float  # εA/4 of the steepest direction at w*
    stein_ratio: float
    stein_expected: float
    stein_stderr: float
    gradient_ratio: float
    tilt: float


@dataclass(frozen=True)
class Trial:
    """One setting at one checkpoint, P parts in the same order at every setting."""

    setting: Setting
    step: int  # of training
    readings: tuple[Reading, ...]
    rises: Float[Floats, "P chains draws"]  # l(w_t) - l(w*) of every draw, nats per token: what λ̂/nβ is the mean of, and defined at nβ = 0 too

    def column(self, name: str) -> Float[Floats, " P"]:
        """One number of every part."""
        return np.array([getattr(reading, name) for reading in self.readings], np.float64)

    def share(self, *outcomes: Outcome) -> float:
        """Share of the parts with one of these outcomes."""
        return sum(reading.outcome in outcomes for reading in self.readings) / len(self.readings)

    @property
    def refused(self) -> float:
        """Share of the parts without an estimate."""
        return self.share(Outcome.NONFINITE, Outcome.UNSTABLE)

    @property
    def total(self) -> float:
        """The sum of λ̂ over the parts; NaN where one was refused."""
        return float(self.column("llc").sum())

    @property
    def total_error(self) -> float:
        """Relative standard error of the sum, and of the summed rises; NaN where one was refused.

        The larger of two, as for one part: the batch means of the summed series, since parts share minibatches, and the spread of chains
        within parts, whose noise is independent. One chain has no spread, so its error is too small where draws are correlated.
        """
        mean = float(self.rises.mean(axis=(-2, -1)).sum())
        if not math.isfinite(self.total) or mean == 0:
            return math.nan
        error = float(standard_error(self.rises.sum(axis=0).mean(axis=0, keepdims=True))[0])
        chains = self.rises.shape[1]
        if chains > 1:
            error = max(error, math.sqrt(float(self.rises.mean(axis=-1).var(axis=-1, ddof=1).sum()) / chains))
        return error / abs(mean)

    @property
    def error(self) -> float:
        """Relative standard error of a typical part; infinite where none has an estimate."""
        llc = np.abs(self.column("llc"))
        relative = np.divide(self.column("stderr"), llc, out=np.full_like(llc, np.inf), where=llc > 0)
        return float(np.median(np.where(np.isnan(relative), np.inf, relative)))

    def settled(self, confidence: float = 0.99) -> tuple[float, float]:
        """How far the sum moved from the first to the last third of the draws, and the reach of its interval, relative; NaN below 12 draws."""
        mean = float(self.rises.mean())
        if not math.isfinite(self.total) or mean == 0:
            return math.nan, math.nan
        parts, chains, draws = self.rises.shape
        # every chain of every part is a replicate: the differences of its thirds know nothing of its level
        moved, reach = drift(self.rises.reshape(1, parts * chains, draws), confidence)
        return float(moved[0]) / abs(mean), float(reach[0]) / abs(mean)


def trial(setting: Setting, step: int, traces: Sequence[Traces], results: Sequence[Result]) -> Trial:
    """The trial of P parts, from traces with P = 1 each."""
    with np.errstate(over="ignore", invalid="ignore"):  # refused cells
        rises = np.concatenate([_rises(one) for one in traces])
        readings = tuple(_reading(one, result, rise) for one, result, rise in zip(traces, results, rises, strict=True))
    return Trial(setting, step, readings, rises)


def together(trials: Sequence[Trial]) -> Trial:
    """Trials of several groups of parts at one setting and checkpoint as one."""
    first = trials[0]
    return Trial(first.setting, first.step, tuple(r for t in trials for r in t.readings), np.concatenate([t.rises for t in trials]))


def _rises(traces: Traces) -> Float[Floats, "1 chains draws"]:
    if traces.fixed_losses is not None and traces.fixed_baseline is not None:
        return (traces.fixed_losses - traces.fixed_baseline[:, None, None])[..., traces.kept]
    return (traces.losses - traces.baseline[:, None, :])[..., traces.kept]


def _reading(traces: Traces, result: Result, rises: Float[Floats, "chains draws"]) -> Reading:
    d, e = result.diagnostics, result.estimate
    return Reading(
        outcome=str(result.outcome),
        llc=math.nan if e is None else e.llc,
        stderr=math.nan if e is None else e.stderr,
        rise=math.nan if e is None else float(rises.mean()),
        stiffness=d.stiffness,
        step_share=traces.settings.largest_step / d.step_limit,
        stein_ratio=d.stein_ratio,
        stein_expected=d.stein_expected,
        stein_stderr=d.stein_stderr,
        gradient_ratio=d.gradient_ratio,
        tilt=d.tilt,
    )

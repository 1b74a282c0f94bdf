"""The outcome of a cell: a value that travels with the estimate, or without one (ANCHORS, principle 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.diagnostics import Diagnostics, diagnose
from rllc.posterior.estimate import Estimate, estimate
from rllc.posterior.settings import Verdicts
from rllc.posterior.traces import OriginGradient, Traces


@dataclass(frozen=True)
class Result:
    """What became of one part: a refused cell has no estimate, and nobody downstream can average it."""

    outcome: Outcome
    estimate: Estimate | None  # None exactly where the outcome is refused
    diagnostics: Diagnostics
    reason: str  # what happened, with numbers, and what to do


def assess(traces: Traces, origin: OriginGradient | None = None, verdicts: Verdicts | None = None) -> tuple[Result, ...]:
    """Outcome, estimate and diagnostics of every part.

    One chain that failed refuses its whole cell. Of several marks the first of nonfinite, unstable, drifting, tilted is the
    outcome, and the reason names the others.

    Args:
        traces: of P parts.
        origin: gradient and loss at w*; without it nothing is known of the tilt, and `llc_unpaired` is NaN.
        verdicts: thresholds.
    """
    verdicts = verdicts or Verdicts()
    diagnostics = diagnose(traces, origin, drift_confidence=verdicts.drift_confidence)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers of refused cells, dropped below
        estimates = estimate(traces, confidence=verdicts.confidence, init_loss=None if origin is None else origin.loss)
    results: list[Result] = []
    for p in range(traces.parts):
        marks = _refusals(traces, p, diagnostics[p], verdicts) or _remarks(estimates[p], diagnostics[p], verdicts)
        outcome = marks[0][0] if marks else Outcome.OK
        reason = " ".join([*(text for _, text in marks), outcome.text])
        results.append(Result(outcome, None if outcome.refused else estimates[p], diagnostics[p], reason))
    return tuple(results)


def _refusals(traces: Traces, p: int, d: Diagnostics, verdicts: Verdicts) -> list[tuple[Outcome, str]]:
    first = traces.first_nonfinite()[p]
    if (first >= 0).any():
        chains = ", ".join(f"{chain} at step {t}" for chain, t in enumerate(first.tolist()) if t >= 0)
        return [(Outcome.NONFINITE, f"Of {first.size} chains, counted from 0, these stopped being finite: {chains}.")]
    marks: list[tuple[Outcome, str]] = []
    if not d.stiffness < verdicts.stiffness:
        marks.append(
            (Outcome.UNSTABLE, f"The directions that carry the loss have εA/4 = {d.stiffness:.3g}, where {verdicts.stiffness:g} is the limit.")
        )
    if not d.distance_share < verdicts.distance:
        marks.append(
            (
                Outcome.UNSTABLE,
                f"‖w - w*‖² reached {d.distance_share:.3g} times what the localization allows, where {verdicts.distance:g} is the limit.",
            )
        )
    if not d.excess_share < verdicts.excess:
        text = f"The loss rose to {d.excess_share:.3g} times what equipartition allows at this temperature, where {verdicts.excess:g} is the limit."
        marks.append((Outcome.UNSTABLE, text))
    return marks


def _remarks(e: Estimate, d: Diagnostics, verdicts: Verdicts) -> list[tuple[Outcome, str]]:
    marks: list[tuple[Outcome, str]] = []
    if abs(d.drift) > max(d.drift_reach, verdicts.drift_share * abs(e.llc)):
        marks.append((Outcome.DRIFTING, f"The estimate moved by {d.drift:.3g} ± {d.drift_reach:.2g} from the first to the last third of the draws."))
    if d.tilt > max(verdicts.tilt_errors * d.tilt_stderr, verdicts.tilt_share * abs(e.llc), verdicts.tilt_errors * e.stderr):
        marks.append((Outcome.TILTED, f"The gradient at the checkpoint lowers the estimate by up to {d.tilt:.3g} ± {d.tilt_stderr:.2g}."))
    elif e.llc < -verdicts.tilt_errors * e.stderr:
        marks.append((Outcome.TILTED, f"The estimate {e.llc:.3g} ± {e.stderr:.2g} is negative, which no minimum allows."))
    return marks

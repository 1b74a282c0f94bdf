"""The outcome of a cell: a value that travels with the estimate, or without one (ANCHORS, principle 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.diagnostics import Diagnostics, Extras, diagnose
from rllc.posterior.estimate import Estimate, estimate
from rllc.posterior.settings import Verdicts
from rllc.posterior.traces import OriginGradient, Traces
from rllc.posterior.verdicts import Check, refusals, remarks

_SEVEREST_FIRST = (Outcome.NONFINITE, Outcome.UNSTABLE, Outcome.DRIFTING, Outcome.TILTED)


@dataclass(frozen=True)
class Result:
    """What became of one part: a refused cell has no estimate, and nobody downstream can average it."""

    outcome: Outcome
    estimate: Estimate | None  # None exactly where the outcome is refused
    diagnostics: Diagnostics
    reason: str  # what happened, with numbers, and what to do
    checks: tuple[Check, ...]  # each diagnostic with its verdict


def assess(
    traces: Traces, origin: OriginGradient | None = None, verdicts: Verdicts | None = None, extras: Extras | None = None
) -> tuple[Result, ...]:
    """Outcome, estimate and diagnostics of every part.

    One chain that failed refuses its whole cell. Of several marks the first of nonfinite, unstable, drifting, tilted is the
    outcome, and the reason names the others.

    Args:
        traces: of P parts.
        origin: gradient and loss at w*; without it nothing is known of the tilt, and `llc_unpaired` is NaN.
        verdicts: thresholds.
        extras: what was computed beside the traces.
    """
    verdicts = verdicts or Verdicts()
    diagnostics = diagnose(traces, origin, extras, drift_confidence=verdicts.drift_confidence)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers of refused cells, dropped below
        estimates = estimate(traces, confidence=verdicts.confidence, init_loss=None if origin is None else origin.loss)
    results: list[Result] = []
    for p in range(traces.parts):
        checks = refusals(traces, p, diagnostics[p], verdicts)
        if not any(check.outcome.refused for check in checks):
            checks += remarks(estimates[p], diagnostics[p], traces.settings, verdicts)
        marks = sorted((check for check in checks if check.outcome != Outcome.OK), key=lambda check: _SEVEREST_FIRST.index(check.outcome))
        outcome = marks[0].outcome if marks else Outcome.OK
        advice = [check for check in checks if check.outcome == Outcome.OK and check.text]
        remedies = list(dict.fromkeys(mark.outcome.text for mark in marks)) or ([] if advice else [outcome.text])
        reason = " ".join([*(check.text for check in [*marks, *advice]), *remedies])
        results.append(Result(outcome, None if outcome.refused else estimates[p], diagnostics[p], reason, tuple(checks)))
    return tuple(results)

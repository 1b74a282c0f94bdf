"""The outcome of a cell: a value that travels with the estimate, or without one (ANCHORS, principle 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rllc.core.outcome import Outcome
from rllc.posterior.diagnostics import Diagnostics, Extras, diagnose
from rllc.posterior.estimate import Estimate, estimate
from rllc.posterior.settings import Verdicts
from rllc.posterior.traces import OriginGradient, Traces
from rllc.posterior.verdicts import Check, refusals, remarks

# Diagnostics of the series alone, which are other ones where the same chains are evaluated on other data.
OF_SERIES = (
    "rhat", "rhat_chains", "ess", "geweke", "hw_discard", "hw_halfwidth", "raftery_lewis", "share_below_zero", "drift", "drift_reach"
)  # fmt: skip
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


def assess_elsewhere(own: Result, traces: Traces, verdicts: Verdicts | None = None) -> Result:
    """The same chains by their losses on other data: nβ (E[l] - l(w*)) there, under the posterior that they sampled.

    What refuses the cell refuses this too, and so does a loss there that is not finite. Where the series there has not settled the number is marked
    as drifting, though the chains' own loss may have. Neither size nor sign marks anything: equipartition bounds the loss that the chains move by,
    and the checkpoint need be no minimum of another.

    Args:
        own: of the chains on their own data.
        traces: of one part (P = 1), with losses and baseline of the other data.
        verdicts: thresholds.
    """
    verdicts = verdicts or Verdicts()
    if own.outcome.refused:
        return own
    d = diagnose(traces, drift_confidence=verdicts.drift_confidence)[0]
    finite = refusals(traces, 0, d, verdicts)[0]
    if finite.outcome.refused:
        return replace(own, outcome=finite.outcome, estimate=None, reason=f"{finite.text} {finite.outcome.text}", checks=(finite,))
    number = estimate(traces, confidence=verdicts.confidence)[0]
    diagnostics = replace(own.diagnostics, **{name: getattr(d, name) for name in OF_SERIES}, gradient_ratio=np.nan)
    told = replace(own, estimate=number, diagnostics=diagnostics)
    checks = remarks(number, d, traces.settings, verdicts)
    if not any(check.diagnostic in ("drift", "rhat") and check.outcome != Outcome.OK for check in checks):
        return told
    moved = f"On this data the number moved by {d.drift:.3g} ± {d.drift_reach:.2g} from the first to the last third of the draws"
    said = [f"{moved}, at a split R-hat of {d.rhat:.2f}.", Outcome.DRIFTING.text if own.outcome == Outcome.OK else own.reason]
    return replace(told, outcome=Outcome.DRIFTING, reason=" ".join(said))

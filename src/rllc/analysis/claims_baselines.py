"""Claims beside the paper's main line: baselines beside the refined LLC, the temperature, other seeds (METHOD 5, appendix)."""

from __future__ import annotations

from dataclasses import replace
from math import factorial

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Claim, Number, Turns
from rllc.analysis.endpoints import doubt, questioned
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.learners import normal_quantile
from rllc.analysis.onsets import coincidence, reversal
from rllc.analysis.ordering import Quantity, holm
from rllc.analysis.regression import layers_of
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.stages import stages
from rllc.analysis.verdicts import Condition, any_of, beyond_chance, correlation_interval, decide, effect, flagged, lacking, reliability
from rllc.core import seeds

_CHECKPOINTS = 4  # of a quantity, from which on its turns are looked for
_WITHIN = 3  # checkpoints within the stage window of a turn, from which on they can tell that a quantity has none there
_REDRAWN = 100  # curves redrawn for the interval of a boundary: with 20 a shift is called sure too often
_MOVED = 0.1  # least shift of a boundary that counts, in log(step + 1); 23 to 30 moved one of 8,000 steps by 1,000 in the paper


def quantities(evidence: Evidence) -> dict[str, Quantity]:
    """What else was measured of every head, by name: baselines, ablation effects on the reference data, memorised multigrams."""
    measured, found = evidence.measured, dict[str, Quantity]()
    if measured.baselines is not None:
        found |= measured.baselines.quantities()
    if measured.ablation is not None:
        name = evidence.reference if evidence.reference in measured.ablation.data else measured.ablation.data[0]
        found |= {f"{kind} ablation": measured.ablation.quantity(kind, name) for kind in measured.ablation.effect}
    if measured.memorised is not None:
        found["memorised multigrams"] = measured.memorised.quantity()
    return found


def turns_of(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> tuple[Turns, ...]:
    """Where the mean over heads of each quantity turns, beside the turns of the full model's LLC; those that are measured over training."""
    if findings.stages is None or not len(findings.stages.boundaries):
        return ()
    found: list[Turns] = []
    for name, quantity in quantities(evidence).items():
        curve = _mean_curve(name, quantity)
        if curve is None:
            continue
        theirs, _ = stages(curve, settings, seed, part=name)
        places = np.empty(0) if theirs is None else theirs.boundaries
        turns = coincidence(name, places, findings.stages.boundaries, seeds.generator(seed, "turns", name))
        ours = findings.stages.boundaries
        found.append(replace(turns, straight=_straight(curve, ours, settings), inside=_inside(curve.steps, ours, settings)))
    return tuple(found)


def _straight(curve: Curves, places: Floats, settings: AnalysisSettings) -> bool:
    """Whether one curve surely makes no turn of the least size that counts, by its range, within the stage window of any place.

    Between checkpoints a curve may turn and come back unseen: fewer than three of them within a window tell nothing.
    """
    x = np.log1p(curve.steps.astype(np.float64))
    ends: list[float] = np.log1p(places).tolist()
    if _inside(curve.steps, places, settings) < _WITHIN:
        return False
    size = settings.least_change * float(np.ptp(curve.llc[0]))
    for place in ends:
        first = int(np.searchsorted(x, place - settings.stage_window)) - 1  # and the checkpoints beside the window
        last = int(np.searchsorted(x, place + settings.stage_window, side="right")) + 1
        rows = slice(max(first, 0), last)
        if not reversal(curve.llc[0, rows], curve.stderr[0, rows], settings.level / len(ends)) < size:
            return False
    return True


def _inside(steps: NDArray[np.int64], places: Floats, settings: AnalysisSettings) -> int:
    """The least number of checkpoints within the stage window of a place."""
    return int((np.abs(np.log1p(steps)[:, None] - np.log1p(places)[None]) <= settings.stage_window).sum(axis=0).min())


def _mean_curve(name: str, quantity: Quantity) -> Curves | None:
    """The mean of a quantity over the heads that have it at every checkpoint."""
    error = np.zeros(quantity.values.shape) if quantity.stderr is None else quantity.stderr
    whole = np.isfinite(quantity.values).all(axis=1) & np.isfinite(error).all(axis=1)
    if not whole.any() or len(quantity.steps) < _CHECKPOINTS:
        return None
    values, spread = quantity.values[whole].mean(axis=0)[None], error[whole].mean(axis=0)[None]
    half = normal_quantile(0.975) * spread
    outcome = np.full(values.shape, "ok", dtype="<U16")
    return Curves("", (name,), np.array(quantity.steps, dtype=np.int64), values, spread, values - half, values + half, outcome)


def ordered(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> Claim:
    """Whether a baseline orders heads as rLLC does."""
    known, heads = quantities(evidence), evidence.heads
    conditions: list[Condition] = []
    for row in findings.orderings:
        n = len(row.heads)
        if row.name != "memorised multigrams" and np.isfinite(row.correlation) and n > 3 and heads is not None:
            quantity = known[row.name]
            rows, at = [heads.parts.index(head) for head in row.heads], int(np.searchsorted(heads.steps, row.step))
            theirs, place = [quantity.heads.index(head) for head in row.heads], quantity.steps.index(row.step)
            noise = None if quantity.stderr is None else quantity.stderr[theirs, place]
            layers = layers_of(row.heads)
            trust = reliability(heads.llc[rows, at], heads.stderr[rows, at], layers)
            trust *= reliability(quantity.values[theirs, place], noise, layers)
            low, high = correlation_interval(row.correlation, n, settings.level, trust, len(np.unique(layers)))
            condition = beyond_chance(row.name, row.correlation, low, high, row.p_holm, settings.least_correlation, settings.level)
            # Of all ways to deal heads within layers, the best and its reverse: the least p-value there is, for the table.
            least = 2 * len(findings.orderings) / float(np.prod([factorial(int((layers == layer).sum())) for layer in np.unique(layers)]))
            if not condition.met and not condition.refused and least > settings.level:
                told = f"even the best order of {n} heads within {len(np.unique(layers))} layers is chance in {min(least, 1):.0%}, for the table of "
                condition = replace(condition, told=f"{told}{len(findings.orderings)}")
            conditions.append(questioned(condition, doubt(heads, row.heads, at)))
    return decide(
        "baseline-order",
        "Curvature, Fisher information, norms or ablation order the heads as the refined LLC does.",
        "Spearman's rank correlation within layers of each baseline with the final LLC, against heads of a layer dealt at random, two-sided, held "
        "for all rows of the table together (Holm); seen where one is positive beyond that. Not seen where the upper end of every interval, enlarged "
        "by what errors take "
        f"from a correlation, is below {settings.least_correlation:g}.",
        [any_of("rank correlation within layers", conditions, "no baseline was measured, or of too few heads (see the notes)")],
        [
            *[Number(row.name, row.correlation, *row.over_heads, row.p_holm) for row in findings.orderings],
            *[Number(f"{row.name}, over all layers together", row.pooled) for row in findings.orderings],
        ],
        flagged((heads, None, True)),
    )


def sees_stages(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> Claim:
    """Whether a baseline turns where the LLC does."""
    title = "distance of turns from the LLC's"
    held = holm(np.array([row.p for row in findings.turns], dtype=np.float64))
    conditions: list[Condition] = []
    for row, p in zip(findings.turns, held, strict=True):
        number = Number(row.name, row.mean, p=float(p), unit="log steps")
        met = bool(p <= settings.level and row.mean <= settings.stage_window)
        said = f"{row.mean:.2g} log steps, where chance gives {row.by_chance:.2g} (p = {p:.2g})" if len(row.places) else "no turn beyond its errors"
        said = f"{said}, and none of the least size near the LLC's" if row.straight else said
        if not met and not row.straight and 0 <= row.inside < _WITHIN:
            said += f"; {row.inside} checkpoints lie near a turn of the LLC, and it takes {_WITHIN} to tell that there is none"
        conditions.append(Condition(number, met, row.straight and not met, settings.stage_window, said))
    if findings.stages is None or not len(findings.stages.boundaries):
        condition = lacking(title, "the LLC of the full model has no turn beyond its errors", "log steps")
    else:
        condition = any_of(title, conditions, "no baseline was measured over training")
    return decide(
        "baseline-stages",
        "Curvature, Fisher information, norms or ablation show the stages that the LLC shows.",
        "The turns of each baseline's mean over heads, found as the LLC's are; their mean distance from the LLC's turns against turns laid at random "
        f"(Holm over baselines), and at most {settings.stage_window:g} in log(step + 1). Not seen where no baseline can have "
        f"turned within that of any turn of the LLC by {settings.least_change:.0%} of its range, by its errors; that takes {_WITHIN} checkpoints "
        "there.",
        [condition],
        [Number(row.name, row.mean, p=row.p, unit="log steps") for row in findings.turns],
        flagged((evidence.full.get(evidence.reference), ("full",), False)),
    )


def _nearest(ours: Floats, theirs: Floats, window: float) -> list[tuple[int, int]]:
    """Places of two lists that are each other's nearest, no further apart than the window: a turn that only one of them has did not move.

    >>> _nearest(np.array([1.0, 2.0, 2.4]), np.array([1.1, 2.3, 9.0]), 0.5)
    [(0, 0), (2, 1)]
    """
    if not (len(ours) and len(theirs)):
        return []
    apart = np.abs(ours[:, None] - theirs[None])
    pairs = [(i, int(apart[i].argmin())) for i in range(len(ours))]
    return [(i, j) for i, j in pairs if apart[:, j].argmin() == i and apart[i, j] <= window]


def sensitivity(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """Whether boundaries move with the temperature."""
    title, conditions = "shift of a boundary", list[Condition]()
    missing = "the LLC of the full model has no turn beyond its errors"
    if findings.stages is not None and len(findings.stages.boundaries):
        missing = "the full model was sampled at one inverse temperature"
        many = replace(settings, resamples=max(settings.resamples, _REDRAWN))
        again = settings.resamples < _REDRAWN and evidence.temperatures and evidence.reference in evidence.full
        ours = (stages(evidence.full[evidence.reference], many, seed)[0] if again else None) or findings.stages
        found = [(nbeta, stages(curves, many, seed)[0]) for nbeta, curves in evidence.temperatures.items()]
        pairs = [
            (nbeta, i, j, other)
            for nbeta, other in found
            if other is not None
            for i, j in _nearest(np.log1p(ours.boundaries), np.log1p(other.boundaries), settings.stage_window)
        ]
        missing = "no boundary is found at two temperatures" if found else missing
        for nbeta, i, j, other in pairs:
            width = [float(np.diff(np.log1p(s.intervals[k]))[0]) / (2 * normal_quantile(0.95)) for s, k in ((ours, i), (other, j))]
            error = float(np.hypot(width[0], width[1]))
            shift = abs(float(np.log1p(other.boundaries[j]) - np.log1p(ours.boundaries[i])))
            # The size of a shift of unknown sign: two-sided, so twice as many were tried.
            name = f"step {ours.boundaries[i]:,.0f}, nβ {evidence.nbeta:g} to {nbeta:g}"
            conditions.append(effect(name, shift, error, _MOVED, settings.level, tries=2 * len(pairs), unit="log steps"))
    return decide(
        "sensitivity",
        "The boundaries of the stages depend on the inverse temperature nβ (from 23 to 30 one moved by 1,000 steps).",
        "Boundaries at two temperatures that are each other's nearest and lie within the stage window: the size of each shift in log(step + 1) "
        f"beyond the errors of both, corrected for their number (Bonferroni); {_MOVED:g} is the least that counts.",
        [any_of(title, conditions, missing)],
        (),
        flagged(*[(curves, ("full",), False) for curves in (evidence.full.get(evidence.reference), *evidence.temperatures.values())]),
    )

"""Claims about specialisation on code, and about LLCs against a model of one layer (METHOD 5)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from rllc.analysis.aligned import Cells, cells, difference, mean
from rllc.analysis.comparisons import Circuit, Claim, Number
from rllc.analysis.curves import layer_of
from rllc.analysis.endpoints import doubt, questioned
from rllc.analysis.errors import joined, quantile
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings, Specialisation, freedom_of
from rllc.analysis.onsets import Onset
from rllc.analysis.parting import NEVER, heads_part
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, any_of, beyond_chance, decide, effect, flagged, lacking


def specialisation(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That on code the LLCs of the induction heads rise and part."""
    names = ("rise of induction heads on code", "rise beyond that of other heads", "parting of two induction heads beyond that on the mixture")
    data = next((name for name in settings.code if name in evidence.curves and name != evidence.reference), None)
    found = next((s for s in findings.specialisation if s.data == data), None)
    named = dict(zip(findings.types.heads, findings.types.types, strict=True))
    if data is None or found is None:
        conditions = [lacking(name, f"no head was sampled on program text ({', '.join(settings.code)})") for name in names]
    else:
        known = [i for i in range(len(found.heads)) if np.isfinite(found.difference[i]) and np.isfinite(found.stderr[i])]
        ours = [i for i in known if named.get(found.heads[i]) == "induction"]
        layers = {layer_of(found.heads[i]) for i in ours}
        others = [i for i in known if named.get(found.heads[i]) not in ("induction", None) and layer_of(found.heads[i]) in layers]
        if not ours:
            conditions = [lacking(name, "there is no induction head with an estimate on both") for name in names]
        else:
            heads = tuple(found.heads[i] for i in ours)
            base = evidence.curves[evidence.reference]
            sizes = base.llc[[base.parts.index(head) for head in heads], int(np.searchsorted(base.steps, found.step))]
            least = settings.least_change * float(np.abs(sizes).mean())
            errors = _errors(evidence, found)
            own, error = float(found.difference[ours].mean()), mean(errors[ours])
            conditions = [effect(names[0], own, error.one[0], least, settings.level, df=error.one[1], among=3)]
            if others:
                beyond, spread = own - float(found.difference[others].mean()), difference(error, mean(errors[others]))
                conditions.append(effect(names[1], beyond, spread.one[0], least, settings.level, df=spread.one[1], among=3))
            else:
                conditions.append(lacking(names[1], "their layer has no other heads"))
            conditions.append(_part(names[2], evidence, found, heads, least, settings, seed))
            sides = [(which, int(np.searchsorted(which.steps, found.step))) for which in (evidence.curves[data], base)]
            doubts, rest = ([doubt(which, parts, place) for which, place in sides] for parts in (heads, tuple(found.heads[i] for i in others)))
            conditions = [questioned(c, *said) for c, said in zip(conditions, (doubts, doubts + rest, doubts), strict=True)]
    return decide(
        "specialisation",
        "On code the refined LLC of the induction heads rises, and the two part.",
        "At the last checkpoint, the mean over induction heads of the LLC on program text less that on the mixture is above zero, and above that "
        "of the other heads of their layers; and two induction heads part on program text for good (by more errors than any checkpoint would by "
        "chance) and lie further apart there than on the mixture. Where the mixture holds program text itself, all of this is smaller than it would "
        f"be against other text. {settings.least_change:.0%} of the LLC of these heads is the least that counts; where a rise or every parting is "
        "smaller, the claim is refused.",
        conditions,
        [] if found is None else [Number(f"{h} on {data}", float(d)) for h, d in zip(found.heads, found.difference, strict=True)],
        "" if data is None else flagged((evidence.curves[data], None, False), (evidence.heads, None, True)),
    )


def _errors(evidence: Evidence, found: Specialisation) -> Cells:
    """Of the differences [H] of a specialisation."""
    steps = np.array([found.step], dtype=np.int64)
    here, there = (cells(evidence.curves[name], evidence.aligned, found.heads, steps) for name in (found.data, found.reference))
    return difference(here, there)


def _part(
    title: str, evidence: Evidence, found: Specialisation, heads: tuple[str, ...], least: float, settings: AnalysisSettings, seed: int
) -> Condition:
    """Two of the heads part on the data for good, and lie further apart there than on the reference."""
    curves, base = evidence.curves[found.data], evidence.curves[evidence.reference]
    pairs = [pair for pair in combinations(heads, 2) if all(head in curves.parts for head in pair)]
    if not pairs:
        return lacking(title, "there is one induction head")
    parting = heads_part(curves, seed, pairs=pairs, aligned=evidence.aligned, level=settings.level, resamples=0)
    errors, last = _errors(evidence, found), np.array([found.step], dtype=np.int64)
    at, place = int(np.searchsorted(curves.steps, found.step)), int(np.searchsorted(base.steps, found.step))
    conditions: list[Condition] = []
    for i, (one, other) in enumerate(pairs):
        a, b = (found.heads.index(head) for head in (one, other))
        here, there = ([which.parts.index(head) for head in (one, other)] for which in (curves, base))
        gap, usual = float(np.subtract(*curves.llc[here, at])), float(np.subtract(*base.llc[there, place]))
        gap_error, usual_error = (
            difference(*[cells(which, evidence.aligned, (head,), last)[0] for head in (one, other)], shared_noise=False) for which in (curves, base)
        )
        error, more = difference(errors[a], errors[b]), abs(gap) - abs(usual)
        size = (error if gap * usual >= 0 else difference(gap_error, -usual_error)).one
        wider = effect(parting.names[i], more, size[0], least, settings.level, df=size[1], tries=len(pairs), among=3, missing="no estimate")
        if not np.isfinite(wider.number.value):
            conditions.append(wider)
            continue
        # Two bounds on how much wider the gap can be, of which the nearer holds: by the difference, and by the sizes alone.
        beyond, above, below = (float(quantile(1 - settings.level / 6, e.one[1])) * e.one[0] for e in (error, gap_error, usual_error))
        high = min(abs(gap - usual) + beyond, abs(gap) + above - max(abs(usual) - below, 0.0))
        parted = bool(parting.steps[i] != NEVER)
        low, refused = wider.number.low, high < least
        conditions.append(Condition(Number(parting.names[i], wider.number.value, low, high), parted and low > 0 and not refused, refused, least))
    return any_of(title, conditions, "there is one induction head")


def falls(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> Claim:
    """That complexity leaves layer 0 while layer 1 gains it."""
    names = ("fall of the first layer from its peak", "rise of the first layer before it falls", "rise of the last layer meanwhile")
    found = findings.circuit
    if found is None:
        conditions = [lacking(name, "heads were not sampled against a model of fewer layers (see the notes)") for name in names]
    else:
        size = settings.least_change * float(np.abs(found.llc).max())
        fallen, peaked = _highest(found, settings.level / 3)
        conditions = [
            beyond_chance(names[0], float(found.fall[0]), float("nan"), fallen, float(found.fall_p[0]), size, settings.level),
            beyond_chance(names[1], float(found.rise[0]), float("nan"), peaked, float(found.rise_p[0]), size, settings.level),
        ]
        if found.fall[0] <= 0:
            conditions.append(lacking(names[2], "the first layer has no peak before the end"))
        else:
            df = np.inf if found.later_df is None else float(found.later_df[-1])
            conditions.append(effect(names[2], float(found.later[-1]), float(found.later_stderr[-1]), size, settings.level, df=df, among=3))
        firsts, lasts = (_doubts(found, evidence, layer) for layer in (0, -1))
        conditions = [
            questioned(condition, *doubts)
            for condition, doubts in zip(conditions, ((firsts[1], firsts[2]), firsts[:2], (lasts[1], lasts[2])), strict=True)
        ]
    return decide(
        "circuit-falls",
        "Against a model of one layer, the refined LLC falls in layer 0 after a peak while it still rises in layer 1: multigrams move to layer 1.",
        "Of the mean over a layer's heads: the fall of the first layer from its peak to the last checkpoint and its rise from the first checkpoint "
        "to that peak, each against the largest that the errors alone make of a curve that does not change; and the change of the last layer from "
        f"that peak on, above zero beyond its error. {settings.least_change:.0%} of the largest mean is the least that counts. Not seen where no "
        "checkpoint can lie that far above the last, or above both the first and the last, by its errors.",
        conditions,
        (),
        flagged((evidence.curves.get(evidence.circuit), None, False)),
    )


def _doubts(found: Circuit | None, evidence: Evidence, layer: int) -> tuple[str, str, str]:
    """Of the heads of a layer: doubts about the first checkpoint, about that at which the first layer peaks, and about the last."""
    curves = None if found is None else evidence.curves.get(found.data)
    if found is None or curves is None:
        return "", "", ""
    parts = [part for part in curves.parts if layer_of(part) == found.layers[layer]]
    steps: list[int] = curves.steps.tolist()
    first, peak, last = (doubt(curves, parts, steps.index(int(step))) for step in (found.steps[0], found.peak[0], found.steps[-1]))
    return first, peak, last


def _highest(found: Circuit, level: float) -> tuple[float, float]:
    """How far some checkpoint of the first layer may lie above the last, and above both the first and the last, at most.

    The bound of whichever checkpoint is truly furthest above covers it, so the largest of all bounds does.
    """
    llc, stderr, df = found.llc[0], found.stderr[0], freedom_of(found.df, found.stderr)[0]
    above_last, above_first = llc[:-1] - llc[-1], llc[1:-1] - llc[0]
    (of_last, df_last), (of_first, df_first) = (
        joined((stderr[which], df[which]), (stderr[end], df[end])) for which, end in ((slice(0, -1), -1), (slice(1, -1), 0))
    )
    one, two, first = quantile(1 - level, df_last), quantile(1 - level / 2, df_last), quantile(1 - level / 2, df_first)
    both = np.minimum(above_last[1:] + (two * of_last)[1:], above_first + first * of_first)
    return float((above_last + one * of_last).max()), float(both.max())


def peak(found: dict[str, Onset], evidence: Evidence, findings: Findings) -> Claim:
    """That the first layer peaks after LM2."""
    title, curve, mark = "peak of the first layer behind the onset of n-grams", findings.circuit, found.get("n-grams")
    if curve is None:
        condition = lacking(title, "heads were not sampled against a model of fewer layers (see the notes)", "log steps")
    elif mark is None or not len(mark.before):
        condition = lacking(title, "the loss on n-grams has no onset", "log steps")
    elif curve.peak[0] == curve.steps[-1] or not np.isfinite(curve.peak_interval[0]).all():
        condition = lacking(title, "the first layer has no peak before the end", "log steps")
    else:
        early, late = (float(np.log1p(end)) for end in curve.peak_interval[0])
        place = float(np.log1p(curve.peak[0]))
        # The peak lies between the checkpoints beside the one that is largest.
        steps = np.log1p(curve.steps.astype(np.float64))
        first = float(steps[max(int(np.searchsorted(steps, early)) - 1, 0)])
        last = float(steps[min(int(np.searchsorted(steps, late)) + 1, len(steps) - 1)])
        value = place - float(np.log1p(mark.step))
        low, high = first - float(np.log1p(mark.interval[1])), last - float(np.log1p(mark.interval[0]))
        # A layer that stands lower at the end by its tilt alone may have no peak.
        condition = questioned(Condition(Number(title, value, low, high, unit="log steps"), low > 0, high < 0), *_doubts(curve, evidence, 0)[1:])
    beside = [] if curve is None else [
        Number(f"peak of layer {layer}", float(step), float(low), float(high), unit="step")
        for layer, step, (low, high) in zip(curve.layers, curve.peak, curve.peak_interval, strict=True)
    ]  # fmt: skip
    return decide(
        "circuit-peak",
        "Against a model of one layer, the refined LLC of layer 0 peaks after n-grams are learned (LM2).",
        "The interval of the first layer's peak, widened to the checkpoints beside it, lies after that of the onset of n-grams; not seen where it "
        "lies before.",
        [condition],
        beside,
        flagged((evidence.curves.get(evidence.circuit), None, False)),
    )

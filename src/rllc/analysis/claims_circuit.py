"""Claims about specialisation on code and about the multigram circuit (METHOD 5)."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.curves import layer_of
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import TokenEffects
from rllc.analysis.onsets import Onset
from rllc.analysis.parting import NEVER, heads_part
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, any_of, beyond_chance, decide, effect, lacking

_EDGE = 0.1  # least effect of an edge that counts, as a share of the receiving head's direct effect on the loss
_AFFECTED = 0.1  # least correlation of two heads' effects over tokens that counts


def specialisation(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That on code the LLCs of the induction heads rise and part."""
    names = ("rise of induction heads on code", "rise beyond that of other heads", "parting of two induction heads")
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
            # The mean of the errors: what the error of a mean comes to where minibatches give all heads one noise.
            own, error = float(found.difference[ours].mean()), float(found.stderr[ours].mean())
            conditions = [effect(names[0], own, error, least, settings.level, among=3)]
            if others:
                beyond, spread = own - float(found.difference[others].mean()), float(np.hypot(error, found.stderr[others].mean()))
                conditions.append(effect(names[1], beyond, spread, least, settings.level, among=3))
            else:
                conditions.append(lacking(names[1], "their layer has no other heads"))
            conditions.append(_part(names[2], evidence, data, heads, least, settings, seed))
    return decide(
        "specialisation",
        "On code the refined LLC of the induction heads rises, and the two part.",
        "At the last checkpoint, the mean over induction heads of the LLC on program text less that on the mixture is above zero, and above that "
        "of the other heads of their layers; and two induction heads part on program text for good (by more errors than any checkpoint would by "
        f"chance). {settings.least_change:.0%} of the LLC of these heads is the least that counts; where a rise or every parting is smaller, "
        "the claim is refused.",
        conditions,
        [] if found is None else [Number(f"{h} on {data}", float(d)) for h, d in zip(found.heads, found.difference, strict=True)],
    )


def _part(title: str, evidence: Evidence, data: str, heads: tuple[str, ...], least: float, settings: AnalysisSettings, seed: int) -> Condition:
    curves = evidence.curves[data]
    pairs = [pair for pair in combinations(heads, 2) if all(head in curves.parts for head in pair)]
    if not pairs:
        return lacking(title, "there is one induction head")
    found = heads_part(curves, seed, pairs=pairs, level=settings.level, resamples=0)
    conditions: list[Condition] = []
    for i, name in enumerate(found.names):
        size, error = abs(float(found.final[i])), float(found.final_stderr[i])
        if not np.isfinite(size):
            conditions.append(lacking(name, "no estimate"))
            continue
        high = size + normal_quantile(1 - settings.level / 3) * error
        parted = found.steps[i] != NEVER
        conditions.append(
            Condition(Number(name, size, max(size - found.threshold * error, 0.0), high), parted and high >= least, high < least, least)
        )
    return any_of(title, conditions, "there is one induction head")


def falls(findings: Findings, settings: AnalysisSettings) -> Claim:
    """That complexity leaves layer 0 while layer 1 gains it."""
    names = ("fall of the first layer from its peak", "rise of the last layer meanwhile")
    found = findings.circuit
    if found is None:
        conditions = [lacking(name, "heads were not sampled against a model of fewer layers (see the notes)") for name in names]
    else:
        size = settings.least_change * float(np.abs(found.llc).max())
        high = float(found.fall[0] + normal_quantile(1 - settings.level / 2) * found.fall_stderr[0])
        conditions = [beyond_chance(names[0], float(found.fall[0]), float("nan"), high, float(found.fall_p[0]), size, settings.level)]
        if found.fall[0] <= 0:  # at its largest at the end: nothing fell, as far as these checkpoints go
            conditions = [Condition(Number(names[0], 0.0), False, True, size, "the last checkpoint is its largest")]
            conditions.append(lacking(names[1], "the first layer has no peak before the end"))
        else:
            conditions.append(effect(names[1], float(found.later[-1]), float(found.later_stderr[-1]), size, settings.level, among=2))
    return decide(
        "circuit-falls",
        "Against a model of one layer, the refined LLC falls in layer 0 after a peak while it still rises in layer 1: multigrams move to layer 1.",
        "Of the mean over a layer's heads: the fall of the first layer from its peak to the last checkpoint, against the largest fall that the "
        "errors "
        "alone make of a curve that does not change; and the change of the last layer over the same checkpoints, above zero beyond its error. "
        f"{settings.least_change:.0%} of the largest mean is the least that counts.",
        conditions,
    )


def peak(found: dict[str, Onset], findings: Findings) -> Claim:
    """That the first layer peaks after LM2."""
    title, curve, mark = "peak of the first layer behind the onset of n-grams", findings.circuit, found.get("n-grams")
    if curve is None:
        condition = lacking(title, "heads were not sampled against a model of fewer layers (see the notes)", "log steps")
    elif mark is None or not len(mark.before):
        condition = lacking(title, "the n-gram score has no onset", "log steps")
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
        condition = Condition(Number(title, value, low, high, unit="log steps"), low > 0, high < 0)
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
    )


def same_tokens(evidence: Evidence, settings: AnalysisSettings) -> Claim:
    """That a head of layer 0 and a head of layer 1 affect the same tokens."""
    tokens = evidence.measured.tokens
    title, conditions, beside = "correlation of their effects", list[Condition](), list[Number]()
    missing = "effects on single tokens were not measured"
    if tokens is not None and len(tokens.steps):
        layers = [layer_of(head) for head in tokens.heads]
        pairs = [(i, j) for i in range(len(layers)) for j in range(len(layers)) if layers[i] < layers[j]]
        missing = "the model has one layer" if not pairs else missing
        conditions = [_together(tokens, i, j, len(pairs), settings) for i, j in pairs]
        best = [float(tokens.overlap[i, j, -1, 0]) for i, j in pairs if np.isfinite(tokens.overlap[i, j, -1, 0])]
        if best:
            beside = [Number(f"largest overlap of the most affected {tokens.overlap_fraction:.1%}", max(best))]
    return decide(
        "circuit-tokens",
        "A head of layer 0 and a head of layer 1 come to affect the same tokens.",
        "Over the predictions of held-out text, the correlation of what ablating each of the two does to the loss: above zero at the last "
        "checkpoint for "
        "some pair, and for the same pair larger than at the first one measured, by errors that leave contexts out, corrected for the number of "
        f"pairs (Bonferroni). {_AFFECTED:g} is the least that counts of both.",
        [any_of(title, conditions, missing)],
        beside,
    )


def _together(tokens: TokenEffects, i: int, j: int, tries: int, settings: AnalysisSettings) -> Condition:
    """Both of one pair: correlated at the end, and more than at the beginning."""
    name = f"{tokens.heads[i]} and {tokens.heads[j]}"
    (first, last), (before, after) = (values[i, j, [0, -1], 0] for values in (tokens.correlation, tokens.correlation_stderr))
    ends = effect(name, float(last), float(after), _AFFECTED, settings.level, tries=tries, among=2)
    if len(tokens.steps) < 2:
        return Condition(ends.number, False, ends.refused, ends.least, "it was measured at one checkpoint, which shows no growth")
    error = float(np.hypot(before, after))
    grown = effect(f"{name}, growth", float(last - first), error, _AFFECTED, settings.level, tries=tries, among=2)
    decisive = grown if grown.refused and not ends.refused else ends
    if ends.met and not grown.met and not grown.refused:
        decisive = grown
    return Condition(decisive.number, ends.met and grown.met, ends.refused or grown.refused, _AFFECTED, decisive.told)


def edge(evidence: Evidence, settings: AnalysisSettings) -> Claim:
    """That the path from a head of layer 0 to a head of layer 1 matters."""
    title, paths = "effect of the edge, over the direct effect of its receiver", evidence.measured.paths
    conditions: list[Condition] = []
    if paths is not None and len(paths.steps) and paths.inputs:
        joint = paths.inputs.index("QKV") if "QKV" in paths.inputs else len(paths.inputs) - 1
        for i, (sender, receiver) in enumerate(paths.pairs):
            whole = float(paths.direct[paths.heads.index(receiver), -1, 0])
            name, error = f"{sender} to {receiver}", float(paths.stderr[joint, i, -1, 0])
            if whole > 0:
                value = float(paths.effect[joint, i, -1, 0])
                conditions.append(effect(name, value / whole, error / whole, _EDGE, settings.level, tries=len(paths.pairs)))
            else:
                conditions.append(lacking(name, "the receiver has no direct effect of its own"))
    return decide(
        "circuit-edge",
        "The path from a head of layer 0 to a head of layer 1 matters: ablating that edge alone costs loss.",
        "At the last checkpoint the rise of the loss, when the path from one head to all inputs of another is ablated, is above zero for some edge, "
        f"by errors over contexts, corrected for the number of edges (Bonferroni). {_EDGE:.0%} of what ablating the receiver's own path to the "
        "logits costs is the least that counts.",
        [any_of(title, conditions, "no path was ablated" if paths is None else "the model has one layer")],
    )


def composition(evidence: Evidence, settings: AnalysisSettings) -> Claim:
    """That a pair of heads composes more than random matrices do."""
    title, scores = "composition above random matrices", evidence.measured.composition
    conditions: list[Condition] = []
    if scores is not None and len(scores.steps):
        tries = len(scores.pairs) * len(scores.scores)
        error = float(np.hypot(scores.baseline_deviation, scores.baseline_stderr))
        conditions = [
            effect(f"{a} to {b} by {kind.upper()}", float(value), error, scores.baseline, settings.level, tries=tries)
            for kind in scores.scores
            for (a, b), value in zip(scores.pairs, scores.excess(kind)[:, -1], strict=True)
            if np.isfinite(value)
        ]
    return decide(
        "circuit-composition",
        "Heads of layer 0 and layer 1 compose: their composition scores are above those of random matrices.",
        "At the last checkpoint the Q-, K- or V-composition of some pair, less the mean of random matrices of the same sizes, exceeds what the "
        "spread of "
        "random matrices would give any of the pairs (Bonferroni, normal). Once more the random mean is the least that counts.",
        [any_of(title, conditions, "composition was not measured" if scores is None else "the model has one layer")],
    )

"""Claims about heads: that their curves tell types apart, and what a low or a high final LLC goes with (METHOD 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.aligned import Aligned, cells, difference
from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.curves import layer_of, select
from rllc.analysis.endpoints import doubt, questioned
from rllc.analysis.errors import quantile
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.learners import t_quantile
from rllc.analysis.parting import NEVER, heads_part
from rllc.analysis.regression import dealt, layers_of, spearman
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, beyond_chance, correlation_interval, decide, flagged, lacking, out_of_reach, reliability
from rllc.core import seeds

_PERMUTATIONS = 4000
_SIMPLE = ("induction", "bracket")


def differentiation(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That heads of a layer part over training."""
    title, least = "share of pairs that part over training", 0.5
    curves = evidence.heads
    named = dict(zip(findings.types.heads, findings.types.types, strict=True))
    condition = lacking(title, "no layer has two heads with estimates")
    beside: list[Number] = []
    if curves is not None and len(curves.steps) > 1:
        same = [(a, b) for i, a in enumerate(curves.parts) for b in curves.parts[i + 1 :] if layer_of(a) == layer_of(b)]
        pairs = [(a, b) for a, b in same if named.get(a) != named.get(b)] or same
        grown = [_grown(curves, evidence.aligned, a, b, 1 - settings.level / len(pairs)) for a, b in pairs]
        found = heads_part(curves, seed, pairs=pairs, aligned=evidence.aligned, level=settings.level, resamples=0) if pairs else None
        known = np.array([i for i, ends in enumerate(grown) if ends is not None], dtype=np.int64)
        if found is not None and len(known):
            size = settings.least_change * float(np.nanmean(np.abs(curves.llc[:, -1])))
            low, high = (np.array([ends[k] for ends in grown if ends is not None]) for k in (0, 1))
            differ = (found.steps != NEVER)[known]
            parted = differ & (low > 0)
            # A pair may yet part where the interval of what it has gained reaches the least that counts.
            may = parted | (high >= size)
            number = Number(title, float(parted.mean()), float(parted.mean()), float(may.mean()))
            condition = Condition(number, parted.mean() >= least, may.mean() < least, least)
            beside = [
                Number("pairs", float(len(parted))),
                Number("share of pairs that differ for good, from the start or later", float(differ.mean())),
            ]
    elif curves is not None:
        condition = lacking(title, "heads were sampled at one checkpoint, which shows no growth")
    return decide(
        "differentiation",
        "The refined LLCs of attention heads differentiate over training.",
        "Pairs of heads of one layer and of different types (of all pairs where there is one type). They part from the checkpoint on from which "
        "their curves differ for good by more errors than any comparison at any checkpoint would by chance (Šidák), if they differ more at the last "
        "checkpoint than at the first beyond the errors (Bonferroni); seen where half of the pairs part. Not seen where fewer than half can have "
        f"grown apart by {settings.least_change:.0%} of the mean LLC.",
        [questioned(condition, doubt(curves, None, 0, -1))],
        beside,
        flagged((curves, None, False)),
    )


def _grown(curves: Curves, aligned: Mapping[str, Aligned], one: str, other: str, share: float) -> tuple[float, float] | None:
    """Ends of how much further apart two heads are at the last checkpoint than at the first that they share; None where that is one checkpoint."""
    a, b = curves.parts.index(one), curves.parts.index(other)
    gap, error = curves.llc[a] - curves.llc[b], difference(*[cells(curves, aligned, (head,))[0] for head in (one, other)], shared_noise=False)
    known = np.flatnonzero(np.isfinite(gap) & np.isfinite(error.stderr))
    if len(known) < 2 or known[-1] != len(curves.steps) - 1:
        return None
    (first, last), ends = np.abs(gap[known[[0, -1]]]), [error[int(known[end])] for end in (0, -1)]
    before, after = (float(quantile(share, end.df)) * end.one[0] for end in ends)
    # Of differences that point to either side the sizes differ by the sum, from which nothing that both share cancels.
    grown, df = difference(ends[1], ends[0] if np.prod(gap[known[[0, -1]]]) >= 0 else -ends[0]).one
    # Sizes of differences are too large by noise: the upper end takes each at its own worst.
    return float(last - first - quantile(share, df) * grown), float(last + after - max(first - before, 0.0))


def simple_is_low(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That simple algorithms end low."""
    title = "mean final LLC of other heads less that of simple ones"
    # Previous- and current-token heads are on neither side: the paper says nothing of how they end.
    named = {head: kind for head, kind in zip(findings.types.heads, findings.types.types, strict=True) if kind in (*_SIMPLE, "other")}
    condition, beside, heads = lacking(title, "no head was measured"), list[Number](), list[str]()
    if evidence.heads is not None:
        curves = evidence.heads
        known = [head for head, end in zip(curves.parts, curves.llc[:, -1], strict=True) if head in named and np.isfinite(end)]
        of_layer: dict[int, list[str]] = {}
        for head in known:
            of_layer.setdefault(layer_of(head), []).append(head)
        # A layer that has one side alone makes no difference within it.
        heads = [head for own in of_layer.values() if len({named[head] == "other" for head in own}) == 2 for head in own]
        if not heads:
            condition = lacking(title, "no layer has both induction or bracket heads and heads of no type")
        else:
            values, simple = select(curves, heads).llc[:, -1], np.array([named[head] != "other" for head in heads], dtype=np.bool_)
            condition = _contrast(title, values, simple, layers_of(heads), settings, seed)
            sides = [[head for head, low in zip(heads, simple, strict=True) if low == side] for side in (True, False)]
            condition = questioned(condition, *(doubt(curves, side, -1) for side in sides))
            beside = [Number("simple heads", float(simple.sum())), Number("other heads", float((~simple).sum()))]
    return decide(
        "simple-is-low",
        "Heads with a simple algorithm, induction or bracket matching, end with a low refined LLC; heads that memorise multigrams end high.",
        "Simple heads are induction and bracket heads; heads of no type are called other, and previous- and current-token heads are on neither side. "
        "The difference of the mean final LLC within layers, against the same with types dealt to the heads of a layer at random. Not seen where "
        "the upper end "
        f"of its interval over heads is below {settings.least_change:.0%} of the mean LLC.",
        [condition],
        beside,
        flagged((evidence.heads, heads, True)),
    )


def _contrast(title: str, values: Floats, simple: NDArray[np.bool_], layers: NDArray[np.int64], settings: AnalysisSettings, seed: int) -> Condition:
    """Within layers: mean of the others less mean of the simple, layers weighted by their number of heads."""
    generator = seeds.generator(seed, "claim", "simple")
    found, squares, freedom, spread = 0.0, 0.0, 0, 0.0
    chance = np.zeros(_PERMUTATIONS)
    for layer in np.unique(layers):
        v, s = values[layers == layer], simple[layers == layer]
        weight = len(v) / len(values)
        found += weight * float(v[~s].mean() - v[s].mean())
        dealt = generator.permuted(np.broadcast_to(s, (_PERMUTATIONS, len(s))), axis=1)
        chance += weight * ((~dealt @ v) / (~s).sum() - (dealt @ v) / s.sum())
        squares += float(((v[s] - v[s].mean()) ** 2).sum() + ((v[~s] - v[~s].mean()) ** 2).sum())
        freedom += len(v) - 2
        spread += weight**2 * (1 / s.sum() + 1 / (~s).sum())
    p = float((1 + (chance >= found - 1e-12).sum()) / (1 + _PERMUTATIONS))
    least = settings.least_change * float(np.abs(values).mean())
    half = t_quantile(1 - settings.level, freedom) * float(np.sqrt(squares / freedom * spread)) if freedom > 0 else float("inf")
    return beyond_chance(title, found, found - half, found + half, p, least, settings.level)


def memorised(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That final wrLLC goes with the number of memorised multigrams."""
    title, line = "rank correlation within layers", findings.regression
    held = evidence.measured.memorised
    conditions, beside = [lacking(title, "memorised multigrams were not counted, or of too few heads (see the notes)")], list[Number]()
    if line is not None and held is not None and evidence.heads is not None:
        values = np.array([evidence.heads.llc[evidence.heads.parts.index(head), -1] for head in line.heads])
        counted = np.array([held.multigrams()[held.heads.index(head), -1] for head in line.heads], dtype=np.float64)
        found, layers = line.rank_correlation, layers_of(line.heads)
        shuffled = spearman(values, dealt(counted, _PERMUTATIONS, seeds.generator(seed, "claim", "memorised"), layers), layers)
        p = float((1 + (shuffled >= found - 1e-12).sum()) / (1 + _PERMUTATIONS))
        errors = np.array([evidence.heads.stderr[evidence.heads.parts.index(head), -1] for head in line.heads])
        low, high = correlation_interval(found, len(values), settings.level, reliability(values, errors, layers), line.layers)
        least = float(line.slope_without.min())
        conditions = [
            out_of_reach(
                beyond_chance(title, found, low, high, p, settings.least_correlation, settings.level),
                shuffled,
                settings.level,
                f"order of {len(values)} heads within {line.layers} layers",
            ),
            Condition(Number("smallest slope without any one head", least), least > 0, False, told=f"{least:.3g}: a single head makes the line"),
        ]
        conditions = [questioned(condition, doubt(evidence.heads, line.heads, -1)) for condition in conditions]
        beside = [Number("slope", line.slope, *line.slope_interval), Number("R² of heads left out", line.r2_left_out)]
        beside.append(Number("rank correlation over all layers together", line.pooled))
        beside += _other_thresholds(evidence, line.heads, values)
    return decide(
        "memorised",
        "The final refined LLC of a head correlates with the number of multigrams that it has memorised.",
        "Spearman's rank correlation within layers, against multigrams dealt to the heads of a layer at random (one-sided), and a least-squares "
        "slope within layers that stays positive whichever head is left out: that one layer has both more than another is no correlation of heads. "
        "Not seen where the upper end of the correlation's interval, enlarged by what the errors of the LLC take from it, is below "
        f"{settings.least_correlation:g}.",
        conditions,
        beside,
        flagged((evidence.heads, line.heads, True)) if line is not None else "",
    )


def _other_thresholds(evidence: Evidence, heads: tuple[str, ...], values: Floats) -> list[Number]:
    held = evidence.measured.memorised
    if held is None:
        return []
    rows = [held.heads.index(head) for head in heads]
    counts = held.own_by.sum(-1)[rows, -1].astype(np.float64)  # [H, X, M]
    return [
        Number(f"rank correlation by {threshold:g} nats in {least} contexts", float(spearman(values, counts[:, x, m], layers_of(heads))))
        for x, threshold in enumerate(held.thresholds)
        for m, least in enumerate(held.least)
    ]

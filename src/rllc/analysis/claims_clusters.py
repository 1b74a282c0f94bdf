"""The claim that clusters of curves are the types of heads (METHOD 5)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.agreement import adjusted_rand, dealt_types
from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.curves import complete, layer_of, select
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings
from rllc.analysis.partition import partition, repartitions
from rllc.analysis.redraw import distinct, prepare, redrawn
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, beyond_chance, decide, flagged, lacking, out_of_reach
from rllc.core import seeds

_PERMUTATIONS = 4000
_STARTS = 10  # of K-means
_STABLE = 0.8  # adjusted Rand index of redrawn clusters, from which on clusters may refuse the claim


def clusters(evidence: Evidence, findings: Findings, settings: AnalysisSettings, seed: int) -> Claim:
    """That K-means of the last layer's curves finds the types.

    Into as many clusters as there are types: that number says nothing of which head is of which type, and no criterion for it can fail. The claim is
    refused only where no other number that is tried agrees either.
    """
    title, heads = "adjusted Rand index", evidence.heads
    condition, used = lacking(title, "no head was measured"), list[str]()
    if heads is not None:
        last = max(layer_of(head) for head in heads.parts)
        whole, _, _ = complete(select(heads, [head for head in heads.parts if layer_of(head) == last]))
        used = list(whole.parts)
        condition = _recovered(title, whole, f"layer {last}", findings, settings, seed)
    beside = [
        Number(f"{a.method}, {a.preprocessing}, {a.time} time, {a.scope}, with the range of chance:", a.adjusted_rand, *a.chance_interval, a.p_holm)
        for a in findings.agreements
    ]
    return decide(
        "clusters",
        "Clustering the curves of the last layer's heads over training by K-means recovers their types.",
        "The adjusted Rand index of K-means on the curves of the last layer, into as many clusters as its heads have types, with the types by "
        f"behaviour, against types dealt to the heads at random; {settings.least_correlation:g} is the least that counts. Not seen where even curves "
        f"redrawn within their errors agree less, into however many clusters from 2 to {settings.max_clusters}, if the clusters of the types' number "
        f"are stable (index of redrawn ones at least {_STABLE:g}). Beside: every clustering against types dealt within layers, p-values held "
        "together (Holm).",
        [condition],
        beside,
        flagged((heads, used, False)),
    )


def _recovered(title: str, whole: Curves, where: str, findings: Findings, settings: AnalysisSettings, seed: int) -> Condition:
    """Of complete curves of one layer."""
    named, n = dict(zip(findings.types.heads, findings.types.types, strict=True)), len(whole.parts)
    if n < 3:
        return lacking(title, f"{n} heads of {where} have complete curves, and clusters need at least 3")
    if any(head not in named for head in whole.parts):
        return lacking(title, "clustered heads have no type")
    names = sorted({named[head] for head in whole.parts})
    if len(names) < 2:
        return lacking(title, f"the heads of {where} are all of the type {names[0]}, so that there is nothing to recover")
    preprocessing, time = settings.preprocessing[0], settings.time[0]
    if preprocessing != "raw" and len(whole.steps) < 2:
        return lacking(title, "one checkpoint has no shape to standardise")
    points = prepare(whole.llc, preprocessing, whole.steps, time)
    largest = min(distinct(points), n - 1)
    if largest < 2:
        return lacking(title, "the curves do not differ")
    ids = np.array([names.index(named[head]) for head in whole.parts])
    generator = seeds.generator(seed, "claim", "clusters")
    drawn = np.stack([prepare(values, preprocessing, whole.steps, time) for values in redrawn(whole, settings.resamples, generator)])
    size = min(len(names), largest)
    labels = partition(points, "kmeans", size, seeds.derive(seed, "claim", "clusters", size) % 2**32, _STARTS)
    if labels is None:
        return lacking(title, "K-means left a cluster empty in every start")
    found = float(adjusted_rand(ids[None], labels)[0])
    chance = adjusted_rand(dealt_types(ids, _PERMUTATIONS, generator, whole.parts), labels)
    p = float((1 + (chance >= found - 1e-9).sum()) / (1 + _PERMUTATIONS))

    def ends(into: int) -> tuple[float, float, float]:
        """Of the index with the types, redrawn; and how stable the clusters are."""
        again = repartitions(drawn, "kmeans", into, generator.integers(2**31, size=len(drawn)))
        indices = adjusted_rand(again, ids)
        stable = float(adjusted_rand(again, labels).mean()) if into == size else float("nan")
        return float(np.quantile(indices, settings.level)), float(np.quantile(indices, 1 - settings.level)), stable

    low, high, stable = ends(size)
    high = max(high, found) if stable >= _STABLE else 1.0
    for into in range(2, min(settings.max_clusters, largest) + 1):
        if high < settings.least_correlation and into != size:
            high = max(high, ends(into)[1])
    condition = beyond_chance(title, found, min(low, found), high, p, settings.least_correlation, settings.level)
    return out_of_reach(condition, chance, settings.level, f"agreement of these clusters with {n} heads of these types")

"""Heads grouped by the shape of their wrLLC curves, with a measure of how far noise could have made the groups (METHOD 5)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.agreement import adjusted_rand
from rllc.analysis.curves import complete, layer_of, select
from rllc.analysis.findings import Clustering, Curves, Floats
from rllc.analysis.learners import Labels, cut, kmeans, silhouette, ward_tree
from rllc.analysis.settings import AnalysisSettings, Method, Preprocessing
from rllc.core import seeds

_STARTS, _RESTARTS = 10, 3  # K-means starts: for the answer, and for each resample


def clusterings(curves: Curves, settings: AnalysisSettings, seed: int) -> tuple[tuple[Clustering, ...], tuple[str, ...]]:
    """Every method and preprocessing, over all heads and over each layer's; then, as sentences, what was left out and why.

    Heads and checkpoints without estimates are left out as `curves.complete` says, separately for each scope, and never filled in.
    """
    scopes = {"all": curves.parts}
    layers = sorted({layer_of(head) for head in curves.parts})
    if len(layers) > 1:
        scopes |= {f"layer {layer}": tuple(head for head in curves.parts if layer_of(head) == layer) for layer in layers}
    found: list[Clustering] = []
    reasons: list[str] = []
    for scope, heads in scopes.items():
        whole, left_out, steps_out = complete(select(curves, heads))
        if left_out:
            reasons.append(f"Clusters ({scope}) leave out {', '.join(left_out)}: not every checkpoint has an estimate.")
        if steps_out:
            reasons.append(f"Clusters ({scope}) leave out step {', '.join(map(str, steps_out))}: most heads have no estimate there.")
        for preprocessing in settings.preprocessing:
            for method in settings.methods:
                clustering, reason = cluster(whole, method, preprocessing, scope, settings, seed, left_out)
                if clustering is not None:
                    found.append(clustering)
                elif reason not in reasons:
                    reasons.append(reason)
    return tuple(found), tuple(reasons)


def cluster(
    curves: Curves,
    method: Method,
    preprocessing: Preprocessing,
    scope: str,
    settings: AnalysisSettings,
    seed: int,
    left_out: tuple[str, ...] = (),
) -> tuple[Clustering | None, str]:
    """One clustering of complete curves, or None and the reason, as a sentence.

    `stability` is the mean adjusted Rand index between these labels and those of curves resampled within their errors (independent normal errors,
    the same number of clusters), with the 5 to 95 % range; the curves hold their noise once already, so it errs on the side of doubt. Errors that
    heads share are treated as independent, which errs on the same side.
    """
    n = len(curves.parts)
    what = f"There are no clusters ({scope}, {preprocessing})"
    if n < 3:
        return None, f"{what}: {n} of its heads have complete curves, and clusters need at least 3."
    if preprocessing == "standardised" and len(curves.steps) < 2:
        return None, f"{what}: one checkpoint has no shape to standardise."
    points = _prepare(curves.llc, preprocessing)
    distinct = _distinct(points)
    if distinct < 2:
        return None, f"{what}: the curves do not differ."
    if settings.n_clusters > min(distinct, n - 1):
        return None, f"{what}: {settings.n_clusters} clusters were asked for of {distinct} distinct curves among {n} heads."
    state = seeds.derive(seed, "clusters", method, preprocessing, scope) % 2**32
    sizes = [settings.n_clusters] if settings.n_clusters else range(2, min(settings.max_clusters, distinct, n - 1) + 1)
    tried = [_labels(points, method, size, state, _STARTS) for size in sizes]
    silhouettes = [silhouette(points, labels) for labels in tried]
    best = int(np.argmax(silhouettes))
    labels = _by_final_value(tried[best], curves.llc)
    indices = _stability(curves, labels, method, preprocessing, settings.resamples, seeds.generator(seed, "resamples", method, preprocessing, scope))
    low, high = (float(value) for value in np.quantile(indices, (0.05, 0.95)))
    tree = ward_tree(points) if method == "hierarchical" else None
    return Clustering(
        method=method,
        scope=scope,
        preprocessing=preprocessing,
        heads=curves.parts,
        labels=labels,
        n_clusters=int(labels.max()) + 1,
        silhouette=silhouettes[best],
        stability=float(indices.mean()),
        stability_interval=(low, high),
        linkage=tree,
        left_out=left_out,
    ), ""


def _stability(
    curves: Curves, labels: Labels, method: Method, preprocessing: Preprocessing, resamples: int, generator: np.random.Generator
) -> Floats:
    n_clusters = int(labels.max()) + 1
    noise = generator.standard_normal((resamples, *curves.llc.shape))
    states = generator.integers(2**31, size=resamples)
    resampled = np.zeros((resamples, len(labels)), dtype=np.int64)  # one cluster: an index of 0, for curves that coincide
    for i in range(resamples):
        points = _prepare(curves.llc + curves.stderr * noise[i], preprocessing)
        if _distinct(points) >= n_clusters:
            resampled[i] = _labels(points, method, n_clusters, int(states[i]), _RESTARTS)
    return adjusted_rand(resampled, labels)


def _prepare(llc: Floats, preprocessing: Preprocessing) -> Floats:
    """Points [H, S] for the Euclidean distance. A constant curve has no shape: standardised it is zero throughout."""
    if preprocessing == "raw":
        return llc
    centred = llc - llc.mean(axis=1, keepdims=True)
    spread = llc.std(axis=1, keepdims=True)
    flat = spread <= 1e-12 * np.abs(llc).max(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))


def _distinct(points: Floats) -> int:
    """How many points [H, S] differ by more than rounding."""
    largest = float(np.abs(points).max())
    return len({tuple(row) for row in np.round(points / largest, 9).tolist()}) if largest > 0 else 1


def _labels(points: Floats, method: Method, n_clusters: int, state: int, starts: int) -> Labels:
    if method == "kmeans":
        return kmeans(points, n_clusters, starts, state)
    return cut(ward_tree(points), n_clusters)


def _by_final_value(labels: Labels, llc: Floats) -> Labels:
    """The same clusters, numbered from the lowest mean final value to the highest."""
    names = np.unique(labels)
    finals = [llc[labels == name, -1].mean() for name in names]
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(finals, kind="stable")] = np.arange(len(names))
    return rank[np.searchsorted(names, labels)]

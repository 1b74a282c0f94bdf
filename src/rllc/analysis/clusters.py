"""Heads grouped by the shape of their wrLLC curves, with a measure of how far noise could have made the groups (METHOD 5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, get_args

import numpy as np

from rllc.analysis.agreement import adjusted_rand
from rllc.analysis.curves import complete, layer_of, select
from rllc.analysis.findings import Clustering, Curves, Floats, Numbers
from rllc.analysis.learners import Labels, matched, silhouette_of, ward_tree
from rllc.analysis.partition import WARPED, distances, numbers_of, partition, repartitions
from rllc.analysis.redraw import distinct, prepare, redrawn
from rllc.analysis.settings import METHODS, AnalysisSettings, Criterion, Method, Preprocessing, Time
from rllc.analysis.warped import available
from rllc.core import seeds
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float

_STARTS = 10  # of an iterative method, for the answer
_WARPED_STARTS = 2


def clusterings(curves: Curves, settings: AnalysisSettings, seed: int) -> tuple[tuple[Clustering, ...], tuple[str, ...]]:
    """Every method, preprocessing and time, over all heads and over each layer's; then, as sentences, what was left out and why.

    Methods that need tslearn are left out where it is not installed. Heads and checkpoints without estimates are left out as `curves.complete` says,
    separately for each scope, and never filled in.
    """
    scopes = {"all": curves.parts}
    layers = sorted({layer_of(head) for head in curves.parts})
    if len(layers) > 1:
        scopes |= {f"layer {layer}": tuple(head for head in curves.parts if layer_of(head) == layer) for layer in layers}
    found: list[Clustering] = []
    reasons: list[str] = []
    methods: list[Method] = [method for method in settings.methods if method not in WARPED or available()]
    if len(methods) < len(settings.methods):
        left = " and ".join(METHODS[method] for method in settings.methods if method not in methods)
        reasons.append(f"There are no clusters by {left}: tslearn, which makes them, is not installed (`pip install 'rllc[cluster]'`).")
    for scope, heads in scopes.items():
        whole, left_out, steps_out = complete(select(curves, heads))
        if left_out:
            reasons.append(f"Clusters ({scope}) leave out {', '.join(left_out)}: not every checkpoint has an estimate.")
        if steps_out:
            reasons.append(f"Clusters ({scope}) leave out step {', '.join(map(str, steps_out))}: most heads have no estimate there.")
        for time, preprocessing, method in product(settings.time, settings.preprocessing, methods):
            clustering, reason = cluster(whole, method, preprocessing, scope, settings, seed, left_out, time=time)
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
    chains: Float[np.ndarray, "P S C"] | None = None,
    time: Time | None = None,
) -> tuple[Clustering | None, str]:
    """One clustering of complete curves, or None and the reason, as a sentence.

    Any array over checkpoints will do as curves: λ̂, or a head's ablation effect with its error. `stability` is the mean adjusted Rand index between
    these labels and those of curves redrawn within their errors (`redraw.redrawn`, which `chains` refines; the same number of clusters), with the
    5 to 95 % range; `together` and `confidence` tell the same of pairs and of single heads. `time` is the first of the settings' unless told.
    Raises RllcError where a method needs tslearn and it is not installed.
    """
    n = len(curves.parts)
    what = f"There are no clusters ({scope}, {preprocessing})"
    if n < 3:
        return None, f"{what}: {n} of its heads have complete curves, and clusters need at least 3."
    if preprocessing != "raw" and len(curves.steps) < 2:
        return None, f"{what}: one checkpoint has no shape to standardise."
    time, starts = time or settings.time[0], _starts(method)
    points = prepare(curves.llc, preprocessing, curves.steps, time)
    different = distinct(points)
    if different < 2:
        return None, f"{what}: the curves do not differ."
    if settings.n_clusters > min(different, n - 1):
        return None, f"{what}: {settings.n_clusters} clusters were asked for of {different} distinct curves among {n} heads."
    drawn, numbers = _redrawn(curves, method, preprocessing, scope, time, settings, seed, chains), None
    state = seeds.derive(seed, "clusters", method, preprocessing, scope) % 2**32
    if settings.n_clusters:
        tried = {settings.n_clusters: partition(points, method, settings.n_clusters, state, starts)}
        chosen = settings.n_clusters
    else:
        largest = min(settings.max_clusters, different, n - 1)
        tried = {size: partition(points, method, size, state, starts) for size in range(1, largest + 1)}
        stream = _stream(seed, "numbers", method, preprocessing, scope)
        numbers = numbers_of(points, list(tried.values()), method, (settings.criterion,), drawn, settings.gap_references, state, stream)
        chosen = numbers.chosen[settings.criterion]
    if chosen == 1:
        return None, f"{what}: the {settings.criterion} criterion finds one group by {method}."
    best = tried.get(chosen)
    if best is None:
        return None, f"{what}: {method} left a cluster empty in every start."
    labels = _by_final_value(best, curves.llc)
    states = _stream(seed, "restarts", method, preprocessing, scope).integers(2**31, size=len(drawn))
    again = repartitions(drawn, method, chosen, states)
    indices = adjusted_rand(again, labels)
    low, high = (float(value) for value in np.quantile(indices, (0.05, 0.95)))
    together, confidence = _heads_apart(again, labels)
    return Clustering(
        method=method,
        scope=scope,
        preprocessing=preprocessing,
        heads=curves.parts,
        labels=labels,
        n_clusters=chosen,
        silhouette=silhouette_of(distances(points, method), labels),
        stability=float(indices.mean()),
        stability_interval=(low, high),
        linkage=ward_tree(points) if method == "hierarchical" else None,
        left_out=left_out,
        time=time,
        together=together,
        confidence=confidence,
        numbers=numbers,
    ), ""


def how_many(
    curves: Curves,
    method: Method,
    preprocessing: Preprocessing,
    settings: AnalysisSettings,
    seed: int,
    chains: Float[np.ndarray, "P S C"] | None = None,
) -> Numbers:
    """Every criterion of the number of clusters, side by side, of complete curves; `settings.max_clusters` bounds the numbers tried.

    Raises RllcError where fewer than three heads or fewer than two distinct curves are given.
    """
    time = settings.time[0]
    points = prepare(curves.llc, preprocessing, curves.steps, time)
    if len(points) < 3 or distinct(points) < 2:
        raise RllcError(
            f"The number of clusters was asked for of {len(points)} curves, {distinct(points) if len(points) else 0} of them distinct.",
            "Give at least three heads with complete curves that differ.",
        )
    largest = min(settings.max_clusters, distinct(points), len(points) - 1)
    state = seeds.derive(seed, "clusters", method, preprocessing, "all") % 2**32
    tried = [partition(points, method, size, state, _starts(method)) for size in range(1, largest + 1)]
    drawn = _redrawn(curves, method, preprocessing, "all", time, settings, seed, chains)
    stream = _stream(seed, "numbers", method, preprocessing, "all")
    found = numbers_of(points, tried, method, get_args(Criterion), drawn, settings.gap_references, state, stream)
    return replace(found, method=method, preprocessing=preprocessing, time=time)


def _redrawn(
    curves: Curves,
    method: Method,
    preprocessing: Preprocessing,
    scope: str,
    time: Time,
    settings: AnalysisSettings,
    seed: int,
    chains: Floats | None,
) -> Floats:
    count = settings.warped_resamples if method in WARPED else settings.resamples
    values = redrawn(curves, min(count, settings.resamples), _stream(seed, "resamples", method, preprocessing, scope), chains)
    return np.stack([prepare(value, preprocessing, curves.steps, time) for value in values])


def _starts(method: Method) -> int:
    return _WARPED_STARTS if method in WARPED else _STARTS


def _stream(seed: int, name: str, method: Method, preprocessing: Preprocessing, scope: str) -> np.random.Generator:
    return seeds.generator(seed, name, method, preprocessing, scope)


def _heads_apart(again: Labels, labels: Labels) -> tuple[Floats, Floats]:
    """How often redrawn curves, clustered as `again` [R, H], put two heads together [H, H], and how often a head keeps its cluster [H]."""
    together = (again[:, :, None] == again[:, None, :]).mean(axis=0)
    kept = np.zeros(len(labels))
    names = np.unique(labels)
    for drawn in again:
        others = np.unique(drawn)
        joint = np.array([[(drawn[labels == name] == other).sum() for other in others] for name in names])
        for row, column in zip(*matched(joint.astype(np.float64)), strict=True):
            kept += (labels == names[row]) & (drawn == others[column])
    return together, kept / len(again)


def _by_final_value(labels: Labels, llc: Floats) -> Labels:
    """The same clusters, numbered from the lowest mean final value to the highest."""
    names = np.unique(labels)
    finals = [llc[labels == name, -1].mean() for name in names]
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(finals, kind="stable")] = np.arange(len(names))
    return rank[np.searchsorted(names, labels)]

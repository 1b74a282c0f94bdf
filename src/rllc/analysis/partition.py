"""Curves into so many groups, by any method, and how many groups: silhouette, gap statistic and stability under redrawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.agreement import adjusted_rand
from rllc.analysis.findings import Floats, Numbers
from rllc.analysis.learners import Labels, cut, euclidean, kmeans, silhouette_of, ward_tree
from rllc.analysis.redraw import distinct
from rllc.analysis.settings import Criterion, Method
from rllc.analysis.warped import dtw_distances, dtw_kmeans, kshape, shape_distances

RESTARTS = 3  # of an iterative method, for each redrawn set of curves
WARPED: tuple[Method, ...] = ("dtw", "kshape")  # these take about a hundred times as long


def partition(points: Floats, method: Method, n_clusters: int, state: int, starts: int) -> Labels | None:
    """Labels [H] of points [H, S]; None where the method left a cluster empty. One cluster is everybody's."""
    if n_clusters == 1:
        return np.zeros(len(points), dtype=np.int64)
    if method == "kmeans":
        return kmeans(points, n_clusters, starts, state)
    if method == "hierarchical":
        return cut(ward_tree(points), n_clusters)
    return (dtw_kmeans if method == "dtw" else kshape)(points, n_clusters, starts, state)


def distances(points: Floats, method: Method) -> Floats:
    """Distances [H, H] in which a method thinks."""
    return {"dtw": dtw_distances, "kshape": shape_distances}.get(method, euclidean)(points)


def repartitions(drawn: Floats, method: Method, n_clusters: int, states: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels [R, H] of R sets of points [R, H, S]; one cluster, which agrees with nothing, where they coincide or the method fails."""
    labels = np.zeros(drawn.shape[:2], dtype=np.int64)
    for i, points in enumerate(drawn):
        if distinct(points) >= n_clusters:
            found = partition(points, method, n_clusters, int(states[i]), 1 if method in WARPED else RESTARTS)
            labels[i] = 0 if found is None else found
    return labels


def within(square: Floats, labels: Labels) -> float:
    """W of squared distances [H, H]: over clusters, the sum over pairs divided by twice the size; of Euclidean distances the K-means objective.

    >>> within((np.subtract.outer([0.0, 2.0, 9.0], [0.0, 2.0, 9.0])) ** 2, np.array([0, 0, 1]))
    2.0
    """
    return float(sum(square[np.ix_(labels == name, labels == name)].sum() / (2 * (labels == name).sum()) for name in np.unique(labels)))


def gaps(
    points: Floats, method: Method, tried: Sequence[Labels | None], references: int, generator: np.random.Generator, state: int
) -> tuple[Floats, Floats]:
    """Gap statistic [K] of clusterings of points [H, S] into 1, 2, … K groups, and its standard error (Tibshirani, Walther and Hastie 2001).

    The references are uniform in a box along the principal axes of the points (their "gap/pc"). NaN where W is zero or a method failed.
    """
    own = _log_w(distances(points, method), tried)
    centre = points.mean(axis=0)
    _, _, axes = np.linalg.svd(points - centre, full_matrices=False)
    coordinates: Floats = (points - centre) @ axes.T
    low = np.asarray(coordinates.min(axis=0), dtype=np.float64)
    width = np.asarray(coordinates.max(axis=0), dtype=np.float64) - low
    theirs = np.full((references, len(tried)), np.nan)
    for i in range(references):
        reference = np.asarray(centre + (low + width * generator.random(points.shape[:1] + low.shape)) @ axes, dtype=np.float64)
        labels = [
            None if known is None else partition(reference, method, size, state, 1 if method in WARPED else RESTARTS)
            for size, known in enumerate(tried, 1)
        ]
        theirs[i] = _log_w(distances(reference, method), labels)
    return theirs.mean(axis=0) - own, theirs.std(axis=0) * np.sqrt(1 + 1 / references)


def choose(numbers: Numbers, criterion: Criterion) -> int:
    """The number that a criterion asks for (see the setting `criterion`); 0 where it was not computed for any.

    >>> none = np.full(3, np.nan)
    >>> numbers = Numbers(np.array([1, 2, 3]), none, np.array([0.0, 0.5, 0.7]), np.full(3, 0.1), none, none, {})
    >>> choose(numbers, "gap"), choose(replace(numbers, gap=np.array([0.0, -0.1, 0.3])), "gap"), choose(numbers, "silhouette")
    (3, 1, 0)
    """
    if criterion == "gap":
        known = np.flatnonzero(np.isfinite(numbers.gap))
        for this, following in pairwise(known):
            if numbers.gap[this] >= numbers.gap[following] - numbers.gap_stderr[following]:
                return int(numbers.sizes[this])
        return int(numbers.sizes[known[-1]]) if len(known) else 0
    scores = numbers.silhouette if criterion == "silhouette" else numbers.stability
    if not np.isfinite(scores).any():
        return 0
    best = int(np.nanargmax(scores))
    if criterion == "silhouette":
        return int(numbers.sizes[best])
    return int(numbers.sizes[np.flatnonzero(scores >= scores[best] - numbers.stability_sd[best]).max()])


def numbers_of(
    points: Floats,
    tried: Sequence[Labels | None],
    method: Method,
    criteria: Sequence[Criterion],
    drawn: Floats,
    references: int,
    state: int,
    generator: np.random.Generator,
) -> Numbers:
    """The asked-for criteria of clusterings `tried` of points [H, S] into 1, 2, … K groups.

    Args:
        drawn: the same points redrawn within their errors, [R, H, S].
        state: of the iterative methods' random starts.
        generator: of the gap statistic's references.
    """
    sizes = np.arange(1, len(tried) + 1)
    nothing = np.full(len(sizes), np.nan)
    silhouettes, stability, spread = nothing.copy(), nothing.copy(), nothing.copy()
    apart = distances(points, method)
    for i, labels in enumerate(tried):
        if i and labels is not None:
            silhouettes[i] = silhouette_of(apart, labels)
            if "stability" in criteria:
                states = generator.integers(2**31, size=len(drawn))
                indices = adjusted_rand(repartitions(drawn, method, i + 1, states), labels)
                stability[i], spread[i] = indices.mean(), indices.std()
    gap, error = gaps(points, method, tried, references, generator, state) if "gap" in criteria else (nothing, nothing)
    found = Numbers(sizes, silhouettes, gap, error, stability, spread, {})
    return replace(found, chosen={criterion: choose(found, criterion) for criterion in criteria})


def _log_w(apart: Floats, tried: Sequence[Labels | None]) -> Floats:
    values = np.array([np.nan if labels is None else within(apart**2, labels) for labels in tried])
    return np.log(values, out=np.full(len(values), np.nan), where=values > 0)

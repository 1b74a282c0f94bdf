from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, TRUTH, curves_from, head_curves

from rllc.analysis.clusters import cluster
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.warped import dtw_distances, dtw_kmeans, kshape, shape_distances
from rllc.core.errors import RllcError

SETTINGS = AnalysisSettings(resamples=10)


@pytest.fixture(scope="module")
def tslearn() -> Iterator[None]:
    """tslearn, its functions left uncompiled: to compile them takes most of a minute, and the curves here are small."""
    numba = pytest.importorskip("numba")
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    try:
        dtw_distances(np.eye(2))
    except RllcError:
        pytest.skip("tslearn is not installed")
    yield
    numba.config.DISABLE_JIT = before


def warped(one: np.ndarray, other: np.ndarray) -> float:
    """Dynamic time warping by its recursion."""
    table = np.full((len(one) + 1, len(other) + 1), np.inf)
    table[0, 0] = 0
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = (a - b) ** 2 + min(table[i - 1, j], table[i, j - 1], table[i - 1, j - 1])
    return float(np.sqrt(table[-1, -1]))


@pytest.mark.usefixtures("tslearn")
def test_time_warping_is_its_recursion_and_forgives_a_late_start() -> None:
    points = np.random.default_rng(0).normal(size=(4, 7))
    expected = [[warped(a, b) for b in points] for a in points]
    np.testing.assert_allclose(dtw_distances(points), expected, atol=1e-9)
    step = np.array([[0, 0, 1, 1, 1, 1.0], [0, 0, 0, 0, 1, 1.0]])
    assert dtw_distances(step)[0, 1] == 0.0


def test_shape_distance_is_one_minus_the_largest_correlation_over_shifts() -> None:
    points = np.random.default_rng(0).normal(size=(5, 6))
    for i, a in enumerate(points):
        for j, b in enumerate(points):
            expected = 1 - np.correlate(a, b, "full").max() / np.linalg.norm(a) / np.linalg.norm(b)
            assert shape_distances(points)[i, j] == pytest.approx(expected, abs=1e-12)
    assert shape_distances(np.array([[0.0, 0.0], [1.0, 2.0]]))[0, 1] == 1.0


@pytest.mark.usefixtures("tslearn")
def test_shape_distance_is_tslearns() -> None:
    from tslearn.metrics import cdist_normalized_cc

    points = np.random.default_rng(1).normal(size=(4, 8))
    norms = np.linalg.norm(points, axis=1)
    theirs = 1 - cdist_normalized_cc(points[..., None], points[..., None], norms, norms, self_similarity=False)
    np.testing.assert_allclose(shape_distances(points), theirs, atol=1e-9)


@pytest.mark.usefixtures("tslearn")
def test_time_warping_groups_steps_by_their_height_whenever_they_come() -> None:
    llc = np.array(
        [[0, 0, 1, 1, 1, 1.0], [0, 0, 0, 0, 1, 1.0], [0, 1, 1, 1, 1, 1.0], [0, 0, 2, 2, 2, 2.0], [0, 0, 0, 0, 2, 2.0], [0, 2, 2, 2, 2, 2.0]]
    )
    curves = curves_from(llc, 0.01, HEADS[:6], STEPS[:6])
    found, reason = cluster(curves, "dtw", "raw", "all", replace(SETTINGS, n_clusters=2), 0)
    assert reason == ""
    assert found is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.stability == 1.0
    assert found.silhouette > 0.9
    euclidean, _ = cluster(curves, "kmeans", "raw", "all", replace(SETTINGS, n_clusters=2), 0)
    assert euclidean is not None
    assert euclidean.labels.tolist() != [0, 0, 0, 1, 1, 1]


@pytest.mark.usefixtures("tslearn")
def test_by_shape_the_planted_groups_are_found() -> None:
    found, reason = cluster(head_curves(0.05), "kshape", "standardised", "all", replace(SETTINGS, n_clusters=3), 0)
    assert reason == ""
    assert found is not None
    assert found.labels.tolist() == TRUTH.tolist()
    assert found.silhouette > 0.5


@pytest.mark.usefixtures("tslearn")
def test_shapes_that_are_shifted_are_one_group_where_euclidean_distance_sees_two() -> None:
    bump, dip = np.zeros(16), np.zeros(16)
    bump[1:5], dip[1:9] = [1, 3, 3, 1], [1, 2, 3, 4, -4, -3, -2, -1]
    shapes = np.stack([np.roll(bump, 0), np.roll(bump, 9), np.roll(bump, 1), np.roll(dip, 0), np.roll(dip, 6), np.roll(dip, 1)])
    truth = np.array([0, 0, 0, 1, 1, 1])
    labels = kshape(shapes + 1e-3 * np.random.default_rng(0).normal(size=shapes.shape), 2, 10, 0)
    assert labels is not None
    assert (labels == labels[0]).tolist() == (truth == 0).tolist()
    euclidean, _ = cluster(curves_from(shapes, 1e-3, HEADS[:6], np.arange(16)), "kmeans", "raw", "all", replace(SETTINGS, n_clusters=2), 0)
    assert euclidean is not None
    assert (euclidean.labels == euclidean.labels[0]).tolist() != (truth == 0).tolist()


@pytest.mark.usefixtures("tslearn")
def test_a_method_that_leaves_clusters_empty_is_a_reason() -> None:
    assert kshape(np.outer([1.0, 2.0, 3.0, 4.0], 1 + np.arange(6.0)), 3, 2, 0) is None  # one shape, three clusters
    assert kshape(np.eye(3) * np.array([1.0, 1.0, 0.0]), 2, 2, 0) is None  # a curve without a shape
    flat = curves_from(np.outer([1.0, 2.0, 3.0, 4.0], 1 + np.arange(11.0)), 0.0, HEADS[:4], STEPS)
    found, reason = cluster(flat, "kshape", "raw", "all", replace(SETTINGS, n_clusters=3), 0)
    assert found is None
    assert reason == "There are no clusters (all, raw): kshape left a cluster empty in every start."


def test_without_tslearn_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tslearn.clustering", None)
    with pytest.raises(RllcError, match=r"tslearn, which does it, is not installed.*rllc\[cluster\]"):
        dtw_kmeans(np.eye(3), 2, 1, 0)

from __future__ import annotations

from dataclasses import replace
from math import erf

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, TRUTH, curves_from, head_curves
from sklearn.metrics import silhouette_score

from rllc.analysis.clusters import cluster, how_many
from rllc.analysis.findings import Numbers
from rllc.analysis.partition import choose, distances, gaps, within
from rllc.analysis.redraw import prepare, redrawn
from rllc.analysis.settings import AnalysisSettings, Criterion
from rllc.core.errors import RllcError

SETTINGS = AnalysisSettings(resamples=20, gap_references=10)


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return how_many(head_curves(0.1), "kmeans", "raw", SETTINGS, 0)


def test_every_criterion_finds_the_three_planted_groups(numbers: Numbers) -> None:
    assert numbers.chosen == {"silhouette": 3, "gap": 3, "stability": 3}
    assert numbers.sizes.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isnan(numbers.silhouette[0])
    assert numbers.stability[2] == 1.0
    assert (numbers.stability[3:] < 0.9).all()
    assert (numbers.gap_stderr > 0).all()


def test_the_silhouette_is_the_one_of_points(numbers: Numbers) -> None:
    assert numbers.silhouette[2] == pytest.approx(silhouette_score(head_curves(0.1).llc, TRUTH), abs=1e-9)


def test_curves_without_groups_are_one_group_by_the_gap_and_some_number_by_the_silhouette() -> None:
    options = replace(SETTINGS, criterion="gap", max_clusters=3)
    found = []
    for seed in range(6):
        llc = np.random.default_rng(seed).uniform(0, 5, (16, 2)) @ np.stack([np.ones(11), np.linspace(0, 1, 11)])
        found.append(cluster(curves_from(llc, 0.05), "kmeans", "raw", "all", options, 0))
        assert cluster(curves_from(llc, 0.05), "hierarchical", "raw", "all", SETTINGS, 0)[0] is not None
    one = [reason == "There are no clusters (all, raw): the gap criterion finds one group by kmeans." for _, reason in found]
    assert sum(one) >= 5


def test_the_gap_is_the_difference_of_log_within_by_hand() -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [10.0, 0.0], [12.0, 0.0]])
    two = np.array([0, 0, 1, 1])
    assert within(distances(points, "kmeans") ** 2, two) == pytest.approx(4.0)  # 1 + 1 + 1 + 1 about the centres
    assert within(distances(points, "kmeans") ** 2, np.zeros(4, dtype=int)) == pytest.approx(104.0)  # 36 + 16 + 16 + 36
    gap, error = gaps(points, "hierarchical", [np.zeros(4, dtype=np.int64), two], 400, np.random.default_rng(0), 0)
    # The references are four uniform numbers in 0..12.
    drawn = np.sort(np.random.default_rng(1).uniform(0, 12, (4000, 4)), axis=1)
    one = ((drawn - drawn.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    assert gap[0] == pytest.approx(np.log(one).mean() - np.log(104), abs=3 * error[0] / np.sqrt(400) + 0.02)
    assert error[0] == pytest.approx(np.log(one).std() * np.sqrt(1 + 1 / 400), rel=0.15)
    assert gap[1] > gap[0]


@pytest.mark.parametrize(
    ("criterion", "values", "expected"),
    [
        ("gap", [0.0, 0.5, 0.7], 3),
        ("gap", [0.0, 0.65, 0.7], 2),
        ("gap", [0.6, 0.65, 0.9], 1),
        ("gap", [np.nan, np.nan, np.nan], 0),
        ("stability", [np.nan, 0.95, 0.9], 3),
        ("stability", [np.nan, 0.95, 0.8], 2),
        ("silhouette", [np.nan, 0.5, 0.4], 2),
        ("silhouette", [np.nan, np.nan, np.nan], 0),
    ],
)
def test_criteria_choose_as_they_say(criterion: Criterion, values: list[float], expected: int) -> None:
    told = np.array(values)
    spread = np.full(3, 0.1)
    assert choose(Numbers(np.arange(1, 4), told, told, spread, told, spread, {}), criterion) == expected


def test_confidence_singles_out_the_head_between_two_groups() -> None:
    values = np.array([0.0, 0.1, 0.2, 4.8, 10.0, 10.1, 10.2])
    curves = curves_from(values[:, None], np.where(values == 4.8, 1.0, 0.01)[:, None], HEADS[:7], STEPS[:1])
    found, _ = cluster(curves, "hierarchical", "raw", "all", AnalysisSettings(resamples=400, n_clusters=2), 0)
    assert found is not None
    assert found.confidence is not None
    assert found.together is not None
    # Ward's criterion puts the head x beside the nearer of the means 0.1 and 10.1: P(x < 5.1) of a normal value about 4.8.
    expected = 0.5 * (1 + erf((5.1 - 4.8) / np.sqrt(2)))
    np.testing.assert_array_equal(np.delete(found.confidence, 3), 1.0)
    assert found.confidence[3] == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / 400))
    np.testing.assert_allclose(found.together[3], [found.confidence[3]] * 3 + [1.0] + [1 - found.confidence[3]] * 3, atol=1e-12)
    np.testing.assert_array_equal(found.together, found.together.T)


def test_log_time_is_read_off_between_checkpoints_and_min_max_stretches() -> None:
    x = np.log1p(STEPS)
    even = np.linspace(0, x[-1], len(x))
    llc = np.stack([2 * x, np.minimum(x, x[4]), np.full(len(x), 3.0)])
    points = prepare(llc, "raw", STEPS, "log")
    np.testing.assert_allclose(points[0], 2 * even)
    np.testing.assert_allclose(points[1], np.minimum(even, x[4]), atol=(even[1] - even[0]) / 2)
    stretched = prepare(llc, "minmax", STEPS, "log")
    np.testing.assert_allclose(stretched[0], even / even[-1])
    assert (stretched.min(axis=1) == 0).all()
    assert stretched.max(axis=1).tolist() == [1, 1, 0]
    np.testing.assert_array_equal(prepare(llc, "raw"), llc)
    with pytest.raises(RllcError, match="no steps were given"):
        prepare(llc, "raw", time="log")


def test_log_time_weighs_early_checkpoints_as_the_axis_does() -> None:
    """Nine late checkpoints and three early ones: heads that differ early part on log time, those that differ late part as recorded."""
    steps = np.array([0, 10, 100, 10_000, *range(10_100, 11_000, 100)])
    early = np.where(steps <= 100, 1.0, 0.0)
    late = np.where(steps > 10_000, 0.6, 0.0)
    llc = np.stack([0 * early, late, early, early + late])
    for time, expected in (("recorded", [0, 1, 0, 1]), ("log", [0, 0, 1, 1])):
        options = AnalysisSettings(n_clusters=2, resamples=10, time=(time,))  # pyright: ignore[reportArgumentType]
        found, _ = cluster(curves_from(llc + 1e-6 * np.arange(4)[:, None], 1e-4, HEADS[:4], steps), "hierarchical", "raw", "all", options, 0)
        assert found is not None
        assert found.time == time
        assert (found.labels == found.labels[0]).tolist() == [label == expected[0] for label in expected]


def test_redrawn_curves_have_the_errors_that_were_stated() -> None:
    curves = curves_from(np.zeros((2, 3)), np.array([[0.5, 1.0, 2.0]] * 2), HEADS[:2], STEPS[:3])
    drawn = redrawn(curves, 4000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.std(axis=0), curves.stderr, rtol=0.05)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.12)


def test_chains_are_drawn_anew_and_shared_noise_is_added() -> None:
    chains = np.array([[[-1.0, 0.0, 0.0, 5.0]]])  # skewed
    spread = chains.std(ddof=1) / 2
    alone = curves_from(np.array([[1.0]]), spread, HEADS[:1], STEPS[:1])
    drawn = redrawn(alone, 4000, np.random.default_rng(0), chains)[:, 0, 0]
    assert drawn.std() == pytest.approx(spread, rel=0.05)
    assert drawn.mean() == pytest.approx(1.0, abs=0.1)
    assert len(np.unique(drawn.round(9))) <= 35  # multisets of four out of four: nothing normal was added
    with_more = redrawn(replace(alone, stderr=np.array([[2 * spread]])), 4000, np.random.default_rng(0), chains)[:, 0, 0]
    assert with_more.std() == pytest.approx(2 * spread, rel=0.05)
    with pytest.raises(RllcError, match=r"shape \(1, 1, 1\).*at least C = 2"):
        redrawn(alone, 10, np.random.default_rng(0), chains[..., :1])


def test_too_few_curves_have_no_number() -> None:
    with pytest.raises(RllcError, match=r"asked for of 2 curves.*at least three heads"):
        how_many(curves_from(np.eye(2), 0.1, HEADS[:2], STEPS[:2]), "kmeans", "raw", SETTINGS, 0)

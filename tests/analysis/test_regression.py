from __future__ import annotations

import numpy as np
import pytest
from planted_curves import HEADS, within
from scipy.stats import linregress, spearmanr
from scipy.stats import t as student

from rllc.analysis.regression import dealt, layers_of, regress, spearman, spearman_p
from rllc.core.errors import RllcError

COUNTS = np.random.default_rng(0).poisson(30, 16).astype(float)
ONE_LAYER = tuple(f"0:{head}" for head in range(16))
VALUES = 3 + 0.2 * COUNTS + np.random.default_rng(1).standard_normal(16)


def test_the_line_is_least_squares_and_its_interval_is_students() -> None:
    found, theirs = regress(ONE_LAYER, VALUES, COUNTS, "multigrams", 0), linregress(COUNTS, VALUES)
    assert found.slope == pytest.approx(theirs.slope)
    assert found.intercept == pytest.approx(theirs.intercept)
    assert found.r2 == pytest.approx(theirs.rvalue**2)
    half = student.ppf(0.975, 14) * theirs.stderr
    assert found.slope_interval == pytest.approx((theirs.slope - half, theirs.slope + half))
    assert found.covariate == "multigrams"


def test_leaving_a_head_out_is_fitting_without_it() -> None:
    found = regress(ONE_LAYER, VALUES, COUNTS, "multigrams", 0)
    squares = means = 0.0
    line = linregress(COUNTS, VALUES)
    residual = VALUES - line.intercept - line.slope * COUNTS
    for i in range(16):
        x, y = np.delete(COUNTS, i), np.delete(VALUES, i)
        without = linregress(x, y)
        foretold = without.intercept + without.slope * COUNTS[i]
        assert found.foretold[i] == pytest.approx(foretold)
        assert found.slope_without[i] == pytest.approx(without.slope)
        moved = line.intercept + line.slope * COUNTS - without.intercept - without.slope * COUNTS
        assert found.influence[i] == pytest.approx((moved**2).sum() / (2 * (residual**2).sum() / 14))
        squares += (VALUES[i] - foretold) ** 2
        means += (VALUES[i] - y.mean()) ** 2
    assert found.r2_left_out == pytest.approx(1 - squares / means)
    assert found.r2_left_out < found.r2


def test_the_line_is_within_layers_with_a_level_for_each() -> None:
    """Against least squares with a column of ones for each layer, every head left out in turn."""
    layer = np.array([int(head[0]) for head in HEADS])
    values = VALUES - 50 * layer
    found = regress(HEADS, values, COUNTS, "multigrams", 0)
    design = np.stack([COUNTS, layer == 0, layer == 1], axis=1).astype(float)
    best, rest, *_ = np.linalg.lstsq(design, values, rcond=None)
    error = np.sqrt(rest[0] / 13 * np.linalg.inv(design.T @ design)[0, 0])
    assert found.slope == pytest.approx(best[0])
    half = student.ppf(0.975, 13) * error
    assert found.slope_interval == pytest.approx((best[0] - half, best[0] + half))
    assert found.layers == 2
    means = 0.0
    for i in range(16):
        kept = np.arange(16) != i
        without = np.linalg.lstsq(design[kept], values[kept], rcond=None)[0]
        assert found.foretold[i] == pytest.approx(design[i] @ without)
        assert found.slope_without[i] == pytest.approx(without[0])
        moved = design @ (best - without)
        assert found.influence[i] == pytest.approx((moved**2).sum() / (3 * rest[0] / 13))
        means += (values[i] - values[kept & (layer == layer[i])].mean()) ** 2
    assert found.r2_left_out == pytest.approx(1 - ((values - found.foretold) ** 2).sum() / means)
    assert found.rank_correlation == pytest.approx(within(values, COUNTS))
    assert found.pooled == pytest.approx(spearmanr(values, COUNTS).statistic)


def test_a_head_alone_in_its_layer_says_nothing() -> None:
    heads = (*ONE_LAYER[:8], "1:0")
    found = regress(heads, np.r_[VALUES[:8], 900.0], np.r_[COUNTS[:8], 900.0], "n", 0)
    assert found.left_out == ("1:0",)
    assert found.slope == pytest.approx(regress(heads[:8], VALUES[:8], COUNTS[:8], "n", 0).slope)
    with pytest.raises(RllcError, match="Within layers n differs for too few of 5 heads"):
        regress(("0:0", "0:1", "0:2", "1:0", "1:1"), VALUES[:5], np.array([1.0, 1, 1, 2, 3]), "n", 0)


def test_values_are_dealt_within_layers() -> None:
    drawn = dealt(np.arange(16.0), 50, np.random.default_rng(0), layers_of(HEADS))
    np.testing.assert_array_equal(np.sort(drawn[:, :8]), np.tile(np.arange(8.0), (50, 1)))
    assert len(np.unique(drawn[:, 0])) > 4


def test_one_head_that_makes_the_line_is_told() -> None:
    counts, values = np.r_[COUNTS[:10], 300.0], np.r_[np.random.default_rng(2).standard_normal(10), 40.0]
    found = regress(ONE_LAYER[:11], values, counts, "multigrams", 0)
    assert found.r2 > 0.9
    assert found.influence.argmax() == 10
    assert found.influence[10] > 1
    assert abs(found.slope_without[10]) < found.slope
    assert found.r2_left_out < 0.5


def test_nothing_to_foretell_is_not_foretold() -> None:
    below, small = [], []
    for seed in range(60):
        values = np.random.default_rng(seed).standard_normal(16)
        found = regress(ONE_LAYER, values, COUNTS, "multigrams", seed, permutations=200)
        below.append(found.r2_left_out < 0)
        small.append(found.rank_p <= 0.1)
    assert np.mean(below) > 0.6
    assert 0.0 < np.mean(small) < 0.22  # nominal 0.1, sixty of them


def test_an_exact_line_and_missing_heads() -> None:
    values, counts = 1 + 2 * np.arange(8.0), np.arange(8.0)
    values[2], counts[5] = np.nan, np.nan
    found = regress(ONE_LAYER[:8], values, counts, "n", 0, stderr=np.ones(8))
    assert found.left_out == ("0:2", "0:5")
    assert found.heads == ("0:0", "0:1", "0:3", "0:4", "0:6", "0:7")
    assert found.slope == pytest.approx(2.0)
    assert found.r2_left_out == pytest.approx(1.0)
    assert found.rank_correlation == pytest.approx(1.0)
    assert found.rank_p < 0.01
    assert found.influence.tolist() == [0.0] * 6


def test_the_share_of_noise_is_that_of_the_stated_errors() -> None:
    shares = [
        regress(
            HEADS, 3 + 0.2 * COUNTS + 0.5 * np.random.default_rng(seed).standard_normal(16), COUNTS, "n", 0, stderr=np.full(16, 0.5), permutations=10
        )
        for seed in range(60)
    ]
    assert np.median([found.noise_share for found in shares]) == pytest.approx(1.0, abs=0.2)
    assert np.isnan(regress(HEADS, VALUES, COUNTS, "n", 0).noise_share)


def test_too_few_heads_or_no_variety_are_sentences() -> None:
    with pytest.raises(RllcError, match="needs 4 heads with both numbers; 3 have them"):
        regress(HEADS[:3], VALUES[:3], COUNTS[:3], "n", 0)
    with pytest.raises(RllcError, match="multigrams is the same for 15 of 16 heads"):
        regress(HEADS, VALUES, np.r_[np.zeros(15), 1.0], "multigrams", 0)


def test_rank_correlations_are_spearmans_with_ties() -> None:
    one, many = np.array([1.0, 2, 2, 4, 5]), np.array([[3.0, 1, 1, 1, 9], [5, 4, 3, 2, 1]])
    np.testing.assert_allclose(spearman(one, many), [spearmanr(one, row).statistic for row in many])
    assert np.isnan(spearman_p(one, np.ones(5), 10, np.random.default_rng(0))).all()


def test_the_permutation_p_value_is_that_of_all_orders() -> None:
    """Five heads in perfect order: of the 120 orders, this and its reverse are as strong."""
    found, p = spearman_p(np.arange(5.0), np.arange(5.0), 20_000, np.random.default_rng(0))
    assert found == pytest.approx(1.0)
    assert p == pytest.approx(2 / 120, abs=0.004)

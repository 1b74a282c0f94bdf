from __future__ import annotations

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, curves_from, head_curves, within
from scipy.stats import spearmanr

from rllc.analysis.ordering import Quantity, holm, orderings
from rllc.core.errors import RllcError

AT = tuple(STEPS.tolist())
LLC = np.outer(np.arange(1.0, 17), np.linspace(0.1, 1, 11)) + 0.3 * np.random.default_rng(0).standard_normal((16, 11))
CURVES = curves_from(LLC, 0.2)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((16, 11))


def test_the_quantity_that_orders_like_rllc_comes_first_with_its_numbers() -> None:
    given = {
        "noise": Quantity(HEADS, AT, noise(1)),
        "norm": Quantity(HEADS, AT, -(LLC**3)),
        "trace": Quantity(HEADS, AT, LLC + 4 * noise(2), np.full((16, 11), 1.0)),
    }
    rows, said = orderings(CURVES, given, 0, resamples=200, permutations=500)
    assert said == ()
    assert [row.name for row in rows] == ["norm", "trace", "noise"]
    best, middle, none = rows
    assert best.correlation == pytest.approx(-1.0)
    assert best.p == pytest.approx(1 / 501)
    assert best.p_holm == pytest.approx(3 / 501)
    np.testing.assert_allclose(best.by_step, -1.0)
    np.testing.assert_allclose(best.along_training, -1.0)
    for row, name in ((middle, "trace"), (none, "noise")):
        values = given[name].values
        np.testing.assert_allclose(row.by_step, [within(LLC[:, i], values[:, i]) for i in range(11)])
        np.testing.assert_allclose(row.along_training, [spearmanr(LLC[i], values[i]).statistic for i in range(16)])
        assert row.correlation == row.by_step[-1]
        assert row.step == STEPS[-1]
        assert row.over_heads[0] < row.correlation < row.over_heads[1]
    assert none.p > 0.05


@pytest.mark.parametrize(("r", "noise"), [(0.0, 0.0), (0.6, 0.0), (0.95, 0.0), (0.95, 0.5)])
def test_intervals_over_heads_hold_the_estimate_and_the_population_as_often_as_they_say(r: float, noise: float) -> None:
    """Two layers of eight heads out of a bivariate normal population, whose Spearman is 6/π asin(ρ/2); noise of both takes from ρ."""
    truth, covered, held = 6 / np.pi * np.arcsin(r / (1 + noise**2) / 2), [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((16, 1))
        y = r * x + np.sqrt(1 - r**2) * rng.standard_normal((16, 1))
        x, y = (values + noise * rng.standard_normal((16, 1)) for values in (x, y))
        given = {"y": Quantity(HEADS, (0,), y, np.full((16, 1), noise))}
        ((row,), _) = orderings(curves_from(x, max(noise, 1e-9), steps=STEPS[:1]), given, seed, resamples=200, permutations=10)
        covered.append(row.over_heads[0] <= truth <= row.over_heads[1])
        held.append(row.over_heads[0] <= row.correlation <= row.over_heads[1])
    assert all(held)
    assert np.mean(covered) >= 0.9  # nominal 0.95


def test_only_heads_and_checkpoints_of_both_count() -> None:
    values = noise(3)[2:9, 4:]
    values[0, 2] = np.nan  # head 0:2 lacks one
    values[1:, 3] = np.nan  # most lack step 1000
    ((row,), _) = orderings(CURVES, {"q": Quantity(HEADS[2:9], AT[4:], values)}, 0, resamples=20, permutations=20)
    assert row.heads == HEADS[3:9]
    assert row.steps == (200, 400, 700, 1500, 2000, 3000)
    assert row.correlation == pytest.approx(within(LLC[3:9, -1], values[1:, -1], HEADS[3:9]))


def test_too_few_heads_and_constants_and_shapes_are_told() -> None:
    rows, said = orderings(
        CURVES, {"few": Quantity(HEADS[:3], AT, noise(0)[:3]), "flat": Quantity(HEADS, AT, np.ones((16, 11)))}, 0, resamples=10, permutations=10
    )
    assert said == ("few has no row: 3 heads have it and λ̂ at every common checkpoint, and an order needs 4.",)
    assert [row.name for row in rows] == ["flat"]
    assert np.isnan([rows[0].correlation, rows[0].p, rows[0].p_holm, *rows[0].over_heads]).all()
    elsewhere = Quantity(HEADS, (7,), noise(0)[:, :1])
    assert orderings(CURVES, {"elsewhere": elsewhere}, 0)[1] == (
        "elsewhere has no row: 0 heads have it and λ̂ at every common checkpoint, and an order needs 4.",
    )
    with pytest.raises(RllcError, match=r"bad has values \(16, 11\) for 2 heads and 11 steps"):
        orderings(CURVES, {"bad": Quantity(HEADS[:2], AT, noise(0))}, 0)
    short, _ = orderings(head_curves(0.1), {"short": Quantity(HEADS, AT[:2], noise(0)[:, :2])}, 0, resamples=10, permutations=10)
    assert np.isnan(short[0].along_training).all()


def test_two_layers_that_differ_in_both_numbers_make_no_order_of_heads() -> None:
    """Independent within layers, the second layer higher in both: over all heads ρ is high, and its p-value small, in nearly every draw."""
    small = {"within": 0, "pooled": 0}
    layer = np.arange(16)[:, None] // 8
    for seed in range(60):
        drawn = np.random.default_rng(seed).standard_normal((2, 16, 1))
        x, y = 10 + 5 * layer + drawn[0], 20 + 10 * layer + drawn[1]
        ((row,), _) = orderings(curves_from(x, 1e-9, steps=STEPS[:1]), {"y": Quantity(HEADS, (0,), y)}, seed, resamples=10, permutations=200)
        small["within"] += row.p <= 0.05
        small["pooled"] += row.pooled > 0.5
    assert small["pooled"] == 60
    assert small["within"] <= 8  # 3 expected, 9 or more in one of 300


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, np.nan, 0.03])), [0.06, 0.03, np.nan, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])

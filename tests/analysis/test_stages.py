from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_curves import STEPS, curves_from, full_curve, head_curves
from scipy.stats import chi2

from rllc.analysis.learners import constant_p, smooth
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.stages import prominent, stages

SETTINGS = AnalysisSettings()


def test_planted_boundaries_are_recovered() -> None:
    curve, truth = full_curve(noise=0.5)
    found, said = stages(curve, SETTINGS, seed=0)
    assert said == ""
    assert found is not None
    np.testing.assert_allclose(np.log1p(found.boundaries), np.log1p(truth), atol=0.08)
    assert found.found_in.tolist() == [1.0, 1.0]
    assert (found.intervals[:, 0] < found.boundaries).all()
    assert (found.boundaries < found.intervals[:, 1]).all()
    assert found.smooth_steps[0] == pytest.approx(0)
    assert found.smooth_steps[-1] == pytest.approx(3000)
    np.testing.assert_allclose(found.smooth_llc, 20 + 30 * np.sin(np.log1p(found.smooth_steps) - 1), atol=1.5)
    assert found.curve.parts == ("full",)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = []
    for seed in range(12):
        curve, truth = full_curve(noise=3.0, seed=seed)
        found, _ = stages(curve, replace(SETTINGS, resamples=60), seed)
        assert found is not None
        for step in truth:
            nearest = np.abs(np.log1p(found.boundaries) - np.log1p(step)).argmin()
            covered.append(found.intervals[nearest, 0] <= step <= found.intervals[nearest, 1])
    assert np.mean(covered) >= 0.8  # nominal 0.9, twenty-four of them


def test_intervals_widen_and_support_falls_with_noise() -> None:
    widths, supports = [], []
    for noise in (0.5, 4.0, 14.0):
        curve, truth = full_curve(noise)
        found, _ = stages(curve, SETTINGS, seed=0)
        assert found is not None
        nearest = int(np.abs(np.log1p(found.boundaries) - np.log1p(truth[0])).argmin())
        widths.append(np.diff(np.log1p(found.intervals[nearest]))[0])
        supports.append(found.found_in[nearest])
    assert widths[0] < widths[1] < widths[2]
    assert supports[0] == 1.0
    assert supports[2] < supports[0]


def test_a_steady_rise_has_no_boundary() -> None:
    x = np.log1p(STEPS)
    found, said = stages(curves_from((5 * x)[None], 0.5, ("full",)), SETTINGS, seed=0)
    assert found is not None
    assert found.boundaries.shape == (0,)
    assert found.intervals.shape == (0, 2)
    assert found.found_in.shape == (0,)
    assert said == ""


def test_noise_alone_makes_no_stages() -> None:
    told = []
    for seed in range(20):
        llc = 20 + 3 * np.random.default_rng(seed).standard_normal((1, len(STEPS)))
        told.append(stages(curves_from(llc, 3.0, ("full",)), SETTINGS, seed)[0] is None)
    assert np.mean(told) >= 0.85  # the test lets one in twenty through


def test_checkpoints_without_an_estimate_are_left_out_and_named() -> None:
    curve, truth = full_curve(noise=0.5)
    curve.llc[0, 0] = np.nan
    curve.stderr[0, 1] = np.nan
    found, said = stages(curve, SETTINGS, seed=0)
    assert found is not None
    assert said == f"Stages leave out step 0, {curve.steps[1]}: full has no estimate there."
    np.testing.assert_allclose(np.log1p(found.boundaries), np.log1p(truth), atol=0.08)


@pytest.mark.parametrize(
    ("llc", "match"),
    [
        (np.full((1, 11), np.nan), "an estimate at 0 checkpoints, and stages need 5"),
        (np.where(np.arange(11) < 4, 1.0 + np.arange(11), np.nan)[None], "an estimate at 4 checkpoints"),
        (np.full((1, 11), 3.0), "does not vary by more than its errors allow"),
        (np.zeros((1, 11)), "does not vary"),
    ],
)
def test_degenerate_curves_give_reasons(llc: np.ndarray, match: str) -> None:
    found, reason = stages(curves_from(llc, 0.1, ("full",)), SETTINGS, seed=0)
    assert found is None
    assert match in reason


def test_another_part_may_be_asked_for_and_must_be_there() -> None:
    found, reason = stages(head_curves(0.1), SETTINGS, seed=0)
    assert found is None
    assert reason == "There are no stages: full was not measured on mix."
    assert stages(head_curves(0.1), SETTINGS, seed=0, part="0:0")[0] is not None


def test_an_error_of_zero_is_smoothed_all_the_same() -> None:
    curve, truth = full_curve(noise=0.0)
    found, _ = stages(curve, SETTINGS, seed=0)
    assert found is not None
    np.testing.assert_allclose(np.log1p(found.boundaries), np.log1p(truth), atol=0.03)


def test_a_curve_rougher_than_its_checkpoints_is_told() -> None:
    llc = np.where(np.arange(11) % 2, 1.0, -1.0)[None] * 5
    found, said = stages(curves_from(llc, 0.01, ("full",), np.round(np.expm1(np.linspace(0, 8, 11)))), SETTINGS, seed=0)
    assert found is not None
    assert "is not settled by these checkpoints" in said


def test_a_boundary_that_few_curves_share_is_counted_but_not_told() -> None:
    curve, _ = full_curve(noise=14.0)
    every, silent = stages(curve, replace(SETTINGS, stage_support=0.0, stage_prominence=0.0), seed=0)
    strict, said = stages(curve, replace(SETTINGS, stage_support=0.99, stage_prominence=0.0), seed=0)
    assert every is not None
    assert strict is not None
    faint = every.found_in < 0.99
    assert faint.any()
    np.testing.assert_array_equal(strict.boundaries, every.boundaries[~faint])
    np.testing.assert_array_equal(strict.intervals, every.intervals[~faint])
    assert "no stage is drawn" not in silent
    assert f"has {faint.sum()} more turn" in said


def test_equal_seeds_give_equal_stages() -> None:
    curve, _ = full_curve(noise=4.0)
    first, again, other = (stages(curve, replace(SETTINGS, resamples=20), seed)[0] for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.intervals, again.intervals)
    assert (first.intervals != other.intervals).any()


def test_the_slope_is_the_derivative_of_the_smooth_curve_and_its_draws_spread_as_gaussian_processes_do() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 6, 12)
    noise = np.full(12, 0.05)
    grid = np.linspace(0, 6, 160)
    found = smooth(x, np.sin(x) + noise * rng.standard_normal(12), noise, grid, 400, rng)
    np.testing.assert_allclose(np.gradient(found.values, grid)[2:-2], found.slopes[2:-2], atol=2e-3)
    error = np.abs(found.slopes - np.cos(grid)) / found.slope_draws.std(axis=0)
    assert 0.3 < np.sqrt((error**2).mean()) < 2.0
    np.testing.assert_allclose(found.slope_draws.mean(axis=0)[20:-20], np.cos(grid)[20:-20], atol=0.2)


def test_the_test_of_constancy_is_chi_squared() -> None:
    y, noise = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 0.5])
    mean = np.average(y, weights=noise**-2.0)
    assert constant_p(y, noise) == pytest.approx(chi2(2).sf((((y - mean) / noise) ** 2).sum()))


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        ([5.0, 1.0, 7.0, 3.0], [True, True, True, True]),
        ([5.0, 4.9, 5.1, 1.0], [False, False, True, True]),
        ([0.1, -0.1, 5.0, 1.0], [False, False, True, True]),
        ([5.0, 1.0, 4.0, 3.9], [True, True, False, False]),
        ([3.0, 1.0, 4.2, 4.05], [True, True, False, False]),
        ([2.0, 3.0, 9.0, 1.0], [False, False, True, True]),  # a peak below the trough after it: the estimates only bend
    ],
)
def test_ripples_are_not_turns(levels: list[float], kept: list[bool]) -> None:
    ends = (0.0, 4.1)
    if kept == [True, True, True, True]:
        ends = (0.0, 5.0)
    directions = np.array([-1, 1, -1, 1])
    assert prominent(np.array(levels), np.full(4, 0.2), directions, ends, 2.0).tolist() == kept

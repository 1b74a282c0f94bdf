from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from planted_curves import HEADS, curves_from
from scipy.stats import norm

from rllc.analysis.aligned import Aligned, error_of
from rllc.analysis.parting import NEVER, _first, data_part, heads_part, partings
from rllc.analysis.planted import estimated
from rllc.core.errors import RllcError

STEPS = np.r_[0, np.unique(np.round(np.geomspace(1, 50_000, 23)).astype(int))]
X = np.log1p(STEPS)
LATE = np.maximum(X - 6, 0)


def test_the_rule_by_hand() -> None:
    values = np.array(
        [
            [0, 4, 0.5, 2, 4.0],  # beyond the threshold at 1, and positive ever after
            [4, -1, 0.5, 4, 4.0],  # another sign in between
            [0, 1, 2, 2.9, 2.9],  # never beyond
            [5, 5, 5, 5, -0.1],  # gone back
            [-4, -4, -1, -1, -1],  # below, from the beginning
        ]
    )
    assert _first(values, np.full(5, 3.0)).tolist() == [1, 3, 5, 5, 0]
    assert _first(values[:1], np.array([3, 6, 3, 3, 3.0])).tolist() == [4]


def test_a_planted_parting_is_found_soon_after_and_in_its_interval() -> None:
    noise = 0.2 * np.random.default_rng(0).standard_normal((2, len(X)))
    told = partings(STEPS, np.stack([LATE, -LATE]) + noise, np.full((2, len(X)), 0.2), ["up", "down"], 0)
    assert told.sign.tolist() == [1, -1]
    for step, (low, high) in zip(told.steps, told.intervals, strict=True):
        assert 6 < np.log1p(step) <= 7.5
        assert low <= step <= high
        assert np.log1p(high) - np.log1p(low) < 2.0
    assert told.found_in.tolist() == [1.0, 1.0]
    assert told.threshold == pytest.approx(norm.isf((1 - 0.95 ** (1 / (2 * len(X)))) / 2))
    np.testing.assert_allclose(told.final, [LATE[-1] + noise[0, -1], -LATE[-1] + noise[1, -1]])


def test_equal_curves_part_more_seldom_than_the_level_over_all_steps_and_pairs() -> None:
    said = 0
    for seed in range(300):
        difference = np.random.default_rng(seed).standard_normal((4, len(X)))
        told = partings(STEPS, difference, np.ones((4, len(X))), list("abcd"), 0, level=0.2, resamples=0)
        said += (told.steps != NEVER).any()
    assert 0 < said / 300 <= 0.2  # without Šidák's threshold it would be nearly always


def test_partings_before_the_planted_step_are_as_rare_as_promised() -> None:
    early = []
    for seed in range(200):
        noisy = LATE + 0.5 * np.random.default_rng(seed).standard_normal(len(X))
        early.append(0 <= partings(STEPS, noisy[None], np.full((1, len(X)), 0.5), ["a"], 0, resamples=0).steps[0] <= np.expm1(6))
    assert np.mean(early) <= 0.05


def test_noise_makes_the_step_later_and_the_interval_wider() -> None:
    found = []
    for noise in (0.05, 0.5):
        noisy = LATE + noise * np.random.default_rng(1).standard_normal(len(X))
        told = partings(STEPS, noisy[None], np.full((1, len(X)), noise), ["a"], 0)
        found.append((told.steps[0], *np.log1p(told.intervals[0])))
    assert found[0][0] < found[1][0]
    assert found[0][2] - found[0][1] < found[1][2] - found[1][1]


def test_heads_pair_by_pair_with_independent_or_given_errors() -> None:
    llc = np.stack([X, X + LATE, X])
    curves = curves_from(llc, 0.2, HEADS[:3], STEPS)
    told = heads_part(curves, 0)
    assert told.names == ("0:0 - 0:1", "0:0 - 0:2", "0:1 - 0:2")
    assert told.sign.tolist() == [-1, 0, 1]
    assert told.steps[1] == NEVER
    assert np.isnan(told.intervals[1]).all()
    np.testing.assert_allclose(told.final_stderr, 0.2 * np.sqrt(2))
    one = heads_part(curves, 0, pairs=[("0:0", "0:1")])
    assert one.threshold < told.threshold


def test_one_head_on_two_kinds_of_data_over_what_both_have() -> None:
    mix = curves_from(np.stack([X, X]), 0.1, HEADS[:2], STEPS)
    code = curves_from(np.stack([X + LATE, X, X])[:, 2:], 0.1, HEADS[:3], STEPS[2:], "code")
    told = data_part(code, mix, 0)
    assert told.names == ("0:0, code - mix", "0:1, code - mix")
    assert told.steps[1] == NEVER
    assert 6 < np.log1p(told.steps[0]) < 7.5
    with pytest.raises(RllcError, match="share no head or no checkpoint"):
        data_part(replace(code, parts=("1:5", "1:6", "1:7")), mix, 0)


def test_equal_heads_of_few_chains_part_as_seldom_as_promised() -> None:
    """Errors estimated from four chains, of 55 pairs: taken as known, some pair parts in one of eight draws where one of twenty is promised."""
    heads, said, draws = tuple(f"0:{head}" for head in range(11)), Counter[str](), 200
    for seed in range(draws):
        curves, aligned = estimated("mix", heads, np.arange(1), np.zeros((11, 1)), 1.0, np.random.default_rng(seed))
        for name, given, shared in (("known", replace(curves, df=None), {}), ("independent", curves, {}), ("aligned", curves, {"mix": aligned})):
            said[name] += bool((heads_part(given, 0, aligned=shared, resamples=0).steps != NEVER).any())
    most = 0.05 * draws + 1.64 * np.sqrt(0.05 * 0.95 * draws)
    assert said["known"] > most
    assert said["independent"] <= most
    assert said["aligned"] <= most


def test_noise_that_two_heads_share_does_not_hide_that_they_part() -> None:
    """Minibatches are common to all heads: what they make of both cancels in the difference."""
    common = 2.0 * np.random.default_rng(3).standard_normal((1, len(X), 1, 8))
    drawn = 0.1 * np.random.default_rng(4).standard_normal((2, len(X), 4, 8)) + common + np.stack([X, X + LATE])[..., None, None]
    error = error_of(drawn.mean(axis=-1), drawn.mean(axis=-2))
    llc = drawn.mean(axis=(-2, -1))
    curves = replace(curves_from(llc, 1.0, HEADS[:2], STEPS), stderr=error.stderr, df=error.df)
    shared = {"mix": Aligned(HEADS[:2], STEPS, drawn.mean(axis=-1), drawn.mean(axis=-2))}
    alone, together = heads_part(curves, 0, resamples=0), heads_part(curves, 0, aligned=shared, resamples=0)
    assert together.final_stderr[0] < 0.1 * alone.final_stderr[0]
    assert np.expm1(6) < together.steps[0]
    assert alone.steps[0] == NEVER or together.steps[0] < alone.steps[0]


def test_missing_estimates_are_left_out_of_the_test_and_its_correction() -> None:
    difference = np.stack([LATE, np.full(len(X), np.nan)])
    told = partings(STEPS, difference, np.full(difference.shape, 0.2), ["a", "b"], 0)
    assert told.steps[1] == NEVER
    assert np.isnan(told.final[1])
    assert told.threshold == pytest.approx(norm.isf((1 - 0.95 ** (1 / len(X))) / 2))


def test_what_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(RllcError, match="1 names and 24 steps were given"):
        partings(STEPS, np.zeros((2, len(X))), np.ones((2, len(X))), ["a"], 0)
    with pytest.raises(RllcError, match="not above zero"):
        partings(STEPS, np.zeros((1, len(X))), np.zeros((1, len(X))), ["a"], 0)

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_ind_from_stats

from rllc.analysis.aligned import Cells, difference, error_of, mean
from rllc.analysis.errors import as_normal, in_common, joined, moderated, noise, quantile, reach
from rllc.analysis.findings import Curves
from rllc.analysis.learners import constant_p
from rllc.analysis.planted import estimated
from rllc.analysis.verdicts import effect

INF = float("inf")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_quantiles_and_reaches_are_scipy_s() -> None:
    df = np.array([3.0, 7.0, 5.4, INF])
    np.testing.assert_allclose(quantile(0.975, df), [*t.ppf(0.975, df[:3]), norm.ppf(0.975)])
    np.testing.assert_allclose(quantile(1e-6), norm.ppf(1e-6))
    np.testing.assert_allclose(reach(2.0, df), 2 * quantile(0.975, df))
    np.testing.assert_allclose(as_normal(1.0, 3.0), t.ppf(0.975, 3) / norm.ppf(0.975))


def test_a_difference_has_the_error_and_the_degrees_of_welch() -> None:
    one, other = rng(1).standard_normal(4), 3 * rng(2).standard_normal(8)
    errors = [(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1) for values in (one, other)]
    stderr, df = joined(*errors)
    found = one.mean() - other.mean()
    theirs = ttest_ind_from_stats(one.mean(), one.std(ddof=1), 4, other.mean(), other.std(ddof=1), 8, equal_var=False)
    assert found / stderr == pytest.approx(theirs.statistic)
    assert 2 * t.sf(abs(found / stderr), df) == pytest.approx(theirs.pvalue)


def test_degrees_of_known_missing_and_zero_errors() -> None:
    stderr, df = joined((np.array([1.0, 1.0, np.nan, 0.0]), np.array([INF, 3.0, 3.0, 3.0])), (np.array([1.0, 0.0, 1.0, 0.0]), 7))
    np.testing.assert_allclose(stderr, [np.sqrt(2), 1.0, np.nan, 0.0])
    assert df[0] == pytest.approx(4 * 7)  # half of the square is known
    assert df[[1, 3]].tolist() == [3.0, 3.0]
    assert joined((1.0, INF), (2.0, INF))[1] == INF


def test_numbers_that_share_their_noise_know_its_size_no_better_together() -> None:
    stderr, df = in_common(np.array([1.0, 2.0, 3.0]), np.full(3, 3.0))
    assert (stderr, df) == (pytest.approx(2.0), pytest.approx(3.0))
    assert in_common(np.array([1.0, 1.0]), np.array([INF, 3.0]))[1] == pytest.approx(12.0)  # half as rough
    assert in_common(np.ones(2), np.full(2, INF))[1] == INF


def test_drawn_errors_have_the_tails_of_t() -> None:
    drawn = noise(np.array([2.0, 2.0]), np.array([3.0, INF]), 200_000, rng())
    for column, law in ((0, t(3)), (1, norm)):
        for share in (0.9, 0.975, 0.999):
            beyond = float((drawn[:, column] > 2 * law.ppf(share)).mean())
            assert beyond == pytest.approx(1 - share, abs=5 * np.sqrt((1 - share) / 200_000))


def test_an_effect_of_a_rough_error_is_held_to_more() -> None:
    known, rough = effect("a", 2.0, 1.0, 0.5, 0.05), effect("a", 2.0, 1.0, 0.5, 0.05, df=3)
    assert known.met
    assert not rough.met
    assert rough.number.low == pytest.approx(2 - t.ppf(0.95, 3))
    assert effect("a", 2.0, 0.5, 0.5, 0.05, df=3, tries=10).number.low == pytest.approx(2 - 0.5 * t.ppf(0.995, 3))
    assert effect("a", -1.5, 1.0, 0.5, 0.05).refused
    assert not effect("a", -1.5, 1.0, 0.5, 0.05, df=3).refused


def test_effects_of_nothing_by_four_chains_are_met_at_their_level() -> None:
    """Chance gives the level; with the normal's quantile it would give twice as many."""
    drawn = rng(5).standard_normal((20_000, 4))
    value, stderr = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / 2
    met = np.mean([effect("a", float(v), float(s), 0.0, 0.05, df=3).met for v, s in zip(value, stderr, strict=True)])
    assert met == pytest.approx(0.05, abs=0.005)


def test_constants_behind_rough_errors_are_found_to_vary_at_the_level_alone() -> None:
    """Welch's test on means of four; with many degrees of freedom it is the χ² test."""
    p, exact = [], []
    for seed in range(2000):
        drawn = rng(seed).standard_normal((12, 4))
        y, stderr = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / 2
        p.append(constant_p(y, stderr, np.full(12, 3.0)))
        exact.append(constant_p(y, stderr))
    assert np.mean(np.array(p) <= 0.05) <= 0.12  # Welch's test is a little liberal with four each
    assert np.mean(np.array(exact) <= 0.05) > 0.4
    y, stderr = rng(0).standard_normal(12), np.full(12, 0.7)
    assert constant_p(y, stderr, np.full(12, 1e7)) == pytest.approx(constant_p(y, stderr), rel=1e-4)
    assert constant_p(y, stderr, np.full(12, INF)) == constant_p(y, stderr)


def test_what_is_shared_cancels_and_what_is_not_adds_up() -> None:
    shared, own = rng(1).standard_normal((1, 4, 8)), 0.1 * rng(2).standard_normal((2, 4, 8))
    one, other = (error_of((shared[0] + x).mean(axis=-1), (shared[0] + x).mean(axis=-2)) for x in own)
    found, gap = difference(one, other), own[0] - own[1]
    chains, batches = gap.mean(axis=1).std(ddof=1) / 2, gap.mean(axis=0).std(ddof=1) / np.sqrt(8)
    assert found.one == (pytest.approx(max(chains, batches)), 3.0 if chains > batches else 7.0)
    assert difference(one, -other).one[0] > 10 * found.one[0]
    unknown = Cells(other.stderr, other.df, other.chains * np.nan, other.batches * np.nan)
    assert difference(one, unknown).one == joined((one.stderr, one.df), (other.stderr, other.df))
    nothing = Cells(other.stderr, other.df, np.empty(0), np.empty(0))
    assert difference(one, nothing).one == joined((one.stderr, one.df), (other.stderr, other.df))


def test_parts_with_noise_of_their_own_keep_the_degrees_of_both() -> None:
    one, other = (error_of(10 * rng(seed).standard_normal(4), 0.01 * rng(seed).standard_normal(8)) for seed in (1, 2))
    found = difference(one, other, shared_noise=False)
    expected = joined(*[(c.chains.std(ddof=1) / 2, 3.0) for c in (one, other)])
    assert found.one == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert found.one[1] > 3


def test_a_mean_over_heads_is_measured_where_chains_are_known() -> None:
    curves, aligned = estimated("mix", ("0:0", "0:1"), np.arange(3), np.zeros((2, 3)), 1.0, rng(7))
    assert isinstance(curves, Curves)
    known = mean(Cells(curves.stderr, curves.freedom, aligned.chains, aligned.batches))
    np.testing.assert_allclose(known.stderr, error_of(aligned.chains.mean(axis=0), aligned.batches.mean(axis=0)).stderr)
    nothing = np.empty((2, 3, 0))
    without = mean(Cells(curves.stderr, curves.freedom, nothing, nothing))
    np.testing.assert_allclose(without.stderr, curves.stderr.mean(axis=0))
    assert (without.df >= 3 - 1e-9).all()
    assert (without.df <= 7 + 1e-9).all()


def test_errors_that_are_equal_become_equal() -> None:
    """Four chains each: beside their own 3 degrees each knows what all of them tell."""
    drawn = 2 * np.sqrt(rng(3).chisquare(3, 20_000) / 3)
    stderr, df = moderated(drawn, np.full(20_000, 3.0))
    assert drawn.std() > 0.5
    assert stderr.std() < 0.1
    np.testing.assert_allclose(stderr.mean(), 2, rtol=0.02)
    assert (df > 50).all()


@pytest.mark.parametrize("prior", [2.0, 8.0])
def test_moderated_errors_give_a_t_of_the_degrees_they_say(prior: float) -> None:
    """Variances drawn as the model has them, estimated with 3 degrees, and numbers with such noise: d₀ comes back; a number over its error is t."""
    generator = rng(4)
    true = 4 * prior / generator.chisquare(prior, 20_000)
    estimated_errors = np.sqrt(true * generator.chisquare(3, 20_000) / 3)
    stderr, df = moderated(estimated_errors, np.full(20_000, 3.0))
    np.testing.assert_allclose(df, 3 + prior, rtol=0.08)
    over = np.sqrt(true) * generator.standard_normal(20_000) / stderr
    for share in (0.9, 0.975, 0.995):
        assert np.mean(over > t.ppf(share, df[0])) == pytest.approx(1 - share, rel=0.12)


def test_errors_that_tell_nothing_of_each_other_stay() -> None:
    known = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.full(5, INF)
    few = np.array([1.0, 2.0, 3.0]), np.full(3, 3.0)
    for given in (known, few):
        for before, after in zip(given, moderated(*given), strict=True):
            np.testing.assert_array_equal(before, after)
    mixed, df = moderated(np.array([0.0, 1.0, 2.0, 1.5, 1.2, 7.0]), np.array([3.0, 3.0, 3.0, 3.0, 3.0, INF]))
    assert (mixed[0], mixed[-1], df[0], df[-1]) == (0.0, 7.0, 3.0, INF)
    assert (df[1:5] > 3).all()

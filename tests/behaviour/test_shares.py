from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour.shares import class_shares, effects_by_depth
from rllc.core.errors import RllcError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some(contexts: int = 30, size: int = 20, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects of two heads without reason, two classes, and what counts: all but the first prediction."""
    generator = rng(seed)
    counted = np.ones((contexts, size), bool)
    counted[:, 0] = False
    return generator.standard_normal((2, contexts, size)), generator.random((2, contexts, size)) < share, counted


def test_a_head_that_hurts_one_class_alone_has_it_to_the_last():
    effects, flags, counted = some()
    effects[0] = np.where(flags[1], 2 + effects[0] * 0.1, effects[0] * 0.1)
    found = class_shares(effects, flags, counted, rng(1), [0.05, 0.1])
    assert found.looked_at.tolist() == [[29, 57]] * 2
    assert found.shares[0, :, 1].tolist() == [1, 1]
    assert found.interval[0, :, 1].tolist() == [[1, 1]] * 2
    assert found.excess_interval[0, :, 1, 0].min() > 0.7
    assert found.base == pytest.approx(flags[:, counted].mean(1))


def test_shares_are_those_of_the_sorted_predictions():
    effects, flags, counted = some(seed=2)
    found = class_shares(effects, flags, counted, rng(1), [0.01, 0.2, 1.0])
    for h in range(2):
        order = np.argsort(-effects[h, counted])
        for f, size in enumerate((6, 114, int((effects[h, counted] > 0).sum()))):
            assert found.shares[h, f] == pytest.approx(flags[:, counted][:, order[:size]].mean(1))
            assert found.looked_at[h, f] == size


def test_what_does_not_count_is_not_looked_at():
    effects, flags, counted = some()
    effects[:, :, 0] = 100
    flags[:, :, 0] = True
    plain = class_shares(*some(), rng(1), [0.1])
    assert np.array_equal(class_shares(effects, flags, counted, rng(1), [0.1]).shares, plain.shares)


def test_the_bootstrap_is_what_a_slow_one_gives():
    """Each draw of contexts, laid out as contexts, has the share that the function gives for it."""
    effects, flags, counted = some(contexts=6, seed=3)
    found = class_shares(effects, flags, counted, rng(5), [0.1], draws=50)
    times = rng(5).multinomial(6, np.full(6, 1 / 6), 50)
    shares, bases = [], []
    for time in times:
        rows = np.repeat(np.arange(6), time)
        once = class_shares(effects[:, rows], flags[:, rows], counted[rows], rng(), [0.1], draws=2)
        shares.append(once.shares)
        bases.append(once.base)
    assert found.interval == pytest.approx(np.moveaxis(np.quantile(shares, [0.025, 0.975], 0), 0, -1))
    assert found.base_interval == pytest.approx(np.quantile(bases, [0.025, 0.975], 0).T)
    excess = np.array(shares) - np.array(bases)[:, None, None]
    assert found.excess_interval == pytest.approx(np.moveaxis(np.quantile(excess, [0.025, 0.975], 0), 0, -1))


def test_contexts_that_are_all_or_nothing_have_wide_intervals():
    """Whole contexts of one class: 40 predictions in a context are then one piece of evidence, not 40. The base rate's error is √(pq / contexts)."""
    contexts = 50
    counted = np.ones((contexts, 40), bool)
    flags = np.repeat(rng(4).random((1, contexts, 1)) < 0.5, 40, 2)
    found = class_shares(rng(5).standard_normal((1, contexts, 40)), flags, counted, rng(6), [0.5], draws=2000)
    p = found.base[0]
    assert np.diff(found.base_interval[0])[0] == pytest.approx(2 * 1.96 * (p * (1 - p) / contexts) ** 0.5, rel=0.1)


def test_intervals_cover_as_often_as_they_say():
    """Effects without reason: the class's excess is 0, and 90 % intervals miss it in 10 % of 300 texts; 5 to 17 % is what chance allows (±3.5 sd)."""
    missed = 0
    for seed in range(150):
        found = class_shares(*some(40, 30, 0.3, 100 + seed), rng(seed), [0.1], draws=100, level=0.9)
        low, high = found.excess_interval[:, 0, 0].T
        missed += int(((low > 0) | (high < 0)).sum())
    assert 0.05 * 300 <= missed <= 0.17 * 300


def test_a_head_that_does_nothing_has_no_shares():
    effects, flags, counted = some()
    effects[1] = 0
    found = class_shares(effects, flags, counted, rng(1), [0.1])
    assert np.isnan(found.shares[1]).all()
    assert np.isnan(found.interval[1]).all()
    assert found.looked_at[1].tolist() == [0]
    assert np.isfinite(found.shares[0]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"counted": np.zeros((30, 20), bool)}, "Shares over 30 contexts with 0 predictions"),
        ({"effects": np.full((2, 30, 20), np.nan)}, "hold numbers that are not finite"),
        ({"fractions": [0.0]}, r"Fractions \[0.0\], 400 draws"),
        ({"fractions": []}, r"Fractions \[\]"),
        ({"level": 1.0}, "an interval of 1.0"),
    ],
)
def test_what_makes_no_sense_is_told(change, sentence):
    effects, flags, counted = some()
    with pytest.raises(RllcError, match=sentence):
        class_shares(**{"effects": effects, "flags": flags, "counted": counted, "rng": rng()} | change)


def test_effects_on_closers_are_told_apart_by_how_many_are_open():
    depth = np.array([[0, 1, 2, 1, 0], [1, 2, 3, 5, 1]])
    closing = np.array([[False, False, True, True, False], [False, True, True, True, True]])
    effects = np.stack([np.arange(10.0).reshape(2, 5), np.where(closing & (depth > 1), 1.0, 0.0)])
    mean, stderr, count = effects_by_depth(effects, closing, depth)
    assert count.tolist() == [2, 2, 2]
    assert mean[0].tolist() == [(3 + 9) / 2, (2 + 6) / 2, (7 + 8) / 2]
    assert mean[1].tolist() == [0, 1, 1]
    # Two contexts with one closer each: the error of a mean of two numbers.
    assert stderr[0, 0] == pytest.approx(np.std([3, 9], ddof=1) / np.sqrt(2))
    assert np.isnan(effects_by_depth(effects, closing & (depth < 3), depth)[0][:, 2]).all()

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, TRUTH, behaviour, head_curves

from rllc.analysis.across_seeds import SeedFeatures, match_seeds, seed_features, type_counts
from rllc.analysis.findings import Behaviour, Curves
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.types import head_types
from rllc.core.errors import RllcError

ORDER = np.r_[np.random.default_rng(0).permutation(8), 8 + np.random.default_rng(1).permutation(8)]  # within layers


def distinct_heads(noise: float, seed: int, order: np.ndarray) -> tuple[Curves, Behaviour]:
    """Planted heads, each with a size of its own, renumbered."""
    own = (1 + 0.05 * np.arange(16))[:, None]
    curves, told = head_curves(noise, seed), behaviour()
    curves = replace(curves, llc=(curves.llc * own)[order])
    return curves, replace(told, scores={name: (score * own)[order] for name, score in told.scores.items()})


def test_heads_of_two_seeds_find_their_own_again() -> None:
    (curve, told), (other, retold) = distinct_heads(0.02, 0, np.arange(16)), distinct_heads(0.02, 1, ORDER)
    features = seed_features({"a": curve, "b": other}, {"a": told, "b": retold})
    types = {name: head_types(found, AnalysisSettings()) for name, found in (("a", told), ("b", retold))}
    (found,) = match_seeds(features, 0, types=types, permutations=300)
    assert sorted(found.pairs) == sorted((HEADS[ORDER[i]], HEADS[i]) for i in range(16))
    assert found.mean < 0.05 < found.random_interval[0]
    assert found.held_out < found.held_out_interval[0]
    assert found.held_out_p == pytest.approx(1 / 301)
    assert found.same_type == 1.0
    by_chance = np.mean([np.equal.outer(TRUTH[part], TRUTH[part]).mean() for part in (slice(0, 8), slice(8, 16))])
    assert found.same_type_by_chance == pytest.approx(by_chance, abs=0.03)


def unrelated(seed: int) -> dict[str, SeedFeatures]:
    rng = np.random.default_rng(seed)
    return {name: SeedFeatures(HEADS, rng.normal(size=(16, 3)), rng.normal(size=(16, 11))) for name in ("a", "b")}


def test_where_there_is_nothing_to_match_the_held_out_test_says_so_though_the_best_matching_is_close() -> None:
    found = [match_seeds(unrelated(seed), seed, permutations=99)[0] for seed in range(40)]
    assert all(item.mean < item.random_interval[0] for item in found)
    p = np.array([item.held_out_p for item in found])
    assert 0.25 < p.mean() < 0.75
    assert (p <= 0.1).mean() <= 0.25  # nominal 0.1, forty of them
    assert np.isnan(found[0].same_type)
    assert np.isnan(found[0].same_type_by_chance)


def test_distances_by_hand_and_heads_without_a_partner() -> None:
    one = SeedFeatures(("0:0", "0:1", "1:0"), np.array([[0.0], [1.0], [5.0]]), np.array([[0.0], [2.0], [9.0]]))
    other = SeedFeatures(("0:0", "1:0", "1:1"), np.array([[1.0], [5.0], [0.0]]), np.array([[2.0], [9.0], [0.0]]))
    (found,) = match_seeds({"a": one, "b": other}, 0, permutations=50)
    assert found.pairs == (("0:1", "0:0"), ("1:0", "1:0"))
    np.testing.assert_allclose(found.distances, 0, atol=1e-12)
    far = replace(other, curve=np.array([[4.0], [9.0], [0.0]]))
    (found,) = match_seeds({"a": one, "b": far}, 0, permutations=50)
    spread = np.array([0.0, 2, 9, 4, 9, 0]).std()
    np.testing.assert_allclose(found.distances, [np.sqrt((2 / spread) ** 2 / 2), 0], atol=1e-12)


def test_every_pair_of_seeds_is_matched_once() -> None:
    three = {name: unrelated(i)["a"] for i, name in enumerate(("a", "b", "c"))}
    assert [(found.one, found.other) for found in match_seeds(three, 0, permutations=20)] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_features_are_of_common_checkpoints_and_complete_heads() -> None:
    curve, told = distinct_heads(0.1, 0, np.arange(16))
    shorter = replace(curve, steps=STEPS[2:], **{name: getattr(curve, name)[:, 2:] for name in ("llc", "stderr", "ci_low", "ci_high", "outcome")})
    curve = replace(curve, llc=np.where((np.arange(16) == 3)[:, None] & (np.arange(11) == 5), np.nan, curve.llc))
    features = seed_features({"a": curve, "b": shorter}, {"a": told, "b": told})
    assert features["a"].curve.shape == (15, 9)
    assert features["b"].curve.shape == (16, 9)
    assert "0:3" not in features["a"].heads
    np.testing.assert_array_equal(features["b"].curve, shorter.llc)
    np.testing.assert_array_equal(features["b"].behaviour, np.stack([told.scores[name][:, -1] for name in sorted(told.scores)], axis=1))


def test_types_are_counted_by_seed() -> None:
    types = head_types(behaviour(), AnalysisSettings())
    fewer = replace(types, types=("other",) * 16)
    found = type_counts({"a": types, "b": fewer})
    assert found.types == ("induction", "previous-token", "other")
    assert found.counts.tolist() == [[6, 5, 5], [0, 0, 16]]
    assert type_counts({}).counts.shape == (0, 0)


def test_what_cannot_be_matched_is_a_sentence() -> None:
    with pytest.raises(RllcError, match="matching needs two"):
        match_seeds({"a": unrelated(0)["a"]}, 0)
    with pytest.raises(RllcError, match="share no layer"):
        match_seeds({"a": unrelated(0)["a"], "b": replace(unrelated(0)["b"], heads=tuple(f"7:{i}" for i in range(16)))}, 0)
    curve, told = distinct_heads(0.1, 0, np.arange(16))
    with pytest.raises(RllcError, match="Give both for every seed"):
        seed_features({"a": curve}, {"b": told})
    with pytest.raises(RllcError, match="share 0 checkpoints and 3 kinds"):
        seed_features({"a": curve, "b": replace(curve, steps=STEPS + 1)}, {"a": told, "b": told})
    with pytest.raises(RllcError, match="No head of a has both"):
        seed_features({"a": replace(curve, llc=np.full(curve.llc.shape, np.nan))}, {"a": told})

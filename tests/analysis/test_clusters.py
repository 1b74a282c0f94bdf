from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_curves import HEADS, STEPS, TRUTH, curves_from, head_curves
from scipy.cluster.hierarchy import is_valid_linkage
from sklearn.metrics import adjusted_rand_score

from rllc.analysis.agreement import adjusted_rand, agreement
from rllc.analysis.clusters import cluster, clusterings
from rllc.analysis.curves import select
from rllc.analysis.findings import HeadTypes
from rllc.analysis.settings import AnalysisSettings, Method, Preprocessing

SETTINGS = AnalysisSettings(resamples=20, permutations=200)
FEW = AnalysisSettings(resamples=10)
BOTH: list[tuple[Method, Preprocessing]] = [(m, p) for m in ("kmeans", "hierarchical") for p in ("raw", "standardised")]


@pytest.mark.parametrize(("method", "preprocessing"), BOTH)
def test_planted_clusters_are_recovered_in_the_order_of_their_final_values(method: Method, preprocessing: Preprocessing) -> None:
    found, reason = cluster(head_curves(0.1), method, preprocessing, "all", SETTINGS, seed=0)
    assert reason == ""
    assert found is not None
    assert found.n_clusters == 3
    assert found.labels.tolist() == TRUTH.tolist()
    assert found.silhouette > 0.8
    assert found.stability == 1.0
    assert found.stability_interval == (1.0, 1.0)
    if method == "hierarchical":
        assert found.linkage is not None
        assert found.linkage.shape == (15, 4)
        assert is_valid_linkage(found.linkage)
    else:
        assert found.linkage is None


@pytest.mark.parametrize(("method", "preprocessing"), BOTH)
def test_stability_falls_as_noise_overwhelms_the_shapes(method: Method, preprocessing: Preprocessing) -> None:
    fixed = replace(SETTINGS, n_clusters=3)
    stabilities = []
    for noise in (0.1, 2.0, 20.0):
        found, _ = cluster(head_curves(noise), method, preprocessing, "all", fixed, seed=0)
        assert found is not None
        low, high = found.stability_interval
        assert low <= found.stability <= high
        stabilities.append(found.stability)
    assert stabilities[0] == 1.0
    assert stabilities[0] > stabilities[1] > stabilities[2]
    assert stabilities[2] < 0.4


def test_scale_matters_raw_and_shape_alone_standardised() -> None:
    rise = np.linspace(0, 1, len(STEPS))
    factors = np.array([1.0, 1.1, 10.0, 11.0])
    llc = np.concatenate([factors[:, None] * rise, factors[:, None] * (1 - rise)])
    curves = curves_from(llc, 1e-3, HEADS[:8])
    raw, _ = cluster(curves, "kmeans", "raw", "all", replace(SETTINGS, n_clusters=2), 0)
    standardised, _ = cluster(curves, "kmeans", "standardised", "all", SETTINGS, 0)
    assert raw is not None
    assert standardised is not None
    assert standardised.n_clusters == 2
    assert adjusted_rand_score([0, 0, 0, 0, 1, 1, 1, 1], standardised.labels) == 1.0
    assert adjusted_rand_score([0, 0, 0, 0, 1, 1, 1, 1], raw.labels) < 1.0


def test_the_number_of_clusters_may_be_given() -> None:
    found, _ = cluster(head_curves(0.1), "hierarchical", "raw", "all", replace(SETTINGS, n_clusters=5), 0)
    assert found is not None
    assert found.n_clusters == 5
    assert set(found.labels) == set(range(5))


def test_scopes_are_all_heads_and_each_layer() -> None:
    found, reasons = clusterings(head_curves(0.1), FEW, seed=0)
    assert reasons == ()
    assert [(item.scope, item.preprocessing, item.method) for item in found[:4]] == [
        ("all", p, m) for p in SETTINGS.preprocessing for m in SETTINGS.methods
    ]
    assert [item.scope for item in found[::4]] == ["all", "layer 0", "layer 1"]
    assert found[4].heads == HEADS[:8]
    one_layer, _ = clusterings(select(head_curves(0.1), HEADS[:8]), FEW, seed=0)
    assert {item.scope for item in one_layer} == {"all"}


def test_equal_seeds_give_equal_answers_and_scopes_do_not_share_randomness() -> None:
    noisy = head_curves(2.0)
    first, again, other = (cluster(noisy, "kmeans", "raw", "all", SETTINGS, seed)[0] for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.stability == again.stability
    assert first.stability != other.stability


def test_heads_and_checkpoints_without_estimates_are_left_out_and_named() -> None:
    curves = head_curves(0.1)
    curves.llc[2, 4] = np.nan
    curves.llc[:, 0] = np.nan
    found, reasons = clusterings(curves, FEW, seed=0)
    assert found[0].left_out == ("0:2",)
    assert found[0].heads == tuple(head for head in HEADS if head != "0:2")
    assert found[0].labels.tolist() == np.delete(TRUTH, 2).tolist()
    assert any("(all) leave out 0:2:" in reason for reason in reasons)
    assert any("(all) leave out step 0:" in reason for reason in reasons)
    assert not any("(layer 1) leave out 1" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("llc", "match"),
    [
        (np.random.default_rng(0).normal(size=(2, 4)), "2 of its heads have complete curves"),
        (np.full((5, 4), np.nan), "0 of its heads have complete curves"),
        (np.full((5, 4), 2.0), "the curves do not differ"),
        (np.zeros((5, 4)), "the curves do not differ"),
        (np.zeros((0, 4)), "0 of its heads"),
    ],
)
def test_degenerate_curves_give_reasons(llc: np.ndarray, match: str) -> None:
    found, reasons = clusterings(curves_from(llc, 0.1, HEADS[: len(llc)], STEPS[:4]), SETTINGS, seed=0)
    assert found == ()
    assert any(match in reason for reason in reasons)


def test_one_checkpoint_clusters_by_value_and_has_no_shape() -> None:
    curves = curves_from(np.array([[1.0], [1.1], [5.0], [5.1]]), 0.01, HEADS[:4], STEPS[:1])
    found, reasons = clusterings(curves, FEW, seed=0)
    assert {item.preprocessing for item in found} == {"raw"}
    assert all(item.labels.tolist() == [0, 0, 1, 1] for item in found)
    assert reasons == ("There are no clusters (all, standardised): one checkpoint has no shape to standardise.",)


def test_curves_equal_up_to_scale_have_one_shape() -> None:
    curves = curves_from(np.outer([1.0, 2.0, 3.0, 7.0], np.log1p(STEPS)), 0.01, HEADS[:4])
    found, reason = cluster(curves, "kmeans", "standardised", "all", SETTINGS, 0)
    assert found is None
    assert "do not differ" in reason


def test_a_constant_head_among_others_is_flat_not_a_warning() -> None:
    curves = head_curves(0.1)
    curves.llc[0] = 3.0
    found, _ = cluster(curves, "kmeans", "standardised", "all", SETTINGS, 0)
    assert found is not None
    assert np.isfinite(found.silhouette)


def test_too_many_clusters_asked_for_is_a_reason() -> None:
    found, reason = cluster(select(head_curves(0.1), HEADS[:4]), "kmeans", "raw", "all", replace(SETTINGS, n_clusters=4), 0)
    assert found is None
    assert "4 clusters were asked for" in reason


def test_resamples_that_coincide_agree_with_nothing() -> None:
    flat = curves_from(np.zeros((4, 3)), 0.0, HEADS[:4], STEPS[:3])
    flat.llc[2:, 1] = 1e-15  # one group up to rounding, but two distinct rows when seen alone
    found, _ = cluster(flat, "hierarchical", "raw", "all", SETTINGS, 0)
    assert found is not None
    assert found.stability == 1.0
    drowned = replace(flat, stderr=np.broadcast_to(np.array([[1e9], [0.0], [0.0], [0.0]]), (4, 3)).copy())
    found, _ = cluster(drowned, "hierarchical", "raw", "all", replace(SETTINGS, n_clusters=2), 0)
    assert found is not None
    assert found.stability < 1.0
    assert np.isfinite(found.stability)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2)))
def test_the_vectorised_index_is_the_adjusted_rand_index(pair: tuple[list[int], list[int]]) -> None:
    many, one = (np.array(labels) for labels in pair)
    ours = adjusted_rand(np.stack([many, one]), one)
    if np.isnan(ours[0]):
        assert len({len(set(many)), len(set(one))}) == 1  # both one group, or both all alone
    else:
        np.testing.assert_allclose(ours[0], adjusted_rand_score(many, one), atol=1e-12)


def types_of(truth: np.ndarray) -> HeadTypes:
    names = ("induction", "previous-token", "other")
    return HeadTypes(HEADS, tuple(names[kind] for kind in truth), np.zeros(16), 0, {})


def test_agreement_of_planted_types_with_planted_clusters_is_perfect_and_beyond_chance() -> None:
    found, _ = cluster(head_curves(0.1), "kmeans", "raw", "all", SETTINGS, 0)
    assert found is not None
    told, reason = agreement(found, types_of(TRUTH), SETTINGS, 0)
    assert reason == ""
    assert told is not None
    assert (told.method, told.scope, told.preprocessing) == ("kmeans", "all", "raw")
    assert told.adjusted_rand == 1.0
    assert told.types == ("previous-token", "induction", "other")
    assert told.confusion.tolist() == [[0, 5, 0], [6, 0, 0], [0, 0, 5]]
    assert told.chance_interval[0] < 0 < told.chance_interval[1] < 0.5


def test_shuffled_types_agree_no_better_than_chance() -> None:
    found, _ = cluster(head_curves(0.1), "kmeans", "raw", "all", SETTINGS, 0)
    assert found is not None
    told = [agreement(found, types_of(np.random.default_rng(seed).permutation(TRUTH)), SETTINGS, seed)[0] for seed in range(40)]
    inside = [item.chance_interval[0] <= item.adjusted_rand <= item.chance_interval[1] for item in told if item is not None]
    assert 0.75 <= np.mean(inside) <= 1.0
    assert abs(np.mean([item.adjusted_rand for item in told if item is not None])) < 0.1


def test_agreement_counts_heads_that_have_both_and_is_undefined_without_variety() -> None:
    found, _ = cluster(head_curves(0.1), "kmeans", "raw", "all", SETTINGS, 0)
    assert found is not None
    few = HeadTypes((*HEADS[:5], "9:9"), ("induction",) * 6, np.zeros(6), 0, {})
    told, _ = agreement(found, few, SETTINGS, 0)
    assert told is not None
    assert told.confusion.sum() == 5
    assert told.adjusted_rand == 0.0  # one type against several clusters
    single = replace(found, labels=np.zeros(16, dtype=np.int64), n_clusters=1)
    told, _ = agreement(single, few, SETTINGS, 0)
    assert told is not None
    assert np.isnan(told.adjusted_rand)
    told, reason = agreement(found, HeadTypes((), (), np.zeros(0), 0, {}), SETTINGS, 0)
    assert told is None
    assert "fewer than two clustered heads" in reason


def test_clusters_that_are_the_layers_recover_no_type() -> None:
    """Each layer has its own types, as in models of two layers: that clusters are the layers tells nothing of types within them."""
    found, _ = cluster(head_curves(0.1), "kmeans", "raw", "all", SETTINGS, 0)
    assert found is not None
    layers = replace(found, labels=np.arange(16) // 8, n_clusters=2)
    names = ["current-token"] * 6 + ["previous-token", "other"] + ["induction"] * 5 + ["other"] * 3
    told, _ = agreement(layers, HeadTypes(HEADS, tuple(names), np.zeros(16), 0, {}), SETTINGS, 0)
    assert told is not None
    assert told.adjusted_rand > 0.4
    assert told.p == 1.0
    assert told.chance_interval[1] == pytest.approx(told.adjusted_rand)

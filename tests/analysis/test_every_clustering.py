"""The appendix of clusterings: both times in one run, ablation beside, three criteria, and what is left out without tslearn."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, TRUTH, behaviour, head_curves

from rllc.analysis import clusters
from rllc.analysis.agreement import agreement
from rllc.analysis.analyse import analyse
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Clustering, Findings
from rllc.analysis.measured import HeadEffects, Measured
from rllc.analysis.settings import AnalysisSettings, Method, Preprocessing, Time
from rllc.analysis.types import head_types
from rllc.core.errors import RllcError

SETTINGS = AnalysisSettings(resamples=10, permutations=200, time=("recorded", "log"), preprocessing=("raw", "minmax"))


def effects() -> HeadEffects:
    """Ablation tells the same groups as λ̂ does."""
    values = np.maximum(head_curves(0.1).llc, 0.0)[:, :, None]
    error, loss = np.full(values.shape, 0.1), np.ones((len(STEPS), 1))
    kinds = {"zero": values + 5, "mean": values}
    return HeadEffects(HEADS, STEPS, ("mix",), kinds, dict.fromkeys(kinds, error), kinds, dict.fromkeys(kinds, error), loss, 0.01 * loss)


@pytest.fixture(scope="module")
def found() -> Findings:
    evidence = Evidence({"mix": head_curves(0.1)}, {}, behaviour(), "mix", measured=Measured(ablation=effects()))
    return analyse(evidence, SETTINGS, 0, pairs=False)


def test_both_times_stand_in_one_run_each_with_its_agreement(found: Findings) -> None:
    assert {(c.time, c.preprocessing, c.method, c.scope) for c in found.clusterings} == {
        (t, p, m, s)
        for t in ("recorded", "log")
        for p in ("raw", "minmax")
        for m in ("kmeans", "hierarchical")
        for s in ("all", "layer 0", "layer 1")
    }
    assert [(a.time, a.preprocessing, a.method, a.scope) for a in found.agreements] == [
        (c.time, c.preprocessing, c.method, c.scope) for c in found.clusterings
    ]
    assert found.clusterings[0].time == "recorded"
    one, other = (next(c for c in found.clusterings if c.time == time and c.scope == "all") for time in ("recorded", "log"))
    assert one.silhouette != other.silhouette


def test_curves_of_ablation_are_clustered_beside(found: Findings) -> None:
    assert len(found.ablation_clusterings) == len(found.ablation_agreements) == len(found.clusterings)
    first = found.ablation_clusterings[0]
    assert first.heads == HEADS
    assert first.labels.tolist() == TRUTH.tolist()
    assert not any("ablation" in note.lower() for note in found.notes)


def test_three_criteria_say_how_many_clusters_there_are(found: Findings) -> None:
    assert found.numbers is not None
    assert set(found.numbers.chosen) == {"silhouette", "gap", "stability"}
    assert (found.numbers.method, found.numbers.preprocessing, found.numbers.time) == ("kmeans", "raw", "recorded")
    assert np.isfinite(found.numbers.gap).all()


def test_without_tslearn_its_methods_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "available", lambda: False)
    settings = replace(SETTINGS, methods=("kmeans", "dtw", "kshape"))
    groups, reasons = clusters.clusterings(head_curves(0.1), settings, 0)
    assert {c.method for c in groups} == {"kmeans"}
    assert [reason for reason in reasons if "tslearn" in reason] == [
        "There are no clusters by DTW K-means and k-shape: tslearn, which makes them, is not installed (`pip install 'rllc[cluster]'`)."
    ]


def test_slow_methods_are_redrawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[str, int] = {}

    def count(drawn: np.ndarray, method: str, n_clusters: int, states: np.ndarray) -> np.ndarray:
        counted[method] = len(drawn)
        return np.zeros(drawn.shape[:2], dtype=np.int64)

    monkeypatch.setattr(clusters, "repartitions", count)
    monkeypatch.setattr(clusters, "partition", lambda points, *_: np.arange(len(points)) % 2)
    monkeypatch.setattr(clusters, "distances", lambda points, _: 1.0 - np.eye(len(points)))
    settings = AnalysisSettings(resamples=40, warped_resamples=7, n_clusters=2)
    for method in ("kmeans", "dtw"):
        clusters.cluster(head_curves(0.1), method, "raw", "all", settings, 0)
    assert counted == {"kmeans": 40, "dtw": 7}


def test_agreement_by_chance_has_a_p_value_that_chance_spreads_evenly() -> None:
    types = head_types(behaviour(), AnalysisSettings())
    settings, rng = AnalysisSettings(permutations=400), np.random.default_rng(0)
    labels = np.array([0] * 8 + [1] * 8)
    chance: list[float] = []
    for seed in range(120):
        told, _ = agreement(_group(rng.permutation(labels)), types, settings, seed)
        assert told is not None
        chance.append(told.p)
    assert np.mean(np.array(chance) <= 0.2) == pytest.approx(0.15, abs=0.1)  # the index takes few values, so below the level rather than at it
    told, _ = agreement(_group(np.array(TRUTH)), types, settings, 0)
    assert told is not None
    assert told.p == pytest.approx(1 / 401)


def _group(labels: np.ndarray) -> Clustering:
    return Clustering("kmeans", "all", "raw", HEADS, labels, int(labels.max()) + 1, 0.5, 1.0, (1.0, 1.0))


@pytest.mark.parametrize("options", [{"time": ()}, {"time": ("linear",)}, {"warped_resamples": 2}])
def test_settings_that_make_no_sense_are_refused(options: SimpleNamespace) -> None:
    with pytest.raises(RllcError, match=r"analysis setting (time|warped_resamples)"):
        AnalysisSettings(**options)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", ["paper", "paper-hub", "paper-small"])
def test_the_experiments_of_the_paper_ask_for_every_clustering_of_its_appendix(name: str) -> None:
    asked = tomllib.loads((Path(__file__).parents[2] / "experiments" / f"{name}.toml").read_text("utf-8"))["analysis"]
    assert set(asked["methods"]) == set(get_args(Method))
    assert set(asked["preprocessing"]) == set(get_args(Preprocessing))
    assert set(asked["time"]) == set(get_args(Time))

"""Captions state on how much each measurement was made: its own contexts, not another's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")  # what a run tells the figures is a matter of rllc.runs, which needs it

from rllc.behaviour.settings import (
    AblationSettings,
    BaselineSettings,
    BehaviourSettings,
    MemorisedSettings,
    NgramSettings,
    PathSettings,
    TableSettings,
)
from rllc.figures.material import Material
from rllc.figures.whole_set import draw_all
from rllc.runs import material as runs_material
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder

DIFFERENT = BehaviourSettings(
    sequences=11,
    segment=6,
    repeats=3,
    contexts=13,
    ablation=AblationSettings(contexts=17),
    ngrams=NgramSettings(probes=29),
    paths=PathSettings(contexts=19),
    tables=TableSettings(contexts=23),
    memorised=MemorisedSettings(contexts=1031),
    baselines=BaselineSettings(contexts=7, top=3, probes=5, draws=9, twin_probes=6, twin_steps=8),
)
CONTEXTS = {
    "loss-and-stages": ["13"],
    "attention-scores": ["11"],
    "ablation": ["17"],
    "ablated-loss": ["17"],
    "ablation-clusterings": ["17"],
    "ngrams": ["13"],
    "token-classes": ["17"],
    "class-effects": ["17"],
    "nested-closers": ["17"],
    "edges": ["19"],
    "edges-over-training": ["19"],
    "paths-to-logits": ["19"],
    "affected-together": ["17"],
    "most-affected": ["17"],
    "painted-effects": ["17"],
    "logit-attribution": ["23"],
    "multigrams-over-training": ["1,031"],
    "multigram-table": ["1,031"],
    "wrllc-on-multigrams": ["1,031"],
    "threshold-sensitivity": ["1,031"],
    "baselines": ["7", "17"],
    "curvature-twin": ["7"],
    "orderings": ["7", "17", "1,031"],
}


@pytest.fixture
def captions(material: Material, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Of a run whose measurements are all of different sizes."""
    monkeypatch.setattr(runs_material, "planted_share", lambda experiment, folder: 0.25)  # noqa: ARG005
    text = (Path(__file__).parents[2] / "experiments" / "paper-small.toml").read_text(encoding="utf-8")
    experiment = replace(parse(text), behaviour=DIFFERENT)
    told = replace(runs_material.told_of(experiment, RunFolder(tmp_path)), mixture="train")
    return {name: d.caption for name, d in draw_all(replace(material, told=told)).drawings.items()}


def test_every_caption_states_the_contexts_of_its_own_measurement(captions: dict[str, str]) -> None:
    found = {name: re.findall(r"([\d,]+) held-out contexts", caption) for name, caption in captions.items()}
    assert {name: numbers for name, numbers in found.items() if numbers} == CONTEXTS
    assert all("held-out contexts" not in caption for name, caption in captions.items() if name not in CONTEXTS)
    assert all(caption.count("of the training text is planted") <= 1 for caption in captions.values())


def test_baselines_and_scores_say_what_else_they_took(captions: dict[str, str]) -> None:
    for name in ("baselines", "curvature-twin", "orderings"):
        assert (
            "They take 5 random vectors a context behind the Hessian's trace, its 3 largest eigenvalues, 9 draws a context behind each Fisher trace "
            "and 6 random vectors of 8 products with the Hessian behind the curvature twin." in captions[name]
        )
    assert "Prefix matching on 11 sequences of 6 random tokens, repeated 3 times." in captions["attention-scores"]
    assert "At most 29 n-grams of each length, and as many skip n-grams." in captions["ngrams"]


def test_what_holds_no_estimate_states_no_sampler_and_panels_state_their_own_temperature(captions: dict[str, str]) -> None:
    assert "λ̂" not in captions["ablation-clusterings"]
    assert "λ̂ by" in captions["clusterings"]
    assert "nβ as above each panel" in captions["temperatures"]
    assert not re.search(r"nβ \d", captions["temperatures"])

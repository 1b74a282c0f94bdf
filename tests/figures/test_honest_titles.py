"""Titles say no more than the run's numbers hold: where there is nothing they name nothing, for all that a figure tries together."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from rllc.analysis.circuit import circuit as circuit_of
from rllc.analysis.falls import falls
from rllc.analysis.findings import Curves
from rllc.figures import beside, circuit, heads, over_seeds, token_classes
from rllc.figures.drawing import Line, Plot
from rllc.figures.head_lines import REACH
from rllc.figures.material import Material
from rllc.figures.whole_set import Drawn


def line(drawn: Drawn, name: str, of: str, panel: int = 0) -> Line:
    found = drawn.drawings[name]
    assert isinstance(found, Plot)
    (only,) = [layer for layer in found.panels[panel].layers if isinstance(layer, Line) and layer.name == of]
    return only


def test_classes_within_chance_are_not_claimed(material: Material) -> None:
    """A head of sixteen and a class of four above their base by 2.5 errors, where one in 1,280 by chance would take 3.2."""
    shares = material.measured.shares
    assert shares is not None
    base = np.broadcast_to(shares.base[None, None, :, None, :], shares.shares.shape).copy()
    base[5, ..., 0] += 2.5 * 0.03
    level = replace(shares, shares=base, excess_low=base - shares.base[:, None] - 0.06, excess_high=base - shares.base[:, None] + 0.06)
    found = token_classes.class_shares(level, material.findings, material.told)
    assert isinstance(found, Plot)
    assert found.title == "No class stands out among any head's most affected tokens"


def test_the_fraction_shown_is_that_of_the_claims(material: Material) -> None:
    """One prediction in a thousand decides nothing: a hundredth is looked at, whichever fractions were measured beside it."""
    shares = material.measured.shares
    assert shares is not None
    noisy = {name: np.concatenate([getattr(shares, name)[..., :1, :] + 1, getattr(shares, name)], axis=3) for name in SHARES}
    found = token_classes.class_shares(replace(shares, fractions=(0.001, *shares.fractions), **noisy), material.findings, material.told)
    assert isinstance(found, Plot)
    assert found.caption.startswith("The 1% of predictions")


SHARES = ("shares", "low", "high", "excess_low", "excess_high")


def test_scores_losses_and_context_carry_their_errors(material: Material, drawn: Drawn) -> None:
    b = material.findings.behaviour
    score = line(drawn, "attention-scores", "0:1")
    np.testing.assert_allclose(score.high - score.y, REACH * b.error("previous_token")[b.heads.index("0:1")])
    loss, (losses, icl) = line(drawn, "loss-and-stages", "code"), b.errors
    np.testing.assert_allclose(loss.high - loss.y, REACH * losses[b.data.index("code")])
    context = line(drawn, "ngrams", "in-context learning", panel=2)
    np.testing.assert_allclose(context.y - context.low, REACH * icl)
    assert re.search(r"in-context score −0\.4\d ± 0\.02 nats", drawn.drawings["ngrams"].title)
    assert re.search(r"random part \d\.\d ± 0\.3", drawn.drawings["controls"].title)


def test_the_twin_stands_beside_the_estimate_with_the_errors_of_both(material: Material, drawn: Drawn) -> None:
    found, curves, baselines = material.findings.twins, material.findings.curves["train"], material.measured.baselines
    assert found is not None
    assert baselines is not None
    at, head = list(curves.steps).index(found.steps[-1]), "1:6"
    row, mine, theirs = found.heads.index(head), curves.parts.index(head), baselines.heads.index(head)
    difference = curves.llc[mine, at] - baselines.values["curvature_twin"][theirs, -1]
    assert found.difference[row, -1] == difference
    error = np.hypot(curves.stderr[mine, at], baselines.stderr["curvature_twin"][theirs, -1])
    shown = line(drawn, "curvature-twin", head, panel=1)
    assert shown.y[-1] == difference
    assert shown.high is not None
    np.testing.assert_allclose(shown.high[-1] - shown.y[-1], REACH * error)
    same = replace(found, difference=np.zeros_like(found.difference))
    level = beside.beyond_the_twin(same, material.findings, material.told)
    assert isinstance(level, Plot)
    assert level.title.startswith("Of 16 heads 0 have a wrLLC above their curvature twin at step")


def test_effects_that_share_no_tokens_are_not_called_together(material: Material, drawn: Drawn) -> None:
    tokens = material.measured.tokens
    assert tokens is not None
    rng = np.random.default_rng(0)
    noise = replace(tokens, correlation=tokens.correlation_stderr * np.clip(rng.standard_normal(tokens.correlation.shape), -3, 3))
    found = circuit.affected_together(noise, material.findings, material.told)
    assert isinstance(found, Plot)
    assert found.title == "No two heads of different layers affect the same tokens beyond the error, all 64 pairs tried together"
    assert drawn.drawings["affected-together"].title.endswith("most 0:1 and 1:6: correlation 0.62 ± 0.03")


def test_composition_below_random_matrices_is_not_claimed(material: Material) -> None:
    scores = material.measured.composition
    assert scores is not None
    rng, shape = np.random.default_rng(3), next(iter(scores.scores.values())).shape
    for centre in (-0.01, 0.0):
        random = {kind: scores.baseline + centre + 0.006 * rng.standard_normal(shape) for kind in "qkv"}
        found = circuit.composition_scores(replace(scores, scores=random), material.findings)
        assert isinstance(found, Plot)
        assert found.title == "No composition at the end is above what random matrices would give any of 64 pairs in 3 kinds"
    found = circuit.composition_scores(scores, material.findings)
    assert isinstance(found, Plot)
    assert re.match(r"\d+ of 64 pairs in 3 kinds compose more than random matrices would in any: K 0:[14] → 1:[67] \(\+0\.1\d\)", found.title)


def test_edges_of_noise_are_neither_named_nor_counted(material: Material) -> None:
    """Of 64 edges behind which there is nothing, one or two are beyond two errors."""
    edges = material.measured.paths
    assert edges is not None
    rng, told = np.random.default_rng(0), 0
    for _ in range(40):
        noise = replace(edges, effect=edges.stderr * rng.standard_normal(edges.effect.shape))
        one, all_of_them = circuit.edge_map(noise, material.findings, material.told), circuit.edges_over_training(noise, material.told)
        assert isinstance(one, Plot)
        assert isinstance(all_of_them, Plot)
        told += not one.title.startswith("No edge helps")
        told += not all_of_them.title.startswith("No edge helps")
    assert told <= 10  # 5 % of 80 are 4


def test_the_worst_pair_of_seeds_stands_for_all(material: Material) -> None:
    seeds = material.findings.seeds
    assert seeds is not None
    first = next(iter(material.seeds))
    good = [replace(m, held_out_p=0.001) for m in seeds.matches]
    bad = [replace(m, held_out_p=0.24) if (m.one, m.other) == (first, "seed 2") else m for m in good]
    found, doubted = (over_seeds.matched_heads(material.seeds, matches, material.told) for matches in (good, bad))
    assert isinstance(found, Plot)
    assert isinstance(doubted, Plot)
    assert found.title.startswith("Heads that behave alike have closer curves than random heads in all 3 pairs of seeds")
    assert doubted.title.startswith("Heads that behave alike do not have clearly closer curves than random heads in all 3 pairs of seeds")
    assert "in the worst, seed 0 and seed 2" in doubted.title
    assert "p = 0.24" in doubted.title


def flat(material: Material, seed: int, shared: float) -> Curves:
    """Twenty checkpoints of 16 heads whose LLC does not change; a share of their noise is common to all."""
    curves, rng = material.findings.curves["train"], np.random.default_rng(seed)
    steps = np.arange(20, dtype=np.int64) * 100
    noise = np.sqrt(shared) * rng.standard_normal(20) + np.sqrt(1 - shared) * rng.standard_normal((16, 20))
    llc = 10 + noise
    return Curves("against", curves.parts, steps, llc, np.ones_like(llc), llc - 2, llc + 2, np.full(llc.shape, "ok"))


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_titles_of_level_curves_name_no_fall(material: Material, shared: float) -> None:
    told = {"circuit": 0, "heads": 0}
    for seed in range(40):
        curves = flat(material, seed, shared)
        f = replace(material.findings, circuit=circuit_of(curves, seed)[0], falls=falls(curves, seed, draws=2000), curves={"train": curves})
        course, each = circuit.against_one_layer(curves, f, material.told), heads.every_head(f, material.told)
        assert isinstance(course, Plot)
        assert isinstance(each, Plot)
        told["circuit"] += "falls from" in course.title
        told["heads"] += each.title[0].isdigit()
    # 5 % at most are promised: 2 of 40 draws, and more than 6 in three of a thousand such tests
    assert told["circuit"] <= 6
    assert told["heads"] <= 6


def test_a_head_that_falls_is_named_and_an_untested_run_says_so(material: Material, drawn: Drawn) -> None:
    curves = flat(material, 0, 0.0)
    llc = curves.llc.copy()
    llc[4, :10] += 8
    f = replace(material.findings, curves={"train": curves}, falls=falls(replace(curves, llc=llc), 0))
    found = heads.every_head(f, material.told)
    assert isinstance(found, Plot)
    assert found.title.endswith(": 0:4")
    assert found.title.startswith("1 of 16 heads")
    bare = heads.every_head(replace(f, falls=None), material.told)
    assert isinstance(bare, Plot)
    assert "could not be tested" in bare.title

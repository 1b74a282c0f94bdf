"""Titles say no more than the run's numbers hold: where there is nothing they name nothing, for all that a figure tries together."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from rllc.analysis.circuit import circuit as circuit_of
from rllc.analysis.falls import falls
from rllc.analysis.findings import Curves
from rllc.analysis.regression import spearman
from rllc.figures import beside, circuit, heads, learning, multigrams, over_seeds, specialising, token_classes
from rllc.figures.drawing import Cells, Line, Missing, Plot
from rllc.figures.head_lines import REACH
from rllc.figures.material import Material
from rllc.figures.told import number
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


def test_closers_inside_others_are_named_beyond_the_errors_of_all_alone(material: Material, drawn: Drawn) -> None:
    """Current-token heads are planted to match brackets; elsewhere it is noise of the planted errors, which are drawn anew."""
    shares, rng, told = material.measured.shares, np.random.default_rng(0), 0
    assert shares is not None
    assert shares.closer_effect is not None
    kinds = dict(zip(material.findings.types.heads, material.findings.types.types, strict=True))
    named = [head for head in shares.heads if kinds[head] == "current-token"]
    title = drawn.drawings["nested-closers"].title
    assert title.endswith("hurts closing brackets and quotes inside others")
    assert all(head in title for head in named)
    for _ in range(40):
        noise = replace(shares, closer_effect=rng.normal(0, 0.01, shares.closer_effect.shape))
        found = token_classes.nested_closers(noise, material.findings, material.told)
        assert isinstance(found, Plot)
        told += not found.title.startswith("No head's ablation")
    assert told <= 5  # of 40, where 5 % are promised
    none = replace(shares, closers=np.zeros_like(shares.closers))
    assert isinstance(token_classes.nested_closers(none, material.findings, material.told), Missing)


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


def test_a_fall_to_tilted_estimates_is_not_titled_a_fall(material: Material) -> None:
    """Layer 0 falls by 8 and layer 1 by 6; at the end half of layer 0 is tilted, then less than half."""
    curves = flat(material, 0, 1.0)
    llc, outcome = curves.llc.copy(), curves.outcome.astype("<U16")
    llc[:, 10] += 20
    for count, said in ((4, "which is no sure fall, for 4 of 8 estimates at step 1,900 on against are tilted or drifting; of layer 1 is"), (3, "")):
        marked = outcome.copy()
        marked[:count, -1] = "tilted"
        told = replace(curves, llc=llc, outcome=marked)
        title = course_of(material, told)
        assert ("of layer 0 is largest at step 1,000 and falls from there" in title) == (count == 3)
        assert said in title
        assert "layer 1 is largest at step 1,000 and falls from there" in title


def course_of(material: Material, curves: Curves) -> str:
    found = circuit.against_one_layer(curves, replace(material.findings, circuit=circuit_of(curves, 0)[0]), material.told)
    assert isinstance(found, Plot)
    return found.title


def test_thresholds_are_held_against_the_llc_within_layers(material: Material) -> None:
    """Layers that differ in both numbers, by the same count at every threshold, and nothing within them."""
    held, curves = material.measured.memorised, material.findings.curves["train"]
    assert held is not None
    layer, within = np.arange(16) // 8, np.array([3, 1, 4, 8, 5, 7, 2, 6])
    counts = 100 * layer + np.tile([1, 2, 3, 4, 5, 6, 7, 8], 2)
    llc = np.repeat((50.0 * layer + np.tile(within, 2))[:, None], len(curves.steps), axis=1)
    by = np.zeros_like(held.own_by)
    by[..., 0] = counts[:, None, None, None]
    world = replace(held, heads=curves.parts, own_by=by)
    findings = replace(material.findings, curves={**material.findings.curves, "train": replace(curves, llc=llc)})
    found = multigrams.threshold_sensitivity(world, findings, material.told)
    assert isinstance(found, Plot)
    rho = float(spearman(within.astype(np.float64), np.arange(8.0)))
    assert abs(rho) < 0.4
    assert found.title.endswith(f"within layers keeps its sign: ρ from {number(rho, signed=True)} to {number(rho, signed=True)}")
    cells = found.panels[1].layers[0]
    assert isinstance(cells, Cells)
    np.testing.assert_allclose(cells.values, rho)


def test_ngram_scores_of_noise_about_one_are_not_above_it(material: Material, drawn: Drawn) -> None:
    """An untrained model: every score is 1 but for its error."""
    scores, rng = material.measured.ngrams, np.random.default_rng(0)
    assert scores is not None
    errors, told = np.full_like(scores.ngram, 0.02), 0
    for _ in range(40):
        level = 1 + errors * rng.standard_normal(errors.shape)
        untrained = replace(scores, ngram=level, ngram_stderr=errors, skip=level[0], skip_stderr=errors[0])
        found = learning.ngrams_and_context(untrained, material.findings.behaviour, material.told)
        assert isinstance(found, Plot)
        told += "from step" in found.title
        assert "3-grams not at the end" in found.title
    assert told <= 6
    assert "3-grams from step 400 on" in drawn.drawings["ngrams"].title
    assert "known better" not in drawn.drawings["ngrams"].title + drawn.drawings["ngrams"].caption
    assert "each alone behind the first token of a context" in drawn.drawings["ngrams"].caption


def test_counts_of_multigrams_have_no_peak(material: Material) -> None:
    held = material.measured.memorised
    assert held is not None
    own = held.own.copy()
    own[:, 2] = own[:, -1] + 1
    found = multigrams.multigrams_over_training(replace(held, own=own), material.findings, material.told)
    assert isinstance(found, Plot)
    assert found.title == f"The heads hold {own[:, -1].sum():,} multigrams at step {held.steps[-1]:,}, and {own[:, 0].sum():,} at step 0"


def test_baselines_of_noise_have_no_fall_and_one_that_falls_is_named(material: Material) -> None:
    found, rng, told = material.measured.baselines, np.random.default_rng(0), 0
    assert found is not None
    shape = found.values["hessian_trace"].shape
    fallen = 10 + rng.standard_normal(shape)
    fallen[:, 3] += 8
    for _ in range(40):
        noise = {name: 10 + rng.standard_normal(shape[1]) + np.zeros(shape) for name in found.values}  # one noise for all heads: the worst case
        errors = {name: np.ones(shape) for name in found.values}
        level = replace(found, values=noise, stderr=errors)
        drawn = beside.baselines_over_training(level, None, material.findings, material.told)
        assert isinstance(drawn, Plot)
        told += "for none of 7 baselines" not in drawn.title
        drawn = beside.baselines_over_training(replace(level, values=noise | {"fisher_true": fallen}), None, material.findings, material.told)
        assert isinstance(drawn, Plot)
        assert f"true Fisher trace (step {found.steps[3]:,})" in drawn.title
    assert told <= 6  # of 40, of which 5 % are promised


def test_an_exact_baseline_that_falls_is_told(material: Material) -> None:
    found = material.measured.baselines
    assert found is not None
    norm = found.values["weight_norm"].copy()
    norm[:, 1] = norm.max() + 1
    drawn = beside.baselines_over_training(replace(found, values={**found.values, "weight_norm": norm}), None, material.findings, material.told)
    assert isinstance(drawn, Plot)
    assert drawn.title.startswith("For 1 of 7 baselines")
    assert drawn.title.endswith(f"weight norm (step {found.steps[1]:,})")


def test_seeds_with_one_checkpoint_compare_no_curves_and_the_shared_types_stand_beside_chance(material: Material, drawn: Drawn) -> None:
    seeds = material.findings.seeds
    assert seeds is not None
    first, *others = material.seeds
    one = {name: getattr(material.seeds[first].curves, name)[:, -1:] for name in ("llc", "stderr", "ci_low", "ci_high", "outcome")}
    single = replace(material.seeds[first].curves, steps=material.seeds[first].curves.steps[-1:], **one)
    runs = {first: material.seeds[first]} | {name: over_seeds.SeedRun(single, material.seeds[name].types) for name in others}
    for found in (over_seeds.matched_heads(runs, seeds.matches, material.told), over_seeds.types_by_seed(runs, seeds.matches, material.told)):
        assert isinstance(found, Plot)
        assert "closer final LLCs than" in found.title + found.caption
        assert "closer curves" not in found.title + found.caption
    assert "closer curves than random heads" in drawn.drawings["matched-heads"].title
    ours = [m for m in seeds.matches if first in (m.one, m.other)]
    same, chance = np.mean([m.same_type for m in ours]), np.mean([m.same_type_by_chance for m in ours])
    assert drawn.drawings["matched-heads"].title.endswith(
        f"{same:.0%} of heads matched by these and by scores share their type ({chance:.0%} matched at random)"
    )
    assert "the scores are those that the types are decided by" in drawn.drawings["matched-heads"].caption


def test_differences_of_noise_are_not_counted(material: Material) -> None:
    """Of 48 differences behind which there is nothing, two or three are beyond two errors."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(40):
        noise = tuple(replace(s, difference=s.stderr * rng.standard_normal(s.stderr.shape)) for s in material.findings.specialisation)
        told += any(row.any() for row in specialising.clear_differences(noise).values())
        found = specialising.final_differences(replace(material.findings, specialisation=noise), material.told)
        assert isinstance(found, Plot)
        assert "departs most" not in found.title
    assert told <= 6
    assert specialising.clear_differences(material.findings.specialisation)["code"].sum() > 8

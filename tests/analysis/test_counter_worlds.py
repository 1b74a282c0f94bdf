"""Worlds in which something that is not the claim looks like it: each claim must not say "seen" (or, for noise, must not say "not seen")."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from counter_worlds import curves_of, of, true_story, with_errors_of_differences

from rllc.analysis import claims_circuit, claims_heads, claims_pairs, claims_types
from rllc.analysis.circuit import circuit
from rllc.analysis.comparisons import Claim
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.planted_claims import LEAN
from rllc.analysis.planted_evidence import CIRCUIT, CODE, HEADS, MIX, PAIRS, STEPS, X
from rllc.analysis.regression import regress
from rllc.analysis.specialisation import specialisation


@pytest.fixture(scope="module")
def story() -> tuple[Evidence, Findings]:
    return true_story()


def test_layers_that_differ_are_no_correlation_of_heads(story: tuple[Evidence, Findings]) -> None:
    """Final LLC and memorised multigrams independent within layers, both larger in the second."""
    evidence, findings = story
    held = evidence.measured.memorised
    assert held is not None
    layer, verdicts = np.arange(16) // 8, Counter[str]()
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        final = 10 + 5 * layer + rng.standard_normal(16)
        own = np.round(20 + 10 * layer + 2 * rng.standard_normal(16)).astype(np.int64)[:, None, None]
        by = own[:, :, None, None, :]
        heads = curves_of(final[:, None] * np.ones(len(STEPS)), 0.1, seed)
        lone = replace(
            evidence,
            curves={**evidence.curves, MIX: heads},
            measured=replace(evidence.measured, memorised=replace(held, own=own, found=own, own_by=by, found_by=by)),
        )
        line = regress(HEADS, heads.llc[:, -1], own[:, 0, 0].astype(np.float64), "memorised multigrams", 0, permutations=10)
        assert line.pooled > 0.5
        verdicts[claims_heads.memorised(lone, replace(findings, regression=line), LEAN, seed).verdict] += 1
    assert verdicts["seen"] <= 5  # 2 expected, 6 or more in one of 70


def test_few_heads_in_each_layer_cannot_show_a_correlation_and_are_told_so(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    held, heads = evidence.measured.memorised, evidence.heads
    assert held is not None
    assert heads is not None
    few = (0, 1, 8, 9)
    counts = np.array([10.0, 20.0, 30.0, 40.0])
    llc = heads.llc.copy()
    llc[few, -1] = counts
    line = regress([HEADS[i] for i in few], counts, counts, "memorised multigrams", 0, permutations=10)
    own = held.own.copy()
    own[few, 0, 0] = counts.astype(np.int64)
    small = replace(
        evidence, curves={**evidence.curves, MIX: replace(heads, llc=llc)}, measured=replace(evidence.measured, memorised=replace(held, own=own))
    )
    claim = claims_heads.memorised(small, replace(findings, regression=line), LEAN, 0)
    assert claim.verdict == "cannot tell"
    assert "even the best order of 4 heads within 2 layers is chance in 25%" in claim.why


def circuit_of(evidence: Evidence, tokens: tuple[str, str], edge: tuple[str, str], composed: tuple[str, str]) -> Evidence:
    """The same, with these pairs alone affecting the same tokens, connected by a path that matters, and composing."""
    measured = evidence.measured
    assert measured.tokens is not None
    assert measured.paths is not None
    assert measured.composition is not None
    correlation = np.zeros((16, 16, 2, 1))
    correlation[HEADS.index(tokens[0]), HEADS.index(tokens[1]), -1, 0] = 0.7
    effect = np.zeros((1, len(PAIRS), 1, 1))
    effect[0, PAIRS.index(edge)] = 1.0
    scores = {kind: np.full((len(PAIRS), 1), 0.1) for kind in "qkv"}
    scores["k"][PAIRS.index(composed)] = 0.6
    return replace(
        evidence,
        measured=replace(
            measured,
            tokens=replace(measured.tokens, correlation=correlation, correlation_stderr=np.full((16, 16, 2, 1), 0.05)),
            paths=replace(measured.paths, effect=effect, stderr=np.full(effect.shape, 0.02)),
            composition=replace(measured.composition, scores=scores),
        ),
    )


def pairs_of(evidence: Evidence, findings: Findings) -> dict[str, Claim]:
    return {claim.id: claim for claim in claims_pairs.circuit_pairs(evidence, findings, LEAN)}


def test_the_induction_circuit_is_no_multigram_circuit(story: tuple[Evidence, Findings]) -> None:
    """0:1 and 0:4 are previous-token heads, 0:5 a current-token head, 1:6 and 1:7 induction heads."""
    evidence, findings = story
    found = pairs_of(circuit_of(evidence, ("0:5", "1:1"), ("0:1", "1:6"), ("0:4", "1:7")), findings)
    assert [claim.verdict for claim in found.values()] == ["not seen"] * 4
    assert any(number.name == "largest into an induction head: 0:1 to 1:6" for number in found["circuit-edge"].numbers)
    assert any(number.name == "largest into an induction head: 0:4 to 1:7 by K" for number in found["circuit-composition"].numbers)


def test_three_pairs_that_carry_a_part_each_are_no_circuit(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    apart = pairs_of(circuit_of(evidence, ("0:0", "1:1"), ("0:2", "1:2"), ("0:6", "1:4")), findings)
    assert [claim.verdict for claim in apart.values()] == ["seen", "seen", "seen", "not seen"]
    one = pairs_of(circuit_of(evidence, *[("0:2", "1:2")] * 3), findings)
    assert [claim.verdict for claim in one.values()] == ["seen"] * 4
    assert "0:2 to 1:2" in one["circuit-pair"].numbers[0].name
    two = pairs_of(circuit_of(evidence, ("0:2", "1:2"), ("0:2", "1:2"), ("0:6", "1:4")), findings)
    assert two["circuit-pair"].verdict == "not seen"
    assert ("tests that 0:2 to 1:2 meets, of three", 2.0) in [(number.name, number.value) for number in two["circuit-pair"].numbers]


def edges_of(evidence: Evidence, effect: float, direct: float, errors: tuple[float, float], seed: int) -> Evidence:
    """Every edge and every head's direct effect the same, drawn with these errors."""
    paths, rng = evidence.measured.paths, np.random.default_rng(seed)
    assert paths is not None
    drawn = [
        size + error * rng.standard_normal(shape.shape)
        for size, error, shape in zip((effect, direct), errors, (paths.effect, paths.direct), strict=True)
    ]
    noisy = replace(
        paths, effect=drawn[0], stderr=np.full(paths.effect.shape, errors[0]), direct=drawn[1], direct_stderr=np.full(paths.direct.shape, errors[1])
    )
    return replace(evidence, measured=replace(evidence.measured, paths=noisy))


def test_an_edge_is_held_against_a_direct_effect_with_its_error(story: tuple[Evidence, Findings]) -> None:
    """A twentieth of the direct effect is below the least that counts, however uncertain that is; four tenths of it are above."""
    evidence, findings = story
    below, above = Counter[str](), Counter[str]()
    for seed in range(40):
        below[pairs_of(edges_of(evidence, 0.02, 0.4, (0.001, 0.2), seed), findings)["circuit-edge"].verdict] += 1
        above[pairs_of(edges_of(evidence, 0.02, 0.05, (0.001, 0.01), seed), findings)["circuit-edge"].verdict] += 1
    assert below["seen"] <= 6  # at 5 %, 2 expected
    assert above["seen"] == 40


def test_a_direct_effect_that_is_noise_bears_no_edge(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    paths = evidence.measured.paths
    assert paths is not None
    noise = replace(
        paths,
        effect=np.full(paths.effect.shape, 1e-4),
        stderr=np.full(paths.effect.shape, 1e-6),
        direct=np.full(paths.direct.shape, 2e-4),
        direct_stderr=np.full(paths.direct.shape, 1e-3),
    )
    claim = pairs_of(replace(evidence, measured=replace(evidence.measured, paths=noise)), findings)["circuit-edge"]
    assert claim.verdict == "cannot tell"


def falls_of(evidence: Evidence, findings: Findings, first: Floats, noise: float, seed: int, checkpoints: slice = slice(None)) -> str:
    """The verdict where the heads of layer 0 have this curve, and those of layer 1 rise; the errors of a checkpoint are common to all heads."""
    clean = np.where(np.arange(16)[:, None] < 8, first, np.linspace(5, 9, len(first)))
    llc = clean + noise * np.random.default_rng(seed).standard_normal(len(first))
    curves = Curves(CIRCUIT, HEADS, STEPS[checkpoints], llc, np.full(llc.shape, noise), llc, llc, np.full(llc.shape, "ok", dtype="<U16"))
    found, _ = circuit(curves, seed, draws=1000)
    return claims_circuit.falls(evidence, replace(findings, circuit=found), LEAN).verdict


def test_a_layer_that_only_falls_has_no_peak(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    end = float(X[-1])
    assert falls_of(evidence, findings, np.interp(X, [0, end], [10, 4]), 0.1, 0) == "not seen"
    assert falls_of(evidence, findings, np.interp(X, [0, end / 2, end], [10, 4, 9]), 0.1, 0) == "not seen"  # a trough
    assert falls_of(evidence, findings, np.interp(X, [0, end], [4, 10]), 0.1, 0) == "not seen"
    assert falls_of(evidence, findings, np.interp(X, [0, end / 2, end], [4, 10, 5]), 0.1, 0) == "seen"


def test_a_peak_behind_its_errors_is_not_refused(story: tuple[Evidence, Findings]) -> None:
    """A true rise and fall of 15 to 20 % behind errors of 30 %, at five checkpoints: the last is often the largest, which tells nothing."""
    evidence, findings = story
    found = Counter(falls_of(evidence, findings, np.array([8, 9.5, 10, 9, 8.5]), 3.0, seed, slice(0, 30, 6)) for seed in range(60))
    assert found["not seen"] <= 7  # at 5 %, 3 expected
    assert found["seen"] <= 7


def specialisation_of(evidence: Evidence, findings: Findings, gaps: tuple[float, float]) -> Claim:
    """Both induction heads rise by 4 on code; they lie so far apart on the mixture and on code."""
    base, late = evidence.curves[MIX], np.clip((X - 4) / (X[-1] - 4), 0, 1)
    ours, theirs = base.llc.copy(), base.llc.copy()
    ours[14], theirs[14] = ours[15] + gaps[0] * late, theirs[15] + gaps[1] * late
    theirs[[14, 15]] += 4 * late
    curves = {**evidence.curves, MIX: replace(base, llc=ours), CODE: replace(evidence.curves[CODE], llc=theirs)}
    shared = with_errors_of_differences(0.05)
    special, _ = specialisation(curves, MIX, shared)
    return claims_circuit.specialisation(replace(evidence, curves=curves, aligned=shared), replace(findings, specialisation=special), LEAN, 0)


def test_heads_that_lie_apart_on_the_mixture_as_well_do_not_part_on_code(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    assert specialisation_of(evidence, findings, (3.0, 3.0)).verdict == "not seen"
    assert specialisation_of(evidence, findings, (3.0, 0.0)).verdict == "not seen"  # they come together
    assert specialisation_of(evidence, findings, (0.0, 3.0)).verdict == "seen"
    assert specialisation_of(evidence, findings, (1.0, 4.0)).verdict == "seen"
    assert specialisation_of(evidence, findings, (-2.0, 2.0)).verdict != "seen"  # the other way about, and no further


def differentiation_of(evidence: Evidence, findings: Findings, clean: Floats, noise: float = 0.1) -> Claim:
    heads = curves_of(clean, noise, 0)
    return claims_heads.differentiation(replace(evidence, curves={**evidence.curves, MIX: heads}), findings, LEAN, 0)


def test_curves_that_differ_from_the_first_checkpoint_on_do_not_differentiate(story: tuple[Evidence, Findings]) -> None:
    levels, progress = np.arange(16.0)[:, None], X / X[-1]
    constant = differentiation_of(*story, 5 + levels * np.ones(len(X)))
    assert constant.verdict == "not seen"
    assert ("share of pairs that differ for good, from the start or later", 1.0) in [(number.name, number.value) for number in constant.numbers]
    assert differentiation_of(*story, 5 + levels * (2 - progress)).verdict == "not seen"  # they come closer
    assert differentiation_of(*story, 5 + levels * (1 + progress)).verdict == "seen"
    assert differentiation_of(*story, 5 + levels * progress).verdict == "seen"


def test_growth_behind_its_errors_is_neither_seen_nor_refused(story: tuple[Evidence, Findings]) -> None:
    assert differentiation_of(*story, 5 + np.arange(16.0)[:, None] * X / X[-1], noise=40.0).verdict == "cannot tell"


def multigrams_of(evidence: Evidence, findings: Findings, heads: tuple[str, ...], half: float = 0.02) -> Claim:
    """n-grams in excess by 0.4 for these heads alone, with intervals of this half width."""
    shares = evidence.measured.shares
    assert shares is not None
    share = np.broadcast_to(shares.base, shares.shares.shape).copy()
    share[[HEADS.index(head) for head in heads], 0, 0, 0, 3] += 0.4
    excess = share - shares.base[:, None]
    told = replace(shares, shares=share, low=share - half, high=share + half, excess_low=excess - half, excess_high=excess + half)
    return of(claims_types.types(replace(evidence, measured=replace(evidence.measured, shares=told)), findings, LEAN), "type-multigram")


def test_one_multigram_head_does_not_speak_for_the_others(story: tuple[Evidence, Findings]) -> None:
    _, findings = story
    other = tuple(head for head, kind in zip(findings.types.heads, findings.types.types, strict=True) if kind == "other")
    assert len(other) == 10  # 0:3 matches brackets
    one = multigrams_of(*story, other[:1])
    assert one.verdict == "not seen"
    assert one.numbers[0].value == pytest.approx(1 / 10)
    assert multigrams_of(*story, other[:4]).verdict == "not seen"
    assert multigrams_of(*story, other[:5]).verdict == "seen"
    assert multigrams_of(*story, other[:1], half=2.0).verdict == "cannot tell"


def test_tilted_and_drifting_estimates_that_decide_are_counted(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    heads = evidence.curves[MIX]
    outcome = heads.outcome.copy()
    outcome[0, -1], outcome[2, -1], outcome[2, 3] = "tilted", "drifting", "tilted"
    outcome[1, -1] = "tilted"  # of a previous-token head, which has no say in how simple heads end
    marked = replace(evidence, curves={**evidence.curves, MIX: replace(heads, outcome=outcome)})
    at_the_end = claims_heads.simple_is_low(marked, findings, LEAN, 0)
    assert at_the_end.why.endswith("Of the 13 estimates that decide, 1 tilted and 1 drifting.")
    over_training = claims_heads.differentiation(marked, findings, LEAN, 0)
    assert over_training.why.endswith(f"Of the {16 * len(STEPS)} estimates that decide, 3 tilted and 1 drifting.")
    assert "estimates that decide" not in claims_heads.simple_is_low(evidence, findings, LEAN, 0).why

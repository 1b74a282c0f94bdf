"""Worlds that deceive claims about types, clusters and end points: what looks like the claim there must not be called so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from counter_worlds import curves_of, of, true_story
from test_counter_worlds import circuit_of, multigrams_of, pairs_of

from rllc.analysis import claims_baselines, claims_circuit, claims_clusters, claims_heads, claims_stages, claims_types
from rllc.analysis.clusters import how_many
from rllc.analysis.comparisons import Claim
from rllc.analysis.curves import select
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Floats
from rllc.analysis.planted_claims import LEAN
from rllc.analysis.planted_evidence import CIRCUIT, CODE, HEADS, MIX, STEPS, X


@pytest.fixture(scope="module")
def story() -> tuple[Evidence, Findings]:
    return true_story()


def simple_of(evidence: Evidence, findings: Findings, finals: dict[str, float], tilted: tuple[str, ...] = ()) -> Claim:
    """Final LLCs by the type of a head, with noise."""
    named = dict(zip(findings.types.heads, findings.types.types, strict=True))
    final = np.array([finals[named[head]] for head in HEADS]) + 0.5 * np.random.default_rng(0).standard_normal(16)
    heads = tilted_at(curves_of(final[:, None] * np.ones(len(STEPS)), 0.1, 0), tilted, -1)
    return claims_heads.simple_is_low(replace(evidence, curves={**evidence.curves, MIX: heads}), findings, LEAN, 0)


def test_how_previous_and_current_token_heads_end_has_no_say(story: tuple[Evidence, Findings]) -> None:
    """Induction and bracket heads end low or high; previous- and current-token heads the other way about."""
    low = simple_of(*story, {"induction": 4, "bracket": 4, "other": 10, "previous-token": 30, "current-token": 30})
    assert low.verdict == "seen"
    assert [(number.name, number.value) for number in low.numbers[1:]] == [("simple heads", 3.0), ("other heads", 10.0)]
    assert simple_of(*story, {"induction": 10, "bracket": 10, "other": 4, "previous-token": 1, "current-token": 1}).verdict == "not seen"
    attention = replace(story[1].types, types=tuple("other" if kind in ("induction", "bracket") else kind for kind in story[1].types.types))
    none = simple_of(story[0], replace(story[1], types=attention), {"other": 10, "previous-token": 1, "current-token": 1})
    assert none.verdict == "cannot tell"
    assert "no layer has both induction or bracket heads and heads of no type" in none.why


def test_a_bracket_head_is_no_other_head_in_any_claim(story: tuple[Evidence, Findings]) -> None:
    """0:3 passes the class test: the findings call it so, and no pair of multigram heads holds it."""
    evidence, findings = story
    named = dict(zip(findings.types.heads, findings.types.types, strict=True))
    assert [head for head, kind in named.items() if kind == "bracket"] == ["0:3"]
    assert [claim.verdict for claim in pairs_of(circuit_of(evidence, *[("0:3", "1:1")] * 3), findings).values()] == ["not seen"] * 4
    assert any("bracket" in told.types for told in findings.agreements)
    assert findings.seeds is not None
    assert "bracket" not in findings.seeds.counts.types  # the classes of affected tokens are not measured of other seeds
    whole = multigrams_of(evidence, findings, ("0:3",))
    assert ("other heads", 10.0) in [(number.name, number.value) for number in whole.numbers]


def shaped(shapes: dict[str, int], noise: float = 0.1) -> Curves:
    """Heads with these shapes, all others with the first: zero, up to 10, up to 20, and 200 all along."""
    rises = [np.zeros(len(X)), 10 / (1 + np.exp(4 - X)), 20 / (1 + np.exp(6 - X)), np.full(len(X), 200.0)]
    return curves_of(np.stack([rises[shapes.get(head, 0)] for head in HEADS]), noise, 0)


def clusters_of(evidence: Evidence, findings: Findings, shapes: dict[str, int], noise: float = 0.1) -> Claim:
    told = replace(evidence, curves={**evidence.curves, MIX: shaped(shapes, noise)})
    return claims_clusters.clusters(told, findings, LEAN, 0)


def test_clusters_are_refused_only_where_no_number_of_them_agrees(story: tuple[Evidence, Findings]) -> None:
    """1:6 and 1:7 are the induction heads of layer 1. An odd head takes one of two clusters for itself; of three one is theirs."""
    assert clusters_of(*story, {"1:6": 1, "1:7": 1}).verdict == "seen"
    odd = clusters_of(*story, {"1:6": 1, "1:7": 1, "1:0": 3})
    assert odd.verdict == "cannot tell"
    assert odd.numbers[0].value < 0 < 0.5 < odd.numbers[0].high
    assert clusters_of(*story, {"1:0": 3}).verdict == "not seen"
    assert clusters_of(*story, {"1:0": 1, "1:7": 1, "1:1": 2, "1:2": 2}).verdict == "not seen"


def test_three_types_are_recovered_where_the_silhouette_takes_two(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    kinds = {"1:4": "bracket", "1:5": "bracket"}
    types = tuple(kinds.get(head, kind) for head, kind in zip(findings.types.heads, findings.types.types, strict=True))
    three = replace(findings, types=replace(findings.types, types=types))
    shapes = {"1:6": 1, "1:7": 1, "1:4": 3, "1:5": 3}
    claim = clusters_of(evidence, three, shapes, 1.0)
    assert claim.verdict == "seen"
    assert claim.numbers[0].value == 1.0
    assert how_many(select(shaped(shapes, 1.0), HEADS[8:]), "kmeans", "raw", LEAN, 0).chosen["silhouette"] == 2


def test_every_clustering_beside_the_claim_has_a_name_of_its_own(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    both = tuple(replace(told, time=time, p_holm=0.25) for told in findings.agreements for time in ("recorded", "log"))
    beside = claims_clusters.clusters(evidence, replace(findings, agreements=both), LEAN, 0).numbers[1:]
    assert len({number.name for number in beside}) == len(both) > 2
    assert {number.p for number in beside} == {0.25}


def test_agreements_are_held_together(story: tuple[Evidence, Findings]) -> None:
    _, findings = story
    p = np.array([told.p for told in findings.agreements])
    held = np.array([told.p_holm for told in findings.agreements])
    assert held.min() == pytest.approx(min(len(p) * p.min(), 1.0))
    assert (held >= p).all()


def tilted_at(curves: Curves, heads: tuple[str, ...], *places: int) -> Curves:
    """The same, the estimates of these heads at these checkpoints tilted."""
    outcome = curves.outcome.copy()
    for place in places:
        outcome[[HEADS.index(head) for head in heads], place] = "tilted"
    return replace(curves, outcome=outcome)


def ends_of(evidence: Evidence, findings: Findings, data: str, heads: tuple[str, ...], *places: int) -> dict[str, Claim]:
    """Every claim that rests on end points, where these are tilted on these data."""
    curves = {**evidence.curves, data: tilted_at(evidence.curves[data], heads, *places)}
    told = replace(evidence, curves=curves)
    found = [
        claims_heads.differentiation(told, findings, LEAN, 0),
        claims_heads.simple_is_low(told, findings, LEAN, 0),
        claims_heads.memorised(told, findings, LEAN, 0),
        claims_circuit.specialisation(told, findings, LEAN, 0),
        claims_circuit.falls(told, findings, LEAN),
        claims_circuit.peak(claims_stages.marks(told, LEAN, 0), told, findings),
        claims_baselines.ordered(told, findings, LEAN),
    ]
    return {claim.id: claim for claim in found}


FINAL = ("differentiation", "simple-is-low", "memorised", "specialisation", "baseline-order")


def test_what_rests_on_end_points_that_are_mostly_tilted_cannot_be_told(story: tuple[Evidence, Findings]) -> None:
    few = ends_of(*story, MIX, HEADS[:7], -1)
    assert {claim.verdict for claim in few.values()} == {"seen"}
    for name, claim in ends_of(*story, MIX, (*HEADS[:7], *HEADS[14:]), -1).items():
        assert claim.verdict == ("cannot tell" if name in FINAL else "seen"), name
        assert ("estimates at step 50,000 on mixture are tilted or drifting" in claim.why) == (name in FINAL)
    first = ends_of(*story, MIX, HEADS, 0)
    assert [name for name, claim in first.items() if claim.verdict != "seen"] == ["differentiation"]
    on_code = ends_of(*story, CODE, ("1:6",), -1)
    assert [name for name, claim in on_code.items() if claim.verdict != "seen"] == ["specialisation"]
    assert "1 of 2 estimates at step 50,000 on code are tilted or drifting" in on_code["specialisation"].why


def test_a_fall_to_a_tilt_is_no_fall(story: tuple[Evidence, Findings]) -> None:
    """Half of a layer at its peak or its end, or of the last layer at the end; elsewhere a tilt has no say."""
    peak = int(np.searchsorted(STEPS, story[1].circuit.peak[0])) if story[1].circuit is not None else -1
    for heads, place, unsure in (
        (HEADS[:4], -1, True), (HEADS[:4], peak, True), (HEADS[8:12], -1, True), (HEADS[8:11], -1, False), (HEADS[:3], -1, False),
        (HEADS[:8], peak + 2, False), (HEADS[8:], 0, False),
    ):  # fmt: skip
        claim = ends_of(*story, CIRCUIT, heads, place)["circuit-falls"]
        assert claim.verdict == ("cannot tell" if unsure else "seen"), (heads, place)
        assert ("are tilted or drifting" in claim.why) == unsure
    assert ends_of(*story, CIRCUIT, HEADS[:4], -1)["circuit-peak"].verdict == "cannot tell"


def test_a_tilt_refuses_no_claim_either(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    low = {"induction": 10, "bracket": 10, "other": 4, "previous-token": 1, "current-token": 1}
    assert simple_of(evidence, findings, low).verdict == "not seen"
    assert simple_of(evidence, findings, low, tilted=HEADS).verdict == "cannot tell"


@pytest.mark.parametrize("planted", [(), ("brackets",)])
def test_brackets_that_were_planted_make_no_bracket_head(story: tuple[Evidence, Findings], planted: tuple[str, ...]) -> None:
    """0:3 matches the brackets of the mixture and no head those in code: they are its planted ones, or else code has too few."""
    evidence, findings = story
    shares = evidence.measured.shares
    assert shares is not None
    names = ("shares", "low", "high", "excess_low", "excess_high", "effect", "effect_stderr")
    several: dict[str, Floats] = {name: np.repeat(getattr(shares, name), 3, axis=2) for name in names}
    apart = several["shares"][:, :, 2] - np.repeat(shares.base, 3, axis=0)[2]
    for name in ("shares", "low", "high", "excess_low", "excess_high"):
        several[name][:, :, 2] -= apart
    told = replace(shares, data=(MIX, "brackets", CODE), base=np.repeat(shares.base, 3, axis=0), **several)
    kinds = {"brackets": ("brackets",)} | ({MIX: planted} if planted else {})
    world = replace(evidence, measured=replace(evidence.measured, shares=told), planted=kinds)
    claim = of(claims_types.types(world, findings, LEAN), "type-bracket")
    assert claim.verdict == ("not seen" if planted else "seen")
    assert claims_types.bracket_heads(world, LEAN) == (() if planted else ("0:3",))
    assert ("Measured on code, for brackets were planted in mixture." in claim.test) == bool(planted)
    alone = replace(world, measured=evidence.measured)
    assert ("no text without any was" in of(claims_types.types(alone, findings, LEAN), "type-bracket").test) == bool(planted)

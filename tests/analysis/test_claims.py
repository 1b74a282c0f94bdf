from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from counter_worlds import with_errors_of_differences
from test_analyse import same

from rllc.analysis.analyse import MAIN, analyse
from rllc.analysis.comparisons import VERDICTS, Claim
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings
from rllc.analysis.measured import Measured
from rllc.analysis.planted_claims import LEAN, judged, verdict_rates
from rllc.analysis.planted_evidence import CODE, MIX, WORLDS, World, planted_evidence
from rllc.analysis.stored import from_json, to_json

ORDER = (
    "stages", "boundaries",
    "type-previous-token", "type-current-token", "type-induction", "type-multigram", "type-bracket", "differentiation", "clusters",
    "simple-is-low", "memorised", "specialisation", "circuit-falls", "circuit-peak", "circuit-tokens", "circuit-edge", "circuit-composition",
    "circuit-pair",
    "baseline-order", "baseline-stages", "sensitivity", "seeds",
)  # fmt: skip
RIGHT = {"true": "seen", "false": "not seen"}


@pytest.fixture(scope="module", params=["true", "false"])
def world(request: pytest.FixtureRequest) -> tuple[World, tuple[Claim, ...]]:
    return request.param, judged(request.param, 0)


def test_every_claim_gets_the_right_verdict_where_the_answer_is_known(world: tuple[World, tuple[Claim, ...]]) -> None:
    name, found = world
    assert tuple(claim.id for claim in found) == ORDER
    assert {claim.id: claim.verdict for claim in found} == dict.fromkeys(ORDER, RIGHT[name])
    assert all(claim.verdict in VERDICTS and claim.sentence and claim.test and claim.why for claim in found)


def test_noise_hides_nearly_every_answer_and_refuses_none() -> None:
    """What is true behind the noise may now and then rise above it, and that is no error; a refusal would be one."""
    found = judged("noisy", 0)
    assert [claim.id for claim in found if claim.verdict == "not seen"] == []
    assert sum(claim.verdict == "cannot tell" for claim in found) >= len(ORDER) - 2


def test_chance_alone_is_called_seen_about_as_often_as_is_promised() -> None:
    """22 claims at 5 % over 4 draws: 4.4 at most expected, 10 or more in one of 70; one claim in 3 of 4 would come of that in one of 90, for any.

    benchmarks/claims.py has the large version.
    """
    rows = verdict_rates(("chance",), 4)
    assert sum(row.counts[0] for row in rows) < 10
    assert [row.claim for row in rows if row.counts[0] >= 3] == []
    assert {row.draws for row in rows} == {4}
    assert sum(row.share(verdict) for row in rows for verdict in VERDICTS) == pytest.approx(len(ORDER))


@pytest.fixture(scope="module")
def story() -> tuple[Evidence, Findings]:
    evidence = planted_evidence("true", 1)
    return evidence, analyse(evidence, replace(LEAN, resamples=10), 0)


def test_findings_hold_what_was_compared(story: tuple[Evidence, Findings]) -> None:
    _, found = story
    of_pairs = [table for table in found.partings if " - " in table.names[0] and "," not in table.names[0]]
    assert [len(table.names) for table in of_pairs] == [56, 56]
    assert [table.names[0] for table in found.partings[2:]] == ["0:0, code - mixture", "0:0, circuit - mixture"]
    assert {row.name for row in found.orderings} == {"hessian_trace", "memorised multigrams"}
    assert found.regression is not None
    assert found.regression.covariate == "memorised multigrams"
    assert found.regression.slope > 0
    assert len(found.regression.slope_without) == 16
    assert found.seeds is not None
    assert found.seeds.counts.seeds == (MAIN, "seed-1", "seed-2")
    assert [(match.one, match.other) for match in found.seeds.matches] == [(MAIN, "seed-1"), (MAIN, "seed-2"), ("seed-1", "seed-2")]
    assert found.circuit is not None
    assert found.circuit.layers == (0, 1)
    assert [turns.name for turns in found.turns] == ["hessian_trace"]
    assert len(found.claims) == len(ORDER)


def test_findings_with_claims_survive_their_text(story: tuple[Evidence, Findings]) -> None:
    _, found = story
    assert same(from_json(to_json(found)), found)


def of(claims: tuple[Claim, ...], name: str) -> Claim:
    return next(claim for claim in claims if claim.id == name)


def test_what_was_not_measured_is_told_and_never_judged(story: tuple[Evidence, Findings]) -> None:
    evidence, _ = story
    bare = Evidence({MIX: evidence.curves[MIX]}, evidence.full, evidence.behaviour, MIX)
    found = analyse(bare, LEAN, 0, pairs=False)
    assert found.regression is None
    assert found.seeds is None
    assert found.circuit is None
    assert found.orderings == found.turns == ()
    lacking = {
        "stages": "was not measured",
        "type-multigram": "classes of affected tokens were not measured",
        "memorised": "memorised multigrams were not counted",
        "specialisation": "no head was sampled on program text",
        "circuit-falls": "not sampled against a model of fewer layers",
        "circuit-peak": "not sampled against a model of fewer layers",
        "circuit-tokens": "effects on single tokens were not measured",
        "circuit-edge": "no path was ablated",
        "circuit-composition": "composition was not measured",
        "circuit-pair": "no path was ablated",
        "baseline-order": "no baseline was measured",
        "baseline-stages": "no baseline was measured",
        "sensitivity": "sampled at one inverse temperature",
        "seeds": "no other seed",
    }
    for name, why in lacking.items():
        claim = of(found.claims, name)
        assert claim.verdict == "cannot tell", name
        assert why in claim.why, (name, claim.why)
    assert of(found.claims, "type-induction").verdict == "seen"


def test_refused_cells_are_left_out_and_do_not_fail(story: tuple[Evidence, Findings]) -> None:
    evidence, _ = story
    heads = evidence.curves[MIX]
    llc, stderr = heads.llc.copy(), heads.stderr.copy()
    llc[14, -1] = stderr[14, -1] = np.nan
    found = analyse(replace(evidence, curves={**evidence.curves, MIX: replace(heads, llc=llc, stderr=stderr)}), LEAN, 0, pairs=False)
    assert found.regression is not None
    assert found.regression.left_out == ("1:6",)
    assert len(found.claims) == len(ORDER)
    assert any("1:6 on code" in number.name and np.isnan(number.value) for number in of(found.claims, "specialisation").numbers)


def test_one_induction_head_cannot_part_from_another(story: tuple[Evidence, Findings]) -> None:
    evidence, _ = story
    scores = {name: values.copy() for name, values in evidence.behaviour.scores.items()}
    scores["prefix_matching"][14] = 0.05
    claim = of(analyse(replace(evidence, behaviour=replace(evidence.behaviour, scores=scores)), LEAN, 0, pairs=False).claims, "specialisation")
    assert claim.verdict == "cannot tell"
    assert "there is one induction head" in claim.why


def test_a_line_that_one_head_makes_is_no_correlation(story: tuple[Evidence, Findings]) -> None:
    evidence, _ = story
    held = evidence.measured.memorised
    assert held is not None
    own = np.arange(16)[:, None, None].astype(np.int64)
    own[int(evidence.curves[MIX].llc[:, -1].argmax())] = 1000
    lone = replace(held, own=own)
    claim = of(analyse(replace(evidence, measured=replace(evidence.measured, memorised=lone)), LEAN, 0, pairs=False).claims, "memorised")
    assert claim.verdict != "seen"


def test_claims_need_other_checkpoints_of_counts_and_estimates_to_agree(story: tuple[Evidence, Findings]) -> None:
    evidence, _ = story
    held = evidence.measured.memorised
    assert held is not None
    early = replace(held, steps=np.array([1], dtype=np.int64))
    found = analyse(replace(evidence, measured=Measured(memorised=early)), LEAN, 0, pairs=False)
    assert found.regression is None
    assert any("counted at step 1" in note for note in found.notes)


def test_a_smaller_rise_on_code_than_on_others_is_no_specialisation(story: tuple[Evidence, Findings]) -> None:
    """Where all heads of the layer rise alike on code, the text is harder; the induction heads are nothing special."""
    evidence, _ = story
    code = evidence.curves[CODE]
    everybody = replace(code, llc=evidence.curves[MIX].llc + 4.0)
    shared = with_errors_of_differences(0.02)
    alike = replace(evidence, curves={**evidence.curves, CODE: everybody}, aligned=shared)
    claim = of(analyse(alike, LEAN, 0, pairs=False).claims, "specialisation")
    assert claim.verdict == "not seen"
    assert "beyond that of other heads" in claim.why


def test_scores_without_recorded_errors_are_said_to_count_as_exact(story: tuple[Evidence, Findings]) -> None:
    evidence, found = story
    assert "counts as exact" not in of(found.claims, "type-induction").test
    silent = replace(evidence, behaviour=replace(evidence.behaviour, score_stderr={}))
    assert "counts as exact" in of(analyse(silent, LEAN, 0, pairs=False).claims, "type-induction").test


def test_worlds_are_reproducible() -> None:
    for world in WORLDS:
        one, two = planted_evidence(world, 3), planted_evidence(world, 3)
        np.testing.assert_array_equal(one.curves[MIX].llc, two.curves[MIX].llc)
        assert not np.array_equal(one.curves[MIX].llc, planted_evidence(world, 4).curves[MIX].llc)

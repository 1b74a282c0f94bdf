"""Counter-worlds of claims beside the paper's main line: seeds, baselines, n-grams, temperatures; see test_counter_worlds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from counter_worlds import true_story

from rllc.analysis import claims_baselines, claims_seeds, claims_stages
from rllc.analysis.comparisons import Claim, Turns
from rllc.analysis.curves import select
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Curves, Findings, Stages
from rllc.analysis.measured import Baselines, Measured
from rllc.analysis.ordering import orderings
from rllc.analysis.planted_claims import LEAN
from rllc.analysis.planted_evidence import HEADS, MIX, STEPS, X, planted_evidence
from rllc.analysis.settings import AnalysisSettings


@pytest.fixture(scope="module")
def story() -> tuple[Evidence, Findings]:
    return true_story()


def seeds_of(evidence: Evidence, findings: Findings, score: float, error: float) -> Claim:
    """The induction heads of one sibling with this score and this error of every score."""
    sibling = evidence.siblings["seed-1"]
    scores = {name: values.copy() for name, values in sibling.behaviour.scores.items()}
    scores["prefix_matching"][np.argsort(scores["prefix_matching"][:, -1])[-2:], -1] = score
    behaviour = replace(sibling.behaviour, scores=scores, score_stderr={name: np.full(values.shape, error) for name, values in scores.items()})
    told = replace(evidence, siblings={**evidence.siblings, "seed-1": replace(sibling, behaviour=behaviour)})
    return claims_seeds.same_types(told, findings, LEAN)


def test_a_score_near_its_threshold_is_no_missing_type(story: tuple[Evidence, Findings]) -> None:
    assert seeds_of(*story, 0.299, 0.02).verdict == "cannot tell"
    assert "induction in seed-1" in seeds_of(*story, 0.299, 0.02).why
    assert seeds_of(*story, 0.301, 0.02).verdict == "cannot tell"
    assert seeds_of(*story, 0.1, 0.02).verdict == "not seen"
    assert seeds_of(*story, 0.6, 0.02).verdict == "seen"


def test_seeds_that_share_one_checkpoint_are_not_said_to_share_curves(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    last = {
        name: replace(sibling, curves={MIX: at_last(sibling.curves[MIX])})
        for name, sibling in evidence.siblings.items()
    }  # fmt: skip
    claim = claims_seeds.same_types(replace(evidence, siblings=last), findings, LEAN)
    assert "no curve was compared" in claim.test
    assert any("at one checkpoint" in number.name for number in claim.numbers)
    assert "have LLC curves that lie closer" in claims_seeds.same_types(evidence, findings, LEAN).test


def at_last(curves: Curves) -> Curves:
    rest = {name: getattr(curves, name)[:, -1:] for name in ("llc", "stderr", "ci_low", "ci_high", "outcome")}
    return replace(curves, steps=curves.steps[-1:], **rest)


def test_a_baseline_at_few_checkpoints_is_never_said_to_have_no_turn(story: tuple[Evidence, Findings]) -> None:
    """One that truly turns with the LLC, measured at five checkpoints, and one that only rises, at all of them."""
    evidence, findings = story
    found = Counter[str]()
    for seed in range(6):
        drawn = planted_evidence("true", seed)
        baselines = drawn.measured.baselines
        assert baselines is not None
        some = np.unique(np.linspace(0, len(STEPS) - 1, 5).round().astype(int))
        few = replace(
            baselines,
            steps=baselines.steps[some],
            values={name: values[:, some] for name, values in baselines.values.items()},
            stderr={name: values[:, some] for name, values in baselines.stderr.items()},
        )
        sparse = replace(evidence, measured=Measured(baselines=few))
        claim = claims_baselines.sees_stages(sparse, replace(findings, turns=claims_baselines.turns_of(sparse, findings, LEAN, seed)), LEAN)
        found[claim.verdict] += 1
        assert claim.verdict != "cannot tell" or "it takes 3" in claim.why
    assert found["not seen"] == 0


def test_the_onset_of_n_grams_is_that_of_their_loss_however_well_they_are_known_in_the_end(story: tuple[Evidence, Findings]) -> None:
    """The loss is half-way at 5 in log(step + 1); the score, which divides by it, ever later the lower the loss ends."""
    evidence, _ = story
    grams = evidence.measured.ngrams
    assert grams is not None
    for end in (2.0, 0.5, 0.1):
        loss = 8 - (8 - end) / (1 + np.exp(-(X - 5) / 0.3))
        score = (8 - 5 * X / X[-1]) / loss
        told = replace(grams, ngram=score[None], ngram_stderr=0.01 * score[None], ngram_loss=loss[None])
        mark = claims_stages.marks(replace(evidence, measured=replace(evidence.measured, ngrams=told)), LEAN, 0)["n-grams"]
        assert np.log1p(mark.step) == pytest.approx(5.0, abs=0.1)


def test_errors_of_a_loss_are_at_most_those_of_its_score() -> None:
    """By hand: held-out loss 6 ± 0.3 over 2 ± 0.1 has a relative error of √2 · 5 %."""
    score_error = 3.0 * np.hypot(0.05, 0.05)
    found = claims_stages.loss_error(np.array([2.0]), np.array([3.0]), np.array([score_error]))
    assert found[0] == pytest.approx(0.1 * np.sqrt(2))


def test_tables_of_p_values_are_held_for_their_length(story: tuple[Evidence, Findings]) -> None:
    """One small p-value among four baselines is no finding; the same of one baseline is."""
    evidence, findings = story
    assert findings.stages is not None
    places = findings.stages.boundaries

    def stages_by(*p: float) -> str:
        turns = tuple(Turns(f"baseline {i}", places, np.zeros(len(places)), 0.1, 1.0, each) for i, each in enumerate(p))
        return claims_baselines.sees_stages(evidence, replace(findings, turns=turns), LEAN).verdict

    assert stages_by(0.03) == "seen"
    assert stages_by(0.03, 0.3, 0.4, 0.5) == "cannot tell"
    assert stages_by(0.01, 0.3, 0.4, 0.5) == "seen"


def test_the_best_of_five_null_baselines_is_seen_as_rarely_as_is_promised(story: tuple[Evidence, Findings]) -> None:
    """Without Holm it is seen in about one draw of eight."""
    evidence, findings = story
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        names = [f"null {i}" for i in range(5)]
        values = {name: rng.standard_normal((16, 1)) + 5 * (np.arange(16)[:, None] // 8) for name in names}
        nulls = Baselines(HEADS, STEPS[-1:], values, {name: np.full((16, 1), 0.01) for name in names}, dict.fromkeys(names, ""))
        drawn = replace(evidence, measured=Measured(baselines=nulls))
        assert drawn.heads is not None
        rows, _ = orderings(drawn.heads, claims_baselines.quantities(drawn), seed, resamples=2, permutations=400)
        assert len(rows) == 5
        seen += claims_baselines.ordered(drawn, replace(findings, orderings=rows), LEAN).verdict == "seen"
    assert seen <= 4  # at 5 % two-sided, 1.5 expected of the positive side


def test_few_heads_in_each_layer_cannot_show_that_a_baseline_orders_them_and_are_told_so(story: tuple[Evidence, Findings]) -> None:
    evidence, findings = story
    heads = evidence.heads
    assert heads is not None
    rows = [0, 1, 2, 8, 9]
    small = at_last(select(heads, [HEADS[i] for i in rows]))
    same = Baselines(small.parts, STEPS[-1:], {"trace": small.llc}, {"trace": small.stderr}, {"trace": ""})
    few = replace(evidence, curves={**evidence.curves, MIX: small}, measured=Measured(baselines=same))
    table, _ = orderings(small, claims_baselines.quantities(few), 0, resamples=2, permutations=400)
    assert table[0].correlation == pytest.approx(1.0)
    claim = claims_baselines.ordered(few, replace(findings, orderings=table), LEAN)
    assert claim.verdict == "cannot tell"
    assert "even the best order of 5 heads within 2 layers is chance in 17%" in claim.why  # 2 of 3! · 2!


def test_shifts_of_boundaries_are_judged_by_many_redrawn_curves(story: tuple[Evidence, Findings], monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, findings = story
    asked: list[int] = []
    true_stages = claims_baselines.stages

    def counted(curves: Curves, settings: AnalysisSettings, seed: int, part: str = "full") -> tuple[Stages | None, str]:
        asked.append(settings.resamples)
        return true_stages(curves, settings, seed, part)

    monkeypatch.setattr(claims_baselines, "stages", counted)
    claims_baselines.sensitivity(evidence, findings, LEAN, 0)
    assert asked == [100, 100]

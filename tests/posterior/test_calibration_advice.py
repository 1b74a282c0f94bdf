"""Calibration from beginning to end, on quadratics and planted trials."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from calibration_toys import HERE, PAPER, Toy, planted, reading

from rllc.posterior.calibration import words
from rllc.posterior.calibration.advice import Finalist, Surveyed, advise, finalist, summary, survey
from rllc.posterior.calibration.grid import Setting
from rllc.posterior.calibration.settings import CalibrationSettings

# From far below what discretises well to where nothing is stable: εA/4 = (x h + y)/2 at h = 10.
WIDE = CalibrationSettings(loss_products=(0.0025, 0.01, 0.04, 0.16, 0.64), prior_products=(0.05, 0.1), nbeta=(30.0,), finalists=1)


def test_the_recommendation_has_little_bias_and_unstable_settings_are_excluded():
    toy = Toy([[h, h / 4] for h in (2.0, 4.0, 7.0, 10.0)])
    surveyed, finals, advice = toy.calibrate(WIDE)
    for s in surveyed:
        curvature = toy.h.max().item()
        if s.setting.step * (s.setting.nbeta * curvature + s.setting.localization) >= 4:
            assert next(p.kind for p in s.health.problems) == "refused", s.setting
        elif toy.bias(s.setting) > 0.15:
            assert not s.health.healthy, s.setting
    assert any("refused" in [p.kind for p in s.health.problems] for s in surveyed)
    assert any("biased" in [p.kind for p in s.health.problems] for s in surveyed)
    assert advice.chosen is not None
    assert toy.bias(advice.chosen.setting) < 0.10
    assert not advice.kept, "the paper's settings are 20 % high at h = 10"
    assert "not healthy" in words.standing(advice.own, advice.chosen)[0]
    assert math.isfinite(finals[-1].halving)


def test_a_large_step_that_is_stable_but_doubles_the_answer_is_not_recommended():
    # εA/4 = ½ at h = 60 and the paper's settings: 100 % (METHOD 3.1). The sampler does not object, the calibration does.
    toy = Toy([[60.0]] * 3)
    own = toy.run(HERE, 2, 32)
    assert own.refused == 0
    assert toy.bias(HERE) == pytest.approx(1.0, rel=0.01)
    _, _, advice = toy.calibrate(CalibrationSettings(loss_products=(0.0015, 0.015), prior_products=(0.05, 0.1), nbeta=(30.0,), finalists=1))
    assert {p.kind for p in advice.own.problems} == {"biased"}
    assert advice.chosen is not None
    assert advice.chosen.setting.loss_product == 0.0015
    assert toy.bias(advice.chosen.setting) < 0.10


def test_own_settings_that_are_as_good_are_kept():
    # curvature like that of a small model's heads, where the paper's settings are healthy
    toy = Toy([[0.3 + 0.05 * p] for p in range(4)], flat=200, copies=400)
    surveyed, _, advice = toy.calibrate(
        CalibrationSettings(loss_products=(0.0075, 0.015, 0.03), prior_products=(0.1, 0.2), nbeta=(30.0,), finalists=1, gain=3.0)
    )
    own = next(s for s in surveyed if s.setting.same(HERE))
    assert own.health.healthy
    assert advice.kept
    assert advice.chosen is advice.own
    assert all(not s.health.healthy for s in surveyed if s.setting.prior_product == 0.2), "flat directions are 11 % high there"
    assert own.slopes.localization == pytest.approx(-0.95, abs=0.15), "the localization sets the scale: nβh = 12 ≪ γ"


def test_with_no_temperature_nothing_is_learnt_and_the_prior_is_met():
    toy = Toy([[2.0]] * 4, flat=2000)
    control = toy.run(HERE, 2, 40, control=True)
    assert (control.column("llc") == 0).all()
    assert float(control.column("stein_ratio").mean()) == pytest.approx(1 / (1 - HERE.step * HERE.localization / 4), rel=0.02)
    assert (control.column("rise") > 0).all()


def test_nothing_healthy_is_nothing_recommended():
    toy = Toy([[60.0]] * 3)
    surveyed, _, advice = toy.calibrate(CalibrationSettings(loss_products=(0.03, 0.06), prior_products=(0.2,), nbeta=(30.0,)))
    assert advice.chosen is None
    assert not any(s.health.healthy for s in surveyed)
    assert "No setting" in words.reasons(advice, PAPER, CalibrationSettings(), 0, len(surveyed))[0]


class TestAdvice:
    def candidates(self, *errors: float, trouble: int = -1) -> tuple[list[Surveyed], list[Finalist]]:
        points = [HERE, Setting(0.03, 0.1, 30.0), Setting(0.0075, 0.1, 30.0)]
        settings = CalibrationSettings()
        trials = [planted(p, *(reading(llc=1 + 0.1 * k, stderr=e) for k in range(4))) for p, e in zip(points, errors, strict=True)]
        surveyed = survey(trials, PAPER, settings)
        finals: list[Finalist] = []
        for i, (s, t) in enumerate(zip(surveyed, trials, strict=True)):
            early = planted(t.setting, *[reading(outcome="unstable", llc=math.nan, stderr=0.0, rise=math.nan)] * 4, step=100) if i == trouble else t
            finals.append(finalist(s, [early, t], None, PAPER, settings))
        return list(surveyed), finals

    def test_the_smallest_budget_wins_where_it_pays(self):
        advice = advise(*self.candidates(0.4, 0.1, 0.3), HERE, CalibrationSettings())
        assert advice.chosen is not None
        assert advice.chosen.setting.loss_product == 0.03
        assert not advice.kept

    def test_a_change_must_pay(self):
        surveyed, finals = self.candidates(0.105, 0.1, 0.3)
        assert advise(surveyed, finals, HERE, CalibrationSettings(gain=1.1)).kept
        assert not advise(surveyed, finals, HERE, CalibrationSettings(gain=1.0)).kept

    def test_a_failure_at_any_checkpoint_rules_a_setting_out(self):
        advice = advise(*self.candidates(0.4, 0.1, 0.3, trouble=1), HERE, CalibrationSettings())
        assert advice.chosen is not None
        assert advice.chosen.setting.loss_product == 0.0075

    def test_burn_in_is_paid_for(self):
        short, long = (survey([planted(Setting(0.015, y, 30.0), reading())], PAPER, CalibrationSettings())[0] for y in (0.2, 0.025))
        assert long.burn_in > 8 * short.burn_in
        assert long.budget.noise / short.budget.noise == pytest.approx(math.sqrt((60 + long.burn_in) / (60 + short.burn_in)))

    def test_half_the_step_size_is_believed_beyond_its_error(self):
        settings = CalibrationSettings()
        whole, half = planted(HERE, reading(llc=1.3, rise=1.3 / 30, stderr=0.01)), planted(HERE.halved(), reading(llc=1.0, stderr=0.01))
        surveyed = survey([whole], PAPER, settings)[0]
        found = finalist(surveyed, [whole], half, PAPER, settings)
        assert found.halving == pytest.approx(2 * 0.3)  # METHOD 3.1: r/(1 - r)
        assert [p.kind for p in found.problems] == ["biased"]
        assert found.budget.bias == pytest.approx(found.halving - 2 * found.halving_error)
        assert found.budget.bias > 0.5

    def test_half_the_step_size_is_not_believed_within_its_error(self):
        settings = CalibrationSettings()
        whole = planted(HERE, reading(llc=1.3, rise=1.3 / 30, stderr=0.3))
        half = planted(HERE.halved(), reading(llc=1.0, stderr=0.3))
        found = finalist(survey([whole], PAPER, settings)[0], [whole], half, PAPER, settings)
        assert found.halving > settings.bias
        assert not found.problems
        assert found.budget.bias == pytest.approx(0.05 / 0.95), "what METHOD 3.1 predicts"

    def test_the_words_carry_the_numbers(self):
        surveyed, finals = self.candidates(0.4, 0.1, 0.3)
        advice = advise(surveyed, finals, HERE, CalibrationSettings())
        text = " ".join(words.reasons(advice, PAPER, CalibrationSettings(), 3, 3))
        assert "3 of 3 settings are healthy" in text
        assert "None of 8 cells at steps 0, 0 is refused, and none is marked" in text
        assert "which 22 steps bring below 1.0 % (the experiment's 15 leave 4.2 %)" in text
        order = summary(advice.agreements)
        assert order["settings"] == 2
        assert "Kendall τ" in words.ranking(advice)[0]

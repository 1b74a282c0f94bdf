"""When a setting is healthy, when two agree on the order of the parts, and how wrong a sum may be."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from calibration_toys import HERE, PAPER, planted, reading

from rllc.posterior import exact
from rllc.posterior.calibration.grid import sampler_at
from rllc.posterior.calibration.health import judge, predicted_bias
from rllc.posterior.calibration.plateau import NO_SLOPES
from rllc.posterior.calibration.ranking import agreement
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Trial, together


class TestHealth:
    def test_the_predicted_bias_is_that_of_one_direction(self):
        # METHOD 3.1: 100 % high at h = 60 with the paper's settings
        there = sampler_at(HERE, PAPER, chains=1, draws=4, burn_in=0)
        stiffness = there.step_size * (there.nbeta * 60 + there.localization) / 4
        truth = exact.llc(60.0, there) / exact.llc(60.0, dataclasses.replace(there, step_size=1e-9)) - 1
        assert float(predicted_bias(np.array([stiffness]), "sgld")[0]) == pytest.approx(float(truth), rel=1e-3) == pytest.approx(1.0, rel=1e-3)
        assert predicted_bias(np.array([stiffness]), "leimkuhler-matthews") == 0.0
        assert predicted_bias(np.array([1.0]), "sgld") == np.inf

    @pytest.mark.parametrize(
        ("readings", "kind", "match"),
        [
            ([reading(), reading(outcome="unstable", llc=math.nan, stderr=math.nan, rise=math.nan)], "refused", "50 % of the cells are refused"),
            ([reading(), reading(step_share=0.8)], "refused", "steepest direction has εA/4 = 0.8"),
            ([reading(), reading(stiffness=0.2)], "biased", "adds at least 25 % to λ̂"),
            ([reading(rise=0.3)] * 2, "far", "1.5 times as much as setting its weights to zero"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_number(self, readings, kind, match):
        found = judge(planted(HERE, *readings), "sgld", CalibrationSettings(), removal=np.array([0.2, 0.2]))
        assert [p.kind for p in found.problems] == [kind]
        assert match in found.problems[0].text

    def test_parts_that_drift_together_are_drifting(self):
        still = planted(HERE, *[reading(outcome="drifting")] * 4, *[reading()] * 4)
        moving = dataclasses.replace(still, rises=still.rises * np.linspace(0.5, 1.5, 32))
        found = judge(moving, "sgld", CalibrationSettings())
        assert [p.kind for p in found.problems] == ["drifting"]
        assert "50 % of the cells still drift" in found.problems[0].text
        assert judge(still, "sgld", CalibrationSettings()).healthy, "one chain takes an excursion for a drift; the parts together do not"
        assert judge(dataclasses.replace(moving, readings=(reading(),) * 8), "sgld", CalibrationSettings()).healthy

    def test_tilt_is_counted_and_does_not_refuse(self):
        found = judge(planted(HERE, reading(outcome="tilted", tilt=0.5), reading(tilt=0.3)), "sgld", CalibrationSettings())
        assert found.healthy
        assert (found.tilted, found.tilt) == (0.5, pytest.approx(0.4))

    def test_a_part_that_does_nothing_does_not_make_the_others_far(self):
        found = judge(planted(HERE, *[reading(rise=0.05)] * 3), "sgld", CalibrationSettings(), removal=np.array([-0.01, 0.2, 0.2]))
        assert found.healthy
        assert found.removal == pytest.approx(0.25)

    def test_a_measured_slope_counts_beyond_its_error(self):
        steep = dataclasses.replace(NO_SLOPES, step_size=0.3, step_size_error=0.05)
        unsure = dataclasses.replace(steep, step_size_error=0.2)
        trial = planted(HERE, reading())
        assert [p.kind for p in judge(trial, "sgld", CalibrationSettings(), steep).problems] == ["biased"]
        assert judge(trial, "sgld", CalibrationSettings(), unsure).healthy


class TestRanking:
    def test_a_known_order(self):
        a, none = np.array([1.0, 2.0, 3.0, 4.0]), np.zeros(4)
        assert agreement(a, none, 10 * a, none).tau == 1
        assert agreement(a, none, -a, none).tau == -1
        # one neighbouring pair of six exchanged
        found = agreement(a, none, np.array([1.0, 3.0, 2.0, 4.0]), none)
        assert found.tau == pytest.approx(4 / 6)
        assert found.kept == pytest.approx(5 / 6)
        assert (found.noise_tau, found.told_apart) == (1, 1)

    def test_pairs_within_their_errors_are_not_told_apart(self):
        a, b = np.array([1.0, 1.05, 3.0]), np.array([1.05, 1.0, 3.0])
        found = agreement(a, np.full(3, 0.1), b, np.full(3, 0.1))
        assert found.tau == pytest.approx(1 / 3)
        assert found.told_apart == pytest.approx(2 / 3)
        assert found.kept == 1

    def test_noise_alone_explains_what_it_can(self):
        rng = np.random.default_rng(0)
        truth, error = np.linspace(1, 2, 16), np.full(16, 0.2)
        taus = [agreement(truth, error, truth, error).noise_tau]
        measured = [agreement(truth + error * rng.standard_normal(16), error, truth + error * rng.standard_normal(16), error).tau for _ in range(200)]
        assert taus[0] == pytest.approx(np.mean(measured), abs=0.04)
        assert 0.3 < taus[0] < 0.8

    def test_undefined_where_there_is_no_order(self):
        assert math.isnan(agreement(np.ones(2), np.zeros(2), np.ones(2), np.zeros(2)).tau)
        assert math.isnan(agreement(np.array([1, 2, np.nan]), np.zeros(3), np.array([1, 2, 3.0]), np.zeros(3)).tau)


class TestTrials:
    def test_the_error_of_the_sum_holds_the_noise_that_parts_share(self):
        rng = np.random.default_rng(0)
        shared = rng.standard_normal((1, 1, 32))
        own = rng.standard_normal((8, 2, 32))
        together_, apart = (Trial(HERE, 0, (reading(),) * 8, 10 + noise) for noise in (shared + 0 * own, own))
        assert together_.total_error == pytest.approx(0.1 / math.sqrt(32), rel=0.5)
        assert apart.total_error == pytest.approx(0.1 / math.sqrt(8 * 64), rel=0.7)
        assert together_.total_error > 2.5 * apart.total_error

    def test_a_drift_of_the_sum_is_seen(self):
        rng = np.random.default_rng(0)
        still = 10 + rng.standard_normal((8, 2, 30))
        moved, reach = Trial(HERE, 0, (reading(),) * 8, still).settled()
        assert abs(moved) < reach < 0.2
        moved, reach = Trial(HERE, 0, (reading(),) * 8, still + np.linspace(0, 6, 30)).settled()
        assert moved == pytest.approx(4.1 / 13, rel=0.2)
        assert moved > reach

    def test_groups_of_parts_become_one(self):
        one, other = planted(HERE, reading(llc=1.0)), planted(HERE, reading(llc=2.0), reading(llc=3.0))
        both = together([one, other])
        assert both.total == 6
        assert both.rises.shape == (3, 2, 32)

    def test_a_refused_part_leaves_no_sum(self):
        broken = planted(HERE, reading(), reading(outcome="nonfinite", llc=math.nan, stderr=0.0, rise=math.nan))
        assert math.isnan(broken.total)
        assert math.isnan(broken.total_error)
        assert broken.refused == 0.5

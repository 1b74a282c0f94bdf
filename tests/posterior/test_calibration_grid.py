"""The grid of a calibration, and the slopes of λ̂ over it (METHOD 2 and 3.1)."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from calibration_toys import HERE, PAPER, planted, reading

from rllc.core.errors import RllcError
from rllc.posterior import exact
from rllc.posterior.calibration.grid import Setting, burn_in, grid, sampler_at, setting_of
from rllc.posterior.calibration.plateau import NO_SLOPES, slopes
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Trial


class TestGrid:
    def test_the_papers_settings_are_one_of_its_points(self):
        # METHOD 2: ε nβ/2 = 0.015 and ε γ/2 = 0.1
        own = setting_of(PAPER)
        assert own.same(HERE)
        assert any(point.same(own) for point in grid(CalibrationSettings()))
        assert (own.step, own.localization, own.nbeta) == pytest.approx((1e-3, 200, 30))

    def test_a_step_down_the_diagonal_halves_the_step_size_alone(self):
        half = HERE.halved()
        assert (half.step, half.localization, half.nbeta) == pytest.approx((HERE.step / 2, HERE.localization, HERE.nbeta))
        assert not half.same(HERE)

    @pytest.mark.parametrize("y", [0.05, 0.1, 0.2])
    def test_the_burn_in_is_where_flat_directions_have_relaxed(self, y):
        # METHOD 3.1, Relaxation: v_t = v_∞ (1 - (1 - εA/2)^{2t}) with A = γ
        setting = Setting(0.015, y, 30.0)
        steps = burn_in(setting, 0.01)
        there = sampler_at(setting, PAPER, chains=1, draws=4, burn_in=steps)
        missing = [1 - exact.relaxing_variance(0.0, there, t) / exact.variance(0.0, there) for t in (steps - 1, steps)]
        assert missing[0] > 0.01 > missing[1]

    def test_a_preconditioner_is_counted_with_its_largest_step(self):
        base = dataclasses.replace(PAPER, sampler="rmsprop-sgld", step_size=1e-4, rmsprop_stabilizer=0.1)
        assert setting_of(base).same(HERE)
        there = sampler_at(HERE, base, chains=2, draws=8, burn_in=3)
        assert (there.step_size, there.localization, there.nbeta) == pytest.approx((1e-4, 200, 30))
        assert (there.chains, there.draws, there.burn_in) == (2, 8, 3)

    def test_what_has_no_place_in_the_grid(self):
        with pytest.raises(RllcError, match=r"mala has no calibration of its own.*--sampler sgld"):
            setting_of(dataclasses.replace(PAPER, sampler="mala"))
        with pytest.raises(RllcError, match="logarithmic"):
            setting_of(dataclasses.replace(PAPER, nbeta=0.0))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"nbeta": (30.0, 10.0)}, "calibration.nbeta must be rising"),
            ({"prior_products": (0.1, 2.0)}, "from 2 on every chain diverges"),
            ({"final_draws": 3}, "final_draws is 3"),
            ({"relaxation": 1.0}, "shares between 0 and 1"),
            ({"gain": 0.9}, "gain at least 1"),
        ],
    )
    def test_settings_out_of_range(self, change, match):
        with pytest.raises(RllcError, match=match):
            CalibrationSettings(**change)

    def test_the_quick_grid_keeps_the_papers_settings(self):
        small = CalibrationSettings().quick()
        assert len(grid(small)) < len(grid(CalibrationSettings())) / 5
        assert any(point.same(HERE) for point in grid(small))


class TestPlateau:
    def surface(self, curvature: Sequence[float], points: Sequence[Setting], noise: float = 0.0) -> list[Trial]:
        rng = np.random.default_rng(0)
        found: list[Trial] = []
        for point in points:
            there = sampler_at(point, PAPER, chains=1, draws=4, burn_in=0)
            llc = float(exact.llc(curvature, there).sum()) * math.exp(noise * rng.standard_normal())
            found.append(planted(point, reading(llc=llc, rise=llc / point.nbeta)))
        return found

    def test_the_slope_in_the_step_size_is_the_bias(self):
        # d log λ̂/d log ε = r/(1 - r) = λ̂/λ₀ - 1 for one curvature, and nearly so for many
        curvature = [0.3, 2.0, 4.0, 8.0]
        found = slopes(HERE, self.surface(curvature, grid(CalibrationSettings())))
        there = sampler_at(HERE, PAPER, chains=1, draws=4, burn_in=0)
        bias = exact.llc(curvature, there).sum() / exact.llc(curvature, dataclasses.replace(there, step_size=1e-9)).sum() - 1
        assert bias > 0.09
        assert found.step_size == pytest.approx(bias, rel=0.15)

    def test_the_slopes_in_localization_and_temperature_are_those_of_the_formula(self):
        curvature = [0.3, 2.0, 4.0, 8.0]
        found = slopes(HERE, self.surface(curvature, grid(CalibrationSettings())))

        def log_llc(**factor: float) -> float:
            there = sampler_at(HERE, PAPER, chains=1, draws=4, burn_in=0)
            return math.log(exact.llc(curvature, dataclasses.replace(there, **{k: getattr(there, k) * v for k, v in factor.items()})).sum())

        for name in ("localization", "nbeta"):
            truth = (log_llc(**{name: 1.01}) - log_llc(**{name: 1 / 1.01})) / (2 * math.log(1.01))
            assert getattr(found, name) == pytest.approx(truth, abs=0.03)

    def test_its_error_covers_noise_of_the_estimates(self):
        curvature = [2.0, 4.0]
        clean, noisy = (slopes(HERE, self.surface(curvature, grid(CalibrationSettings()), noise)) for noise in (0.0, 0.05))
        assert noisy.step_size_error > 2 * clean.step_size_error
        assert abs(noisy.step_size - clean.step_size) < 3 * noisy.step_size_error

    def test_a_grid_too_small_to_tell(self):
        assert slopes(HERE, self.surface([1.0], [HERE, HERE.halved()])) == NO_SLOPES
        one = CalibrationSettings(nbeta=(30.0,))
        found = slopes(HERE, self.surface([2.0], grid(one)))
        assert math.isnan(found.nbeta)
        assert math.isfinite(found.localization)
        assert found.size == abs(found.localization)

    def test_refused_settings_have_no_logarithm(self):
        points = grid(CalibrationSettings())
        trials = self.surface([2.0], points)
        spoilt = [planted(t.setting, reading(outcome="unstable", llc=math.nan, stderr=0.0, rise=math.nan)) if i % 7 == 0 else t
                  for i, t in enumerate(trials)]  # fmt: skip
        assert slopes(HERE, spoilt).localization == pytest.approx(slopes(HERE, trials).localization, abs=0.05)

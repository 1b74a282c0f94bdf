"""Planted trials, and quadratics whose λ̂, bias and relaxation are known exactly (METHOD 3.1)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch

from rllc.posterior import exact
from rllc.posterior.calibration.advice import Advice, Finalist, Surveyed, advise, finalist, shortlist, survey
from rllc.posterior.calibration.grid import Setting, burn_in, grid, sampler_at, setting_of
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.calibration.trial import Reading, Trial, trial
from rllc.posterior.chains import run_chains
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.result import assess
from rllc.posterior.settings import SamplerSettings

PAPER = SamplerSettings("sgld", 1e-3, 200.0, 30.0, chains=4, draws=60, burn_in=15)
HERE = Setting(0.015, 0.1, 30.0)


def reading(**change: object) -> Reading:
    plain = Reading("ok", llc=1.0, stderr=0.1, rise=1 / 30, stiffness=0.05, step_share=0.05, stein_ratio=1.05, stein_expected=1.05,
                    stein_stderr=0.01, gradient_ratio=2.0, tilt=0.0)  # fmt: skip
    return dataclasses.replace(plain, **change)  # type: ignore[arg-type]


def planted(setting: Setting, *readings: Reading, chains: int = 2, draws: int = 32, step: int = 0) -> Trial:
    """A trial without sampling: rises that have the readings' mean, and their error."""
    rng = np.random.default_rng(1)
    wave = rng.standard_normal((len(readings), chains, draws))
    wave = (wave - wave.mean(axis=(-2, -1), keepdims=True)) * np.array([r.stderr / setting.nbeta for r in readings])[:, None, None] * math.sqrt(draws)
    return Trial(setting, step, readings, wave + np.array([r.rise for r in readings])[:, None, None])


class Toy:
    """Parts of a quadratic: directions of planted curvature among flat ones, and a minibatch noise of the gradient."""

    def __init__(self, curvature: Sequence[Sequence[float]], flat: int = 100, copies: int = 40, base: SamplerSettings = PAPER) -> None:
        self.h = torch.stack([torch.cat([torch.tensor(row).repeat(copies), torch.zeros(flat)]) for row in curvature])
        self.objective = Quadratic({"w": torch.full_like(self.h, 0.1)}, {"w": self.h}, gradient_noise={"w": torch.full_like(self.h, 0.02)})
        self.origin = gradient_at_origin(self.objective, self.objective.origin, range(10**6, 10**6 + 4))
        self.base = base

    def sampler(self, setting: Setting, chains: int, draws: int, *, control: bool = False) -> SamplerSettings:
        return sampler_at(setting, self.base, chains=chains, draws=draws, burn_in=burn_in(setting, 0.01), control=control)

    def run(self, setting: Setting, chains: int, draws: int, *, control: bool = False) -> Trial:
        there = self.sampler(setting, chains, draws, control=control)
        parts = len(self.h)
        root = abs(hash((round(math.log(setting.step), 6), round(math.log(setting.localization), 6), setting.nbeta, draws, control))) % 10**7
        seeds = [[root * 1000 + 10 * p + c for c in range(chains)] for p in range(parts)]
        traces = run_chains(self.objective, self.objective.origin, range(root * 500, root * 500 + 400), there, seeds)
        return trial(setting, 7, [traces.part(p) for p in range(parts)], assess(traces, self.origin))

    def bias(self, setting: Setting) -> float:
        """What the discretisation adds to the sum of λ̂, exactly."""
        there = self.sampler(setting, 1, 4)
        h = self.h.double().numpy()
        return float(exact.llc(h, there).sum() / exact.llc(h, dataclasses.replace(there, step_size=1e-9)).sum() - 1)

    def calibrate(self, settings: CalibrationSettings) -> tuple[tuple[Surveyed, ...], tuple[Finalist, ...], Advice]:
        points = list(grid(settings))
        own = setting_of(self.base)
        if not any(point.same(own) for point in points):
            points.append(own)
        surveyed = survey([self.run(p, settings.chains, settings.draws) for p in points], self.base, settings)
        finals: list[Finalist] = []
        for setting in shortlist(surveyed, own, settings):
            there = next(s for s in surveyed if s.setting.same(setting))
            longer = self.run(setting, settings.final_chains, settings.final_draws)
            halved = self.run(setting.halved(), settings.final_chains, 2 * settings.final_draws)
            finals.append(finalist(there, [longer], halved, self.base, settings))
        return surveyed, tuple(finals), advise(surveyed, finals, own, settings)

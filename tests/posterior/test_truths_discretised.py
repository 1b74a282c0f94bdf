"""The stationary law of SGLD's steps in one dimension, against closed forms, its limit, and the chains themselves."""

from __future__ import annotations

import pytest
import torch

from rllc.posterior import exact
from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import estimate
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.toys.singular import Separable
from rllc.posterior.truths import discretised, quadrature


def settings(step: float, sampler: str = "sgld", draws: int = 10, burn_in: int = 0) -> SamplerSettings:
    return SamplerSettings(sampler, step, 1.0, 100.0, 4, draws, burn_in)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1e-4, 1e-3, 1e-2, 1.5e-2])
def test_a_quadratic_has_a_closed_form(step: float) -> None:
    """METHOD 3.1, up to εA = 3, where SGLD reads four times too high."""
    assert discretised.separable([2.0, 2.0], settings(step)) == pytest.approx(2 * float(exact.llc(2.0, settings(step))), rel=1e-9)


def test_rmsprop_with_a_frozen_scale_is_sgld_with_a_larger_step() -> None:
    assert discretised.separable([4.0], settings(1e-4, "rmsprop-sgld")) == pytest.approx(discretised.separable([4.0], settings(1e-3)), rel=1e-12)


@pytest.mark.parametrize("power", [1.5, 4.0, 6.0])
def test_small_steps_tend_to_quadrature(power: float) -> None:
    """The bias is of first order in ε."""
    limit = quadrature.separable([power], 100.0, quadrature.Prior(1.0))
    biases = [discretised.separable([power], settings(step)) / limit - 1 for step in (2e-5, 4e-5)]
    assert 0 < biases[0] < 1e-2
    assert biases[1] / biases[0] == pytest.approx(2, rel=0.01)


def test_chains_meet_it_where_the_step_matters() -> None:
    """At this step a quartic reads 4.6 % above the posterior's own value."""
    s = settings(4e-3, draws=800, burn_in=150)
    toy = Separable({"w": torch.zeros(1, 3000, 1)}, (4.0,))
    sampled = estimate(run_chains(toy, toy.origin, range(s.steps + 1), s, [range(4)]))[0]
    truth = 3000 * discretised.separable([4.0], s)
    assert truth > 1.04 * 3000 * quadrature.separable([4.0], 100.0, quadrature.Prior(1.0))
    assert sampled.llc == pytest.approx(truth, rel=0.006)

"""Each diagnostic against a case whose value is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rllc.posterior import diagnostics
from rllc.posterior.chains import run_chains
from rllc.posterior.diagnostics import diagnose
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.traces import Floats, Traces

SAMPLERS = ("sgld", "leimkuhler-matthews")
PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=60)


def sample(settings: SamplerSettings, h: Floats, noise: float = 0.0, gradient: float = 0.0) -> tuple[Traces, Quadratic]:
    like = torch.tensor(h, dtype=torch.float32)[None]
    toy = Quadratic(
        {"w": torch.zeros_like(like)}, {"w": like}, {"w": torch.full_like(like, gradient)}, gradient_noise={"w": torch.full_like(like, noise)}
    )
    return run_chains(toy, toy.origin, range(settings.steps + 1), settings, [range(settings.chains)]), toy


def flat(size: int = 5000) -> Floats:
    return np.zeros(size)


@pytest.mark.parametrize(("sampler", "ratio"), [("sgld", 1 / (1 - 1e-3 * 200 / 4)), ("leimkuhler-matthews", 1.0)])
def test_the_stein_ratio_of_flat_directions(sampler: SamplerName, ratio: float) -> None:
    """METHOD 3.2: 1.0526 and 1 at the paper's settings."""
    health = diagnose(sample(replace(PAPER, sampler=sampler), flat())[0])[0]
    assert health.stein_ratio == pytest.approx(ratio, rel=3e-3)
    assert health.stein_expected == pytest.approx(ratio, rel=1e-3)


def check_stein_under_noise(sampler: SamplerName) -> None:
    """METHOD 3.2 with batch noise. Exactly: A v = (1 + εσ²/4)/(1 - εA/4) for SGLD, 1 + εσ²/(4(1 - εA/4)) for Leimkuhler–Matthews."""
    h, sigma = 40.0, 60.0
    traces, _ = sample(replace(PAPER, sampler=sampler), np.full(5000, h), noise=sigma / 30)
    big_a, heat = 30 * h + 200, 1e-3 * sigma**2 / 4
    truth = (1 + heat) / (1 - 1e-3 * big_a / 4) if sampler == "sgld" else 1 + heat / (1 - 1e-3 * big_a / 4)
    health = diagnose(traces)[0]
    assert health.stein_ratio == pytest.approx(truth, rel=0.01)
    assert health.stein_expected == pytest.approx(truth, rel=0.01)


def test_stein_under_minibatch_noise_sgld() -> None:
    check_stein_under_noise("sgld")


def test_stein_under_minibatch_noise_leimkuhler_matthews() -> None:
    check_stein_under_noise("leimkuhler-matthews")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_stein_ratio_tells_that_the_prior_has_not_equilibrated(sampler: SamplerName) -> None:
    """Ten draws from w* with a relaxation of ten steps: the ratio lies well below what stationarity expects, by ‖w_T‖²/(εTd)."""
    settings = replace(PAPER, sampler=sampler, draws=10, burn_in=0)
    health = diagnose(sample(settings, flat(20_000))[0])[0]
    assert health.stein_ratio < 0.75
    assert health.stein_expected > 1 - 0.01 - (sampler == "leimkuhler-matthews") * 0.05
    assert health.stein_expected - health.stein_ratio > 0.25


def test_the_gradient_ratio_is_two_on_a_quadratic() -> None:
    assert diagnose(sample(PAPER, np.full(200, 20.0))[0])[0].gradient_ratio == pytest.approx(2.0, rel=1e-4)


def test_share_below_zero_and_distance() -> None:
    traces, _ = sample(PAPER, np.full(50, 1.0))
    health = diagnose(traces)[0]
    kept = traces.losses[..., 61:] - traces.baseline[:, None, 61:]
    assert health.share_below_zero == (kept < 0).mean() == 0
    assert health.sq_distance == pytest.approx(traces.sq_distance[..., 61:].mean())
    assert diagnose(replace(traces, losses=-traces.losses))[0].share_below_zero == 1


def test_a_constant_series_tells_nothing() -> None:
    """STACK, Diagnostics: arviz rates a constant chain 800 effective draws, and one with an inf R-hat 0.99989."""
    for series in (np.full((4, 200), 3.0), np.where(np.arange(800).reshape(4, 200) == 5, np.inf, np.random.default_rng(0).normal(size=(4, 200)))):
        assert np.isnan(diagnostics.rhat(series))
        assert np.isnan(diagnostics.ess(series[0]))
        assert np.isnan(diagnostics.split_rhat(series[0]))
    halves = np.repeat([1.0, 2.0], 50)  # varies, but neither half does
    assert np.isnan(diagnostics.split_rhat(halves))


def test_rhat_and_ess_of_known_series() -> None:
    rng = np.random.default_rng(1)
    white = rng.normal(size=(4, 1000))
    assert diagnostics.rhat(white) == pytest.approx(1, abs=0.01)
    assert diagnostics.split_rhat(white[0]) == pytest.approx(1, abs=0.01)
    assert diagnostics.ess(white[0]) == pytest.approx(1000, rel=0.2)
    assert diagnostics.rhat(white + np.arange(4.0)[:, None]) > 1.3
    # halves that differ by 2 sd: W = 1, B/n = 2 → R-hat = √(1 + 2) as n grows
    stepped = rng.normal(size=20_000) + np.repeat([0.0, 2.0], 10_000)
    assert diagnostics.split_rhat(stepped) == pytest.approx(np.sqrt(3), rel=0.01)
    slow = np.zeros(20_000)
    for t in range(1, 20_000):
        slow[t] = 0.9 * slow[t - 1] + rng.normal()
    assert diagnostics.ess(slow) == pytest.approx(20_000 * 0.1 / 1.9, rel=0.25)


def test_too_few_draws_tell_nothing() -> None:
    short = np.random.default_rng(0).normal(size=(4, 7))
    assert np.isnan(diagnostics.rhat(short))
    assert np.isnan(diagnostics.rhat(np.random.default_rng(0).normal(size=(1, 100))))
    assert np.isnan(diagnostics.split_rhat(short[0]))
    assert np.isnan(diagnostics.ess(short[0]))
    assert np.isnan(diagnostics.drift(short[None], 0.99)).all()


def test_drift_is_last_third_minus_first() -> None:
    ramp = np.arange(12.0)
    moved, reach = diagnostics.drift(np.stack([ramp, ramp])[None], 0.99)
    assert (float(moved[0]), float(reach[0])) == (8.0, 0.0)
    white = np.random.default_rng(2).normal(size=(2000, 4, 60))
    moved, reach = diagnostics.drift(white, 0.99)
    assert (np.abs(moved) > reach).mean() < 0.015


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stiffness_is_the_loss_weighted_stability(sampler: SamplerName) -> None:
    """On one curvature alone it is εA/4, under minibatch noise too."""
    settings = replace(PAPER, sampler=sampler)
    for noise in (0.0, 1.0):
        traces, toy = sample(settings, np.full(400, 60.0), noise=noise)
        origin = gradient_at_origin(toy, toy.origin, range(1000, 1016))
        np.testing.assert_allclose(diagnostics.stiffness(traces, origin), 0.5, rtol=0.05)
        np.testing.assert_allclose(diagnostics.stiffness(traces, None), 0.5, rtol=0.15)


def test_stiffness_of_a_loss_that_does_not_tell_is_that_of_the_prior() -> None:
    traces, toy = sample(PAPER, flat(100), noise=1.0)
    np.testing.assert_allclose(diagnostics.stiffness(traces, gradient_at_origin(toy, toy.origin, range(16))), 0.05)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("size", "gradient", "noise"), [(1, 0.0, 0.0), (1, 1.0, 0.0), (2000, 0.0, 0.0), (2000, 0.3, 1.0), (2000, 0.0, 3.0)])
def test_the_allowed_distance_is_not_reached_and_not_far(sampler: SamplerName, size: int, gradient: float, noise: float) -> None:
    """Flat directions: within the bound, and within a factor of three of it in many dimensions; minibatch noise heats beyond it."""
    traces, toy = sample(replace(PAPER, sampler=sampler), flat(size), noise, gradient)
    share = diagnose(traces, gradient_at_origin(toy, toy.origin, range(5000, 5016)))[0].distance_share
    heat = 1 + 1e-3 / 4 * (30 * noise) ** 2
    assert share < heat * (1 if size > 1 else 1.5)  # the largest of 800 draws of χ²_1 may pass its mean by five standard deviations
    if size > 1:
        assert share > heat / 3


def test_the_tilt_bounds_the_term_of_the_exact_answer() -> None:
    """METHOD 3.1b: (nβ)²g²(½nβh + γ)/A² ≤ (nβ)²g²/γ, equal on a slope without curvature."""
    settings = replace(PAPER, draws=4, burn_in=0)
    for h in (0.0, 1.0, 30.0):
        traces, toy = sample(settings, np.full(10, h), gradient=0.1)
        health = diagnose(traces, gradient_at_origin(toy, toy.origin, range(3)))[0]
        term = 10 * 900 * 0.01 * (15 * h + 200) / (30 * h + 200) ** 2
        assert health.tilt >= term * (1 - 1e-5)
        assert (health.tilt == pytest.approx(term)) == (h == 0)
        assert health.tilt_stderr == pytest.approx(0, abs=1e-6)
    assert np.isnan(diagnose(sample(settings, flat(10))[0])[0].tilt)

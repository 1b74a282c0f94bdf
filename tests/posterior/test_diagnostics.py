"""Each diagnostic against a case whose value is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import norm

from rllc.posterior import convergence, equilibrium
from rllc.posterior.chains import run_chains
from rllc.posterior.diagnostics import diagnose
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.potential import Potential
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.samplers.base import log_acceptance
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
        assert np.isnan(convergence.rhat(series))
        assert np.isnan(convergence.ess(series[0]))
        assert np.isnan(convergence.split_rhat(series[0]))
    halves = np.repeat([1.0, 2.0], 50)  # varies, but neither half does
    assert np.isnan(convergence.split_rhat(halves))


def test_rhat_and_ess_of_known_series() -> None:
    rng = np.random.default_rng(1)
    white = rng.normal(size=(4, 1000))
    assert convergence.rhat(white) == pytest.approx(1, abs=0.01)
    assert convergence.split_rhat(white[0]) == pytest.approx(1, abs=0.01)
    assert convergence.ess(white[0]) == pytest.approx(1000, rel=0.2)
    assert convergence.rhat(white + np.arange(4.0)[:, None]) > 1.3
    # halves that differ by 2 sd: W = 1, B/n = 2 → R-hat = √(1 + 2) as n grows
    stepped = rng.normal(size=20_000) + np.repeat([0.0, 2.0], 10_000)
    assert convergence.split_rhat(stepped) == pytest.approx(np.sqrt(3), rel=0.01)
    slow = np.zeros(20_000)
    for t in range(1, 20_000):
        slow[t] = 0.9 * slow[t - 1] + rng.normal()
    assert convergence.ess(slow) == pytest.approx(20_000 * 0.1 / 1.9, rel=0.25)


def test_too_few_draws_tell_nothing() -> None:
    short = np.random.default_rng(0).normal(size=(4, 7))
    assert np.isnan(convergence.rhat(short))
    assert np.isnan(convergence.rhat(np.random.default_rng(0).normal(size=(1, 100))))
    assert np.isnan(convergence.split_rhat(short[0]))
    assert np.isnan(convergence.ess(short[0]))
    assert np.isnan(convergence.drift(short[None], 0.99)).all()


def test_drift_is_last_third_minus_first() -> None:
    ramp = np.arange(12.0)
    moved, reach = convergence.drift(np.stack([ramp, ramp])[None], 0.99)
    assert (float(moved[0]), float(reach[0])) == (8.0, 0.0)
    white = np.random.default_rng(2).normal(size=(2000, 4, 60))
    moved, reach = convergence.drift(white, 0.99)
    assert (np.abs(moved) > reach).mean() < 0.015


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stiffness_is_the_loss_weighted_stability(sampler: SamplerName) -> None:
    """On one curvature alone it is εA/4, under minibatch noise too."""
    settings = replace(PAPER, sampler=sampler)
    for noise in (0.0, 1.0):
        traces, toy = sample(settings, np.full(400, 60.0), noise=noise)
        origin = gradient_at_origin(toy, toy.origin, range(1000, 1016))
        np.testing.assert_allclose(equilibrium.stiffness(traces, origin), 0.5, rtol=0.05)
        np.testing.assert_allclose(equilibrium.stiffness(traces, None), 0.5, rtol=0.15)


def test_stiffness_of_a_loss_that_does_not_tell_is_that_of_the_prior() -> None:
    traces, toy = sample(PAPER, flat(100), noise=1.0)
    np.testing.assert_allclose(equilibrium.stiffness(traces, gradient_at_origin(toy, toy.origin, range(16))), 0.05)


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


def test_geweke_is_a_standard_normal_on_stationary_series() -> None:
    """Autocorrelated series of known law; and far out where the beginning differs."""
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(300, 1000))
    series = np.zeros_like(noise)
    for t in range(1, 1000):
        series[:, t] = 0.5 * series[:, t - 1] + noise[:, t]
    z = np.array([convergence.geweke(row) for row in series])
    assert abs(z.mean()) < 0.2
    assert 0.9 < z.std() < 1.3
    assert np.mean(np.abs(z) > 3) < 0.03
    shifted = series[0] + np.where(np.arange(1000) < 100, 3.0, 0.0)
    assert convergence.geweke(shifted) > 5
    assert np.isnan(convergence.geweke(series[0, :79]))


@pytest.mark.parametrize("p", [0.5, 0.2, 0.1, 0.02])
def test_raftery_and_lewis_on_a_chain_of_two_states(p: float) -> None:
    """One that leaves either state with probability p takes (1 - p)/p times the draws of an independent one; the few of its burn-in come on top."""
    rng = np.random.default_rng(7)
    series = np.cumsum(rng.random(200_000) < p) % 2 + 0.1 * rng.random(200_000)
    np.testing.assert_allclose(convergence.raftery_lewis(series), (1 - p) / p, rtol=0.08)


def test_raftery_and_lewis_by_counting() -> None:
    """A hundred draws that are taken as they are, their transitions counted one by one, and the formula of the paper."""
    signs = [*"++-----++++-+---++-+++----++------+++-+--++++++---+-+++---", *"--+++++++-----++-+++-+---++---+++++-----++"]
    series = np.array([2.0 if sign == "+" else 1.0 for sign in signs]) + 1e-6 * np.arange(100)
    assert len(signs) == 100
    assert signs.count("+") == 50
    pairs = list(pairwise(signs))
    up, down = (pairs.count(pair) / sum(first == pair[0] for first, _ in pairs) for pair in (("-", "+"), ("+", "-")))
    z = 1.96 / 0.005
    burn_in = np.ceil(np.log(0.001 * (up + down) / max(up, down)) / np.log(1 - up - down))
    draws = (2 - up - down) * up * down / (up + down) ** 3 * z**2
    np.testing.assert_allclose(convergence.raftery_lewis(series), (burn_in + draws) / (z**2 / 4), rtol=1e-12)


def test_raftery_and_lewis_thin_what_remembers_more_than_one_draw() -> None:
    """Every draw twice: of every second one the chain is of first order, and independent, so that two draws count as one."""
    rng = np.random.default_rng(8)
    np.testing.assert_allclose(convergence.raftery_lewis(np.repeat(rng.normal(size=50_000), 2)), 2.0, rtol=0.03)
    assert np.isnan(convergence.raftery_lewis(rng.normal(size=79)))
    assert np.isnan(convergence.raftery_lewis(np.ones(100)))


def test_heidelberger_and_welch() -> None:
    """About 5 % of stationary series fail at first look; a bad first tenth is left out; a trend fails altogether; the half width is 1.96 σ/√n."""
    rng = np.random.default_rng(5)
    white = rng.normal(loc=2.0, size=(400, 600))
    discards, halfwidths = np.array([convergence.heidelberger_welch(row) for row in white]).T
    assert 0.01 < np.mean(discards != 0) < 0.10
    np.testing.assert_allclose(np.nanmean(halfwidths), 1.96 / np.sqrt(600) / 2, rtol=0.1)
    begun = white[0] + np.where(np.arange(600) < 60, 5.0, 0.0)
    assert convergence.heidelberger_welch(begun)[0] == 0.1
    discard, halfwidth = convergence.heidelberger_welch(white[0] + np.linspace(0, 20, 600))
    assert not discard < 0.2
    assert not halfwidth < 0.1
    assert np.isnan(convergence.heidelberger_welch(white[0, :15])).all()


def test_acceptance_falls_with_the_dimension() -> None:
    """METHOD 2: from the target itself 0.92 at 100 flat directions with the paper's settings, 0.03 to 0.05 at a head's 32,864.

    On flat directions the ratio is `(γ a/4)(‖v‖² - ‖v'‖²)`, a = εγ/2. Along SGLD, at whose law it has mean 0, it is normal with
    variance `(γ a/4)² 4 d v² (1 - (1-a)⁴)/1`, v = 1/(γ(1 - a/2)), and E min(1, eˣ) = ½ + e^{s²/2} Φ(-s).
    """
    for d, low, high in ((100, 0.90, 0.94), (32_864, 0.03, 0.05)):
        potential = Potential(PAPER, torch.zeros(400, d))
        zero = torch.zeros(400)
        v, xi = torch.randn(400, d) / 200**0.5, torch.randn(400, d)
        before = potential.at(v, zero, zero, torch.zeros_like(v))
        after = potential.at(0.9 * v + 1e-3**0.5 * xi, zero, zero, torch.zeros_like(v))
        ratio = log_acceptance(before.pull, after.pull, xi, PAPER)
        assert low < ratio.clamp(max=0).exp().mean() < high
        s = 200 * 0.1 / 4 * np.sqrt(4 * d * (1 - 0.9**4)) / (200 * 0.95)
        along = diagnose(sample(replace(PAPER, draws=400), flat(d))[0])[0].acceptance
        assert along == pytest.approx(0.5 + np.exp(s**2 / 2) * norm.cdf(-s), abs=0.03)


def test_acceptance_of_mala_is_the_share_that_moved() -> None:
    assert np.isnan(diagnose(sample(replace(PAPER, sampler="leimkuhler-matthews"), flat(10))[0])[0].acceptance)
    traces, _ = sample(replace(PAPER, sampler="mala", step_size=8e-3, chains=50, draws=200), flat(5))
    moved = np.diff(traces.sq_distance[..., 60:], axis=-1) != 0
    assert diagnose(traces)[0].acceptance == pytest.approx(moved.mean(), abs=0.02)


def test_the_terms_of_a_step() -> None:
    """`(ε/2)nβ√E‖ĝ‖²`, `(ε/2)γ√E‖v‖²`, `√(εd)` from the stationary law."""
    health = diagnose(sample(PAPER, np.full(2000, 20.0))[0])[0]
    v = 1 / (800 * (1 - 0.2))
    assert health.gradient_step == pytest.approx(5e-4 * 30 * 20 * np.sqrt(2000 * v), rel=0.01)
    assert health.prior_step == pytest.approx(5e-4 * 200 * np.sqrt(2000 * v), rel=0.01)
    assert health.noise_step == pytest.approx(np.sqrt(2.0))


def test_growth_of_the_distance() -> None:
    """From w* without burn-in ‖w-w*‖² grows, as `1 - (1-εγ/2)^{2t}`; after it, it does not."""
    slow = replace(PAPER, step_size=1e-4, draws=60, burn_in=0)
    health = diagnose(sample(slow, flat(3000))[0])[0]
    t = np.arange(1, 61)
    law = 1 - (1 - 0.01) ** (2 * t)
    assert health.distance_drift == pytest.approx((law[-20:].mean() - law[:20].mean()) / law.mean(), rel=0.05)
    assert health.distance_drift > health.distance_drift_reach
    settled = diagnose(sample(PAPER, flat(3000))[0])[0]
    assert abs(settled.distance_drift) < 0.02


def test_stein_of_every_sampler() -> None:
    """Each meets its own expectation at stationarity, under curvature; between walls nothing is said."""
    for sampler in get_args(SamplerName):
        change = {"rmsprop-sgld": {"step_size": 2e-4, "rmsprop_stabilizer": 1.0}, "mala": {"step_size": 2e-4, "draws": 600, "burn_in": 150}}
        settings = replace(PAPER, sampler=sampler, burn_in=150) if sampler not in change else replace(PAPER, sampler=sampler, **change[sampler])
        size = 20 if sampler == "mala" else 4000
        health = diagnose(sample(replace(settings, chains=4), np.tile([0.0, 5.0, 20.0, 30.0], size // 4), gradient=0.1)[0])[0]
        assert health.stein_ratio == pytest.approx(health.stein_expected, abs=max(4 * health.stein_stderr, 0.005)), sampler
        assert health.stein_stderr < 0.1
    assert np.isnan(diagnose(sample(replace(PAPER, bounding_box=0.1), flat(10))[0])[0].stein_ratio)


def test_the_effective_step_of_a_preconditioned_chain() -> None:
    """Frozen V: ε/(stabilizer + |g|) where all coordinates have one gradient."""
    settings = replace(PAPER, sampler="rmsprop-sgld", rmsprop_decay=1.0, rmsprop_stabilizer=0.5, step_size=1e-3)
    traces, _ = sample(settings, np.full(500, 20.0), gradient=1.5)
    np.testing.assert_allclose(equilibrium.effective_step(traces), 1e-3 / 2, rtol=1e-6)
    assert (equilibrium.effective_step(sample(PAPER, flat(10))[0]) == 1e-3).all()


def test_the_step_limit_of_a_saddle_is_none() -> None:
    """4/(nβh + γ) by hand; a direction that nothing holds is no matter of the step, and what is unknown stays so."""
    limits = equilibrium.step_limit(np.array([60.0, 0.0, -20 / 3, -50.0, np.nan]), PAPER)
    np.testing.assert_allclose(limits[:2], [4 / 2000, 4 / 200])
    assert (limits[2:4] == np.inf).all()
    assert np.isnan(limits[4])


def test_a_weight_decay_pulls_as_far_as_it_may() -> None:
    """Far from zero κ moves the mean by κ‖w*‖/(γ + κ): that is no flight, and the cell is not refused for it."""
    settings = replace(PAPER, localization=100.0, weight_decay=100.0)
    toy = Quadratic({"w": torch.full((1, 500), 3.0)}, {"w": torch.zeros(1, 500)})
    traces = run_chains(toy, toy.origin, range(settings.steps + 1), settings, [range(4)])
    health = diagnose(traces, gradient_at_origin(toy, toy.origin, range(3)))[0]
    assert traces.sq_distance[..., traces.kept].mean() == pytest.approx(500 * 1.5**2, rel=0.02)
    assert 0.5 < health.distance_share < 1.05
    assert diagnose(traces)[0].distance_share == 0  # nothing is known of w* then

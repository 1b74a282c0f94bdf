"""The samplers against the exact answers of METHOD 3.1, 3.1b and relaxation, through the whole room."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parent))
import harness
from harness import NAMES, TOLERANCE, check_llc, paper

from rllc.posterior import exact
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.samplers.base import Draw
from rllc.posterior.samplers.registry import SAMPLERS
from rllc.posterior.settings import SamplerName, SamplerSettings

SPECTRUM = (0.0, 2.0, 10.0, 30.0, 60.0)


@pytest.mark.parametrize("sampler", NAMES)
def test_full_quadratic(sampler: SamplerName) -> None:
    check_llc(sampler, SPECTRUM, 300 if sampler == "mala" else 600)


def test_sgld_reads_the_discretised_llc() -> None:
    check_llc("sgld", SPECTRUM, 600)


def test_leimkuhler_matthews_reads_the_exact_llc() -> None:
    check_llc("leimkuhler-matthews", SPECTRUM, 600)


def test_rmsprop_sgld_with_frozen_second_moment() -> None:
    """METHOD 2: where V = g² each coordinate is SGLD with step εG; at g = 0 the stabilizer alone rules."""
    check_llc("rmsprop-sgld", SPECTRUM, 600, (0.0, 0.1, 0.5, 1.0, 3.0))


def test_sgnht_reads_its_discretised_llc() -> None:
    check_llc("sgnht", SPECTRUM, 600)


def test_mala_reads_the_exact_llc_at_large_steps() -> None:
    """The accept step corrects what would be up to a third in SGLD."""
    h, settings = (10.0, 30.0, 60.0), paper("mala", step_size=5e-4, draws=400)
    assert exact.variance(h, paper("sgld", step_size=5e-4))[-1] > 1.3 * exact.variance(h, settings)[-1]
    _, variance = harness.moments(settings, h, (0.0, 0.0, 0.0), 4000)
    np.testing.assert_allclose(variance, exact.variance(h, settings), rtol=TOLERANCE)


def test_sgld_at_small_steps() -> None:
    """METHOD 3.1 where the discretisation hides little: at large ones an error in A partly cancels in `A(1 - εA/4)`."""
    check_llc("sgld", (30.0, 60.0, 100.0), 1000, step_size=2e-4, draws=150)


@pytest.mark.parametrize("sampler", NAMES)
def test_restricted(sampler: SamplerName) -> None:
    """METHOD 3.1: the sum runs over restricted coordinates only, here two tensors of three, of several axes."""
    settings = paper(sampler)
    number = 250 if sampler == "mala" else 500
    a, b = (harness.copies(sampler, h, number) for h in ((5.0, 30.0), (1.0, 60.0)))
    curvature = {"a": a.view(len(a), 2, -1), "held": torch.full((len(a), 100), 40.0), "b": b.view(len(b), 1, 2, -1)}
    toy = Quadratic({name: torch.randn_like(h) for name, h in curvature.items()}, curvature)
    truth = exact.llc((5.0, 30.0, 1.0, 60.0), settings).sum() * number
    found = harness.sampled_llc(toy, {name: toy.origin[name] for name in ("a", "b")}, settings)
    assert found == pytest.approx(truth, rel=TOLERANCE)


@pytest.mark.parametrize("sampler", NAMES)
def test_tilted(sampler: SamplerName) -> None:
    """METHOD 3.1b, where the gradient at w* makes λ̂ negative."""
    h, g = (0.0, 2.0, 10.0, 30.0), (0.4, 0.6, 1.0, 2.0)
    assert (exact.llc(h, paper(sampler), g) < 0).sum() >= 2
    check_llc(sampler, h, 400 if sampler == "mala" else 800, g)


@pytest.mark.parametrize("sampler", NAMES)
def test_weight_decay(sampler: SamplerName) -> None:
    """`A = nβh + γ + κ` around a mean of `-κw*/A`."""
    settings = paper(sampler, weight_decay=150.0, localization=100.0)
    mean, variance = harness.moments(settings, (5.0, 40.0), (0.0, 0.0), 6000, w=2.0)
    np.testing.assert_allclose(mean, -2 * 150 / (30 * np.array([5.0, 40.0]) + 250), rtol=TOLERANCE)
    np.testing.assert_allclose(variance, exact.variance(np.tile((5.0, 40.0), 1500), settings)[:2], rtol=TOLERANCE)


def test_weight_decay_through_the_whole_room() -> None:
    check_llc("sgld", SPECTRUM, 600, weight_decay=150.0, localization=100.0)


@pytest.mark.parametrize("sampler", ["sgld", "leimkuhler-matthews", "sgnht"])
def test_minibatch_noise(sampler: SamplerName) -> None:
    """METHOD 2: gradient noise adds `εσ²/(4A(1-εA/4))` to a coordinate's variance; the thermostat takes it up as friction."""
    settings = paper(sampler, burn_in=100)
    sigma = 20.0 if sampler == "sgnht" else 60.0  # of nβ ĝ_i; the latter nearly doubles the variance of Langevin dynamics
    h = torch.tensor(SPECTRUM).repeat(800)[None]
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, gradient_noise={"w": torch.full_like(h, sigma / settings.nbeta)})
    truth = exact.llc(h[0].numpy(), settings, noise_variance=sigma**2).sum()
    quiet = exact.llc(h[0].numpy(), settings).sum()
    assert truth > 1.5 * quiet if sampler != "sgnht" else truth < 1.05 * quiet
    assert harness.sampled_llc(toy, toy.origin, settings) == pytest.approx(truth, rel=TOLERANCE)


def test_minibatch_noise_of_rmsprop_sgld() -> None:
    """V holds the noise of the first gradient, here alone, and each coordinate is heated as SGLD is with its own step εG."""
    sigma, steps = 60.0, 4e-4
    settings = paper("rmsprop-sgld", step_size=steps, burn_in=250)
    h = torch.tensor((0.0, 2.0, 5.0)).repeat(1500)[None]
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, gradient_noise={"w": torch.full_like(h, sigma / 30)})
    # V stays the first gradient's square, σ²/nβ² times a χ²₁ a coordinate; the answer is the average over it
    node = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    big_a, eps = 30 * np.array([0.0, 2.0, 5.0])[:, None] + 200, steps / (0.5 + sigma / 30 * np.abs(node))
    variance = ((1 + eps * sigma**2 / 4) / (big_a * (1 - eps * big_a / 4))).mean(axis=1)
    truth = 1500 * (15 * np.array([0.0, 2.0, 5.0]) * variance).sum()
    assert harness.sampled_llc(toy, toy.origin, settings) == pytest.approx(truth, rel=TOLERANCE)


@pytest.mark.parametrize("sampler", NAMES)
def test_badly_conditioned(sampler: SamplerName) -> None:
    """A from 0.3 to 3,000, four decades, each direction to its own law.

    The slowest takes thousands of steps: SGLD and Leimkuhler–Matthews are compared on their way (METHOD 3.1, relaxation), the thermostat
    has momentum, RMSProp-SGLD its gradients, and MALA starts from the law and must keep it.
    """
    h, g = np.array([0.01, 0.1, 1.0, 10.0, 100.0]) * (1 - 1e-5), np.array([0.0, 1e-3, 1e-2, 0.1, 1.0])
    change: dict[str, float] = {"localization": 3e-4, "step_size": 1e-3, "burn_in": 800, "draws": 700} | {
        "rmsprop-sgld": {"step_size": 3e-4, "rmsprop_stabilizer": 1e-4, "burn_in": 100, "draws": 300},
        "sgnht": {"burn_in": 2000, "draws": 1500},
        "mala": {"step_size": 3e-4, "burn_in": 600, "draws": 600},
    }.get(sampler, {})
    settings = paper(sampler, **change)
    if sampler in ("sgld", "leimkuhler-matthews"):
        t = np.arange(settings.burn_in + 1, settings.steps)[:, None]
        m, law = exact.relaxing_mean(h, settings, t, g), exact.relaxing_variance(h, settings, t).mean(axis=0)
        mean, law = m.mean(axis=0), law + m.var(axis=0)
    else:
        mean, law = exact.mean(h, settings, g), exact.variance(np.tile(h, 800), settings, gradient=np.tile(g, 800))[: len(h)]
    found_mean, found = harness.moments(settings, h.tolist(), g.tolist(), 4000, spread=law if sampler == "mala" else None)
    np.testing.assert_allclose(found, law, rtol=0.05)  # 4000 copies of the slowest direction, each less than one relaxation: 2.2 % of sd
    np.testing.assert_allclose(found_mean, mean, atol=4 * float(np.sqrt(law.max() / 4000)))
    assert found_mean[-1] == pytest.approx(mean[-1], rel=0.05)


def check_relaxation(sampler: SamplerName, burn_in: int) -> None:
    """`v_t = v_∞ (1 - (1-εA/2)^{2t})` from w*, exponent 2t - 1 for Leimkuhler–Matthews (METHOD 3.1): each draw counts."""
    settings = paper(sampler, draws=5, burn_in=burn_in)
    h = torch.tensor((2.0, 10.0)).repeat(40_000)[None]
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h})
    truth = exact.relaxing_llc((2.0, 10.0), settings).sum() * 40_000
    assert harness.sampled_llc(toy, toy.origin, settings) == pytest.approx(truth, rel=TOLERANCE)


def test_sgld_relaxes_from_w_star() -> None:
    check_relaxation("sgld", burn_in=0)


def test_leimkuhler_matthews_relaxes_from_w_star() -> None:
    check_relaxation("leimkuhler-matthews", burn_in=0)


def test_burn_in_is_left_out() -> None:
    check_relaxation("sgld", burn_in=4)


def check_moments(sampler: SamplerName, **change: float) -> None:
    """Mean and variance of every coordinate by itself, tilted, by driving the pure pair directly."""
    settings = paper(sampler, **change)
    h, g = (0.0, 2.0, 10.0, 30.0, 60.0, 100.0), (0.5, 0.2, 0.5, 1.0, 3.0, 2.0)
    mean, variance = harness.moments(settings, h, g, 12_000)
    np.testing.assert_allclose(variance, exact.variance(h, settings, gradient=g), rtol=TOLERANCE)
    np.testing.assert_allclose(mean, exact.mean(h, settings, g), rtol=TOLERANCE)


def test_sgld_moments_of_every_coordinate() -> None:
    check_moments("sgld")


def test_leimkuhler_matthews_moments_of_every_coordinate() -> None:
    check_moments("leimkuhler-matthews")


def test_rmsprop_sgld_moments_of_every_coordinate() -> None:
    check_moments("rmsprop-sgld")


def test_sgnht_moments_of_every_coordinate() -> None:
    check_moments("sgnht")


def test_mala_moments_of_every_coordinate() -> None:
    check_moments("mala", step_size=4e-4, draws=300, burn_in=150)


def test_sgnht_in_the_limit_of_small_steps() -> None:
    """The target itself, 1/A a coordinate, whatever the diffusion, and in few dimensions too."""
    for diffusion in (0.05, 0.2):
        settings = paper("sgnht", step_size=2e-5, burn_in=1500, draws=1500, thermostat_diffusion=diffusion)
        _, variance = harness.moments(settings, (0.0, 10.0, 60.0), (0.0, 0.0, 0.0), 4000)
        np.testing.assert_allclose(variance, 1 / (30 * np.array([0.0, 10.0, 60.0]) + 200), rtol=TOLERANCE)


@pytest.mark.parametrize("sampler", NAMES)
def test_steps_are_pure(sampler: SamplerName) -> None:
    """No argument of a step is changed, and equal arguments give equal states (ANCHORS, principle 1)."""
    check_pure(sampler)


def check_pure(sampler: SamplerName) -> None:
    settings, method = paper(sampler, bounding_box=0.5), SAMPLERS[sampler]
    potential = harness.Potential(settings, torch.zeros(3, 20))
    state = method.init(torch.randn(3, 20), Draw(torch.randn(3, 20), torch.rand(3)), settings)
    for _ in range(3):
        point = potential.at(state.displacement, torch.randn(3).double(), torch.zeros(3).double(), torch.randn(3, 20))
        arguments = (state, point, Draw(torch.randn(3, 20), torch.rand(3)))
        before = [t.clone() for t in tensors(arguments)]
        once, twice = (method.step(*arguments, settings) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(before, tensors(arguments), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(tensors(once), tensors(twice), strict=True))
        state = once.state


def test_no_sampler_changes_its_arguments() -> None:
    for sampler in NAMES:
        check_pure(sampler)


def tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in value for t in tensors(item)] if isinstance(value, tuple) else []


@pytest.mark.parametrize("sampler", NAMES)
def test_nbeta_zero_samples_the_prior_and_reads_nothing(sampler: SamplerName) -> None:
    settings = paper(sampler, nbeta=0.0, draws=20, burn_in=0)
    toy = Quadratic({"w": torch.zeros(1, 100)}, {"w": torch.ones(1, 100)})
    assert harness.sampled_llc(toy, toy.origin, settings) == 0.0


def check_box(sampler: SamplerName) -> None:
    """Without a loss the law between walls is uniform, of variance b²/3 and nothing beyond b; clamping would pile up mass on the walls."""
    step = 1e-3 if sampler == "rmsprop-sgld" else 0.01
    settings = SamplerSettings(sampler, step, 0.0, 0.0, 4, 300, 80, bounding_box=0.3, rmsprop_stabilizer=0.1)
    _, variance = harness.moments(settings, (0.0,), (0.0,), 4000)
    np.testing.assert_allclose(variance, 0.3**2 / 3, rtol=TOLERANCE)


@pytest.mark.parametrize("sampler", NAMES)
def test_walls_reflect(sampler: SamplerName) -> None:
    check_box(sampler)


def test_leimkuhler_matthews_turns_its_noise_at_a_wall() -> None:
    check_box("leimkuhler-matthews")


@pytest.mark.parametrize("sampler", NAMES)
def test_a_box_holds_what_a_slope_pushes_out(sampler: SamplerName) -> None:
    """`p ∝ exp(-nβ g v)` on [-b, b]: E v = -b (coth s - 1/s) with s = nβ g b, in the limit of small steps."""
    step = {"rmsprop-sgld": 3e-5}.get(sampler, 2e-5)
    settings = SamplerSettings(sampler, step, 0.0, 30.0, 4, 900, 1000, bounding_box=0.1, rmsprop_stabilizer=0.5, rmsprop_decay=1.0)
    mean, _ = harness.moments(settings, (0.0,), (1.0,), 4000)
    s = 3.0
    assert mean[0] == pytest.approx(-0.1 * (1 / np.tanh(s) - 1 / s), rel=0.03)  # a wall leaves an error of order √ε

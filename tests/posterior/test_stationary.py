"""The samplers against the exact answers of METHOD 3.1, 3.1b and relaxation, through the whole room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.posterior import exact, leimkuhler_matthews, sgld
from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import estimate
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerName, SamplerSettings

SAMPLERS = ("sgld", "leimkuhler-matthews")
SPECTRUM = (0.0, 2.0, 10.0, 30.0, 60.0)
TOLERANCE = 0.015  # the noise of every test here is below a third of it


def paper(sampler: str, **change: float) -> SamplerSettings:
    """The settings of METHOD 2."""
    values = {"step_size": 1e-3, "localization": 200.0, "nbeta": 30.0, "chains": 4, "draws": 200, "burn_in": 60} | change
    return SamplerSettings(sampler, **values)  # type: ignore[arg-type]


def repeated(values: tuple[float, ...], times: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).repeat(times)[None]


def sampled_llc(toy: Quadratic, part: tuple[str, ...], settings: SamplerSettings) -> float:
    traces = run_chains(toy, {name: toy.origin[name] for name in part}, range(settings.steps + 1), settings, [range(settings.chains)])
    return estimate(traces)[0].llc


def check_llc(sampler: SamplerName, **change: float) -> None:
    """METHOD 3.1."""
    settings = paper(sampler, **change)
    h = repeated(SPECTRUM, 600)
    toy = Quadratic({"w": torch.full_like(h, 0.1)}, {"w": h}, constant=1.0)
    truth = exact.llc(SPECTRUM, settings).sum() * 600
    assert sampled_llc(toy, ("w",), settings) == pytest.approx(truth, rel=TOLERANCE)


def test_sgld_reads_the_discretised_llc() -> None:
    check_llc("sgld")


def test_leimkuhler_matthews_reads_the_exact_llc() -> None:
    check_llc("leimkuhler-matthews")


def test_sgld_at_small_steps() -> None:
    """METHOD 3.1 where the discretisation hides little: at large ones an error in A partly cancels in `A(1 - εA/4)`."""
    settings = paper("sgld", step_size=2e-4, draws=150)
    h = repeated((30.0, 60.0, 100.0), 1000)
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h})
    assert sampled_llc(toy, ("w",), settings) == pytest.approx(exact.llc((30.0, 60.0, 100.0), settings).sum() * 1000, rel=TOLERANCE)


def check_restricted(sampler: SamplerName) -> None:
    """METHOD 3.1: the sum runs over restricted coordinates only, here two tensors of three, of several axes."""
    settings = paper(sampler)
    a, b = repeated((5.0, 30.0), 500).view(1, 10, 100), repeated((1.0, 60.0), 300).view(1, 2, 3, 100)
    curvature = {"a": a, "held": repeated((40.0,), 100), "b": b}
    toy = Quadratic({name: torch.randn_like(h) for name, h in curvature.items()}, curvature)
    truth = exact.llc((5.0, 30.0), settings).sum() * 500 + exact.llc((1.0, 60.0), settings).sum() * 300
    assert sampled_llc(toy, ("a", "b"), settings) == pytest.approx(truth, rel=TOLERANCE)


def test_restricted_sgld() -> None:
    check_restricted("sgld")


def test_restricted_leimkuhler_matthews() -> None:
    check_restricted("leimkuhler-matthews")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tilted_quadratic(sampler: SamplerName) -> None:
    """METHOD 3.1b, where the gradient at w* makes λ̂ negative."""
    settings = paper(sampler)
    h, g = (0.0, 2.0, 10.0, 30.0), (0.4, 0.6, 1.0, 2.0)
    toy = Quadratic({"w": torch.zeros(1, 2400)}, {"w": repeated(h, 600)}, {"w": repeated(g, 600)})
    truth = exact.llc(h, settings, g)
    assert (truth < 0).sum() >= 2
    assert sampled_llc(toy, ("w",), settings) == pytest.approx(truth.sum() * 600, rel=TOLERANCE)


def check_minibatch_noise(sampler: SamplerName) -> None:
    """METHOD 2: gradient noise adds `εσ²/(4A(1-εA/4))` to a coordinate's variance in both samplers."""
    settings = paper(sampler, burn_in=40)
    sigma = 60.0  # of nβ ĝ_i; nearly doubles the variance
    h = repeated(SPECTRUM, 800)
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, gradient_noise={"w": torch.full_like(h, sigma / settings.nbeta)})
    truth = exact.llc(SPECTRUM, settings, noise_variance=sigma**2)
    assert truth.sum() > 1.5 * exact.llc(SPECTRUM, settings).sum()
    assert sampled_llc(toy, ("w",), settings) == pytest.approx(truth.sum() * 800, rel=TOLERANCE)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_minibatch_noise(sampler: SamplerName) -> None:
    check_minibatch_noise(sampler)


def check_relaxation(sampler: SamplerName, burn_in: int) -> None:
    """`v_t = v_∞ (1 - (1-εA/2)^{2t})` from w*, exponent 2t - 1 for Leimkuhler–Matthews (METHOD 3.1): each draw counts."""
    settings = paper(sampler, draws=5, burn_in=burn_in)
    h = repeated((2.0, 10.0), 40_000)
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h})
    truth = exact.relaxing_llc((2.0, 10.0), settings).sum() * 40_000
    assert sampled_llc(toy, ("w",), settings) == pytest.approx(truth, rel=TOLERANCE)


def test_sgld_relaxes_from_w_star() -> None:
    check_relaxation("sgld", burn_in=0)


def test_leimkuhler_matthews_relaxes_from_w_star() -> None:
    check_relaxation("leimkuhler-matthews", burn_in=0)


def test_burn_in_is_left_out() -> None:
    check_relaxation("sgld", burn_in=4)


def check_moments(sampler: SamplerName) -> None:
    """Mean and variance of every coordinate by itself, tilted, by driving the pure pair directly."""
    method = {"sgld": sgld, "leimkuhler-matthews": leimkuhler_matthews}[sampler]
    settings = paper(sampler)
    h = torch.tensor([0.0, 2.0, 10.0, 30.0, 60.0, 100.0])
    g = torch.tensor([0.5, 0.2, 0.5, 1.0, 3.0, 2.0])
    generator = torch.Generator().manual_seed(1)
    rows, total, squares, kept = 12_000, torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64), 0

    def noise() -> torch.Tensor:
        return torch.randn(rows, 6, generator=generator)

    state = method.init(torch.zeros(rows, 6), noise())
    for t in range(200):
        state = method.step(state, g + h * state.displacement, noise(), settings)  # type: ignore[arg-type]
        if t >= 60:
            total += state.displacement.double().sum(0)
            squares += state.displacement.double().square().sum(0)
            kept += rows
    mean = (total / kept).numpy()
    variance = (squares / kept).numpy() - mean**2
    np.testing.assert_allclose(variance, exact.variance(h.numpy(), settings), rtol=TOLERANCE)
    np.testing.assert_allclose(mean, exact.mean(h.numpy(), settings, g.numpy()), rtol=TOLERANCE)


def test_sgld_moments_of_every_coordinate() -> None:
    check_moments("sgld")


def test_leimkuhler_matthews_moments_of_every_coordinate() -> None:
    check_moments("leimkuhler-matthews")


def test_steps_are_pure() -> None:
    """No argument of a step is changed, and equal arguments give equal states (ANCHORS, principle 1)."""
    settings = paper("sgld")
    for method in (sgld, leimkuhler_matthews):
        displacement, noise, gradient, new = torch.randn(4, 3, 20).unbind(0)
        copies = [tensor.clone() for tensor in (displacement, noise, gradient, new)]
        state = method.init(displacement, noise)
        once, twice = (method.step(state, gradient, new, settings) for _ in range(2))  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(copies, (displacement, noise, gradient, new), strict=True))
        assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nbeta_zero_samples_the_prior_and_reads_nothing(sampler: SamplerName) -> None:
    settings = paper(sampler, nbeta=0.0, draws=20, burn_in=0)
    toy = Quadratic({"w": torch.zeros(1, 100)}, {"w": torch.ones(1, 100)})
    assert sampled_llc(toy, ("w",), settings) == 0.0

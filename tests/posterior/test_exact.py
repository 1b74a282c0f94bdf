"""The closed forms against the recursions of mean and variance that define them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.posterior import exact
from rllc.posterior.settings import SamplerSettings

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0)
H = np.array([0.0, 1.0, 20.0, 60.0, 100.0, 120.0, -3.0])
G = np.array([0.5, 0.0, 1.0, 2.0, 0.1, 0.3, 0.2])
SIGMA2 = np.array([0.0, 100.0, 1000.0, 0.0, 10.0, 500.0, 3.0])


def recursion(settings: SamplerSettings, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of v_t by propagating first and second moments of (v, ξ) one step at a time."""
    big_a, eps = settings.nbeta * H + settings.localization, settings.step_size
    a = 1 - eps * big_a / 2
    mean, var, cov = np.zeros_like(H), np.zeros_like(H), np.zeros_like(H)  # cov = Cov(v_t, ξ_t)
    for _ in range(t):
        mean = a * mean - eps / 2 * settings.nbeta * G
        if settings.sampler == "sgld":
            var = a**2 * var + eps + eps**2 / 4 * SIGMA2
        else:
            var = a**2 * var + eps / 2 + a * np.sqrt(eps) * cov + eps**2 / 4 * SIGMA2
            cov = np.full_like(H, np.sqrt(eps) / 2)
    return mean, var


@pytest.mark.parametrize("sampler", ["sgld", "leimkuhler-matthews"])
@pytest.mark.parametrize("t", [1, 2, 7, 5000])
def test_moments_are_those_of_the_recursion(sampler: str, t: int) -> None:
    settings = replace(PAPER, sampler=sampler)
    mean, var = recursion(settings, t)
    np.testing.assert_allclose(exact.relaxing_mean(H, settings, t, G), mean, rtol=1e-10)
    np.testing.assert_allclose(exact.relaxing_variance(H, settings, t, SIGMA2), var, rtol=1e-10)
    if t == 5000:
        np.testing.assert_allclose(exact.mean(H, settings, G), mean, rtol=1e-10)
        np.testing.assert_allclose(exact.variance(H, settings, SIGMA2), var, rtol=1e-10)


def test_llc_is_the_formula_of_the_method() -> None:
    """METHOD 3.1 and 3.1b, written out."""
    big_a = 30 * H + 200
    lm = replace(PAPER, sampler="leimkuhler-matthews")
    np.testing.assert_allclose(exact.llc(H, PAPER), 0.5 * 30 * H / (big_a * (1 - 1e-3 * big_a / 4)))
    np.testing.assert_allclose(exact.llc(H, lm), 0.5 * 30 * H / big_a)
    np.testing.assert_allclose(exact.llc(H, lm, G), 0.5 * 30 * H / big_a - 900 * G**2 * (15 * H + 200) / big_a**2)


def test_what_the_paper_s_settings_do() -> None:
    """METHOD 3.1: 5 % high on flat directions, 100 % high at h = 60, about 2 % low without burn-in over 200 draws."""
    lm = replace(PAPER, sampler="leimkuhler-matthews")
    np.testing.assert_allclose(exact.llc(1e-6, PAPER) / exact.llc(1e-6, lm), 1.0526, rtol=1e-4)
    np.testing.assert_allclose(exact.llc(60.0, PAPER) / exact.llc(60.0, lm), 2.0)
    np.testing.assert_allclose(exact.relaxing_llc(1e-6, PAPER) / exact.llc(1e-6, PAPER), 0.979, atol=2e-3)


@pytest.mark.parametrize("burn_in", [0, 3])
def test_relaxing_llc_averages_the_kept_draws(burn_in: int) -> None:
    settings = replace(PAPER, draws=5, burn_in=burn_in)
    moments = [recursion(settings, t) for t in range(burn_in + 1, burn_in + 6)]
    by_hand = np.mean([30 * (G * m + H * (v + m**2) / 2) for m, v in moments], axis=0)
    np.testing.assert_allclose(exact.relaxing_llc(H, settings, G, SIGMA2), by_hand, rtol=1e-10)


@pytest.mark.parametrize("h", [127.0, -7.0])
def test_no_stationary_law(h: float) -> None:
    with pytest.raises(RllcError, match="has no stationary law"):
        exact.llc([0.0, h], PAPER)


def thermostat_by_recursion(h: np.ndarray, settings: SamplerSettings, noise: float) -> np.ndarray:
    """Second moments of (v, u) stepped on to their end, with the friction that one integrates until A E v² averages 1."""
    big_a, eps = settings.nbeta * h + settings.localization, settings.step_size
    vv, vu, uu, alpha = np.zeros_like(h), np.zeros_like(h), np.full_like(h, eps / 2), settings.thermostat_diffusion
    kick = eps * settings.thermostat_diffusion + eps**2 / 4 * noise
    for _ in range(60_000):
        f, k = 1 - alpha, eps * big_a / 2
        uu_new = f**2 * uu - 2 * f * k * vu + k**2 * vv + kick
        cross = f * vu - k * vv  # E[v u']
        vv, vu, uu = vv + 2 * cross + uu_new, cross + uu_new, uu_new
        alpha += 1e-3 * ((2 - alpha) * uu.mean() / eps - 1)
    return vv


@pytest.mark.parametrize("noise", [0.0, 400.0])
def test_the_thermostat_s_law_is_that_of_its_recursion(noise: float) -> None:
    settings = replace(PAPER, sampler="sgnht")
    h = np.array([0.0, 1.0, 20.0, 60.0])
    np.testing.assert_allclose(exact.variance(h, settings, noise), thermostat_by_recursion(h, settings, noise), rtol=1e-6)
    with pytest.raises(RllcError, match="No friction of the thermostat takes up so much heat"):
        exact.variance(h, settings, 1e5)


def test_laws_of_the_other_samplers() -> None:
    settings = replace(PAPER, sampler="rmsprop-sgld", rmsprop_decay=1.0, rmsprop_stabilizer=1.0)
    as_sgld = replace(PAPER, step_size=1e-3 / 1.5)
    np.testing.assert_allclose(exact.variance(20.0, settings, 30.0, gradient=-0.5), exact.variance(20.0, as_sgld, 30.0))
    np.testing.assert_allclose(exact.variance(H, replace(PAPER, sampler="mala")), 1 / (30 * H + 200))
    with pytest.raises(RllcError, match="only where its second moment is frozen"):
        exact.variance(20.0, replace(settings, rmsprop_decay=0.99))
    with pytest.raises(RllcError, match="MALA on minibatches has no known law"):
        exact.variance(20.0, replace(PAPER, sampler="mala"), 3.0)
    with pytest.raises(RllcError, match="relaxation of sgnht has no closed form"):
        exact.relaxing_variance(20.0, replace(PAPER, sampler="sgnht"), 3)


def test_weight_decay_shifts_and_stiffens() -> None:
    settings = replace(PAPER, weight_decay=50.0)
    np.testing.assert_allclose(exact.mean(20.0, settings, 2.0, origin=3.0), -(60.0 + 150.0) / 850)
    np.testing.assert_allclose(exact.llc(20.0, settings, 2.0, origin=3.0), 30 * (2 * -210 / 850 + 10 * ((210 / 850) ** 2 + 1 / (850 * (1 - 0.2125)))))


def test_a_preconditioned_step_is_judged_by_what_it_is() -> None:
    """ε·A = 5.2 raw, 0.52 behind a stabilizer of 10: there is a law, and none where the stabilizer is small."""
    settings = replace(PAPER, sampler="rmsprop-sgld", rmsprop_decay=1.0, rmsprop_stabilizer=10.0, step_size=6.5e-3)
    np.testing.assert_allclose(exact.variance(20.0, settings), exact.variance(20.0, replace(PAPER, step_size=6.5e-4)))
    with pytest.raises(RllcError, match="has no stationary law"):
        exact.variance(20.0, replace(settings, rmsprop_stabilizer=0.5))

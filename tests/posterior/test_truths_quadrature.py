"""Quadrature against closed forms and against itself by another road."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import dblquad, quad

from rllc.core.errors import RllcError
from rllc.posterior.truths.quadrature import Prior, expected, normal_crossing, separable

PRECISE = 1e-8


@pytest.mark.parametrize("nbeta", [1e-3, 30.0, 1e6])
def test_a_quadratic_has_a_closed_form(nbeta: float) -> None:
    """½ nβh/(nβh + γ) with l = ½ h v²."""
    for h, gamma in ((0.1, 200.0), (3.0, 1e3), (60.0, 1e-3)):
        closed = 0.5 * nbeta * h / (nbeta * h + gamma)
        assert normal_crossing([2.0], nbeta, Prior(gamma), coefficient=h / 2) == pytest.approx(closed, rel=PRECISE)
        if nbeta * h < 1e4 * gamma:  # an even grid must see the peak
            assert expected(lambda v, h=h: h / 2 * v[:, 0] ** 2, 1, nbeta, Prior(gamma)) == pytest.approx(closed, rel=PRECISE)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_a_monomial_under_a_flat_prior_has_its_coefficient_at_every_temperature(k: int) -> None:
    """METHOD 3.3: 1/(2k)."""
    for nbeta in (1e-2, 1.0, 1e8):
        assert normal_crossing([2.0 * k], nbeta) == pytest.approx(1 / (2 * k), rel=PRECISE)
    assert normal_crossing([2.0 * k], 10.0, Prior(box=1e3)) == pytest.approx(1 / (2 * k), rel=PRECISE)


def test_a_quadratic_in_a_box() -> None:
    """½ - b e^{-nβb²} √(nβ/π)/erf(b√nβ), by parts."""
    for nbeta, box in ((1.0, 0.5), (30.0, 0.3), (30.0, 2.0)):
        edge = math.sqrt(nbeta) * box
        closed = 0.5 - edge * math.exp(-(edge**2)) / (math.sqrt(math.pi) * math.erf(edge))
        assert normal_crossing([2.0], nbeta, Prior(box=box)) == pytest.approx(closed, rel=PRECISE)


def test_powers_that_are_not_even() -> None:
    """METHOD 3.3: Σ 1/p_i under a flat prior; with localisation against an integral taken elsewhere."""
    assert separable([1.0, 1.5, 3.0], 7.0) == pytest.approx(1 + 1 / 1.5 + 1 / 3, rel=PRECISE)
    nbeta, gamma, power = 20.0, 5.0, 1.5
    mass = quad(lambda v: math.exp(-nbeta * v**power - gamma / 2 * v**2), 0, 10, epsrel=1e-11)[0]
    moment = quad(lambda v: nbeta * v**power * math.exp(-nbeta * v**power - gamma / 2 * v**2), 0, 10, epsrel=1e-11)[0]
    assert separable([power, power], nbeta, Prior(gamma)) == pytest.approx(2 * moment / mass, rel=1e-8)


@pytest.mark.parametrize(("powers", "prior"), [([2.0, 2.0], Prior(box=1.0)), ([2.0, 4.0], Prior(3.0)), ([6.0, 2.0], Prior(0.5, 1.5))])
def test_normal_crossings_of_two_on_a_grid(powers: list[float], prior: Prior) -> None:
    def loss(v: np.ndarray) -> np.ndarray:
        return 2 * v[:, 0] ** powers[0] * v[:, 1] ** powers[1]

    assert normal_crossing(powers, 200.0, prior, coefficient=2.0) == pytest.approx(expected(loss, 2, 200.0, prior), rel=1e-8)


def test_normal_crossings_against_an_adaptive_integral() -> None:
    nbeta = 100.0

    def integrand(y: float, x: float, moment: bool) -> float:
        energy = nbeta * x**2 * y**2
        return (energy if moment else 1.0) * math.exp(-energy)

    sides = [dblquad(integrand, 0, 1, 0, 1, args=(moment,), epsabs=1e-12, epsrel=1e-10)[0] for moment in (True, False)]
    assert normal_crossing([2.0, 2.0], nbeta, Prior(box=1.0)) == pytest.approx(sides[0] / sides[1], rel=1e-8)
    assert sides[0] / sides[1] == pytest.approx(0.35, abs=5e-3)  # METHOD 3.3: as yet far from ½


def test_three_factors() -> None:
    """In any order, and against a grid in three dimensions."""
    prior = Prior(3.0, 0.7)
    one, other = normal_crossing([2.0, 4.0, 3.0], 1e3, prior), normal_crossing([3.0, 2.0, 4.0], 1e3, prior)
    assert one == pytest.approx(other, rel=1e-8)
    nodes, weights = np.polynomial.legendre.leggauss(80)
    x, weights = 0.5 + nodes / 2, weights / 2
    energy = 100.0 * np.einsum("i,j,k->ijk", x**2, x**2, x**4)
    density = np.einsum("i,j,k->ijk", weights, weights, weights) * np.exp(-energy)
    truth = float((density * energy).sum() / density.sum())
    assert normal_crossing([2.0, 4.0, 2.0], 100.0, Prior(box=1.0)) == pytest.approx(truth, rel=1e-8)


def test_normal_crossings_tend_to_the_smallest_reciprocal() -> None:
    """METHOD 3.3: λ = min 1/(2k_i), m = 2 for a tie, whence the gap `(m - 1)/log nβ`."""
    prior = Prior(box=1.0)
    assert normal_crossing([2.0, 4.0], 1e30, prior) == pytest.approx(0.25, abs=1e-6)
    for log_nbeta in (60.0, 120.0):
        gap = 0.5 - normal_crossing([2.0, 2.0], math.exp(log_nbeta), prior)
        assert gap == pytest.approx(1 / log_nbeta, rel=0.1)


def test_a_cusp_tends_to_five_twelfths() -> None:
    """The log canonical threshold of x² - y³ is 5/6: λ of its square falls towards half of it as the temperature does."""
    values = [expected(lambda v: (v[:, 0] ** 2 - v[:, 1] ** 3) ** 2, 2, nbeta, Prior(box=1.0)) for nbeta in (1e2, 1e3, 1e4)]
    assert all(abs(after - 5 / 12) < abs(before - 5 / 12) for before, after in pairwise(values))
    assert values[-1] == pytest.approx(5 / 12, abs=0.05)


def test_a_tilted_loss() -> None:
    """METHOD 3.1b by quadrature: the loss may fall below that of w*."""
    nbeta, gamma, g, h = 30.0, 50.0, 1.5, 4.0
    a = nbeta * h + gamma
    closed = 0.5 * nbeta * h / a - (nbeta * g) ** 2 * (0.5 * nbeta * h + gamma) / a**2
    assert closed < 0
    assert expected(lambda v: g * v[:, 0] + h / 2 * v[:, 0] ** 2, 1, nbeta, Prior(gamma)) == pytest.approx(closed, rel=1e-8)


def test_without_temperature_there_is_nothing() -> None:
    assert normal_crossing([2.0, 2.0], 0.0, Prior(1.0)) == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RllcError, match="no posterior under a flat prior"):
        normal_crossing([2.0, 2.0], 10.0)
    with pytest.raises(RllcError, match="one or two parameters"):
        expected(lambda v: v[:, 0] ** 2, 1, 10.0, Prior())
    with pytest.raises(RllcError, match="too narrow for a grid"):
        expected(lambda v: (v[:, 0] - 0.1) ** 2, 1, 1e18, Prior(box=1.0))
    with pytest.raises(RllcError, match="is none"):
        Prior(localization=-1.0)

"""λ of low-dimensional posteriors by numerical quadrature: `nβ E[l]` under `p(v) ∝ exp{-nβ l(v) - (γ/2)‖v‖²}`, in a box `|v_i| ≤ b` if need be.

These are the values at finite temperature and with localisation, which a chain must meet; the asymptotic learning coefficient is their limit at
nβ → ∞ and γ → 0, reached as slowly as `1/log nβ` where several factors tie (METHOD 3.3). numpy and scipy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline  # pyright: ignore[reportMissingTypeStubs]

from rllc.core.errors import RllcError
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

_LAST = 45.0  # the exponent beyond which nothing is integrated: e^-45 of the density
_FIRST = 25.0  # how far below its natural scale log v goes: e^-25 of the mass
_DECADES = 35.0  # from there up to the last: a scale lies at most log 45 below the end that its exponent reaches
_SPACING = 0.04  # of the table in log κ


@dataclass(frozen=True)
class Prior:
    """What keeps the posterior together: a Gaussian of strength γ around w*, and a box of half-width b, seen from w*."""

    localization: float = 0.0  # γ
    box: float = math.inf  # b

    def __post_init__(self) -> None:
        if not (self.localization >= 0 and math.isfinite(self.localization) and self.box > 0):
            raise RllcError(
                f"A prior of localization {self.localization} in a box of {self.box} is none.", "Give localization ≥ 0 and a box above 0."
            )

    @property
    def end(self) -> float:
        """Where the prior ends for all that fp64 can see."""
        return min(self.box, math.sqrt(2 * _LAST / self.localization) if self.localization else math.inf)


def separable(powers: Sequence[float], nbeta: float, prior: Prior | None = None, coefficient: float = 1.0) -> float:
    """λ of `l = c Σ_i |v_i|^{p_i}`: a sum over coordinates; `Σ_i 1/p_i` under a flat prior.

    >>> round(separable([2.0, 4.0], 30.0), 9)
    0.75
    """
    return sum(normal_crossing([power], nbeta, prior, coefficient) for power in powers)


def normal_crossing(powers: Sequence[float], nbeta: float, prior: Prior | None = None, coefficient: float = 1.0) -> float:
    """λ of `l = c Π_i |v_i|^{p_i}`, which tends to `min_i 1/p_i`.

    With `Z_d(κ) = ∫ exp{-κ Π_{i≤d} |v_i|^{p_i}} π(v) dv` it is `-κ Z_d'/Z_d` at `κ = nβ c`. As `Z_d(κ) = ∫ Z_{d-1}(κ|v|^{p_d}) π(v) dv`, and the
    same of `D_d = -κ Z_d'`, each factor is one integral over log v of functions of log κ that were tabulated before.

    Raises:
        RllcError: nothing bounds a posterior of several factors.
    """
    prior = prior or Prior()
    if len(powers) > 1 and math.isinf(prior.end):
        raise RllcError("A product of several powers has no posterior under a flat prior without bounds.", "Give a localization or a box.")
    if nbeta * coefficient == 0:
        return 0.0
    log_kappa = math.log(nbeta * coefficient)
    z, d = _integrals(powers, np.array([log_kappa]), prior)
    return float(d[0] / z[0])


def expected(
    loss: Callable[[Float[Floats, "n dimension"]], Float[Floats, " n"]], dimension: int, nbeta: float, prior: Prior, *, tolerance: float = 1e-8
) -> float:
    """λ of any smooth loss of one or two parameters, `l(0) = 0`, for whatever ridges it has: panels are halved until λ stays.

    Args:
        loss: of v = w - w*, one row a point.
        dimension: 1 or 2.
        nbeta: nβ.
        prior: must bound the posterior.
        tolerance: relative change between the last two refinements, far above the error of the finer one.

    Raises:
        RllcError: nothing bounds the posterior, or it is too narrow for the finest grid.
    """
    if dimension not in (1, 2) or math.isinf(prior.end):
        raise RllcError("Quadrature is for one or two parameters under a prior that bounds them.", "Give a localization or a box.")
    before, nodes = math.nan, 64
    while nodes <= (2**22, 2**12)[dimension - 1]:
        # the axes differ in their nodes, so that no ridge along a diagonal meets one in every row
        axes = [_panels(-prior.end, prior.end, number) for number in (nodes // 16, 3 * nodes // 32)[:dimension]]
        now = _grid_expectation(loss, axes, nbeta, prior.localization)
        if abs(now - before) <= tolerance * abs(now):
            return now
        before, nodes = now, nodes * 2
    raise RllcError(f"The posterior at nβ = {nbeta:g} is too narrow for a grid in a box of {prior.end:g}.", "Lower nbeta, or the box.")


def _grid_expectation(loss: Callable[[Floats], Floats], axes: Sequence[tuple[Floats, Floats]], nbeta: float, localization: float) -> float:
    """nβ E[l] on the grid of (nodes, weights) an axis, row by row; NaN where all nodes miss the posterior."""
    mass = moment = 0.0
    x, weights = axes[-1]
    for y, weight in zip(*axes[0], strict=True) if len(axes) == 2 else [(None, 1.0)]:
        points = x[:, None] if y is None else np.stack([np.full_like(x, y), x], axis=1)
        energy = nbeta * loss(points)
        density = weight * weights * np.exp(-energy - localization / 2 * (points**2).sum(axis=1))
        mass, moment = mass + float(density.sum()), moment + float(density @ energy)
    return moment / mass if mass else math.nan


def _integrals(powers: Sequence[float], log_kappa: Float[Floats, " k"], prior: Prior) -> tuple[Float[Floats, " k"], Float[Floats, " k"]]:
    """Z and D at each κ, over positive v alone: the loss is even in each."""
    if len(powers) == 1:
        return _innermost(powers[0], log_kappa, prior)
    # where the last v is so small that the product cannot matter at the coldest κ, whatever the other factors, the integrand falls with v itself
    exponent = float(log_kappa.max()) + sum(powers) * math.log(prior.end)
    u, weights = _log_panels(math.log(prior.end) - max(0.0, exponent) / powers[-1] - _FIRST, math.log(prior.end), powers[-1])
    weights = weights * np.exp(u - prior.localization / 2 * np.exp(2 * u))
    shift = powers[-1] * u
    table = np.arange(log_kappa.min() + shift.min(), log_kappa.max() + shift.max() + _SPACING, _SPACING)
    z, d = _integrals(powers[:-1], table, prior)
    log_z, log_d = CubicSpline(table, np.log(z)), CubicSpline(table, np.log(d))
    rows = [(weights @ np.exp(log_z(k + shift)), weights @ np.exp(log_d(k + shift))) for k in log_kappa]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def _innermost(power: float, log_kappa: Float[Floats, " k"], prior: Prior) -> tuple[Float[Floats, " k"], Float[Floats, " k"]]:
    """`∫ e^{-κv^p} π(v) dv` and `∫ κv^p e^{-κv^p} π(v) dv` over v > 0, each on a grid of log v that ends where its own integrand does."""
    offsets, weights = _log_panels(-_DECADES, 0.0, power)
    z, d = np.empty_like(log_kappa), np.empty_like(log_kappa)
    for i, k in enumerate(log_kappa):
        u = min((math.log(_LAST) - k) / power, math.log(prior.end) if math.isfinite(prior.end) else math.inf) + offsets
        energy = np.exp(k + power * u)
        density = weights * np.exp(u - energy - prior.localization / 2 * np.exp(2 * u))
        z[i], d[i] = density.sum(), density @ energy
    return z, d


def _log_panels(start: float, end: float, power: float) -> tuple[Float[Floats, " nodes"], Float[Floats, " nodes"]]:
    """On an axis of log v, where v^p moves by at most e³ within a panel."""
    return _panels(start, end, math.ceil(max(2.0, power / 3) * (end - start)))


def _panels(start: float, end: float, number: int) -> tuple[Float[Floats, " nodes"], Float[Floats, " nodes"]]:
    """Nodes and weights of Gauss–Legendre quadrature, 16 on each of so many equal panels."""
    edges = np.linspace(start, end, 1 + number)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return ((edges[:-1, None] + half) + half * nodes).ravel(), (half * weights).ravel()

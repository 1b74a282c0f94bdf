"""What SGLD's finite step makes of one-dimensional posteriors: the stationary law of the chain itself, from its transition kernel. numpy only.

Quadratics have closed forms (`exact`). For any other potential the chain `v' = v - (ε/2)U'(v) + √ε ξ` still has a Gaussian transition kernel, and its
stationary density p solves `p(y) = ∫ N(y; v - (ε/2)U'(v), ε) p(v) dv`, here on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

_LAST = 40.0  # the exponent of the density at which the grid ends
_NODES = 6.0  # of the grid, per √ε: the trapezoidal rule is exact to e^{-2π²·36} on a Gaussian as wide as that


def separable(powers: Sequence[float], settings: SamplerSettings, coefficient: float = 1.0) -> float:
    """λ̂ that SGLD reads of `l = c Σ_i |v_i|^{p_i}` at its step size; a sum over coordinates.

    RMSProp-SGLD is SGLD with step ε/stabilizer while its second moment is negligible beside the stabilizer.

    A steep potential has no stationary law for any step: far out a step overshoots by more than it came. What chains show is the law before that
    ever happens, and the grid ends where the density is e^-40, before it can.
    """
    return sum(_one(power, settings, coefficient) for power in powers)


def _one(power: float, settings: SamplerSettings, coefficient: float) -> float:
    nbeta, gamma, eps = settings.nbeta * coefficient, settings.localization, settings.largest_step
    end = min(math.pow(_LAST / nbeta, 1 / power), math.sqrt(2 * _LAST / gamma) if gamma else math.inf)
    # at least as many nodes as the density itself needs, and a step's width more at the end
    end += 4 * math.sqrt(eps)
    v = np.linspace(0, end, 1 + max(400, math.ceil(_NODES * end / math.sqrt(eps))))
    weights = np.full_like(v, v[1])
    weights[[0, -1]] /= 2
    force = nbeta * power * v ** (power - 1) + gamma * v
    law = _stationary(v, weights, v - eps / 2 * force, eps)
    return float(nbeta * (law * weights) @ v**power)


def _stationary(v: Float[Floats, " n"], weights: Float[Floats, " n"], ahead: Float[Floats, " n"], eps: float) -> Float[Floats, " n"]:
    """The density over v ≥ 0 of an even law: what arrives at -y arrives at y."""

    def kernel(distance: Floats) -> Floats:
        return np.exp(-(distance**2) / (2 * eps)) / math.sqrt(2 * math.pi * eps)

    arrives = (kernel(v[:, None] - ahead) + kernel(v[:, None] + ahead)) * weights  # [to, from]
    equations = arrives - np.eye(len(v))
    # the mass of the last node is the least worth an equation of its own; in its place all mass adds up to one
    equations[-1] = weights
    right = np.zeros_like(v)
    right[-1] = 1.0
    return np.asarray(np.linalg.solve(equations, right), np.float64)

"""What the samplers must return on quadratics (METHOD 3.1, 3.1b, relaxation). numpy only.

The loss is `l = Σ_i g_i v_i + ½ h_i v_i²` with v = w - w*, and `A_i = nβh_i + γ + κ`. Coordinates are independent, so every function
works one by one: shapes are those of `curvature`, and the λ̂ of a part is the sum over its coordinates. `noise_variance` is
`σ² = Var(nβ ĝ_i)` of one minibatch, taken as independent of w; `origin` is w*, which matters to a weight decay κ alone.

The thermostat's friction couples the coordinates: for it `curvature` must be the whole part, and the answer is that of many coordinates.
RMSProp-SGLD has an answer where its V is frozen, as `ĝ(w*)² = g²`.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from rllc.core.errors import RllcError
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats


def _pull(curvature: ArrayLike, settings: SamplerSettings) -> Floats:
    """A; raises RllcError where nothing holds a direction."""
    return _checked(settings.nbeta * np.asarray(curvature, np.float64) + settings.precision, math.inf)


def _stable(curvature: ArrayLike, settings: SamplerSettings, step: ArrayLike | None = None) -> Floats:
    """A; raises RllcError where steps of `step`, ε unless told otherwise, have no stationary law."""
    a, eps = _pull(curvature, settings), np.asarray(settings.step_size if step is None else step, np.float64)
    _checked(eps * a, math.inf if settings.sampler == "mala" else 8.0 if settings.sampler == "sgnht" else 4.0)
    return a


def _checked(values: Floats, limit: float) -> Floats:
    if (values <= 0).any() or (values >= limit).any():
        raise RllcError(
            f"A quadratic with nβh + γ, or ε times that, from {values.min():g} to {values.max():g} has no stationary law.",
            f"Choose curvature and settings with all of them between 0 and {limit:g}.",
        )
    return values


def mean(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0, origin: ArrayLike = 0.0) -> Floats:
    """Stationary mean of v: `-(nβ g + κ w*)/A`, whatever the sampler and the step size."""
    pull = settings.nbeta * np.asarray(gradient, np.float64) + settings.weight_decay * np.asarray(origin, np.float64)
    return -pull / _pull(curvature, settings)


def variance(curvature: ArrayLike, settings: SamplerSettings, noise_variance: ArrayLike = 0.0, gradient: ArrayLike = 0.0) -> Floats:
    """Stationary variance of v: `1/(A(1-εA/4))` for SGLD, `1/A` for Leimkuhler–Matthews, and `εσ²/(4A(1-εA/4))` of minibatch noise in both.

    For RMSProp-SGLD with `G = 1/(stabilizer + |g|)` as for SGLD with εG in place of ε; for MALA `1/A` on full batches; for the thermostat
    as its module says.
    """
    if settings.sampler in ("sgld", "leimkuhler-matthews"):
        return relaxing_variance(curvature, settings, np.inf, noise_variance)
    heat = np.asarray(noise_variance, np.float64)
    if settings.sampler == "sgnht":
        return _thermostat_variance(_stable(curvature, settings), settings, heat)
    if settings.sampler == "mala":
        if heat.any():
            raise RllcError("MALA on minibatches has no known law.", "Give it full batches.")
        return 1 / _pull(curvature, settings)
    if settings.rmsprop_decay != 1:
        raise RllcError("RMSProp-SGLD has a known law only where its second moment is frozen.", "Set rmsprop_decay to 1.")
    eps = settings.step_size / (settings.rmsprop_stabilizer + np.abs(np.asarray(gradient, np.float64)))
    big_a = _stable(curvature, settings, eps)
    return (1 + eps * heat / 4) / (big_a * (1 - eps * big_a / 4))


def _thermostat_variance(big_a: Floats, settings: SamplerSettings, heat: Floats) -> Floats:
    """`E u² (2-α)/(εA)` with `E u² = (εa + (ε²/4)σ²)/(α(2 - α - εA/4))` and the friction α at which `A E v²` averages 1."""
    eps = settings.step_size

    def warmth(friction: float) -> Floats:
        """A E v²."""
        return (settings.thermostat_diffusion + eps / 4 * heat) * (2 - friction) / (friction * (2 - friction - eps * big_a / 4))

    # falls from the left, rises again where the stiffest direction loses its hold
    possible = np.linspace(0, 2 - float((eps * big_a / 4).max()), 1002)[1:-1]
    coldest = float(min(possible, key=lambda friction: warmth(float(friction)).mean()))
    if warmth(coldest).mean() > 1:
        raise RllcError("No friction of the thermostat takes up so much heat.", "Choose a smaller step size or diffusion.")

    def excess(friction: float) -> float:
        return float(warmth(friction).mean()) - 1

    root: Any = cast(Any, brentq)  # its annotations allow for a second result
    return warmth(float(root(excess, 1e-9, coldest))) / big_a


def relaxing_mean(curvature: ArrayLike, settings: SamplerSettings, t: ArrayLike, gradient: ArrayLike = 0.0, origin: ArrayLike = 0.0) -> Floats:
    """Mean of v after t steps from w*, of SGLD and Leimkuhler–Matthews."""
    a = 1 - settings.step_size * _stable(curvature, settings) / 2
    return mean(curvature, settings, gradient, origin) * (1 - _power(a, t))


def relaxing_variance(curvature: ArrayLike, settings: SamplerSettings, t: ArrayLike, noise_variance: ArrayLike = 0.0) -> Floats:
    """Variance of v after t ≥ 1 steps from w*: `v_∞(1 - (1-εA/2)^{2t})`; of Leimkuhler–Matthews' own noise, exponent 2t - 1."""
    if settings.sampler not in ("sgld", "leimkuhler-matthews"):
        raise RllcError(f"The relaxation of {settings.sampler} has no closed form here.", "Ask for SGLD or Leimkuhler–Matthews.")
    big_a, eps = _stable(curvature, settings), settings.step_size
    a = 1 - eps * big_a / 2
    steps = np.asarray(t, np.float64)
    discretised = 1 / (big_a * (1 - eps * big_a / 4))
    own = discretised * (1 - _power(a, 2 * steps)) if settings.sampler == "sgld" else (1 - _power(a, 2 * steps - 1)) / big_a
    return own + eps / 4 * np.asarray(noise_variance, np.float64) * discretised * (1 - _power(a, 2 * steps))


def llc(
    curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0, noise_variance: ArrayLike = 0.0, origin: ArrayLike = 0.0
) -> Floats:
    """λ̂ of each coordinate at stationarity (METHOD 3.1 and 3.1b).

    >>> flat = SamplerSettings("leimkuhler-matthews", 1e-3, 200.0, 30.0, 4, 200, 0)
    >>> float(llc(20 / 3, flat))  # half of ½ where nβh = γ
    0.25
    """
    spread = variance(curvature, settings, noise_variance, gradient)
    return _llc(curvature, settings, gradient, mean(curvature, settings, gradient, origin), spread)


def relaxing_llc(
    curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0, noise_variance: ArrayLike = 0.0, origin: ArrayLike = 0.0
) -> Floats:
    """λ̂ of each coordinate in expectation over the draws that the settings keep, started at w*."""
    t = np.arange(settings.burn_in + 1, settings.steps + 1).reshape(-1, *np.ones(np.ndim(curvature), int))
    m, v = relaxing_mean(curvature, settings, t, gradient, origin), relaxing_variance(curvature, settings, t, noise_variance)
    return _llc(curvature, settings, gradient, m, v).mean(axis=0)


def curvature_twin(curvature: ArrayLike, settings: SamplerSettings) -> float:
    """`½ tr[nβH(nβH + γ)⁻¹]` from the eigenvalues of a part's Hessian (METHOD 3.1c): λ̂ if the loss were quadratic and sampled exactly.

    Negative eigenvalues enter as they are while `nβh + γ > 0`; NaN beyond, where a quadratic would have no posterior.

    >>> curvature_twin([20 / 3, 0.0], SamplerSettings("sgld", 1e-3, 200.0, 30.0, 4, 200, 0))
    0.25
    """
    pull = settings.nbeta * np.asarray(curvature, np.float64)
    return float((pull / (pull + settings.precision)).sum() / 2) if (pull + settings.precision > 0).all() else math.nan


def _llc(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike, m: Floats, v: Floats) -> Floats:
    return settings.nbeta * (np.asarray(gradient, np.float64) * m + np.asarray(curvature, np.float64) * (v + m**2) / 2)


def _power(a: Floats, n: ArrayLike) -> Floats:
    """aⁿ for |a| < 1 and whole n, 0 at infinity; of negative a too."""
    n = np.asarray(n, np.float64)
    sign = np.where((a < 0) & (np.mod(n, 2, where=np.isfinite(n), out=np.zeros_like(n)) == 1), -1.0, 1.0)
    return sign * np.abs(a) ** n

"""What the samplers must return on quadratics (METHOD 3.1, 3.1b, relaxation). numpy only.

The loss is `l = Σ_i g_i v_i + ½ h_i v_i²` with v = w - w*, and `A_i = nβh_i + γ`. Coordinates are independent, so every function
works one by one: shapes are those of `curvature`, and the λ̂ of a part is the sum over its coordinates. `noise_variance` is
`σ² = Var(nβ ĝ_i)` of one minibatch, taken as independent of w.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rllc.core.errors import RllcError
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats


def _drift(curvature: ArrayLike, settings: SamplerSettings) -> Floats:
    """A; raises RllcError where no stationary law exists."""
    a = settings.nbeta * np.asarray(curvature, np.float64) + settings.localization
    if (a <= 0).any() or (settings.step_size * a >= 4).any():
        raise RllcError(
            f"A quadratic with ε(nβh + γ) from {settings.step_size * a.min():g} to {settings.step_size * a.max():g} has no stationary law.",
            "Choose curvature and settings with all of them between 0 and 4.",
        )
    return a


def mean(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0) -> Floats:
    """Stationary mean of v: `-nβ g/A`, whatever the step size."""
    return -settings.nbeta * np.asarray(gradient, np.float64) / _drift(curvature, settings)


def variance(curvature: ArrayLike, settings: SamplerSettings, noise_variance: ArrayLike = 0.0) -> Floats:
    """Stationary variance of v: `1/(A(1-εA/4))` for SGLD, `1/A` for Leimkuhler–Matthews, and `εσ²/(4A(1-εA/4))` of minibatch noise in both."""
    return relaxing_variance(curvature, settings, np.inf, noise_variance)


def relaxing_mean(curvature: ArrayLike, settings: SamplerSettings, t: ArrayLike, gradient: ArrayLike = 0.0) -> Floats:
    """Mean of v after t steps from w*."""
    a = 1 - settings.step_size * _drift(curvature, settings) / 2
    return mean(curvature, settings, gradient) * (1 - _power(a, t))


def relaxing_variance(curvature: ArrayLike, settings: SamplerSettings, t: ArrayLike, noise_variance: ArrayLike = 0.0) -> Floats:
    """Variance of v after t ≥ 1 steps from w*: `v_∞(1 - (1-εA/2)^{2t})`; of Leimkuhler–Matthews' own noise, exponent 2t - 1."""
    big_a, eps = _drift(curvature, settings), settings.step_size
    a = 1 - eps * big_a / 2
    steps = np.asarray(t, np.float64)
    discretised = 1 / (big_a * (1 - eps * big_a / 4))
    own = discretised * (1 - _power(a, 2 * steps)) if settings.sampler == "sgld" else (1 - _power(a, 2 * steps - 1)) / big_a
    return own + eps / 4 * np.asarray(noise_variance, np.float64) * discretised * (1 - _power(a, 2 * steps))


def llc(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0, noise_variance: ArrayLike = 0.0) -> Floats:
    """λ̂ of each coordinate at stationarity (METHOD 3.1 and 3.1b).

    >>> flat = SamplerSettings("leimkuhler-matthews", 1e-3, 200.0, 30.0, 4, 200, 0)
    >>> float(llc(20 / 3, flat))  # half of ½ where nβh = γ
    0.25
    """
    return _llc(curvature, settings, gradient, mean(curvature, settings, gradient), variance(curvature, settings, noise_variance))


def relaxing_llc(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike = 0.0, noise_variance: ArrayLike = 0.0) -> Floats:
    """λ̂ of each coordinate in expectation over the draws that the settings keep, started at w*."""
    t = np.arange(settings.burn_in + 1, settings.steps + 1).reshape(-1, *np.ones(np.ndim(curvature), int))
    m, v = relaxing_mean(curvature, settings, t, gradient), relaxing_variance(curvature, settings, t, noise_variance)
    return _llc(curvature, settings, gradient, m, v).mean(axis=0)


def _llc(curvature: ArrayLike, settings: SamplerSettings, gradient: ArrayLike, m: Floats, v: Floats) -> Floats:
    return settings.nbeta * (np.asarray(gradient, np.float64) * m + np.asarray(curvature, np.float64) * (v + m**2) / 2)


def _power(a: Floats, n: ArrayLike) -> Floats:
    """aⁿ for |a| < 1 and whole n, 0 at infinity; of negative a too."""
    n = np.asarray(n, np.float64)
    sign = np.where((a < 0) & (np.mod(n, 2, where=np.isfinite(n), out=np.zeros_like(n)) == 1), -1.0, 1.0)
    return sign * np.abs(a) ** n

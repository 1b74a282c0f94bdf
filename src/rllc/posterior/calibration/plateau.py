"""How λ̂ answers to ε, γ and nβ: derivatives of one smooth surface over the grid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rllc.posterior.calibration.grid import Setting
from rllc.posterior.calibration.trial import Trial
from rllc.posterior.traces import Floats

_NEAR = math.log(2) + 1e-6  # of x and y: one step of a grid with factors of two
_NEAR_NBETA = math.log(4)  # of nβ, whose grid is coarser


@dataclass(frozen=True)
class Slopes:
    """`d log λ̂ / d log` of each setting, the other two held, of the sum over the parts. NaN where the grid does not tell."""

    step_size: float  # of a quadratic with one curvature exactly what the discretisation adds to λ̂, relative (see `slopes`)
    step_size_error: float  # its standard error
    localization: float  # between -1, where the localization alone sets the scale, and 0, a plateau; of a quadratic
    nbeta: float

    @property
    def size(self) -> float:
        """The length of the slope in γ and nβ, as far as the grid tells them; NaN where it tells neither."""
        known = [p for p in (self.localization, self.nbeta) if math.isfinite(p)]
        return math.hypot(*known) if known else math.nan


NO_SLOPES = Slopes(math.nan, math.nan, math.nan, math.nan)


def slopes(at: Setting, trials: Iterable[Trial]) -> Slopes:
    """The slopes at one setting, by least squares over the settings within a factor of two of its x and y, and of four of its nβ.

    The surface is `log Σλ̂ = a + p_ε log ε + p_γ log γ + p_n log nβ`, with squares and product of the last two where there are points
    enough. Refused settings and sums that are not positive have no logarithm and are left out.

    On a quadratic of one curvature SGLD has `λ̂ = λ₀/(1-r)` with r = εA/4 (METHOD 3.1), so `p_ε = r/(1-r) = λ̂/λ₀ - 1`: the slope is the
    bias. A step size where p_ε is small is one that λ̂ does not depend on.
    """
    near = [t for t in trials if t.total > 0 and _near(at, t.setting)]
    if not near:
        return NO_SLOPES
    center = np.array(at.coordinates)
    coordinates = np.array([t.setting.coordinates for t in near]) - center
    values = np.log([t.total for t in near])
    temperatures = np.ptp(coordinates[:, 2]) > 1e-9
    linear = coordinates if temperatures else coordinates[:, :2]
    g, n = coordinates[:, 1], coordinates[:, 2]
    curved = np.column_stack([linear, g**2, n**2, g * n]) if temperatures else np.column_stack([linear, g**2])
    for columns in (curved, linear):
        fit = _least_squares(columns, values)
        if fit is not None:
            slope, error = fit
            return Slopes(float(slope[0]), float(error[0]), float(slope[1]), float(slope[2]) if temperatures else math.nan)
    return NO_SLOPES


def _near(a: Setting, b: Setting) -> bool:
    return (
        abs(math.log(a.loss_product / b.loss_product)) < _NEAR
        and abs(math.log(a.prior_product / b.prior_product)) < _NEAR
        and abs(math.log(a.nbeta / b.nbeta)) < _NEAR_NBETA
    )


def _least_squares(columns: Floats, values: Floats) -> tuple[Floats, Floats] | None:
    """Coefficients and their standard errors from the residuals; None where there are too few points for both."""
    design = np.column_stack([np.ones(len(values)), columns])
    freedom = len(values) - design.shape[1]
    if freedom < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    variance = float(np.sum((values - design @ coefficients) ** 2)) / freedom
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    return np.asarray(coefficients[1:], np.float64), np.asarray(errors[1:], np.float64)

"""The points of the grid, and how long a chain must run there (METHOD 2 and 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

from rllc.core.errors import RllcError
from rllc.posterior.calibration.settings import CalibrationSettings
from rllc.posterior.settings import SamplerSettings

# Whose steps contract as (1 - x h - y) a step, so that x and y mean the same for them. RMSProp's are counted with its largest step.
SAMPLERS = ("sgld", "leimkuhler-matthews", "rmsprop-sgld")


@dataclass(frozen=True, order=True)
class Setting:
    """One point of the grid: `x = ε·nβ/2`, `y = ε·γ/2` and nβ, so `ε = 2x/nβ` and `γ = y nβ/x`.

    >>> paper = Setting(0.015, 0.1, 30.0)
    >>> round(paper.step, 6), round(paper.localization, 6)
    (0.001, 200.0)
    """

    loss_product: float  # x
    prior_product: float  # y
    nbeta: float

    @property
    def step(self) -> float:
        """ε, or the largest one that preconditioning makes of it."""
        return 2 * self.loss_product / self.nbeta

    @property
    def localization(self) -> float:
        """γ."""
        return self.prior_product * self.nbeta / self.loss_product

    @property
    def coordinates(self) -> tuple[float, float, float]:
        """What one chooses, as log ε, log γ, log nβ."""
        return math.log(self.step), math.log(self.localization), math.log(self.nbeta)

    def halved(self) -> Setting:
        """The same γ and nβ at half the step size: one factor of two down the diagonal."""
        return replace(self, loss_product=self.loss_product / 2, prior_product=self.prior_product / 2)

    def same(self, other: Setting) -> bool:
        """Whether the two are one point, but for rounding."""
        return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip((*self.coordinates, self.nbeta), (*other.coordinates, other.nbeta), strict=True))

    def __str__(self) -> str:
        return f"ε {self.step:.3g}, γ {self.localization:.4g}, nβ {self.nbeta:g}"


def grid(settings: CalibrationSettings) -> tuple[Setting, ...]:
    """All points, by temperature, then y, then x."""
    return tuple(Setting(x, y, n) for n, y, x in product(settings.nbeta, settings.prior_products, settings.loss_products))


def check_sampler(sampler: SamplerSettings) -> None:
    """Raises RllcError for a sampler whose steps the two products do not describe, or which has nothing to choose."""
    if sampler.sampler not in SAMPLERS:
        raise RllcError(
            f"{sampler.sampler} has no calibration of its own.",
            "Calibrate with --sampler sgld: localization and nbeta are those of the posterior, whatever samples it. The step size of MALA follows "
            "from its acceptance, that of SGNHT from `checks.halving`.",
        )


def setting_of(sampler: SamplerSettings) -> Setting:
    """Where an experiment's own settings lie. Raises RllcError where they lie outside any such grid."""
    check_sampler(sampler)
    if not (sampler.nbeta and sampler.localization):
        raise RllcError("An nbeta or localization of 0 lies outside the grid, which is logarithmic.", "Set both above 0 before calibrating.")
    return Setting(sampler.largest_step * sampler.nbeta / 2, sampler.largest_step * sampler.localization / 2, sampler.nbeta)


def burn_in(setting: Setting, relaxation: float) -> int:
    """Steps t after which `(1 - y)^{2t}`, what flat directions lack to stationarity (METHOD 3.1, Relaxation), is below `relaxation`.

    The slowest directions: all others relax by `1 - xh - y` a step.

    >>> burn_in(Setting(0.015, 0.1, 30.0), 0.01)
    22
    """
    contraction = abs(1 - setting.prior_product)
    return 1 if contraction == 0 else max(1, math.ceil(math.log(relaxation) / (2 * math.log(contraction))))


def sampler_at(setting: Setting, base: SamplerSettings, *, chains: int, draws: int, burn_in: int, control: bool = False) -> SamplerSettings:
    """The sampler's settings there; `control` samples the prior alone, nβ = 0. What the grid does not vary stays as in `base`."""
    own = base.step_size / base.largest_step
    return replace(
        base,
        step_size=setting.step * own,
        localization=setting.localization,
        nbeta=0.0 if control else setting.nbeta,
        chains=chains,
        draws=draws,
        burn_in=burn_in,
    )

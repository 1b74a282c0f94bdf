"""Settings of the sampler and of the verdicts on what it drew. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rllc.core.errors import RllcError

SamplerName = Literal["sgld", "leimkuhler-matthews"]


@dataclass(frozen=True)
class SamplerSettings:
    """How to draw from the local posterior `p(w) ∝ exp{-nβ l(w) - (γ/2)‖w - w*‖²}` (METHOD 1 and 2).

    Steps are natural in the products `ε·nβ/2` and `ε·γ/2`. A chain makes `burn_in + draws` steps from w*, one draw a step.

    >>> SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0).steps
    200

    Raises:
        RllcError: a value is out of its range, or `ε·γ ≥ 4`, where the prior alone makes the steps unstable.
    """

    sampler: SamplerName
    step_size: float  # ε
    localization: float  # γ, strength of the Gaussian prior around w*
    nbeta: float  # nβ, the inverse temperature times the number of samples; 0 samples the prior alone
    chains: int
    draws: int  # kept, per chain
    burn_in: int  # steps left out before the first draw

    def __post_init__(self) -> None:
        if self.sampler not in get_args(SamplerName):
            raise RllcError(f"There is no sampler {self.sampler!r}.", f"Choose one of: {', '.join(get_args(SamplerName))}.")
        for name, value in (("step_size", self.step_size), ("localization", self.localization)):
            if not (math.isfinite(value) and value > 0):
                raise RllcError(f"{name} must be a finite number above zero, but {value} was given.", f"Set {name} to a positive number.")
        if not (math.isfinite(self.nbeta) and self.nbeta >= 0):
            raise RllcError(f"nbeta must be a finite number, zero or more, but {self.nbeta} was given.", "Set nbeta to, for example, 30.")
        # four draws are what the two batch means and the diagnostics need at the very least
        for name, value, least in (("chains", self.chains, 1), ("draws", self.draws, 4), ("burn_in", self.burn_in, 0)):
            if value != int(value) or value < least:
                raise RllcError(f"{name} must be a whole number of at least {least}, but {value} was given.", f"Set {name} to {least} or more.")
        if self.step_size * self.localization >= 4:
            raise RllcError(
                f"step_size {self.step_size:g} with localization {self.localization:g} cannot be stable: "
                f"their product is {self.step_size * self.localization:g}, and from 4 on every chain diverges, whatever the loss.",
                f"Set step_size well below {4 / self.localization:g}; their product is commonly 0.2.",
            )

    @property
    def steps(self) -> int:
        """Steps that one chain makes; it is evaluated once more than that, the first time at w* itself."""
        return self.burn_in + self.draws


@dataclass(frozen=True)
class Verdicts:
    """Where a diagnostic becomes an outcome (DESIGN, one vocabulary of outcomes), and the confidence of intervals."""

    confidence: float = 0.90  # of the interval around λ̂, two-sided
    tilt_errors: float = 2.0  # a tilt term counts beyond this many of its own standard errors, and of λ̂'s
    tilt_share: float = 0.10  # ... and beyond this share of |λ̂|
    drift_confidence: float = 0.99  # two-sided; high, since a sweep tests hundreds of cells
    drift_share: float = 0.10  # ... and beyond this share of |λ̂|
    stiffness: float = 0.75  # εA/4 of the directions that carry the loss; there SGLD reads four times too high, and at 1 steps are unstable
    distance: float = 4.0  # times the ‖w - w*‖² that the localization allows
    excess: float = 4.0  # times the loss that equipartition allows; as many as SGLD's bias makes of it at that stiffness

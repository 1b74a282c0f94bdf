"""Settings of a calibration: the grid, how much is sampled at each of its points, and what a healthy setting is. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rllc.core.errors import RllcError


@dataclass(frozen=True)
class CalibrationSettings:
    """A grid in the products that rule a step (METHOD 2), and the limits of health.

    With `x = ε·nβ/2` and `y = ε·γ/2` a step of SGLD is `v' = v - x ĝ - y v + √ε ξ`: x and y decide stability, relaxation and the bias of the
    discretisation, nβ how far a chain goes. Along a diagonal (x·c, y·c) at one nβ nothing changes but ε, by the factor c. The shipped
    numbers are factors of two around the products of the paper's settings, 0.015 and 0.1.

    Raises:
        RllcError: a value is out of its range.
    """

    loss_products: tuple[float, ...] = (0.00375, 0.0075, 0.015, 0.03, 0.06)  # x
    prior_products: tuple[float, ...] = (0.05, 0.1, 0.2)  # y
    nbeta: tuple[float, ...] = (10.0, 30.0, 100.0)
    chains: int = 1  # of the first, short runs over the whole grid; the parts are the replicates
    draws: int = 12
    finalists: int = 3  # settings that are sampled longer, at every chosen checkpoint; the experiment's own is always among them
    final_chains: int = 2
    final_draws: int = 32
    control_draws: int = 32  # of the chains with nβ = 0
    relaxation: float = 0.01  # what burn-in leaves of the flat directions' distance from stationarity
    bias: float = 0.10  # most that the discretisation may add to λ̂, relative
    refused: float = 0.0  # share of refused cells that a healthy setting may have
    drifting: float = 0.25  # ... and of drifting ones: a verdict of 99 % errs once in a hundred cells, and short runs drift
    removal: float = 1.0  # most that a chain may raise the loss, as a share of what setting the part's weights to zero does
    change: float = 1.1  # factor of γ and nβ by whose effect settings are compared
    in_run: bool = False  # `rllc run` calibrates too, when it has sampled its cells, so that its page shows what the settings decide
    gain: float = 1.1  # the experiment's own settings stay unless others have an error budget this many times smaller

    def __post_init__(self) -> None:
        for name in ("loss_products", "prior_products", "nbeta"):
            values: Sequence[float] = getattr(self, name)
            if not values or not all(math.isfinite(v) and v > 0 for v in values) or list(values) != sorted(set(values)):
                raise RllcError(f"calibration.{name} must be rising numbers above zero, but {list(values)} was given.", "Mend the experiment file.")
        if self.prior_products[-1] >= 2:
            raise RllcError(
                f"calibration.prior_products goes up to {self.prior_products[-1]:g}, but from 2 on every chain diverges.", "Stay well below 2."
            )
        for name, least in (("chains", 1), ("draws", 4), ("finalists", 1), ("final_chains", 1), ("final_draws", 4), ("control_draws", 4)):
            if getattr(self, name) < least:
                raise RllcError(f"calibration.{name} is {getattr(self, name)}, but must be at least {least}.", "Mend the experiment file.")
        if not (0 < self.relaxation < 1 and self.bias > 0 and 0 <= self.refused < 1 and 0 <= self.drifting <= 1):
            raise RllcError("calibration.relaxation, bias, refused and drifting are shares between 0 and 1.", "Mend the experiment file.")
        if not (self.removal > 0 and self.change > 1 and self.gain >= 1):
            raise RllcError("calibration.removal must be above 0, change above 1 and gain at least 1.", "Use 1, 1.1 and 1.1, for example.")

    def quick(self) -> CalibrationSettings:
        """A smaller grid around the middle of this one, at one temperature, with one finalist.

        >>> CalibrationSettings().quick().loss_products
        (0.0075, 0.015, 0.03)
        """
        return replace(
            self,
            loss_products=_middle(self.loss_products, 3),
            prior_products=self.prior_products[:2],
            nbeta=_middle(self.nbeta, 1),
            finalists=1,
            final_draws=max(4, self.final_draws // 2),
        )


def _middle(values: tuple[float, ...], n: int) -> tuple[float, ...]:
    start = max(0, (len(values) - n) // 2)
    return values[start : start + n]

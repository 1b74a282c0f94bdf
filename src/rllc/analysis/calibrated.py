"""What a calibration found, as the figure shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A setting: `x = ε·nβ/2`, `y = ε·γ/2`, nβ."""

    loss_product: float  # x
    prior_product: float  # y
    nbeta: float
    text: str  # ε, γ and nβ in words


@dataclass(frozen=True)
class CalibrationMap:
    """A grid of settings at one checkpoint, N temperatures × Y × X (METHOD 2)."""

    loss_products: Floats  # [X]
    prior_products: Floats  # [Y]
    nbeta: Floats  # [N]
    llc: Floats  # [N, Y, X] median λ̂ of the parts; NaN where a part was refused
    tau: Floats  # [N, Y, X] Kendall τ of the parts' order against the recommended setting's; NaN where it is not known, 1 at that setting
    problem: NDArray[np.str_]  # [N, Y, X] "" where healthy, otherwise "refused", "biased", "far" or "drifting"
    recommended: Point | None
    own: Point  # the experiment's settings
    parts: int
    where: str  # checkpoint and data in words

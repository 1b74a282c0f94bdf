"""Stochastic gradient Langevin dynamics (Welling & Teh 2011; METHOD 2).

`w' = w - (ε/2) ∇Û(w) + √ε ξ`. On a quadratic with `A = nβh + γ` the stationary variance is `1/(A(1 - εA/4))` and steps are stable while
`εA < 4` (METHOD 3.1). From `E‖v'‖² = E‖v‖²` follows `E[v·∇U] = d + (ε/4) E‖∇Û‖²`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rllc.posterior.samplers.base import Draw, Point, Step, reflect, squared
from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


class State(NamedTuple):
    """Where the variants stand, seen from w*."""

    displacement: Float[Tensor, "C d"]  # w - w*


def init(displacement: Float[Tensor, "C d"], draw: Draw, settings: SamplerSettings) -> State:
    """Start at the displacement. Randomness is taken only so that all samplers start alike."""
    del draw, settings
    return State(displacement)


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """One step from the force at the state and the normal ξ."""
    moved = torch.add(state.displacement, point.force, alpha=-settings.step_size / 2)
    moved.add_(draw.normal, alpha=math.sqrt(settings.step_size))
    if settings.bounding_box:
        moved, _ = reflect(moved, settings.bounding_box)
    return Step(State(moved), point, settings.step_size / 4 * squared(point.force))

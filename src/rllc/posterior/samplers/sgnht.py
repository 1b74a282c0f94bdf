"""The stochastic gradient Nosé–Hoover thermostat (Ding et al. 2014; METHOD 2).

`u' = (1-α)u - (ε/2) ∇Û(w) + √(εa) ξ; w' = w + u'; α' = α + a²(‖u'‖²/(dε/2) - 1)`, with the diffusion a. Scaled so that u has variance
ε/2 and ε means what it does in SGLD: with α = a = 1 held fixed the step would be SGLD's. The friction α, one number a variant, takes up
the heat of minibatch noise, whatever its size, where that is equal in all directions. The thermostat's inertia is free in theory; the
usual choice, ε/2 in place of a², answers after thousands of steps at small ε, while this one answers within 1/a and makes the
friction fluctuate by `a/√d`.

On a quadratic, at stationarity: `E u² = (εa + (ε²/4)σ²)/(α(2 - α - εA/4))` and `E v² = E u² (2-α)/(εA)` a coordinate, with the α at which
`E u²` averages ε/2. For ε → 0 the variance is 1/A. Stable while `εA < 4(2-α)`. Whatever the loss,
`E[v·∇U] = d (1 - α/2)` at stationarity, from `E‖v'‖² = E‖v‖²`.
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
    """Where the variants stand, seen from w*, how they move, and their thermostat."""

    displacement: Float[Tensor, "C d"]  # w - w*
    velocity: Float[Tensor, "C d"]  # u
    friction: Float[Tensor, " C"]  # α


def init(displacement: Float[Tensor, "C d"], draw: Draw, settings: SamplerSettings) -> State:
    """Start at the displacement with a velocity of the right temperature, and the friction that holds it there without minibatch noise."""
    velocity = draw.normal * math.sqrt(settings.step_size / 2)
    friction = 1 - math.sqrt(1 - 2 * settings.thermostat_diffusion)
    return State(displacement, velocity, torch.full_like(displacement[:, 0], friction))


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """One step from the force at the state and the normal ξ."""
    eps, d = settings.step_size, state.displacement.shape[1]
    velocity = (1 - state.friction)[:, None] * state.velocity
    velocity.add_(point.force, alpha=-eps / 2).add_(draw.normal, alpha=math.sqrt(eps * settings.thermostat_diffusion))
    friction = state.friction + settings.thermostat_diffusion**2 * (squared(velocity) / (d * eps / 2) - 1)
    moved = state.displacement + velocity
    if settings.bounding_box:
        moved, sign = reflect(moved, settings.bounding_box)
        velocity = velocity * sign
    return Step(State(moved, velocity, friction), point, -state.friction * d / 2)

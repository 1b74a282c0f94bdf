"""The stochastic gradient Nosé–Hoover thermostat (Ding et al. 2014; METHOD 2).

`u' = (1-α)u - (ε/2) ∇Û(w) + √(εa) ξ; w' = w + u'; α' = α + a²((2-α)‖u'‖²/(dε) - 1)`, with the diffusion a. Scaled so that ε means what it
does in SGLD: with α = a = 1 held fixed the step would be SGLD's. The friction α, one number a variant, takes up the heat of minibatch
noise, whatever its size, where that is equal in all directions.

Two liberties against the published form. The thermostat's goal for the velocity, ε/(2-α) in place of ε/2, is that at which the *weights*
have the right temperature: `E‖v'‖² = E‖v‖²` gives `E[v·∇U] = (2-α) E‖u‖²/ε`, which is then d, Stein's identity, at every step size.
And its inertia, free in theory, is such that it answers within about 1/a steps and the friction fluctuates by `a/√d`; the usual choice,
ε/2 in place of a², takes thousands of steps at small ε.

On a quadratic, at stationarity: `E u² = (εa + (ε²/4)σ²)/(α(2 - α - εA/4))` and `E v² = E u² (2-α)/(εA)` a coordinate, with the α at which
`A E v²` averages 1. For ε → 0 the variance is 1/A. Stable while `εA < 4(2-α)`.
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
    friction = settings.thermostat_diffusion
    velocity = draw.normal * math.sqrt(settings.step_size / (2 - friction))
    return State(displacement, velocity, torch.full_like(displacement[:, 0], friction))


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """One step from the force at the state and the normal ξ."""
    eps, d = settings.step_size, state.displacement.shape[1]
    velocity = (1 - state.friction)[:, None] * state.velocity
    velocity.add_(point.force, alpha=-eps / 2).add_(draw.normal, alpha=math.sqrt(eps * settings.thermostat_diffusion))
    heat = (2 - state.friction) * squared(velocity) / (d * eps)
    friction = state.friction + settings.thermostat_diffusion**2 * (heat - 1)
    moved = state.displacement + velocity
    if settings.bounding_box:
        moved, sign = reflect(moved, settings.bounding_box)
        velocity = velocity * sign
    return Step(State(moved, velocity, friction), point, torch.zeros_like(friction))

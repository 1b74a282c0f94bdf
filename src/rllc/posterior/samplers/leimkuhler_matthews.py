"""The Leimkuhler–Matthews integrator, the overdamped limit of BAOAB (Leimkuhler & Matthews 2013; METHOD 2).

`w' = w - (ε/2) ∇Û(w) + √ε (ξ_t + ξ_{t+1})/2`. Each normal serves two steps, and that cancels the first error: on a quadratic the
stationary variance is exactly `1/A` for every stable step, `εA < 4` (METHOD 3.1).

From `E‖v'‖² = E‖v‖²` follows `E[v·∇U] = d + (ε/4)(E‖∇Û‖² - E tr ∇²U)`, where Stein's identity for the last normal,
`E[∇Û·ξ_t] = (√ε/2) E tr ∇²U`, yields the trace. Under full gradients the bracket is zero on a quadratic; what remains is minibatch noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rllc.posterior.samplers.base import Draw, Point, Step, dot, reflect, squared
from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


class State(NamedTuple):
    """Where the variants stand, seen from w*, and the normal that the next step uses again."""

    displacement: Float[Tensor, "C d"]  # w - w*
    normal: Float[Tensor, "C d"]  # ξ_t


def init(displacement: Float[Tensor, "C d"], draw: Draw, settings: SamplerSettings) -> State:
    """Start at the displacement with the first normal ξ_0."""
    del settings
    return State(displacement, draw.normal)


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """One step from the force at the state and the normal ξ_{t+1}."""
    eps, normal = settings.step_size, draw.normal
    moved = torch.add(state.displacement, point.force, alpha=-eps / 2)
    moved.add_(state.normal + normal, alpha=math.sqrt(eps) / 2)
    if settings.bounding_box:
        moved, sign = reflect(moved, settings.bounding_box)
        normal = normal * sign
    # the prior's share of the trace is known; that of the loss is what the last normal carries into the gradient
    trace = settings.precision * point.displacement.shape[1] + 2 * settings.nbeta / math.sqrt(eps) * dot(state.normal, point.gradient)
    return Step(State(moved, normal), point, eps / 4 * (squared(point.force) - trace))

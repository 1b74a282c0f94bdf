"""SGLD preconditioned as by RMSProp (Li, Chen, Carlson & Carin 2016; METHOD 2).

`V ← αV + (1-α)ĝ²; G = 1/(stabilizer + √V); w' = w - (ε/2) G ∇Û(w) + √(εG) ξ`, coordinate by coordinate. V is fed by the minibatch gradient ĝ
of the loss alone, without nβ and prior, and starts as ĝ² of the first evaluation, which is at w*. The derivative of G is left out, as is
usual, so the target is exact only in the limit of slow V; with α = 1 V stays frozen and each coordinate is SGLD with step εG: variance
`1/(A(1 - εGA/4))`. Head gradients are about 0.002 a coordinate, so a stabilizer of 0.1 makes this SGLD with ten times the step.

From `E[v'·v'/G] = E[v·v/G]` follows `E[v·∇U] = d + (ε/4) E[∇Û·G∇Û]`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rllc.posterior.samplers.base import Draw, Point, Step, dot, reflect
from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


class State(NamedTuple):
    """Where the variants stand, seen from w*, and their running second moment."""

    displacement: Float[Tensor, "C d"]  # w - w*
    second_moment: Float[Tensor, "C d"]  # V; below zero before the first gradient


def init(displacement: Float[Tensor, "C d"], draw: Draw, settings: SamplerSettings) -> State:
    """Start at the displacement; the first gradient makes V."""
    del draw, settings
    return State(displacement, torch.full_like(displacement, -1.0))


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """One step from the force at the state, the gradient that feeds V, and the normal ξ."""
    square, decay = point.gradient.square(), settings.rmsprop_decay
    moment = torch.where(state.second_moment < 0, square, decay * state.second_moment + (1 - decay) * square)
    scale = 1 / (settings.rmsprop_stabilizer + moment.sqrt())
    pull = scale * point.force
    moved = torch.add(state.displacement, pull, alpha=-settings.step_size / 2)
    moved.addcmul_(scale.sqrt(), draw.normal, value=math.sqrt(settings.step_size))
    if settings.bounding_box:
        moved, _ = reflect(moved, settings.bounding_box)
    return Step(State(moved, moment), point, settings.step_size / 4 * dot(point.force, pull))

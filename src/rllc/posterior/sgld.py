"""Stochastic gradient Langevin dynamics (Welling & Teh 2011; METHOD 2).

`w' = w - (ε/2)(nβ ĝ + γ(w - w*)) + √ε ξ`. On a quadratic with `A = nβh + γ` the stationary variance is
`1/(A(1 - εA/4))` and steps are stable while `εA < 4` (METHOD 3.1).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


class State(NamedTuple):
    """Where the variants stand, seen from w*."""

    displacement: Float[Tensor, "C d"]  # w - w*


def init(displacement: Float[Tensor, "C d"], noise: Float[Tensor, "C d"]) -> State:
    """Start at the displacement. The noise is taken only so that all samplers start alike."""
    del noise
    return State(displacement)


def step(state: State, gradient: Float[Tensor, "C d"], noise: Float[Tensor, "C d"], settings: SamplerSettings) -> State:
    """One step from the minibatch gradient ĝ at the state and standard normal noise ξ; no argument is changed."""
    drift = torch.add(settings.nbeta * gradient, state.displacement, alpha=settings.localization)
    moved = torch.add(state.displacement, drift, alpha=-settings.step_size / 2)
    return State(moved.add_(noise, alpha=math.sqrt(settings.step_size)))

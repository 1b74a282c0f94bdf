"""The Leimkuhler–Matthews integrator, the overdamped limit of BAOAB (Leimkuhler & Matthews 2013; METHOD 2).

`w' = w - (ε/2)(nβ ĝ + γ(w - w*)) + √ε (ξ_t + ξ_{t+1})/2`. Each normal serves two steps, and that cancels the first error:
on a quadratic the stationary variance is exactly `1/A` for every stable step, `εA < 4` (METHOD 3.1).
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
    """Where the variants stand, seen from w*, and the normal that the next step uses again."""

    displacement: Float[Tensor, "C d"]  # w - w*
    noise: Float[Tensor, "C d"]  # ξ_t


def init(displacement: Float[Tensor, "C d"], noise: Float[Tensor, "C d"]) -> State:
    """Start at the displacement with the first normal ξ_0."""
    return State(displacement, noise)


def step(state: State, gradient: Float[Tensor, "C d"], noise: Float[Tensor, "C d"], settings: SamplerSettings) -> State:
    """One step from the minibatch gradient ĝ at the state and standard normal noise ξ_{t+1}; no argument is changed."""
    drift = torch.add(settings.nbeta * gradient, state.displacement, alpha=settings.localization)
    moved = torch.add(state.displacement, drift, alpha=-settings.step_size / 2)
    return State(moved.add_(state.noise + noise, alpha=math.sqrt(settings.step_size) / 2), noise)

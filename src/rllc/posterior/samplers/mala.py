"""The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996; METHOD 2): SGLD's proposal with an accept step.

Exact for every step size, on one fixed batch and in low dimension: the acceptance falls with the dimension at fixed ε, so it is a
reference and no verdict on a head. Evaluations are of proposals; the draw is the point that was kept. A proposal outside the bounding
box is rejected.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from rllc.posterior.samplers.base import Draw, Point, Step, log_acceptance
from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


class State(NamedTuple):
    """The proposal to evaluate next, and what decides on it."""

    displacement: Float[Tensor, "C d"]  # of the proposal, from w*
    kept: Point | None  # where the chains stand; None before the first evaluation, which is accepted
    normal: Float[Tensor, "C d"]  # ξ of the proposal


def init(displacement: Float[Tensor, "C d"], draw: Draw, settings: SamplerSettings) -> State:
    """Start at the displacement."""
    del settings
    return State(displacement, None, draw.normal)


def step(state: State, point: Point, draw: Draw, settings: SamplerSettings) -> Step:
    """Accept or reject the proposal that was evaluated, and make the next one."""
    kept = point
    if state.kept is not None:
        # log u < log α; a ratio that is no number is not kept out of sight: the chain stands there and its cell is refused
        ratio = log_acceptance(state.kept.pull, point.pull, state.normal, settings)
        accepted = (torch.log(draw.uniform) < ratio) | ~torch.isfinite(point.losses)
        if settings.bounding_box:
            accepted &= (point.displacement.abs() <= settings.bounding_box).all(dim=1)
        kept = Point(*(torch.where(_rows(accepted, new), new, old) for new, old in zip(point, state.kept, strict=True)))
    proposal = torch.add(kept.displacement, kept.force, alpha=-settings.step_size / 2)
    proposal.add_(draw.normal, alpha=math.sqrt(settings.step_size))
    return Step(State(proposal, kept, draw.normal), kept, torch.zeros_like(kept.losses))


def _rows(accepted: Tensor, like: Tensor) -> Tensor:
    return accepted.view(-1, *[1] * (like.dim() - 1))

"""The potential that is sampled (METHOD 1): `U(w) = nβ l(w) + (γ/2)‖w - w*‖² + (κ/2)‖w‖²`, evaluated on a minibatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.posterior.samplers.base import Point, dot, squared
from rllc.posterior.settings import SamplerSettings

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Potential:
    """nβ, the localization γ around w* and the weight decay κ around zero, which the samplers then need not know.

    Args:
        settings: of the sampler.
        center: w*, [C, d].
    """

    settings: SamplerSettings
    center: Float[Tensor, "C d"]

    def at(
        self, displacement: Float[Tensor, "C d"], losses: Float[Tensor, " C"], baseline: Float[Tensor, " C"], gradient: Float[Tensor, "C d"]
    ) -> Point:
        """The point of an evaluation: losses at `w* + displacement` and at w* on one minibatch, and the gradient of the former."""
        s = self.settings
        force = torch.add(s.nbeta * gradient, displacement, alpha=s.localization)
        potential = s.nbeta * (losses - baseline) + s.localization / 2 * squared(displacement)
        if s.weight_decay:
            force.add_(self.center + displacement, alpha=s.weight_decay)
            potential = potential + s.weight_decay * (dot(self.center, displacement) + squared(displacement) / 2)
        return Point(displacement, losses, potential, gradient, force)

"""The whole Hessian of a small part through the objective's protocol, and the curvature twin (METHOD 3.1c)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.exact import curvature_twin
from rllc.posterior.flat import Layout
from rllc.posterior.protocol import Context, Objective
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

_COLUMNS = 64  # coordinates moved in one evaluation
_REACH = {torch.float32: 1e-2, torch.float64: 1e-4}  # of a coordinate: rounding over the step, and the step's square, are both small


def hessian(objective: Objective[Context], origin: Mapping[str, Float[Tensor, "P ..."]], batches: Iterable[Any]) -> Float[Floats, "P d d"]:
    """The Hessian of each part at w*, averaged over minibatches, in nats per token and squared unit of weight; symmetric.

    Column i is `(ĝ(w* + δe_i) - ĝ(w* - δe_i))/2δ`, with an error of δ² times a fourth derivative.

    Raises:
        RllcError: there is no minibatch, or the part cannot be sampled.
    """
    layout = Layout.of(origin)
    center, reach = layout.flatten(origin), _REACH[layout.dtype]
    parts, d = center.shape
    total, n = np.zeros((parts, d, d)), 0
    for batch in batches:
        context = objective.prepare(batch)
        for start in range(0, d, _COLUMNS):
            moved = torch.eye(d, dtype=layout.dtype, device=layout.device)[start : start + _COLUMNS] * reach
            both = torch.cat([moved, -moved])
            evaluation = objective.evaluate(layout.views((center[:, None] + both).flatten(0, 1)), context)
            if evaluation.gradients is None:
                raise ValueError("The objective returned no gradients.")
            ahead, behind = layout.flatten(evaluation.gradients).view(parts, 2, len(moved), d).unbind(1)
            total[:, start : start + _COLUMNS] += ((ahead - behind) / (2 * reach)).cpu().double().numpy()
        n += 1
    if n == 0:
        raise RllcError("The Hessian needs at least one minibatch.", "Give it some.")
    return (total + total.transpose(0, 2, 1)) / (2 * n)


def twin(
    objective: Objective[Context], origin: Mapping[str, Float[Tensor, "P ..."]], batches: Iterable[Any], settings: SamplerSettings
) -> Float[Floats, " P"]:
    """`½ tr[nβH(nβH + γ)⁻¹]` of each part (METHOD 3.1c), NaN where an eigenvalue is below -γ/nβ. Errors as `hessian`."""
    return np.array([curvature_twin(np.linalg.eigvalsh(h), settings) for h in hessian(objective, origin, batches)])

"""Deep linear networks (METHOD 3.4 to 3.7): the simplest networks with a known local learning coefficient at every depth.

The loss is the population's, `l = ½ E_x ‖(W_L ⋯ W_1 - T) x‖² = ½ ‖W_L ⋯ W_1 - T‖_F²`, for standard normal inputs x and the teacher T that w*
computes, so w* is a zero and minibatches bring no noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.truths.points import LinearPoint


@dataclass(frozen=True)
class DeepLinear:
    """The loss of C = P × chains variants of a linear network, P points w* of equal widths at once.

    Layers that the variants leave out stay at w*. With one layer free the loss is a quadratic (METHOD 3.6), the linear read-out being the last.

    Args:
        weights: w*, "W1" next to the input … "WL", [P, H_{j+1}, H_j].
        teacher: T, [P, N, M].
        free: the layers to sample; all of them where none is named.

    >>> import numpy as np
    >>> toy = DeepLinear.at([LinearPoint((np.eye(2), np.eye(2)), ())])
    >>> toy.evaluate({"W2": 3 * torch.eye(2)[None]}, toy.prepare(0)).losses
    tensor([4.])
    """

    weights: Tensors
    teacher: Tensor
    free: Sequence[str] = ()

    @classmethod
    def at(cls, points: Sequence[LinearPoint], dtype: torch.dtype = torch.float32, free: Sequence[str] = ()) -> DeepLinear:
        """The loss around these points, of equal widths, each with the teacher that it computes."""
        stacked = [torch.stack([torch.tensor(w, dtype=dtype) for w in layer]) for layer in zip(*(point.weights for point in points), strict=True)]
        return cls({f"W{j}": w for j, w in enumerate(stacked, start=1)}, _products(stacked)[-1], free)

    @property
    def origin(self) -> Tensors:
        """The tensors to sample, at w*."""
        return {name: w for name, w in self.weights.items() if not self.free or name in self.free}

    def prepare(self, batch: object) -> None:
        """Nothing: the loss is the population's."""
        del batch

    def evaluate(self, variants: Tensors, context: None, *, gradients: bool = True) -> Evaluation:
        """Losses and analytic gradients, `∂l/∂W_j = (W_L ⋯ W_{j+1})ᵀ (W_L ⋯ W_1 - T) (W_{j-1} ⋯ W_1)ᵀ`, by one pass up and one down."""
        del context
        parts = self.teacher.shape[0]
        # a layer held at w* exists once a part, and is broadcast over its chains
        layers = [variants[name].view(parts, -1, *w.shape[1:]) if name in variants else w[:, None] for name, w in self.weights.items()]
        products = _products(layers)
        error = products[-1] - self.teacher[:, None]
        losses = error.square().flatten(2).sum(dim=2).flatten() / 2
        grads: Tensors = {}
        if gradients:
            lowest = min(j for j, name in enumerate(self.weights) if name in variants)
            above = error
            for j, name in reversed(list(enumerate(self.weights))):
                if name in variants:
                    grads[name] = (above @ products[j - 1].mT if j else above).reshape(variants[name].shape)
                if j == lowest:
                    break
                above = layers[j].mT @ above
        return Evaluation(losses, grads if gradients else None, torch.zeros_like(losses))


def _products(layers: Sequence[Tensor]) -> list[Tensor]:
    """`W_1`, `W_2 W_1`, … `W_L ⋯ W_1`."""
    return list(accumulate(layers, lambda product, w: w @ product))

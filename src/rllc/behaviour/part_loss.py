"""The loss as a function of the weights of one part, differentiable twice: what curvature and Fisher information are derivatives of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rllc.behaviour.inputs import pieces
from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.parts import insert, select
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, slices
from rllc.model.softcap import capped

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Ints = NDArray[np.int64]


class PartLoss:
    """The next-token losses of single contexts under a model of which one part is free, everything else frozen at the checkpoint.

    Args:
        shape, params: the model at w*; no axis of variants.
        part: the free part, d weights.
    """

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], part: Part) -> None:
        self.shape, self.part = shape, part
        self.params = {name: tensor.detach() for name, tensor in params.items()}
        self._origin = select(shape, self.params, part)
        self.size = sum(tensor.numel() for tensor in self._origin.values())
        self._start = first_layer(shape, part)
        touched = {s.tensor for s in slices(shape, part)}
        self._embeds = "embed.W_E" in touched or ("pos.W_pos" in touched and shape.positions == "learned")

    @property
    def origin(self) -> Float[Tensor, " d"]:
        """The part's weights at w*, tensor after tensor, as a new leaf that gradients are taken of."""
        return torch.cat([tensor.flatten() for tensor in self._origin.values()]).requires_grad_()

    def logits(self, weights: Float[Tensor, " d"], context: Int[Tensor, "1 T"]) -> Float[Tensor, "T-1 V"]:
        """What the model predicts of tokens 1 … T-1 of a context; differentiable twice inside `twice_differentiable`."""
        shape, values = self.shape, {}
        pieces_of = weights.split([tensor.numel() for tensor in self._origin.values()])
        for (name, tensor), piece in zip(self._origin.items(), pieces_of, strict=True):
            values[name] = piece.view(1, *tensor.shape)
        params = insert(shape, self.params, self.part, values)
        if self._embeds:
            x = fw.embed(shape, params, context)
        else:  # what lies before the part does not depend on it
            with torch.no_grad():
                x = fw.run_blocks(shape, self.params, fw.embed(shape, self.params, context), stop=self._start)
        x = fw.norm(shape, params, "ln_final", fw.run_blocks(shape, params, x, self._start))
        out = fw.linear(x, fw.unembedding(shape, params))[0, 0, :-1]
        return capped(out + fw.unembedding_bias(shape, params), shape.logit_softcap)

    def losses(self, weights: Float[Tensor, " d"], context: Int[Tensor, "1 T"]) -> Float[Tensor, " T-1"]:
        """Cross-entropy of every prediction in a context, in nats."""
        return F.cross_entropy(self.logits(weights, context), context[0, 1:], reduction="none")

    def contexts(self, tokens: Int[Ints, "B T"]) -> Iterator[Int[Tensor, "1 T"]]:
        """The contexts one by one, on the model's device. Raises RllcError where they do not fit the model."""
        for batch in pieces(self.shape, self.params, tokens, np.shape(tokens)[-1] * self.shape.d_vocab, "The contexts"):
            yield from batch.split(1)


def twice_differentiable() -> AbstractContextManager[Any]:
    """Attention in plain products: the fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)

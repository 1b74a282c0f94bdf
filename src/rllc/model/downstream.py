"""The loss of variants of a head with layers behind it: what the head writes is put into the residual stream, and the network runs on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.model import forward as fw
from rllc.model.batch import TokenBatch
from rllc.model.near import Base, near_losses
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int


SHORT = (torch.bfloat16, torch.float16)  # types whose products are those of what has moved


@dataclass(frozen=True)
class DownstreamContext:
    """What one minibatch shares behind P heads.

    Args:
        rest: [P, B, T, D] the residual stream after the attention layer, without the contribution of each part's head; where a norm is behind
            attention, what attention writes without that head.
        beside: [B, T, D] the stream that what passes such a norm is added to; None without one.
        base: the logits at the checkpoint, where products are in a shorter type.
        baseline: the loss at the checkpoint, a float64 scalar in nats per token.
    """

    batch: TokenBatch
    rest: Float[Tensor, "P B T D"]
    beside: Float[Tensor, "B T D"] | None
    base: Base | None
    baseline: Float[Tensor, ""]


class Downstream:
    """From what P heads of a layer write to the loss, through whatever comes behind.

    Args:
        shape: of the model.
        params: the model.
        layer: of the heads.
        w_o: [P, K, D] the output matrices of the heads at the checkpoint.
        products: type of the unembedding's products.
    """

    def __init__(
        self, shape: ModelShape, params: Mapping[str, Tensor], layer: int, w_o: Float[Tensor, "P K D"], products: torch.dtype = torch.float32
    ) -> None:
        self.shape, self.params, self.layer, self._w_o = shape, params, layer, w_o
        self._products = products if products in SHORT else None

    def prepare(
        self,
        batch: TokenBatch,
        total: Float[Tensor, "B T D"],
        rest: Float[Tensor, "P B T D"],
        z: Float[Tensor, "P B T K"],
        beside: Float[Tensor, "B T D"] | None = None,
    ) -> DownstreamContext:
        """The stream after the layer's attention at the checkpoint, and without each head; what attention writes alone, where it joins a stream."""
        del z
        x = self._run(total[None], beside)
        if self._products is None:
            return DownstreamContext(batch, rest, beside, None, fw.read_out(self.shape, self.params, x, batch)[0])
        base = Base.of(self._rows(x, batch)[0], fw.unembedding(self.shape, self.params), self.shape.logit_softcap)
        return DownstreamContext(batch, rest, beside, base, base.loss(fw.unembedding_bias(self.shape, self.params), batch.targets))

    def losses(
        self, z: Float[Tensor, "C B T K"], w_o: Float[Tensor, "C K D"] | None, owner: Int[Tensor, " C"], context: DownstreamContext
    ) -> Float[Tensor, " C"]:
        """Mean loss [C] in nats per token (float64) of variants; `owner` says which part each belongs to, `w_o` is None unless it is sampled."""
        w_o = self._w_o[owner] if w_o is None else w_o
        written = torch.matmul(z.flatten(1, 2), w_o).view(*z.shape[:3], -1)
        x, batch = self._run(context.rest[owner] + written, context.beside), context.batch
        if context.base is None or self._products is None:
            return fw.read_out(self.shape, self.params, x, batch)
        return near_losses(self._rows(x, batch), context.base, fw.unembedding_bias(self.shape, self.params), batch.targets, self._products)

    def token_losses(
        self, z: Float[Tensor, "C B T K"], w_o: Float[Tensor, "C K D"] | None, owner: Int[Tensor, " C"], context: DownstreamContext
    ) -> Float[Tensor, "C n"]:
        """The loss of every prediction that counts, in nats; products are whole here, whatever those of `losses` are."""
        w_o = self._w_o[owner] if w_o is None else w_o
        written = torch.matmul(z.flatten(1, 2), w_o).view(*z.shape[:3], -1)
        return fw.read_out_each(self.shape, self.params, self._run(context.rest[owner] + written, context.beside), context.batch)

    def _run(self, x: Float[Tensor, "C B T D"], beside: Float[Tensor, "B T D"] | None) -> Float[Tensor, "C B T D"]:
        """From the stream after the layer's attention, or what joins that beside it, to that after the last layer."""
        if beside is not None:
            x = fw.joined(self.shape, self.params, self.layer, beside[None], x)
        return fw.run_blocks(self.shape, self.params, fw.after_attention(self.shape, self.params, self.layer, x), self.layer + 1)

    def _rows(self, x: Float[Tensor, "C B T D"], batch: TokenBatch) -> Float[Tensor, "C n D"]:
        return fw.norm(self.shape, self.params, "ln_final", batch.predicting(x)[:, None])[:, 0]

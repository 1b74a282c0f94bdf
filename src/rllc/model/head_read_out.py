"""The loss of variants of a last-layer head, at the cost of the head's width K in place of the model's width D (DESIGN, The engine).

What a head writes is `z W_O`, of rank K. With nothing but the final norm and the unembedding behind it, the logits of a variant are

    logits = r (s* X̄* W̃ - s* z* W_O* W̃) + s z (W_O W̃) + β,    X̄ = the centred stream, s = 1/its deviation, r = s/s*, W̃ = diag(w_ln) W_U

where the bracket is the same for all chains: the product with the whole unembedding is made once a minibatch, and a variant adds products of
width K. Its own stream is never formed: its deviation follows from inner products of what the head writes with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rllc.model import forward as fw
from rllc.model.batch import TokenBatch
from rllc.model.cross_entropy import Block, each_row, row_losses
from rllc.model.near import Base
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class ReadOutContext:
    """What one minibatch of N predictions shares among all variants of P heads of the last layer.

    Args:
        base: the logits at the checkpoint, `s* X̄* W̃`.
        scale: [N] s*.
        rest: [P, N, D] the centred stream without each part's head, and
        sq_rest: [P, N] its squared norm.
        z: [P, N, K] what each part's head attends together at the checkpoint, times s*.
        batch: its N predictions are those that count.
        baseline: the loss at the checkpoint, a float64 scalar in nats per token.
    """

    base: Base
    scale: Float[Tensor, " N"]
    rest: Float[Tensor, "P N D"]
    sq_rest: Float[Tensor, "P N"]
    z: Float[Tensor, "P N K"]
    batch: TokenBatch
    baseline: Float[Tensor, ""]


class HeadReadOut:
    """From what P heads of the last layer write to the loss, where no MLP reads it.

    Args:
        shape: of the model.
        params: the model.
        w_o: [P, K, D] the output matrices of the heads at the checkpoint.
        samples_output: whether W_O is sampled.
    """

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], w_o: Float[Tensor, "P K D"], samples_output: bool) -> None:
        self.shape, self.samples_output = shape, samples_output
        weight = fw.unembedding(shape, params)
        if (w := params.get("ln_final.w")) is not None:
            weight = w[:, None] * weight
        self._weight = self._centred(weight.T).T.contiguous()
        bias = fw.unembedding_bias(shape, params)
        self._bias = bias if (b := params.get("ln_final.b")) is None else torch.addmv(bias, fw.unembedding(shape, params).mT, b)
        self._w_o = w_o
        self._written = w_o @ self._weight  # [P, K, V]

    def prepare(
        self,
        batch: TokenBatch,
        total: Float[Tensor, "B T D"],
        rest: Float[Tensor, "P B T D"],
        z: Float[Tensor, "P B T K"],
        beside: Float[Tensor, "B T D"] | None = None,
    ) -> ReadOutContext:
        """The stream after the last layer at the checkpoint, without each head, and what each head attends together; no norm is behind the heads."""
        del beside
        x, others = (self._centred(batch.predicting(y)) for y in (total, rest))
        scale = self._scale(_squared(x))
        base = Base.of(x * scale[:, None], self._weight, self.shape.logit_softcap)
        own_z = batch.predicting(z) * scale[:, None]
        return ReadOutContext(base, scale, others, _squared(others), own_z, batch, base.loss(self._bias, batch.targets))

    def losses(
        self, z: Float[Tensor, "C B T K"], w_o: Float[Tensor, "C K D"] | None, owner: Int[Tensor, " C"], context: ReadOutContext
    ) -> Float[Tensor, " C"]:
        """Mean loss [C] in nats per token (float64) of variants; `owner` says which part each belongs to, `w_o` is None unless it is sampled."""
        z = context.batch.predicting(z)
        own = self._w_o[owner] if w_o is None else w_o
        centred = self._centred(own)
        cross = torch.cat([context.rest[p] @ centred[owner == p].mT for p in owner.unique_consecutive().tolist()])
        square = context.sq_rest[owner] + ((2 * cross + z @ (centred @ centred.mT)) * z).sum(-1)
        scale = self._scale(square.clamp_min(0))
        written = None if w_o is None else (w_o.flatten(0, 1) @ self._weight).view(len(w_o), -1, self._weight.shape[1])
        near = _Near(context.base, self._bias, context.z, self._written, owner.tolist(), context.batch.targets)
        return _HeadLosses.apply(z * scale[..., None], written, scale / context.scale, near)  # pyright: ignore[reportReturnType]

    def token_losses(
        self, z: Float[Tensor, "C B T K"], w_o: Float[Tensor, "C K D"] | None, owner: Int[Tensor, " C"], context: ReadOutContext
    ) -> Float[Tensor, "C n"]:
        """The loss of every prediction that counts, in nats; variant by variant through the whole unembedding."""
        z, own = context.batch.predicting(z), self._w_o[owner] if w_o is None else w_o
        losses = z.new_empty(z.shape[:2])
        for c, p in enumerate(owner.tolist()):
            x = context.rest[p] + z[c] @ self._centred(own[c])
            x = x * self._scale(_squared(x))[:, None]
            losses[c] = each_row(x[None], self._weight, self._bias, context.batch.targets, self.shape.logit_softcap)[0]
        return losses

    def _centred(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return x - x.mean(-1, keepdim=True) if self.shape.norm.startswith("layernorm") else x

    def _scale(self, square: Tensor) -> Tensor:
        return (square / self.shape.d_model + self.shape.norm_eps).rsqrt()


def _squared(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
    return (x * x).sum(-1)


class _Near(NamedTuple):
    """Everything that does not change between variants."""

    base: Base
    bias: Tensor  # [V]
    z: Tensor  # [P, N, K], times s*
    written: Tensor  # [P, K, V], W_O* W̃
    owner: list[int]
    targets: Tensor  # [N] or [N, V]


class _HeadLosses(torch.autograd.Function):
    """Losses of `coefficients` [C, N, K] (s z), `written` [C, K, V] (W_O W̃; None where W_O is frozen) and `ratio` [C, N] (s/s*)."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, written: Tensor | None, ratio: Tensor, near: _Near) -> Tensor:
        differentiated = any(ctx.needs_input_grad)
        base, bias, own_z, own_written, owner, targets = near
        count, n, _ = coefficients.shape
        losses = torch.zeros(count, dtype=torch.float64, device=ratio.device)
        d_coefficients, d_ratio = (torch.empty_like(t) if differentiated else None for t in (coefficients, ratio))
        d_written = torch.zeros_like(written) if differentiated and written is not None else None
        room = Block(base.rows, base.weight)
        for rows in base.blocks():
            whole = base.logits(rows)
            without, part = whole, -1
            for c, p in enumerate(owner):
                r, x = ratio[c, rows, None], coefficients[c, rows]
                if written is None:
                    # Only z has moved: what it moved by goes through the frozen product, which keeps its precision.
                    m, x = own_written[p], x - r * own_z[p, rows]
                else:
                    m = written[c]
                    if p != part:
                        without, part = torch.addmm(whole, own_z[p, rows], own_written[p], alpha=-1, out=room.base(rows)), p
                logits = torch.addcmul(bias, without, r, out=room.logits(rows)).addmm_(x, m)
                loss, residual = row_losses(logits, targets[rows], room, differentiated, base.cap)
                losses[c] += loss
                if residual is None or d_coefficients is None or d_ratio is None:
                    continue
                d_x = torch.mm(residual, m.T, out=d_coefficients[c, rows])
                if d_written is not None:
                    d_written[c].addmm_(x.T, residual)
                torch.sum(residual.mul_(without), 1, out=d_ratio[c, rows])
                if written is None:
                    d_ratio[c, rows] -= (d_x * own_z[p, rows]).sum(1)
        ctx.save_for_backward(d_coefficients, d_written, d_ratio)
        ctx.rows = n
        return losses / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        factors = (grad_outputs[0] / ctx.rows).to(ctx.saved_tensors[0].dtype)
        d_coefficients, d_written, d_ratio = (None if t is None else t * factors.view(-1, *[1] * (t.ndim - 1)) for t in ctx.saved_tensors)
        return d_coefficients, d_written, d_ratio, None

"""Logits of variants that are near the checkpoint's: what all share is made once a minibatch, and a variant adds the product of what it moved by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rllc.model.cost import KEPT_LOGITS
from rllc.model.cross_entropy import Block, row_blocks, row_losses

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class Base:
    """The logits of N rows at the checkpoint, without bias and cap, by blocks of rows.

    Args:
        rows: [N, D] what the unembedding is applied to.
        weight: [D, V] the unembedding.
        cap: soft cap of the logits, once the bias is added; 0 for none.
        kept: [N, V] their product, where it is not made anew for each block.
    """

    rows: Float[Tensor, "N D"]
    weight: Float[Tensor, "D V"]
    cap: float = 0.0
    kept: Float[Tensor, "N V"] | None = None

    @classmethod
    def of(cls, rows: Float[Tensor, "N D"], weight: Float[Tensor, "D V"], cap: float = 0.0) -> Base:
        """The logits, kept where they are few enough."""
        base = cls(rows, weight, cap)
        if len(rows) * weight.shape[1] > KEPT_LOGITS:
            return base
        kept = rows.new_empty(len(rows), weight.shape[1])
        for block in base.blocks():
            torch.mm(rows[block], weight, out=kept[block])
        return cls(rows, weight, cap, kept)

    def blocks(self) -> list[slice]:
        """The blocks of rows, in order."""
        return row_blocks(len(self.rows), self.weight.shape[1], self.rows.device.type)

    def logits(self, block: slice) -> Float[Tensor, "N V"]:
        """Of one block."""
        return self.rows[block] @ self.weight if self.kept is None else self.kept[block]

    def loss(self, bias: Float[Tensor, " V"], targets: Int[Tensor, " N"] | Float[Tensor, "N V"]) -> Float[Tensor, ""]:
        """Mean cross-entropy at the checkpoint in nats per token, in float64; to the bit what a variant gets that has not moved."""
        room, total = Block(self.rows, self.weight), torch.zeros((), dtype=torch.float64, device=self.rows.device)
        for block in self.blocks():
            total += row_losses(torch.add(bias, self.logits(block), out=room.logits(block)), targets[block], room, cap=self.cap)[0]
        return total / len(targets)


def near_losses(
    x: Float[Tensor, "C N D"], base: Base, bias: Float[Tensor, " V"], targets: Int[Tensor, " N"] | Float[Tensor, "N V"], products: torch.dtype
) -> Float[Tensor, " C"]:
    """Mean next-token cross-entropy of each variant, in nats per token, with the unembedding's products in a shorter type.

    What is rounded is what the rows moved by and the residual behind the gradient, not the logits: errors are relative to the difference
    that λ̂ is made of, and a variant that has not moved has the baseline's loss to the bit.

    Args:
        x: [C, N, D] final residual stream after the norm.
        base: the same at the checkpoint.
        bias: [V].
        targets: [N] token ids, or [N, V] probabilities.
        products: type of the factors; sums are taken in fp32 by the hardware.

    Returns [C] in float64, differentiable once with respect to x.
    """
    return _NearLosses.apply(x, base, bias, targets, base.weight.to(products))  # pyright: ignore[reportReturnType]


class _NearLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Base, bias: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        n_variants, n_rows, _ = x.shape
        gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        losses = torch.zeros(n_variants, dtype=torch.float64, device=x.device)
        room = Block(x, weight)
        for rows in base.blocks():
            shared = base.logits(rows) + bias
            for c in range(n_variants):
                moved = (x[c, rows] - base.rows[rows]).to(weight.dtype)
                logits = torch.add(shared, moved @ weight, out=room.logits(rows))
                loss, residual = row_losses(logits, targets[rows], room, gradient is not None, base.cap)
                losses[c] += loss
                if residual is not None and gradient is not None:
                    gradient[c, rows] = (residual.to(weight.dtype) @ weight.T).to(x.dtype)
        ctx.save_for_backward(gradient)
        ctx.rows = n_rows
        return losses / n_rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_outputs[0] / ctx.rows).to(gradient.dtype)[:, None, None], None, None, None, None

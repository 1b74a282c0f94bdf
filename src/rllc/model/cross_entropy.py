"""Unembedding and cross-entropy in one: logits never exist whole, and the gradient is formed in the forward pass (DESIGN, The engine)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Rows of logits are computed in blocks of about this many numbers: large enough for the matrix product, small enough for the cache.
# The blocks depend on the batch and the vocabulary alone, so that a variant's loss does not depend on how many others are computed beside it.
_BLOCK_NUMBERS = 1 << 19


def block_rows(n_rows: int, d_vocab: int) -> int:
    """How many rows of logits are computed at once."""
    return max(1, min(n_rows, _BLOCK_NUMBERS // d_vocab))


def variant_losses(
    x: Float[Tensor, "C N D"],
    weight: Float[Tensor, "D V"] | Float[Tensor, "C D V"],
    bias: Float[Tensor, " V"] | Float[Tensor, "C V"],
    targets: Int[Tensor, " N"],
) -> Float[Tensor, " C"]:
    """Mean next-token cross-entropy of each variant, in nats per token.

    Args:
        x: [C, N, D] final residual stream after the norm, one row a prediction.
        weight: [D, V], or [C, D, V] where it differs between variants.
        bias: [V] or [C, V].
        targets: [N] token ids.

    Returns [C] in float64 (the sum over tokens is taken there), differentiable once with respect to x, weight and bias.

    Raises ValueError where gradients of several variants are asked of a weight or bias that they share.
    """
    for shared in ([weight] if weight.ndim == 2 else []) + ([bias] if bias.ndim == 1 else []):
        if x.shape[0] > 1 and shared.requires_grad and torch.is_grad_enabled():
            raise ValueError("a weight or bias shared by several variants cannot hold the gradients of each one's loss; give it the axis C")
    return _FusedCrossEntropy.apply(x, weight, bias, targets)  # pyright: ignore[reportReturnType]


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        n_variants, n_rows, _ = x.shape
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias else None
        losses = torch.empty(n_variants, dtype=torch.float64, device=x.device)
        rows = block_rows(n_rows, weight.shape[-1])
        index = targets[:, None]
        # One buffer for all blocks, and every pass over it in place: at small widths the passes cost as much as the products.
        buffer = torch.empty(rows, weight.shape[-1], dtype=x.dtype, device=x.device)
        for c in range(n_variants):
            w = weight if weight.ndim == 2 else weight[c]
            b = bias if bias.ndim == 1 else bias[c]
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            for start in range(0, n_rows, rows):
                x_block, index_block = x[c, start : start + rows], index[start : start + rows]
                block = buffer[: x_block.shape[0]]
                torch.addmm(b, x_block, w, out=block)
                # The target's logit is read after the largest is taken off: an offset common to all logits then costs no precision.
                chosen = block.sub_(block.amax(1, keepdim=True)).gather(1, index_block)
                norm = block.exp_().sum(1, keepdim=True)
                total += norm.log().sub_(chosen).sum(dtype=torch.float64)
                if grad_x is None and grad_weight is None and grad_bias is None:
                    continue
                block.div_(norm.mul_(n_rows))
                block.scatter_add_(1, index_block, block.new_full((1, 1), -1.0 / n_rows).expand(index_block.shape))
                if grad_x is not None:
                    torch.mm(block, w.T, out=grad_x[c, start : start + rows])
                if grad_weight is not None:
                    (grad_weight if weight.ndim == 2 else grad_weight[c]).addmm_(x_block.T, block)
                if grad_bias is not None:
                    (grad_bias if bias.ndim == 1 else grad_bias[c]).add_(block.sum(0))
            losses[c] = total / n_rows
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad_losses,) = grad_outputs

        def scaled(gradient: Tensor | None, ndim: int) -> Tensor | None:
            if gradient is None:
                return None
            factors = grad_losses.to(gradient.dtype)
            return gradient * (factors.reshape([-1] + [1] * ndim) if gradient.ndim > ndim else factors[0])

        grad_x, grad_weight, grad_bias = ctx.saved_tensors
        return scaled(grad_x, 2), scaled(grad_weight, 2), scaled(grad_bias, 1), None

"""Unembedding and cross-entropy in one: logits never exist whole, and the gradient is formed in the forward pass (DESIGN, The engine)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Rows of logits are computed in blocks of about this many numbers: large enough for the matrix product, small enough for the cache.
# The blocks depend on the batch and the vocabulary alone, so that a variant's loss does not depend on how many others are computed beside it.
_BLOCK_NUMBERS = 1 << 19


def block_rows(n_rows: int, d_vocab: int) -> int:
    """How many rows of logits are computed at once."""
    return max(1, min(n_rows, _BLOCK_NUMBERS // d_vocab))


def variant_losses(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Mean next-token cross-entropy of each variant, in nats per token.

    Args:
        x: [C, N, D] final residual stream after the norm, one row a prediction.
        weight: [D, V], or [C, D, V] where it differs between variants.
        bias: [V] or [C, V].
        targets: [N] token ids.

    Returns [C] in float64 (the sum over tokens is taken there), differentiable once with respect to x, weight and bias.
    """
    return _FusedCrossEntropy.apply(x, weight, bias, targets)  # pyright: ignore[reportReturnType]


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        n_variants, n_rows, _ = x.shape
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias else None
        if grad_weight is not None and weight.ndim == 2 and n_variants > 1:
            raise ValueError("one shared weight cannot hold the gradients of several variants' losses")
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
                chosen = block.gather(1, index_block)
                top = block.amax(1, keepdim=True)
                block.sub_(top).exp_()
                norm = block.sum(1, keepdim=True)
                total += (norm.log().add_(top).sub_(chosen)).sum(dtype=torch.float64)
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
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_losses,) = grad_outputs
        grad_x, grad_weight, grad_bias = ctx.saved_tensors

        def scaled(gradient: Tensor | None, batched: bool) -> Tensor | None:
            if gradient is None:
                return None
            scale = grad_losses if batched else grad_losses.sum()
            return gradient * scale.to(gradient.dtype).reshape([-1] + [1] * (gradient.ndim - 1) if batched else [])

        n = grad_losses.shape[0]
        return (
            scaled(grad_x, True),
            scaled(grad_weight, grad_weight is not None and grad_weight.ndim == 3),
            scaled(grad_bias, grad_bias is not None and grad_bias.ndim == 2 and grad_bias.shape[0] == n),
            None,
        )

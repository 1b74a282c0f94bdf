"""Unembedding and cross-entropy in one: logits never exist whole, and the gradient is formed in the forward pass (DESIGN, The engine)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rllc.model.softcap import cap_, through_cap_

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Rows of logits are computed in blocks of about this many numbers: large enough for the matrix product, small enough for the cache; on a device
# large enough that starting the work is not the work. The blocks depend on the batch and the vocabulary alone, so that a variant's loss does
# not depend on how many others are computed beside it.
_BLOCK_NUMBERS = 1 << 19
_BLOCK_NUMBERS_ON_DEVICE = 1 << 26


def block_rows(n_rows: int, d_vocab: int, device: str = "cpu") -> int:
    """How many rows of logits are computed at once on a type of device."""
    return max(1, min(n_rows, (_BLOCK_NUMBERS if device == "cpu" else _BLOCK_NUMBERS_ON_DEVICE) // d_vocab))


def row_blocks(n_rows: int, d_vocab: int, device: str = "cpu") -> list[slice]:
    """The rows in such blocks."""
    step = block_rows(n_rows, d_vocab, device)
    return [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]


class Block:
    """Room for one block of rows, used again for every block of every variant: logits, probabilities, and logits that variants share."""

    def __init__(self, rows: Float[Tensor, "*C N D"], weight: Float[Tensor, "*W D V"]) -> None:
        d_vocab = weight.shape[-1]
        self._room = rows.new_empty(3, block_rows(rows.shape[-2], d_vocab, rows.device.type), d_vocab)  # what is not written to takes no memory

    def logits(self, rows: slice) -> Float[Tensor, "N V"]:
        """Room for the logits of these rows."""
        return self._room[0, : rows.stop - rows.start]

    def probabilities(self, rows: slice) -> Float[Tensor, "N V"]:
        """Room for their probabilities."""
        return self._room[1, : rows.stop - rows.start]

    def base(self, rows: slice) -> Float[Tensor, "N V"]:
        """Room for the logits that variants start from."""
        return self._room[2, : rows.stop - rows.start]


def row_losses(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"] | Float[Tensor, "N V"], room: Block, differentiated: bool = False, cap: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
    """The sum of the rows' cross-entropy in nats, in float64, and its gradient with respect to the logits, in that room, if asked for.

    Against token ids, or against probabilities, which differs by their entropy from the Kullback-Leibler divergence. The softmax kernel goes
    over a row once, in the cache; log Σ exp follows from the largest probability, which is at least 1/V. The target's logit is read against the
    largest: an offset common to all logits then costs no precision. Logits with a cap are used up.
    """
    losses, probabilities = _each_row(logits, targets, room, cap)
    total = losses.sum(dtype=torch.float64)
    if not differentiated:
        return total, None
    labels = targets.ndim == 1
    index = targets[:, None] if labels else targets
    if not labels:
        return total, through_cap_(probabilities.sub_(index), logits, cap)
    residual = probabilities.scatter_add_(1, index, probabilities.new_full((1, 1), -1.0).expand(index.shape))
    return total, through_cap_(residual, logits, cap)


def _each_row(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"] | Float[Tensor, "N V"], room: Block, cap: float
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N V"]]:
    cap_(logits, cap)
    labels = targets.ndim == 1
    index = targets[:, None] if labels else targets
    mean = logits.gather(1, index) if labels else (logits * index).sum(1, keepdim=True)
    below = logits.amax(1, keepdim=True) - mean
    probabilities = torch.softmax(logits, 1, out=room.probabilities(slice(0, len(logits))))
    return below - probabilities.amax(1, keepdim=True).log_(), probabilities


@torch.no_grad()
def each_row(
    x: Float[Tensor, "C N D"],
    weight: Float[Tensor, "D V"] | Float[Tensor, "C D V"],
    bias: Float[Tensor, " V"] | Float[Tensor, "C V"],
    targets: Int[Tensor, " N"] | Float[Tensor, "N V"],
    cap: float = 0.0,
) -> Float[Tensor, "C N"]:
    """The cross-entropy of every row under each variant, in nats and the type of x; arguments as those of `variant_losses`. No gradients."""
    losses, room = x.new_empty(x.shape[:2]), Block(x, weight)
    for c in range(len(x)):
        w, b = weight if weight.ndim == 2 else weight[c], bias if bias.ndim == 1 else bias[c]
        for rows in row_blocks(x.shape[1], weight.shape[-1], x.device.type):
            logits = torch.addmm(b, x[c, rows], w, out=room.logits(rows))
            losses[c, rows] = _each_row(logits, targets[rows], room, cap)[0][:, 0]
    return losses


def variant_losses(
    x: Float[Tensor, "C N D"],
    weight: Float[Tensor, "D V"] | Float[Tensor, "C D V"],
    bias: Float[Tensor, " V"] | Float[Tensor, "C V"],
    targets: Int[Tensor, " N"] | Float[Tensor, "N V"],
    cap: float = 0.0,
) -> Float[Tensor, " C"]:
    """Mean next-token cross-entropy of each variant, in nats per token.

    Args:
        x: [C, N, D] final residual stream after the norm, one row a prediction.
        weight: [D, V], or [C, D, V] where it differs between variants.
        bias: [V] or [C, V].
        targets: [N] token ids, or [N, V] probabilities.
        cap: soft cap of the logits; 0 for none.

    Returns [C] in float64 (the sum over tokens is taken there), differentiable once with respect to x, weight and bias.

    Raises ValueError where gradients of several variants are asked of a weight or bias that they share.
    """
    for shared in ([weight] if weight.ndim == 2 else []) + ([bias] if bias.ndim == 1 else []):
        if x.shape[0] > 1 and shared.requires_grad and torch.is_grad_enabled():
            raise ValueError("a weight or bias shared by several variants cannot hold the gradients of each one's loss; give it the axis C")
    return _FusedCrossEntropy.apply(x, weight, bias, targets, cap)  # pyright: ignore[reportReturnType]


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, cap: float) -> Tensor:
        n_variants, n_rows, _ = x.shape
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x = torch.empty_like(x) if needs_x else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if needs_bias else None
        differentiated = needs_x or needs_weight or needs_bias
        losses = torch.empty(n_variants, dtype=torch.float64, device=x.device)
        room = Block(x, weight)
        for c in range(n_variants):
            w = weight if weight.ndim == 2 else weight[c]
            b = bias if bias.ndim == 1 else bias[c]
            total = torch.zeros((), dtype=torch.float64, device=x.device)
            for rows in row_blocks(n_rows, weight.shape[-1], x.device.type):
                logits = torch.addmm(b, x[c, rows], w, out=room.logits(rows))
                loss, residual = row_losses(logits, targets[rows], room, differentiated, cap)
                total += loss
                if residual is None:
                    continue
                if grad_x is not None:
                    torch.mm(residual, w.T, out=grad_x[c, rows])
                if grad_weight is not None:
                    (grad_weight if weight.ndim == 2 else grad_weight[c]).addmm_(x[c, rows].T, residual)
                if grad_bias is not None:
                    (grad_bias if bias.ndim == 1 else grad_bias[c]).add_(residual.sum(0))
            losses[c] = total / n_rows
        ctx.save_for_backward(grad_x, grad_weight, grad_bias)
        ctx.rows = n_rows
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad_losses,) = grad_outputs

        def scaled(gradient: Tensor | None, ndim: int) -> Tensor | None:
            if gradient is None:
                return None
            factors = (grad_losses / ctx.rows).to(gradient.dtype)
            return gradient * (factors.reshape([-1] + [1] * ndim) if gradient.ndim > ndim else factors[0])

        grad_x, grad_weight, grad_bias = ctx.saved_tensors
        return scaled(grad_x, 2), scaled(grad_weight, 2), scaled(grad_bias, 1), None, None

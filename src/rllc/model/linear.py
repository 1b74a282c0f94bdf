"""One frozen matrix applied to many variants, a variant at a time.

A row's result then does not depend on how many variants are computed beside it, so that a variant equal to the checkpoint has the
baseline's loss to the last bit; and the rows of one variant stay in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float


_CACHE_LINE = 64  # bytes


def shared_product(x: Float[Tensor, "C N D"], weight: Float[Tensor, "D M"]) -> Float[Tensor, "C N M"]:
    """The product of every variant's rows with one matrix. Differentiable once in x; also in the matrix where C is 1, as in training."""
    if x.shape[0] == 1:
        return (x[0] @ weight)[None]
    if weight.requires_grad:
        raise ValueError("a matrix that several variants share is frozen; give it the axis C to differentiate it")
    return _SharedProduct.apply(x, weight)  # pyright: ignore[reportReturnType]


class _SharedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _each(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,) = ctx.saved_tensors
        return _each(grad_outputs[0].contiguous(), weight.T), None


def _each(x: Tensor, weight: Tensor) -> Tensor:
    out = x.new_empty(*x.shape[:-1], weight.shape[1])
    # The last bits of a product depend on where in a cache line its rows begin: blocks that do not begin alike are moved to where they do.
    alike = all(t[0].numel() * t.element_size() % _CACHE_LINE == 0 for t in (x, out))
    for result, rows in zip(out.unbind(0), x.unbind(0), strict=True):
        if alike:
            torch.mm(rows, weight, out=result)
        else:
            result.copy_(torch.mm(rows.clone(), weight))
    return out

"""What an objective offers: losses of C variants, their gradients, the loss at the checkpoint. Variants are part-major: variant c belongs to
part c // (C / P)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Context = TypeVar("Context")


class Evaluation(NamedTuple):
    """Losses of C variants, their gradients, and the same minibatch's loss at the checkpoint, in nats per token.

    `losses` and `baseline` are [C] in float64; `gradients` holds one [C, ...] tensor a name, or is None in the gradient-free mode.
    """

    losses: Float[Tensor, " C"]
    gradients: dict[str, Tensor] | None
    baseline: Float[Tensor, " C"]


@runtime_checkable
class PartObjective(Protocol[Context]):
    """What a sampler may ask of a model; `origin` is where its chains start, [P, ...] a name."""

    origin: dict[str, Tensor]

    def prepare(self, batch: Int[Tensor, "B T"]) -> Context:
        """Compute what tokens [B, T] share among all variants."""
        ...

    def evaluate(self, variants: Mapping[str, Tensor], context: Context, *, gradients: bool = True) -> Evaluation:
        """Losses [C] of variants on the prepared minibatch, with gradients unless told otherwise."""
        ...


def in_chunks(
    variants: Mapping[str, Tensor], baseline: Tensor, chunk: int, gradients: bool, losses: Callable[[Mapping[str, Tensor], slice], Tensor]
) -> Evaluation:
    """Evaluate `chunk` variants at a time; each variant's loss depends on its own tensors alone, so one backward pass of the sum serves all."""
    count = next(iter(variants.values())).shape[0]
    loss_blocks: list[Tensor] = []
    gradient_blocks: list[tuple[Tensor, ...]] = []
    for start in range(0, count, chunk or count):
        rows = slice(start, min(start + (chunk or count), count))
        values = {name: tensor[rows].detach().requires_grad_(gradients) for name, tensor in variants.items()}
        with torch.set_grad_enabled(gradients):
            block = losses(values, rows)
        loss_blocks.append(block.detach())
        if gradients:
            gradient_blocks.append(torch.autograd.grad(block.sum(), list(values.values())))
    result = dict(zip(variants, (torch.cat(g) for g in zip(*gradient_blocks, strict=True)), strict=True)) if gradients else None
    return Evaluation(torch.cat(loss_blocks), result, baseline.expand(count))

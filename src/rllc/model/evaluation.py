"""What an objective offers: losses of C variants, their gradients, the loss at the checkpoint.

Variants are part-major: variant c belongs to part c // (C / P).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rllc.model.batch import TokenBatch

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

    @property
    def chunk(self) -> int:
        """Most variants of a pass; 0 for all. Smaller than asked for where memory ran short."""
        ...

    def prepare(self, batch: Int[Tensor, "B T"] | TokenBatch) -> Context:
        """Compute what a minibatch shares among all variants."""
        ...

    def evaluate(self, variants: Mapping[str, Tensor], context: Context, *, gradients: bool = True) -> Evaluation:
        """Losses [C] of variants on the prepared minibatch, with gradients unless told otherwise."""
        ...


class Passes:
    """Evaluates so many variants at a time as the memory holds.

    Args:
        chunk: most variants of a pass; 0 for all. Halved for good where a pass finds no memory, down to one.
    """

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk

    def evaluate(
        self, variants: Mapping[str, Tensor], baseline: Tensor, gradients: bool, losses: Callable[[Mapping[str, Tensor], slice], Tensor]
    ) -> Evaluation:
        """Each variant's loss depends on its own tensors alone, so one backward pass of the sum serves all of a pass.

        Raises whatever says that memory is short, where it does not suffice for one variant.
        """
        blocks = self._blocks(variants, gradients, losses)
        result = dict(zip(variants, (torch.cat(g) for g in zip(*(found for _, found in blocks), strict=True)), strict=True)) if gradients else None
        every = torch.cat([block for block, _ in blocks])
        return Evaluation(every, result, baseline.expand(len(every)))

    def forward(self, variants: Mapping[str, Tensor], values: Callable[[Mapping[str, Tensor], slice], Tensor]) -> Tensor:
        """Values [C, ...] that have no gradient. Raises as `evaluate` does."""
        return torch.cat([block for block, _ in self._blocks(variants, False, values)])

    def _blocks(
        self, variants: Mapping[str, Tensor], gradients: bool, losses: Callable[[Mapping[str, Tensor], slice], Tensor]
    ) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        count = next(iter(variants.values())).shape[0]
        blocks: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        start = 0
        while start < count:
            rows = slice(start, min(start + (self.chunk or count), count))
            try:
                blocks.append(_one_pass({name: tensor[rows] for name, tensor in variants.items()}, rows, gradients, losses))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or rows.stop - rows.start == 1:
                    raise
                self.chunk = (rows.stop - rows.start) // 2
                continue
            start = rows.stop
        return blocks


def _one_pass(
    variants: Mapping[str, Tensor], rows: slice, gradients: bool, losses: Callable[[Mapping[str, Tensor], slice], Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    values = {name: tensor.detach().requires_grad_(gradients) for name, tensor in variants.items()}
    with torch.set_grad_enabled(gradients):
        block = losses(values, rows)
    return block.detach(), torch.autograd.grad(block.sum(), list(values.values())) if gradients else ()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on a device or on the host."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)

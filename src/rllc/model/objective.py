"""The loss of C variants of a part at once, with everything that does not change computed once (DESIGN, The engine).

Heads have an objective of their own; `GeneralObjective` serves every other part. Both offer the two calls of the sampling protocol by shape:
`prepare(batch)` and `evaluate(variants, context)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.batch import TokenBatch, token_batch
from rllc.model.evaluation import Evaluation, PartObjective, Passes
from rllc.model.head_objective import HeadObjective
from rllc.model.parts import insert, stack
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, slices, within_one_head

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class StreamContext:
    """What one minibatch shares among all variants of any other part.

    Args:
        stream: [1, B, T, D] the residual stream before the first layer that the part changes.
        baseline: the loss at the checkpoint, a float64 scalar in nats per token.
    """

    batch: TokenBatch
    stream: Float[Tensor, "1 B T D"]
    baseline: Float[Tensor, ""]


def build_objective(
    shape: ModelShape, params: Mapping[str, Tensor], parts: tuple[Part, ...], chunk: int, products: torch.dtype = torch.float32
) -> PartObjective[Any]:
    """The objective of P parts of equal shape with a common earliest changed layer.

    Heads, and equal pieces of heads, of one layer are computed together; any other part alone. At most `chunk` variants are computed at
    once, or all of them where it is 0. Heads with layers behind them can have the unembedding's products in bf16 (`near_losses`); a last-layer
    head has no product of that size.

    Raises RllcError where the model has no such part, ValueError where the parts cannot share a pass (a plan puts none such together).
    """
    kinds = {(_head_pieces(shape, part), first_layer(shape, part)) for part in parts}
    if len(kinds) == 1 and next(iter(kinds))[0] is not None:
        return HeadObjective(shape, params, parts, chunk, products)
    if len(parts) != 1:
        raise ValueError(f"{', '.join(map(str, parts))} cannot share one pass; plan them as separate units")
    return GeneralObjective(shape, params, parts[0], chunk)


def _head_pieces(shape: ModelShape, part: Part) -> tuple[str, ...] | None:
    """Which tensors of a head the part holds, where it lies within one head."""
    return tuple(s.tensor.rsplit(".", 1)[1] for s in slices(shape, part)) if within_one_head(shape, part) else None


class GeneralObjective:
    """Any part whatever: its tensors carry the axis C, and the network runs from the first layer that they change."""

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], part: Part, chunk: int) -> None:
        self.shape, self.params, self.part, self._passes = shape, params, part, Passes(chunk)
        self.origin = stack(shape, params, (part,))
        touched = {s.tensor for s in slices(shape, part)}
        self._embeds = "embed.W_E" in touched or ("pos.W_pos" in touched and shape.positions == "learned")
        self._start = first_layer(shape, part)

    @property
    def chunk(self) -> int:
        """Most variants of a pass; 0 for all. Smaller than asked for where memory ran short."""
        return self._passes.chunk

    @torch.no_grad()
    def prepare(self, batch: Int[Tensor, "B T"] | TokenBatch) -> StreamContext:
        """Run the frozen network on a batch up to the first layer that the part changes, and to the end for the baseline."""
        shape, params, batch = self.shape, self.params, token_batch(batch)
        x = fw.run_blocks(shape, params, fw.embed(shape, params, batch.tokens), stop=self._start)
        baseline = fw.read_out(shape, params, fw.run_blocks(shape, params, x, self._start), batch)[0]
        return StreamContext(batch, x, baseline)

    def evaluate(self, variants: Mapping[str, Tensor], context: StreamContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C variants, [C, ...] a name of `origin`."""

        def losses(values: Mapping[str, Tensor], rows: slice) -> Tensor:  # noqa: ARG001
            params = insert(self.shape, self.params, self.part, values)
            x = fw.embed(self.shape, params, context.batch.tokens) if self._embeds else context.stream
            return fw.read_out(self.shape, params, fw.run_blocks(self.shape, params, x, self._start), context.batch)

        return self._passes.evaluate(variants, context.baseline, gradients, losses)

    @torch.no_grad()
    def token_losses(self, variants: Mapping[str, Tensor], context: StreamContext) -> Float[Tensor, "C n"]:
        """The loss of every prediction that counts under each variant, in nats."""

        def each(values: Mapping[str, Tensor], rows: slice) -> Tensor:  # noqa: ARG001
            params = insert(self.shape, self.params, self.part, values)
            x = fw.embed(self.shape, params, context.batch.tokens) if self._embeds else context.stream
            return fw.read_out_each(self.shape, params, fw.run_blocks(self.shape, params, x, self._start), context.batch)

        return self._passes.forward(variants, each)

"""The loss of C variants of a part at once, with everything that does not change computed once (DESIGN, The engine).

Both classes offer the two calls of the sampling protocol by shape: `prepare(batch)` and `evaluate(variants, context)`.
Variants are part-major: variant c belongs to part c // (C / P).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.parts import insert, stack
from rllc.model.shape import HEAD_TENSORS, ModelShape, Slice, first_layer, slices, within_one_head


class Evaluation(NamedTuple):
    """Losses of C variants, their gradients, and the same minibatch's loss at the checkpoint, in nats per token.

    `losses` and `baseline` are [C] in float64; `gradients` holds one [C, ...] tensor a name, or is None in the gradient-free mode.
    """

    losses: Float[Tensor, " C"]
    gradients: dict[str, Tensor] | None
    baseline: Float[Tensor, " C"]


if TYPE_CHECKING:
    from jaxtyping import Float, Int

Context = TypeVar("Context")


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


@dataclass(frozen=True)
class HeadContext:
    """What one minibatch of tokens [B, T] shares among all variants of P heads.

    Args:
        normed: [1, B, T, D] what a head's V reads, and
        normed_qk: [1, B, T, D] what its Q and K read.
        rest: [P, B, T, D] the residual stream after the attention layer, without the contribution of each part's head.
        baseline: the loss at the checkpoint, a float64 scalar in nats per token.
    """

    tokens: Int[Tensor, "B T"]
    normed: Float[Tensor, "1 B T D"]
    normed_qk: Float[Tensor, "1 B T D"]
    rest: Float[Tensor, "P B T D"]
    baseline: Float[Tensor, ""]


@dataclass(frozen=True)
class StreamContext:
    """What one minibatch of tokens [B, T] shares among all variants of any other part.

    Args:
        stream: [1, B, T, D] the residual stream before the first layer that the part changes.
        baseline: the loss at the checkpoint, a float64 scalar in nats per token.
    """

    tokens: Int[Tensor, "B T"]
    stream: Float[Tensor, "1 B T D"]
    baseline: Float[Tensor, ""]


def build_objective(shape: ModelShape, params: Mapping[str, Tensor], parts: tuple[Part, ...], chunk: int) -> PartObjective[Any]:
    """The objective of P parts of equal shape with a common earliest changed layer.

    Heads, and equal pieces of heads, of one layer are computed together; any other part alone. At most `chunk` variants are computed at
    once, or all of them where it is 0.

    Raises RllcError where the model has no such part, ValueError where the parts cannot share a pass (a plan puts none such together).
    """
    kinds = {(_head_pieces(shape, part), first_layer(shape, part)) for part in parts}
    if len(kinds) == 1 and next(iter(kinds))[0] is not None:
        return HeadObjective(shape, params, parts, chunk)
    if len(parts) != 1:
        raise ValueError(f"{', '.join(map(str, parts))} cannot share one pass; plan them as separate units")
    return GeneralObjective(shape, params, parts[0], chunk)


def _head_pieces(shape: ModelShape, part: Part) -> tuple[str, ...] | None:
    """Which tensors of a head the part holds, where it lies within one head."""
    return tuple(s.tensor.rsplit(".", 1)[1] for s in slices(shape, part)) if within_one_head(shape, part) else None


class HeadObjective:
    """P heads of one layer, or equal pieces of them: a variant costs one head and what comes after its layer."""

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], parts: tuple[Part, ...], chunk: int) -> None:
        self.shape, self.params, self.parts, self.chunk = shape, params, parts, chunk
        first = slices(shape, parts[0])
        self.layer = first_layer(shape, parts[0])
        self.heads = [_slice_head(slices(shape, part)[0]) for part in parts]
        self.origin = stack(shape, params, parts)
        self._names = dict(zip((s.tensor.rsplit(".", 1)[1] for s in first), self.origin, strict=True))
        prefix = f"blocks.{self.layer}.attn."
        # Pieces that are not sampled stay at the checkpoint: [P, ...], one entry a part.
        self._frozen = {
            name: torch.stack([params[prefix + name][h] for h in self.heads])
            for piece in HEAD_TENSORS.values()
            for name in piece
            if name not in self._names
        }

    @torch.no_grad()
    def prepare(self, batch: Int[Tensor, "B T"]) -> HeadContext:
        """Run the frozen network on tokens [B, T]: what the heads read, the rest of the residual stream for each, the baseline."""
        shape, params, layer = self.shape, self.params, self.layer
        x = fw.run_blocks(shape, params, fw.embed(shape, params, batch), stop=layer)
        normed = fw.norm(shape, params, f"blocks.{layer}.ln1", x)
        z = fw.head_outputs(shape, params, layer, normed)[0]
        w_o = params[f"blocks.{layer}.attn.W_O"]
        # Baseline and rest are summed in one order, so that a head whose W_O is zero leaves no rounding between them: its λ̂ is exactly 0.
        all_but = x[0] + params[f"blocks.{layer}.attn.b_O"]
        outputs = torch.einsum("bhtk,hkd->hbtd", z, w_o)
        total = outputs.sum(0)
        rest = torch.stack([all_but + (total - outputs[h]) for h in self.heads])
        after = fw.mlp(shape, params, layer, (all_but + total)[None])
        baseline = fw.read_out(shape, params, fw.run_blocks(shape, params, after, layer + 1), batch)[0]
        return HeadContext(batch, normed, fw.query_key_input(shape, params, normed), rest, baseline)

    def evaluate(self, variants: Mapping[str, Tensor], context: HeadContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C = P * chains variants, [C, ...] a name of `origin`, part-major."""
        count = next(iter(variants.values())).shape[0]
        if count % len(self.parts):
            raise ValueError(f"{count} variants do not divide among {len(self.parts)} parts")
        owner = torch.arange(count, device=context.tokens.device) // (count // len(self.parts))
        return _in_chunks(variants, context.baseline, self.chunk, gradients, lambda values, rows: self._losses(values, owner[rows], context))

    def _losses(self, values: Mapping[str, Tensor], owner: Tensor, context: HeadContext) -> Tensor:
        shape = self.shape
        head = {name: values[key] for name, key in self._names.items()} | {name: t[owner] for name, t in self._frozen.items()}
        _, b, t, d = context.normed.shape
        rows = context.normed.reshape(b * t, d)
        rows_qk = context.normed_qk.reshape(b * t, d)

        def project(x: Tensor, piece: str) -> Tensor:
            out = torch.matmul(x, head[f"W_{piece}"]) + head[f"b_{piece}"][:, None]
            return out.view(-1, b, t, shape.d_head)

        q, k = fw.rotate(shape, project(rows_qk, "Q")), fw.rotate(shape, project(rows_qk, "K"))
        z = fw.attend(q, k, project(rows, "V"))
        out = torch.matmul(z.reshape(-1, b * t, shape.d_head), head["W_O"]).view(-1, b, t, d)
        x = fw.mlp(shape, self.params, self.layer, context.rest[owner] + out)
        return fw.read_out(shape, self.params, fw.run_blocks(shape, self.params, x, self.layer + 1), context.tokens)


class GeneralObjective:
    """Any part whatever: its tensors carry the axis C, and the network runs from the first layer that they change."""

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], part: Part, chunk: int) -> None:
        self.shape, self.params, self.part, self.chunk = shape, params, part, chunk
        self.origin = stack(shape, params, (part,))
        touched = {s.tensor for s in slices(shape, part)}
        self._embeds = "embed.W_E" in touched or ("pos.W_pos" in touched and shape.positions == "learned")
        self._start = first_layer(shape, part)

    @torch.no_grad()
    def prepare(self, batch: Int[Tensor, "B T"]) -> StreamContext:
        """Run the frozen network on tokens [B, T] up to the first layer that the part changes, and to the end for the baseline."""
        shape, params = self.shape, self.params
        x = fw.run_blocks(shape, params, fw.embed(shape, params, batch), stop=self._start)
        baseline = fw.read_out(shape, params, fw.run_blocks(shape, params, x, self._start), batch)[0]
        return StreamContext(batch, x, baseline)

    def evaluate(self, variants: Mapping[str, Tensor], context: StreamContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C variants, [C, ...] a name of `origin`."""

        def losses(values: Mapping[str, Tensor], rows: slice) -> Tensor:  # noqa: ARG001
            params = insert(self.shape, self.params, self.part, values)
            x = fw.embed(self.shape, params, context.tokens) if self._embeds else context.stream
            return fw.read_out(self.shape, params, fw.run_blocks(self.shape, params, x, self._start), context.tokens)

        return _in_chunks(variants, context.baseline, self.chunk, gradients, losses)


def _slice_head(s: Slice) -> int:
    assert s.head is not None
    return s.head


def _in_chunks(
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

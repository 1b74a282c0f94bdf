"""The loss of C variants of heads of one layer at once, with everything that does not change computed once (DESIGN, The engine).

A variant costs one head and what comes after it: `HeadReadOut` where that is the final norm and the unembedding alone, `Downstream` otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.downstream import Downstream
from rllc.model.evaluation import Evaluation, Passes
from rllc.model.head_read_out import HeadReadOut
from rllc.model.parts import stack
from rllc.model.shape import HEAD_TENSORS, ModelShape, first_layer, last_layer_head, slices

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class HeadContext:
    """What one minibatch of tokens [B, T] shares among all variants of P heads.

    Args:
        normed: [B*T, D] what a head's V reads, and
        normed_qk: [B*T, D] what its Q and K read.
        batch: B.
        behind: what is shared behind the heads.
    """

    normed: Float[Tensor, "N D"]
    normed_qk: Float[Tensor, "N D"]
    batch: int
    behind: Any


class HeadObjective:
    """P heads of one layer, or equal pieces of them: a variant costs one head and what comes after its layer."""

    def __init__(
        self, shape: ModelShape, params: Mapping[str, Tensor], parts: tuple[Part, ...], chunk: int, products: torch.dtype = torch.float32
    ) -> None:
        self.shape, self.params, self.parts, self._passes = shape, params, parts, Passes(chunk)
        first = slices(shape, parts[0])
        self.layer = first_layer(shape, parts[0])
        self.heads = [s.head for part in parts for s in slices(shape, part)[:1] if s.head is not None]
        self.origin = stack(shape, params, parts)
        self._names = dict(zip((s.tensor.rsplit(".", 1)[1] for s in first), self.origin, strict=True))
        prefix = f"blocks.{self.layer}.attn."
        # The whole heads at the checkpoint, [P, ...] a tensor: pieces that are not sampled stay there.
        self._own = {name: torch.stack([params[prefix + name][h] for h in self.heads]) for piece in HEAD_TENSORS.values() for name in piece}
        w_o = self._own["W_O"]
        self._behind: HeadReadOut | Downstream = (
            HeadReadOut(shape, params, w_o, "W_O" in self._names)
            if last_layer_head(shape, parts[0])
            else Downstream(shape, params, self.layer, w_o, products)
        )

    @property
    def chunk(self) -> int:
        """Most variants of a pass; 0 for all. Smaller than asked for where memory ran short."""
        return self._passes.chunk

    @torch.no_grad()
    def prepare(self, batch: Int[Tensor, "B T"]) -> HeadContext:
        """Run the frozen network on tokens [B, T]: what the heads read, the rest of the residual stream for each, the baseline."""
        shape, params, layer = self.shape, self.params, self.layer
        x = fw.run_blocks(shape, params, fw.embed(shape, params, batch), stop=layer)
        normed = fw.norm(shape, params, f"blocks.{layer}.ln1", x)
        z = fw.head_outputs(shape, params, layer, normed)[0]
        # Baseline and rest are summed in one order, so that a head whose W_O is zero leaves no rounding between them: its λ̂ is exactly 0.
        all_but = x[0] + params[f"blocks.{layer}.attn.b_O"]
        outputs = torch.einsum("bhtk,hkd->hbtd", z, params[f"blocks.{layer}.attn.W_O"])
        total = outputs.sum(0)
        rest = torch.stack([all_but + (total - outputs[h]) for h in self.heads])
        behind = self._behind.prepare(batch, all_but + total, rest, z[:, self.heads].transpose(0, 1))
        normed_qk = fw.query_key_input(shape, params, normed)
        return HeadContext(normed.flatten(0, -2), normed_qk.flatten(0, -2), len(batch), behind)

    def evaluate(self, variants: Mapping[str, Tensor], context: HeadContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C = P * chains variants, [C, ...] a name of `origin`, part-major."""
        count = next(iter(variants.values())).shape[0]
        if count % len(self.parts):
            raise ValueError(f"{count} variants do not divide among {len(self.parts)} parts")
        owner = torch.arange(count, device=context.normed.device) // (count // len(self.parts))
        baseline = context.behind.baseline
        return self._passes.evaluate(variants, baseline, gradients, lambda values, rows: self._losses(values, owner[rows], context))

    def _losses(self, values: Mapping[str, Tensor], owner: Tensor, context: HeadContext) -> Tensor:
        sampled = {name: values[key] for name, key in self._names.items()}
        head = {name: sampled[name] if name in sampled else own[owner] for name, own in self._own.items() if name != "W_O"}
        z = self._attend(head, context)
        return self._behind.losses(z, sampled.get("W_O"), owner, context.behind)

    def _attend(self, head: Mapping[str, Tensor], context: HeadContext) -> Float[Tensor, "C B T K"]:
        """What each variant attends together. Variants take the place of heads: one product for all, and attention reads it where it lies."""
        shape = self.shape

        def project(x: Tensor, piece: str) -> Tensor:
            weight, bias = head[f"W_{piece}"], head[f"b_{piece}"]
            out = torch.addmm(bias.flatten(), x, weight.transpose(0, 1).flatten(1))
            return out.view(context.batch, -1, len(weight), shape.d_head).transpose(1, 2)

        q, k = (fw.rotate(shape, project(context.normed_qk, piece)) for piece in "QK")
        return fw.attend(q, k, project(context.normed, "V")).transpose(0, 1)

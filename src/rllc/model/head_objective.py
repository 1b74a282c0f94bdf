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
from rllc.model.attention import attend, placed
from rllc.model.batch import TokenBatch, token_batch
from rllc.model.downstream import Downstream
from rllc.model.evaluation import Evaluation, Passes
from rllc.model.head_read_out import HeadReadOut
from rllc.model.parts import stack
from rllc.model.shape import HEAD_TENSORS, ModelShape
from rllc.model.slices import first_layer, last_layer_head, slices

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class HeadContext:
    """What one minibatch of tokens [B, T] shares among all variants of P heads.

    Args:
        normed: [B*T, D] what a head's V reads, and
        normed_qk: [B*T, D] what its Q and K read.
        batch: B.
        frozen: [B, P, T, K] a piece of Q, K, V that is not sampled, as it meets the others.
        behind: what is shared behind the heads.
    """

    normed: Float[Tensor, "N D"]
    normed_qk: Float[Tensor, "N D"]
    batch: int
    frozen: Mapping[str, Float[Tensor, "B P T K"]]
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
        self._frozen = [piece for piece in "QKV" if not self._names.keys() & set(HEAD_TENSORS[piece])]
        # Biases that are not sampled where their matrix is stay at the checkpoint, and so the other way round.
        own = (name for piece in HEAD_TENSORS.values() for name in piece if prefix + name in params and name not in self._names)
        self._own = {name: params[prefix + name][self.heads] for name in own if name[-1] not in self._frozen}
        w_o = params[prefix + "W_O"][self.heads]
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
    def prepare(self, batch: Int[Tensor, "B T"] | TokenBatch) -> HeadContext:
        """Run the frozen network on a batch: what the heads read, the rest of the residual stream for each, the baseline."""
        shape, params, layer, batch = self.shape, self.params, self.layer, token_batch(batch)
        x = fw.run_blocks(shape, params, fw.embed(shape, params, batch.tokens), stop=layer)
        normed = fw.norm_before(shape, params, f"blocks.{layer}.ln1", x)
        attended = fw.queries_keys_values(shape, params, layer, normed)
        z = fw.head_outputs(shape, attended)[0]
        # Baseline and rest are summed in one order, so that a head whose W_O is zero leaves no rounding between them: its λ̂ is exactly 0.
        bias = params.get(f"blocks.{layer}.attn.b_O", x.new_zeros(()))
        all_but = x[0] if shape.norms_behind else x[0] + bias
        if shape.parallel and shape.d_mlp:
            all_but = all_but + fw.mlp(shape, params, layer, x)[0]
        # The heads' sum is added to the stream, or passes a norm with the bias and then joins it.
        all_but, beside = (bias.expand(x[0].shape), all_but) if shape.norms_behind else (all_but, None)
        outputs = torch.einsum("bhtk,hkd->hbtd", z, params[f"blocks.{layer}.attn.W_O"])
        total = outputs.sum(0)
        rest = torch.stack([all_but + (total - outputs[h]) for h in self.heads])
        behind = self._behind.prepare(batch, all_but + total, rest, z[:, self.heads].transpose(0, 1), beside)
        normed_qk = fw.query_key_input(shape, params, normed)
        share = shape.n_heads // shape.groups
        owners = {"Q": self.heads, "K": [h // share for h in self.heads], "V": [h // share for h in self.heads]}
        frozen = {piece: y[0][:, owners[piece]] for piece, y in zip("QKV", attended, strict=True) if piece in self._frozen}
        return HeadContext(normed.flatten(0, -2), normed_qk.flatten(0, -2), len(batch.tokens), frozen, behind)

    def evaluate(self, variants: Mapping[str, Tensor], context: HeadContext, *, gradients: bool = True) -> Evaluation:
        """Losses and gradients of C = P * chains variants, [C, ...] a name of `origin`, part-major."""
        count = next(iter(variants.values())).shape[0]
        if count % len(self.parts):
            raise ValueError(f"{count} variants do not divide among {len(self.parts)} parts")
        owner = torch.arange(count, device=context.normed.device) // (count // len(self.parts))
        baseline = context.behind.baseline
        return self._passes.evaluate(variants, baseline, gradients, lambda values, rows: self._losses(values, owner[rows], context))

    @torch.no_grad()
    def token_losses(self, variants: Mapping[str, Tensor], context: HeadContext) -> Float[Tensor, "C n"]:
        """The loss of every prediction that counts under each variant, in nats."""
        count = next(iter(variants.values())).shape[0]
        owner = torch.arange(count, device=context.normed.device) // (count // len(self.parts))

        def each(values: Mapping[str, Tensor], rows: slice) -> Tensor:
            sampled = {name: values[key] for name, key in self._names.items()}
            return self._behind.token_losses(self._attend(sampled, owner[rows], context), sampled.get("W_O"), owner[rows], context.behind)

        return self._passes.forward(variants, each)

    def _losses(self, values: Mapping[str, Tensor], owner: Tensor, context: HeadContext) -> Tensor:
        sampled = {name: values[key] for name, key in self._names.items()}
        z = self._attend(sampled, owner, context)
        return self._behind.losses(z, sampled.get("W_O"), owner, context.behind)

    def _attend(self, sampled: Mapping[str, Tensor], owner: Tensor, context: HeadContext) -> Float[Tensor, "C B T K"]:
        """What each variant attends together. Variants take the place of heads: one product for all, and attention reads it where it lies."""
        shape, prefix = self.shape, f"blocks.{self.layer}.attn."

        def tensor(name: str) -> Tensor | None:
            return sampled[name] if name in sampled else own[owner] if (own := self._own.get(name)) is not None else None

        def project(piece: str) -> Tensor:
            if piece in context.frozen:
                return context.frozen[piece][:, owner]
            weight, bias = tensor(f"W_{piece}"), tensor(f"b_{piece}")
            assert weight is not None
            x, flat = context.normed if piece == "V" else context.normed_qk, weight.transpose(0, 1).flatten(1)
            out = x @ flat if bias is None else torch.addmm(bias.flatten(), x, flat)
            out = out.view(context.batch, -1, len(weight), shape.d_head).transpose(1, 2)
            return out if piece == "V" else placed(shape, self.layer, self.params.get(f"{prefix}{piece.lower()}_norm.w"), out)

        return attend(shape, *(project(piece) for piece in "QKV")).transpose(0, 1)

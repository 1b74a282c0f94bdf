"""The clean pass that ablations share: everything that they put back, take away or leave frozen, computed once for a few contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.core.seeds import generator
from rllc.model import forward as fw
from rllc.model.cross_entropy import row_blocks
from rllc.model.shape import ModelShape
from rllc.model.softcap import capped

if TYPE_CHECKING:
    from jaxtyping import Float, Int

KINDS = ("zero", "mean", "resample")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Clean:
    """One forward pass over tokens [B, T]. Axes: L layers, H heads of a layer, T positions, K head dimension, D model."""

    tokens: Int[Tensor, "B T"]
    streams: list[Tensor]  # L + 1 of [B, T, D], before each layer and after the last
    heads: list[Tensor]  # L of [B, H, T, K], what each head attends together, before W_O
    written: list[Tensor]  # L of [B, T, D], what the heads and the output bias write together, before a norm behind them
    beside: list[Tensor | None]  # L of [B, T, D], what such an MLP adds


@torch.no_grad()
def clean_pass(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Tensor, "B T"]) -> Clean:
    """Run the model on tokens and keep what ablations need."""
    x = fw.embed(shape, params, tokens)
    clean = Clean(tokens, [x[0]], [], [], [])
    for layer in range(shape.n_layers):
        z = head_mixes(shape, params, layer, x)
        written = outputs(params, layer, z).sum(1)
        if (bias := params.get(f"blocks.{layer}.attn.b_O")) is not None:
            written = written + bias
        beside = fw.mlp(shape, params, layer, x)[0] if shape.parallel and shape.d_mlp else None
        x = after_layer(shape, params, layer, x[0], written[None], beside)
        clean.heads.append(z)
        clean.written.append(written)
        clean.beside.append(beside)
        clean.streams.append(x[0])
    return clean


def head_mixes(shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "1 B T D"]) -> Float[Tensor, "B H T K"]:
    """What each head of a layer attends together, before W_O, given the stream before the layer."""
    normed = fw.norm_before(shape, params, f"blocks.{layer}.ln1", x)
    return fw.head_outputs(shape, fw.queries_keys_values(shape, params, layer, normed))[0]


def outputs(params: Mapping[str, Tensor], layer: int, z: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T D"]:
    """What each head of a layer writes into the stream; the shared output bias is no head's."""
    return z @ params[f"blocks.{layer}.attn.W_O"]


def after_layer(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    layer: int,
    stream: Float[Tensor, "B T D"],
    written: Float[Tensor, "C B T D"],
    beside: Float[Tensor, "B T D"] | None,
) -> Float[Tensor, "C B T D"]:
    """The stream after a layer, from that before it and what its attention writes."""
    attended = fw.joined(shape, params, layer, stream[None], written)
    return attended + beside if beside is not None else fw.after_attention(shape, params, layer, attended)


def check_alone(shape: ModelShape) -> None:
    """Raises RllcError where what the heads of a layer write passes a norm together, so that what one adds to the stream depends on the others."""
    if shape.norms_behind:
        raise RllcError("What heads write passes a norm together, which shares it out by no rule.", "Ablate whole heads instead.")


def stream_losses(
    shape: ModelShape, params: Mapping[str, Tensor], x: Float[Tensor, "C B T D"], tokens: Int[Tensor, "B T"]
) -> Float[Tensor, "C B T-1"]:
    """Loss of every prediction in nats, from the stream after the last layer; logits are formed a block of rows at a time."""
    rows = fw.norm(shape, params, "ln_final", x[:, :, :-1]).flatten(0, 2)
    targets = tokens[:, 1:].expand(x.shape[0], -1, -1).flatten()
    weight, bias = fw.unembedding(shape, params), fw.unembedding_bias(shape, params)
    blocks = list(row_blocks(len(rows), shape.d_vocab, rows.device.type))
    scores = (capped(torch.addmm(bias, rows[block], weight), shape.logit_softcap) for block in blocks)
    found = [F.cross_entropy(score, targets[block], reduction="none") for score, block in zip(scores, blocks, strict=True)]
    return torch.cat(found).view(x.shape[0], *tokens[:, 1:].shape)


@dataclass(frozen=True)
class Replacement:
    """What stands in an ablated head's place.

    Args:
        kind: "zero": nothing; "mean": the head's mean output at each position over the reference; "resample": its output on another context of
            the reference, the same context for all heads, at the same positions.
        reference: contexts [R, T'], T' ≥ T.
        donors: row of the reference for each context, where the kind is "resample".
        means: L of [H, T, K] before W_O, where it is "mean".
    """

    kind: str
    reference: Ints
    donors: Ints
    means: tuple[Tensor, ...]

    def heads(self, shape: ModelShape, params: Mapping[str, Tensor], rows: slice, like: Clean) -> list[Tensor]:
        """L of [B or 1, H, T, K], what stands for each head's mix on these rows of the tokens."""
        if self.kind == "zero":
            return [torch.zeros_like(z[:1]) for z in like.heads]
        if self.kind == "mean":
            return [z[None] for z in self.means]
        length = like.tokens.shape[1]
        tokens = torch.tensor(self.reference[self.donors[rows], :length], device=like.tokens.device)
        return clean_pass(shape, params, tokens).heads


def replacement(
    shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"], kind: str, reference: Int[Ints, "R U"] | None, seed: int
) -> Replacement:
    """Prepare what stands in the place of ablated heads on these tokens.

    Without a reference the tokens are their own; then a context's donor is always another one: contexts are put into a random ring, and each
    takes the next. With a reference the donors are drawn from it with replacement.

    Raises RllcError where the kind is unknown, the reference is shorter than the tokens, or there is no other context.
    """
    if kind not in KINDS:
        raise RllcError(f"The kind of ablation is {kind!r}, which is unknown.", f"Choose one of: {', '.join(KINDS)}.")
    rows, length = np.shape(tokens)
    own = reference is None
    contexts = np.asarray(tokens if reference is None else reference, dtype=np.int64)
    if kind != "zero" and (contexts.ndim != 2 or contexts.shape[1] < length or len(contexts) < (2 if own else 1)):
        raise RllcError(
            f"The reference of a {kind} ablation has the shape {contexts.shape}, for tokens of the shape {(rows, length)}.",
            "Give contexts at least as long as the tokens; two or more where they are the tokens themselves.",
        )
    donors, rng = np.zeros(rows, np.int64), generator(seed, "resample")
    if kind == "resample" and own:
        ring = rng.permutation(rows)
        donors[ring] = np.roll(ring, 1)
    elif kind == "resample":
        donors = rng.integers(0, len(contexts), rows)
    means: tuple[Tensor, ...] = ()
    if kind == "mean":
        contexts = contexts[:, :length]
        sums = [torch.zeros(())] * shape.n_layers  # of no dimension: it joins a tensor on any device
        for batch in pieces(shape, params, contexts, row_numbers(shape, length), "The contexts of the reference"):
            sums = [total + z.sum(0, dtype=torch.float64) for total, z in zip(sums, clean_pass(shape, params, batch).heads, strict=True)]
        means = tuple((total / len(contexts)).to(params["embed.W_E"].dtype) for total in sums)
    elif kind == "resample":
        for _ in pieces(shape, params, contexts, 1 << 60, "The contexts of the reference"):
            break  # checked for length and vocabulary
    return Replacement(kind, contexts, donors, means)


def row_numbers(shape: ModelShape, length: int) -> int:
    """About how many numbers one context costs an ablation of all heads of a layer at once."""
    widest = max(shape.d_model, shape.d_mlp * (2 if shape.gated_mlp else 1), 3 * shape.n_heads * shape.d_head)
    return shape.n_heads * length * widest

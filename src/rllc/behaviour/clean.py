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

from rllc.behaviour.contexts import Contexts, contexts_of
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
        kind: "zero": nothing; "mean": the head's mean output at each position over the contexts of the reference that reach it; "resample": its
            output on another context of the reference, the same context for all heads, at the same positions.
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
    shape: ModelShape, params: Mapping[str, Tensor], tokens: Contexts, kind: str, reference: Int[Ints, "R U"] | Contexts | None, seed: int
) -> Replacement:
    """Prepare what stands in the place of ablated heads on these tokens.

    Without a reference the tokens are their own; then a context's donor is always another one: contexts are put into a random ring, and each
    takes the next. With a reference the donors are drawn from it with replacement. Padding stands for nothing: it enters no mean, and a donor
    reaches as far as what it stands for, or is the longest that there is. A mean where no context of the reference reaches is that of the last
    position that one does.

    Raises RllcError where the kind is unknown, the reference is shorter than the tokens, or there is no other context.
    """
    if kind not in KINDS:
        raise RllcError(f"The kind of ablation is {kind!r}, which is unknown.", f"Choose one of: {', '.join(KINDS)}.")
    rows, length = tokens.tokens.shape
    given = tokens if reference is None else contexts_of(reference)
    contexts = np.asarray(given.tokens, dtype=np.int64)
    if kind != "zero" and (contexts.shape[1] < length or len(contexts) < (2 if reference is None else 1)):
        raise RllcError(
            f"The reference of a {kind} ablation has the shape {contexts.shape}, for tokens of the shape {(rows, length)}.",
            "Give contexts at least as long as the tokens; two or more where they are the tokens themselves.",
        )
    donors, means = np.zeros(rows, np.int64), tuple[Tensor, ...]()
    if kind == "mean":
        means = _means(shape, params, contexts[:, :length], given.lengths)
    elif kind == "resample":
        for _ in pieces(shape, params, contexts, 1 << 60, "The contexts of the reference"):
            break  # checked for length and vocabulary
        rng = generator(seed, "resample")
        donors = _ring(rng, tokens.lengths) if reference is None else _drawn(rng, tokens.lengths, given.lengths)
    return Replacement(kind, contexts, donors, means)


def _means(shape: ModelShape, params: Mapping[str, Tensor], contexts: Ints, lengths: Ints) -> tuple[Tensor, ...]:
    """L of [H, T, K], the mean output of each head at each position over the contexts that are so long."""
    inside = np.arange(contexts.shape[1]) < lengths[:, None]
    device, start = params["embed.W_E"].device, 0
    sums = [torch.zeros(())] * shape.n_layers  # of no dimension: it joins a tensor on any device
    for batch in pieces(shape, params, contexts, row_numbers(shape, contexts.shape[1]), "The contexts of the reference"):
        here = torch.tensor(inside[start : start + len(batch)], device=device)[:, None, :, None]
        start += len(batch)
        heads = clean_pass(shape, params, batch).heads
        sums = [total + (z * here).sum(0, dtype=torch.float64) for total, z in zip(sums, heads, strict=True)]
    number = torch.tensor(np.maximum(inside.sum(0), 1), device=device)[:, None]
    reached = torch.tensor(np.minimum(np.arange(contexts.shape[1]), lengths.max() - 1), device=device)
    return tuple((total / number)[:, reached].to(params["embed.W_E"].dtype) for total in sums)


def _ring(rng: np.random.Generator, lengths: Ints) -> Ints:
    """For each context the nearest before it, in a random ring, that is long enough; the longest other one where none is."""
    ring = rng.permutation(len(lengths))
    donors = np.full(len(lengths), -1)
    for back in range(1, len(lengths)):
        before = np.roll(ring, back)
        fits = (donors[ring] < 0) & (lengths[before] >= lengths[ring] - 1)  # nothing is predicted from the last token
        donors[ring[fits]] = before[fits]
        if (donors >= 0).all():
            break
    for row in np.flatnonzero(donors < 0):  # the only one so long
        donors[row] = int(np.argmax(np.where(np.arange(len(lengths)) == row, -1, lengths)))
    return donors


def _drawn(rng: np.random.Generator, lengths: Ints, theirs: Ints) -> Ints:
    """For each context one of the reference that is long enough, or one of the longest."""
    fits = [np.flatnonzero(theirs >= min(length - 1, theirs.max())) for length in lengths]
    chosen = rng.integers(0, [len(those) for those in fits])
    return np.array([those[i] for those, i in zip(fits, chosen, strict=True)], dtype=np.int64)


def row_numbers(shape: ModelShape, length: int) -> int:
    """About how many numbers one context costs an ablation of all heads of a layer at once."""
    widest = max(shape.d_model, shape.d_mlp * (2 if shape.gated_mlp else 1), 3 * shape.n_heads * shape.d_head)
    return shape.n_heads * length * widest

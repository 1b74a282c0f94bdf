"""Ablation of single paths: from one head to another, by way of its Q, K or V, and from a head straight to the logits (METHOD 5, 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.clean import Clean, after_layer, check_alone, clean_pass, replacement, row_numbers, stream_losses
from rllc.behaviour.contexts import Contexts, Given, contexts_of
from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.core.names import Head
from rllc.model import forward as fw
from rllc.model.attention import attend, placed
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Variants = Callable[[Clean, list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Edge:
    """A path from a head to a head of a later layer, into those of its inputs that are named: "Q", "K", "V" or several, as "QKV"."""

    sender: Head
    receiver: Head
    inputs: str = "QKV"

    def __str__(self) -> str:
        return f"{self.sender}→{self.receiver}.{self.inputs}"


def edges(shape: ModelShape, inputs: Sequence[str] = ("Q", "K", "V")) -> tuple[Edge, ...]:
    """Every edge of a model, sender by sender, receiver by receiver, input by input.

    >>> [str(edge) for edge in edges(ModelShape(n_heads=1), ["K"])]
    ['0:0→1:0.K']
    """
    heads = shape.heads()
    return tuple(Edge(s, r, i) for s in heads for r in heads if s.layer < r.layer for i in inputs)


@torch.no_grad()
def path_effects(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    tokens: Int[Ints, "B T"] | Contexts,
    paths: Sequence[Edge],
    kind: str = "zero",
    reference: Int[Ints, "R U"] | Contexts | None = None,
    seed: int = 0,
) -> Float[Floats, "E B S"]:
    """Rise of the loss of every prediction, in nats, when the direct path of an edge is ablated; one row of E an edge.

    Path patching (Wang et al. 2022; Goldowsky-Dill et al. 2023). What the sender writes is replaced, as in `ablation_effects`, in the residual
    stream that the named inputs of the receiver read, and nowhere else: the norm before the receiver and its projections are computed anew
    from that stream, with its other inputs as they were. Frozen at the clean pass: every head and MLP between the two, so that nothing reaches
    the receiver by a detour, and all other heads of the receiver's layer (with keys shared by a group, the others of the group keep theirs).
    Computed anew: the receiver's pattern and output, and everything behind it, that is the MLP of its layer where that reads what attention
    wrote, later layers, the last norm.

    Raises RllcError where an edge does not exist in this model, and where `ablation_effects` does.
    """
    for edge in paths:
        _check(shape, edge)
    if not paths:
        raise RllcError("No path is named.", "Give one edge or more, or all that `edges` lists.")

    def variants(clean: Clean, instead: list[Tensor]) -> list[Tensor]:
        found = []
        for edge in paths:
            change = _change(params, clean, instead, edge.sender)
            layer, receiver = edge.receiver.layer, edge.receiver.index
            mix = _received(shape, params, edge, clean, clean.streams[layer] + change)
            moved = (mix - clean.heads[layer][:, receiver]) @ params[f"blocks.{layer}.attn.W_O"][receiver]
            x = after_layer(shape, params, layer, clean.streams[layer], (clean.written[layer] + moved)[None], clean.beside[layer])
            x = fw.run_blocks(shape, params, x, start=layer + 1)
            found.append(stream_losses(shape, params, x, clean.tokens))
        return found

    return _effects(shape, params, tokens, kind, reference, seed, variants)


@torch.no_grad()
def direct_effects(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    tokens: Int[Ints, "B T"] | Contexts,
    kind: str = "zero",
    reference: Int[Ints, "R U"] | Contexts | None = None,
    seed: int = 0,
) -> Float[Floats, "H B S"]:
    """Rise of the loss of every prediction, in nats, when the path of each head straight to the logits is ablated; heads layer by layer.

    What the head writes is replaced, as in `ablation_effects`, in the last residual stream alone: every other head and every MLP is frozen at
    the clean pass; the last norm and the unembedding are computed anew. Raises RllcError where `ablation_effects` does.
    """
    check_alone(shape)

    def variants(clean: Clean, instead: list[Tensor]) -> list[Tensor]:
        changes = (_change(params, clean, instead, head) for head in shape.heads())
        return [stream_losses(shape, params, (clean.streams[-1] + change)[None], clean.tokens) for change in changes]

    return _effects(shape, params, tokens, kind, reference, seed, variants)


def _effects(
    shape: ModelShape, params: Mapping[str, Tensor], tokens: Given, kind: str, reference: Given | None, seed: int, variants: Variants
) -> Floats:
    """Piece by piece: the losses that `variants` makes of a clean pass and of what stands for each head, less the clean losses."""
    found, start, prepared, contexts = [], 0, None, contexts_of(tokens)
    for batch in pieces(shape, params, contexts.tokens, row_numbers(shape, contexts.tokens.shape[-1]), "The contexts to ablate on"):
        prepared = prepared or replacement(shape, params, contexts, kind, reference, seed)
        clean = clean_pass(shape, params, batch)
        base = stream_losses(shape, params, clean.streams[-1][None], batch).double()
        instead = prepared.heads(shape, params, slice(start, start + len(batch)), clean)
        found.append((torch.cat(variants(clean, instead)).double() - base).cpu().numpy())
        start += len(batch)
    return np.concatenate(found, 1)


def _change(params: Mapping[str, Tensor], clean: Clean, instead: list[Tensor], head: Head) -> Float[Tensor, "B T D"]:
    """What the replacement of a head adds to a stream."""
    z = (instead[head.layer] - clean.heads[head.layer])[:, head.index]
    return z @ params[f"blocks.{head.layer}.attn.W_O"][head.index]


def _received(shape: ModelShape, params: Mapping[str, Tensor], edge: Edge, clean: Clean, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T K"]:
    """What the receiver attends together where its named inputs read x and the others the clean stream."""
    layer, head = edge.receiver.layer, edge.receiver.index
    block, group = f"blocks.{layer}.", head // (shape.n_heads // shape.groups)
    projected = []
    for piece in "QKV":
        own = head if piece == "Q" else group
        read = fw.norm_before(shape, params, block + "ln1", (x if piece in edge.inputs else clean.streams[layer])[None])
        read = read if piece == "V" else fw.query_key_input(shape, params, read)
        bias = params.get(f"{block}attn.b_{piece}")
        y = fw.project_heads(read, params[f"{block}attn.W_{piece}"][own : own + 1], None if bias is None else bias[own : own + 1])[0]
        projected.append(y if piece == "V" else placed(shape, layer, params.get(f"{block}attn.{piece.lower()}_norm.w"), y))
    return attend(shape, *projected)[:, 0]


def _check(shape: ModelShape, edge: Edge) -> None:
    known = shape.heads()
    if edge.sender not in known or edge.receiver not in known or edge.sender.layer >= edge.receiver.layer:
        raise RllcError(
            f"There is no path from head {edge.sender} to head {edge.receiver}: the model has layers 0 to {shape.n_layers - 1} of heads "
            f"0 to {shape.n_heads - 1}, and a path leads to a later layer.",
            "Name a sender in an earlier layer than the receiver.",
        )
    if shape.qk_norm and shape.qk_norm_over == "layer":
        raise RllcError(
            "The norms of queries and keys run over all heads of a layer, so that no path leads into one of them alone.", "Ablate whole heads."
        )
    check_alone(shape)
    if not edge.inputs or set(edge.inputs) - set("QKV"):
        raise RllcError(f"The inputs of an edge are {edge.inputs!r}.", "Name one or more of the letters Q, K and V.")

"""What heads say in tokens: direct logit attribution, and the OV and QK circuits as tables of tokens (Elhage et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.clean import check_alone, clean_pass, outputs, row_numbers
from rllc.behaviour.contexts import Contexts, contexts_of
from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.core.names import Head
from rllc.model import forward as fw
from rllc.model.attention import placed
from rllc.model.cross_entropy import row_blocks
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TokenTable:
    """The largest entries of a token-by-token matrix, row by row: N rows, `top` entries each, largest first."""

    rows: Int[Ints, " N"]  # token of each row
    tokens: Int[Ints, "N top"]  # token of each entry
    values: Float[Floats, "N top"]  # entry less its row's mean over the vocabulary

    def strongest(self, n: int) -> list[tuple[int, int, float]]:
        """The n largest entries of all as (row's token, entry's token, value)."""
        order = np.argsort(-self.values, axis=None, kind="stable")[:n]
        where = zip(*np.unravel_index(order, self.values.shape), strict=True)
        return [(int(self.rows[i]), int(self.tokens[i, j]), float(self.values[i, j])) for i, j in where]


@torch.no_grad()
def logit_attribution(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"] | Contexts) -> Float[Floats, "H B S"]:
    """Direct logit attribution: what each head adds to the logit of the token that comes next, less what it adds to the mean logit.

    Heads layer by layer; column p - 1 is the prediction of token p. The last norm is frozen: its division is that of the whole stream, so that
    the parts of the stream (embedding, heads, output biases, MLPs) add up to the logit less the mean logit, the unembedding's and the last
    norm's biases apart. Indirect effects, by way of later heads and MLPs, are not in it.

    Raises RllcError where the tokens do not fit the model.
    """
    check_alone(shape)
    found = []
    reading, tokens = _read_out(shape, params), contexts_of(tokens).tokens
    size = row_numbers(shape, tokens.shape[-1])
    for batch in pieces(shape, params, tokens, size, "The contexts to attribute on"):
        clean = clean_pass(shape, params, batch)
        x = clean.streams[-1][:, :-1]
        spread = x.var(-1, correction=0) if shape.norm.startswith("layernorm") else x.square().mean(-1)
        directions = reading[batch[:, 1:]] * (spread + shape.norm_eps).rsqrt()[..., None]
        layers = [torch.einsum("bhtd,btd->hbt", outputs(params, layer, z)[:, :, :-1], directions) for layer, z in enumerate(clean.heads)]
        found.append(torch.cat(layers).double().cpu().numpy())
    return np.concatenate(found, 1)


@torch.no_grad()
def ov_table(
    shape: ModelShape, params: Mapping[str, Tensor], head: Head, top: int = 10, tokens: Int[Ints, " N"] | None = None, *, mlp0: bool = True
) -> TokenTable:
    """Which output tokens a head writes where it attends to a token: the largest entries of E W_V W_O W_U, a row an attended token.

    E is the token's embedding past the norm before the head, without positions; in a model with MLPs and for heads behind layer 0 it is the
    embedding and what the MLP of layer 0 adds to it alone, unless `mlp0` is off. b_V, the same for every token, is left out. Of the last norm
    only its weights and LayerNorm's subtraction of the mean act, as its division depends on the rest of the stream: values are logits times the
    size of the last stream, less their mean over the vocabulary. Rows are `tokens`, the whole vocabulary unless given.

    Computed a block of rows at a time. Raises RllcError where the head, a token or the number of entries does not exist.
    """
    check_alone(shape)
    group = _group(shape, head)
    w_v, w_o = (params[f"blocks.{head.layer}.attn.W_{piece}"][index] for piece, index in (("V", group), ("O", head.index)))
    reading = _read_out(shape, params)

    def entries(rows: Tensor) -> Tensor:
        return _embedded(shape, params, head.layer, rows, mlp0) @ w_v @ w_o @ reading.mT

    return _table(shape, params, entries, top, tokens)


@torch.no_grad()
def qk_table(
    shape: ModelShape, params: Mapping[str, Tensor], head: Head, top: int = 10, tokens: Int[Ints, " N"] | None = None, *, mlp0: bool = True
) -> TokenTable:
    """Which key tokens a query token attends to: the largest attention scores before the softmax, scaled as in the model and before any
    cap, a row a query token.

    Tokens are embedded as in `ov_table`; biases and norms of queries and keys act, positions do not: learned ones are left out, and rotary ones
    are those of query and key at one place. Values are less their mean over all keys, which the softmax does not see.

    Raises RllcError where the head, a token or the number of entries does not exist.
    """
    group = _group(shape, head)
    if shape.qk_norm and shape.qk_norm_over == "layer":
        raise RllcError("The norms of queries and keys run over all heads of a layer: no table is one head's.", "Look at its attention patterns.")

    def project(rows: Tensor, piece: str, index: int) -> Tensor:
        name = f"blocks.{head.layer}.attn."
        bias = params.get(f"{name}b_{piece}")
        y = _embedded(shape, params, head.layer, rows, mlp0) @ params[f"{name}W_{piece}"][index]
        y = y if bias is None else y + bias[index]
        return placed(shape, head.layer, params.get(f"{name}{piece.lower()}_norm.w"), y[:, None])[:, 0]

    keys = project(torch.arange(shape.d_vocab, device=params["embed.W_E"].device), "K", group)
    return _table(shape, params, lambda rows: project(rows, "Q", head.index) @ keys.mT * shape.scale, top, tokens)


def _read_out(shape: ModelShape, params: Mapping[str, Tensor]) -> Float[Tensor, "V D"]:
    """What the logit of each token less the mean logit reads of the stream, before the last norm's division."""
    reading = fw.unembedding(shape, params).mT
    reading = reading - reading.mean(0)
    if (weight := params.get("ln_final.w")) is not None:
        reading = reading * weight
    return reading - reading.mean(1, keepdim=True) if shape.norm.startswith("layernorm") else reading


def _embedded(shape: ModelShape, params: Mapping[str, Tensor], layer: int, rows: Int[Tensor, " N"], mlp0: bool) -> Float[Tensor, "N D"]:
    """Tokens as a head's projections read them."""
    x = params["embed.W_E"][rows][None, None] * shape.embedding_scale
    if mlp0 and layer and shape.d_mlp:
        x = x + fw.mlp(shape, params, 0, x)
    return fw.norm_before(shape, params, f"blocks.{layer}.ln1", x)[0, 0]


def _table(shape: ModelShape, params: Mapping[str, Tensor], entries: Callable[[Tensor], Tensor], top: int, tokens: Ints | None) -> TokenTable:
    rows = np.arange(shape.d_vocab) if tokens is None else np.asarray(tokens, dtype=np.int64)
    if not 1 <= top <= shape.d_vocab or not len(rows) or rows.min() < 0 or rows.max() >= shape.d_vocab:
        raise RllcError(
            f"A table of {top} entries for each of {len(rows)} tokens does not fit a vocabulary of {shape.d_vocab}.",
            "Name tokens that the model knows, and from 1 entry to as many as there are tokens.",
        )
    device = params["embed.W_E"].device
    found = []
    for block in row_blocks(len(rows), shape.d_vocab, device.type):
        values = entries(torch.tensor(rows[block], device=device))
        found.append((values - values.mean(1, keepdim=True)).topk(top, 1))
    values, where = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    return TokenTable(rows, where, values.astype(np.float64))


def _group(shape: ModelShape, head: Head) -> int:
    """The group whose keys and values a head reads. Raises RllcError where there is no such head."""
    if head not in shape.heads():
        raise RllcError(
            f"The model has no head {head}.", f"It has layers 0 to {shape.n_layers - 1}, heads 0 to {shape.n_heads - 1} in each."
        )  # fmt: skip
    return head.index // (shape.n_heads // shape.groups)

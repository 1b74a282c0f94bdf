"""The transformer as pure functions over named tensors.

Every function carries a leading axis C of variants: an activation is [C, B, T, D] with C = 1 as long as nothing before it differs, and any
weight may hold the axis too. So the loss of one model, of a batch of variants and of a resumed prefix are the same few lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.model.attention import attend, attention_weights, placed
from rllc.model.batch import TokenBatch, token_batch
from rllc.model.cross_entropy import each_row, variant_losses
from rllc.model.linear import shared_product
from rllc.model.shape import ModelShape
from rllc.model.softcap import capped

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Params = dict[str, Tensor]
_ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu, "silu": F.silu}


@dataclass
class Capture:
    """What a caller wants to look at; filled by `run_blocks`.

    `attention` holds one [C, B, H, T, T] tensor a layer, row = query.
    """

    attention: list[Tensor] = field(default_factory=list)


def _batched(weight: Tensor, ndim: int) -> bool:
    return weight.ndim == ndim + 1


def _per_variant(vector: Tensor, ndim: int) -> Tensor:
    """A bias or norm weight shaped to act on [C, B, T, ...]."""
    return vector[:, None, None] if _batched(vector, ndim) else vector


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + _per_variant(bias, 1)


def linear(x: Float[Tensor, "#C B T D"], weight: Float[Tensor, "D N"] | Float[Tensor, "C D N"]) -> Float[Tensor, "C B T N"]:
    """[C, B, T, D] times [D, N] or [C, D, N] gives [C, B, T, N]."""
    c, b, t, d = x.shape
    rows = x.reshape(c, b * t, d)
    out = torch.matmul(rows, weight) if _batched(weight, 2) else shared_product(rows, weight)
    return out.view(-1, b, t, weight.shape[-1])


def norm(shape: ModelShape, params: Mapping[str, Tensor], name: str, x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """LayerNorm or RMSNorm of [C, B, T, D], with the weights that there are."""
    weight, bias = params.get(name + ".w"), params.get(name + ".b")
    d = (shape.d_model,)
    layer_norm = shape.norm.startswith("layernorm")
    if layer_norm and not any(w is not None and _batched(w, 1) for w in (weight, bias)):
        return F.layer_norm(x, d, weight, bias, shape.norm_eps)
    x = F.layer_norm(x, d, eps=shape.norm_eps) if layer_norm else F.rms_norm(x, d, eps=shape.norm_eps)
    return _plus(x if weight is None else x * _per_variant(weight, 1), bias)


def norm_before(shape: ModelShape, params: Mapping[str, Tensor], name: str, x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """What attention or MLP reads of the stream [C, B, T, D], past the norm "blocks.0.ln1" or its like where that is its place."""
    return norm(shape, params, name, x) if shape.norms_before else x


def norm_behind(shape: ModelShape, params: Mapping[str, Tensor], name: str, x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """What attention or MLP adds to the stream [C, B, T, D], past the norm "blocks.0.ln1_post" or its like where that is its place."""
    return norm(shape, params, name + "_post", x) if shape.norms_behind else x


def embed(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "C B T D"]:
    """Residual stream [C, B, T, D] before the first layer, of tokens [B, T]."""
    weight = params["embed.W_E"]
    x = weight[:, tokens] if _batched(weight, 2) else F.embedding(tokens, weight)[None]
    if shape.embedding_scale != 1:
        x = x * shape.embedding_scale
    if shape.positions == "learned":
        x = x + position_rows(params["pos.W_pos"], tokens.shape[1])
    return x


def position_rows(
    weight: Float[Tensor, "N D"] | Float[Tensor, "C N D"], length: int
) -> Float[Tensor, "{length} D"] | Float[Tensor, "C 1 {length} D"]:
    """The first `length` learned positions, [T, D] or [C, 1, T, D]."""
    return weight[:, None, :length] if _batched(weight, 2) else weight[:length]


def query_key_input(shape: ModelShape, params: Mapping[str, Tensor], x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """What Q and K read, given what V reads: with shortformer positions the learned ones are added here, after the norm (METHOD 4)."""
    return x + position_rows(params["pos.W_pos"], x.shape[2]) if shape.positions == "shortformer" else x


def project_heads(
    x: Float[Tensor, "#C B T D"],
    weight: Float[Tensor, "H D K"] | Float[Tensor, "C H D K"],
    bias: Float[Tensor, "H K"] | Float[Tensor, "C H K"] | None,
) -> Float[Tensor, "C B H T K"]:
    """[C, B, T, D] through W [H, D, K] and b [H, K] (each perhaps with the axis C) to [C, B, H, T, K]."""
    h, d, k = weight.shape[-3:]
    flat = weight.transpose(-3, -2).reshape(*weight.shape[:-3], d, h * k)
    out = _plus(linear(x, flat), None if bias is None else bias.flatten(-2))
    return out.view(*out.shape[:3], h, k).transpose(2, 3)


class Attended(NamedTuple):
    """Queries [C, B, H, T, K], keys and values [C, B, G, T, K] of a layer, each perhaps with C = 1, past norm and positions."""

    q: Float[Tensor, "#C B H T K"]
    k: Float[Tensor, "#C B G T K"]
    v: Float[Tensor, "#C B G T K"]


def queries_keys_values(shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "#C B T D"]) -> Attended:
    """Of all heads of a layer, given the normed residual stream."""
    prefix = f"blocks.{layer}.attn."
    qk = query_key_input(shape, params, x)
    q, k, v = (project_heads(qk if z in "QK" else x, params[f"{prefix}W_{z}"], params.get(f"{prefix}b_{z}")) for z in "QKV")
    q, k = (placed(shape, layer, params.get(f"{prefix}{name}_norm.w"), y) for name, y in (("q", q), ("k", k)))
    return Attended(q, k, v)


def head_outputs(shape: ModelShape, attended: Attended, capture: Capture | None = None) -> Float[Tensor, "C B H T K"]:
    """What each head attends together, before W_O: [C, B, H, T, K]."""
    q, k, v = attended
    c, share = max(q.shape[0], k.shape[0], v.shape[0]), shape.n_heads // shape.groups
    if share > 1:
        k, v = (z.repeat_interleave(share, 2) for z in (k, v))
    q, k, v = (z.expand(c, *z.shape[1:]).reshape(-1, *z.shape[2:]) for z in (q, k, v))
    if capture is not None:
        pattern = attention_weights(shape, q, k)
        capture.attention.append(pattern.unflatten(0, (c, -1)))
    return attend(shape, q, k, v).unflatten(0, (c, -1))


def attention(
    shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "#C B T D"], capture: Capture | None = None
) -> Float[Tensor, "C B T D"]:
    """What the attention layer writes, [C, B, T, D], before a norm behind it."""
    prefix = f"blocks.{layer}.attn."
    z = head_outputs(shape, queries_keys_values(shape, params, layer, norm_before(shape, params, f"blocks.{layer}.ln1", x)), capture)
    weight = params[prefix + "W_O"].flatten(-3, -2)
    return _plus(linear(z.transpose(2, 3).flatten(-2), weight), params.get(prefix + "b_O"))


def mlp(shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """The contribution of the layer's MLP to the residual stream, [C, B, T, D], given the stream that it reads."""
    prefix = f"blocks.{layer}.mlp."
    x = norm_before(shape, params, f"blocks.{layer}.ln2", x)
    hidden = _plus(linear(x, params[prefix + "W_in"]), params.get(prefix + "b_in"))
    act = _ACTIVATIONS[shape.activation]
    hidden = act(linear(x, params[prefix + "W_gate"])) * hidden if shape.gated_mlp else act(hidden)
    return norm_behind(shape, params, f"blocks.{layer}.ln2", _plus(linear(hidden, params[prefix + "W_out"]), params.get(prefix + "b_out")))


def joined(
    shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "#C B T D"], written: Float[Tensor, "#C B T D"]
) -> Float[Tensor, "C B T D"]:
    """The stream with what a layer's attention has written added to it, past the norm behind it where there is one."""
    return x + norm_behind(shape, params, f"blocks.{layer}.ln1", written)


def after_attention(shape: ModelShape, params: Mapping[str, Tensor], layer: int, x: Float[Tensor, "#C B T D"]) -> Float[Tensor, "C B T D"]:
    """The stream after a layer, from that after its attention: past the MLP where that reads what attention wrote."""
    return x + mlp(shape, params, layer, x) if shape.d_mlp and not shape.parallel else x


def run_blocks(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    x: Float[Tensor, "#C B T D"],
    start: int = 0,
    stop: int | None = None,
    capture: Capture | None = None,
) -> Float[Tensor, "C B T D"]:
    """The residual stream [C, B, T, D] before layer `stop` (after the last one unless given), from that before layer `start`."""
    for layer in range(start, shape.n_layers if stop is None else stop):
        attended = joined(shape, params, layer, x, attention(shape, params, layer, x, capture))
        beside = shape.parallel and shape.d_mlp
        x = attended + mlp(shape, params, layer, x) if beside else after_attention(shape, params, layer, attended)
    return x


def unembedding(shape: ModelShape, params: Mapping[str, Tensor]) -> Float[Tensor, "D V"] | Float[Tensor, "C D V"]:
    """W_U [D, V] or [C, D, V]; the embedding's transpose in a tied model."""
    return params["embed.W_E"].mT if shape.tied else params["unembed.W_U"]


def unembedding_bias(shape: ModelShape, params: Mapping[str, Tensor]) -> Float[Tensor, " V"] | Float[Tensor, "C V"]:
    """b_U [V] or [C, V]; zeros where the model has none."""
    bias = params.get("unembed.b_U")
    return params["embed.W_E"].new_zeros(shape.d_vocab) if bias is None else bias


def logits(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Tensor, "B T"], capture: Capture | None = None) -> Float[Tensor, "B T V"]:
    """Logits [B, T, V] of tokens [B, T] under one model (no axis C in `params`)."""
    x = norm(shape, params, "ln_final", run_blocks(shape, params, embed(shape, params, tokens), capture=capture))
    return capped(_plus(linear(x, unembedding(shape, params)), params.get("unembed.b_U")), shape.logit_softcap)[0]


def token_losses(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T-1"]:
    """Next-token cross-entropy [B, T-1] at every position, in nats."""
    return F.cross_entropy(logits(shape, params, tokens)[:, :-1].mT, tokens[:, 1:], reduction="none")


def read_out(shape: ModelShape, params: Mapping[str, Tensor], x: Float[Tensor, "#C B T D"], batch: TokenBatch) -> Float[Tensor, " C"]:
    """Mean loss of each variant [C] in nats per token (float64), from the residual stream [C, B, T, D] after the last layer."""
    rows = norm(shape, params, "ln_final", batch.predicting(x)[:, None])[:, 0]
    weight, bias = unembedding(shape, params), unembedding_bias(shape, params)
    c = max(rows.shape[0], weight.shape[0] if weight.ndim == 3 else 1, bias.shape[0] if bias.ndim == 2 else 1)
    return variant_losses(rows.expand(c, -1, -1), weight, bias, batch.targets, shape.logit_softcap)


def read_out_each(shape: ModelShape, params: Mapping[str, Tensor], x: Float[Tensor, "#C B T D"], batch: TokenBatch) -> Float[Tensor, "C n"]:
    """The loss of every prediction that counts, in nats, where `read_out` has their mean; no gradients."""
    rows = norm(shape, params, "ln_final", batch.predicting(x)[:, None])[:, 0]
    weight, bias = unembedding(shape, params), unembedding_bias(shape, params)
    c = max(rows.shape[0], weight.shape[0] if weight.ndim == 3 else 1, bias.shape[0] if bias.ndim == 2 else 1)
    return each_row(rows.expand(c, -1, -1), weight, bias, batch.targets, shape.logit_softcap)


def losses(shape: ModelShape, params: Mapping[str, Tensor], batch: Int[Tensor, "B T"] | TokenBatch) -> Float[Tensor, " C"]:
    """Mean loss of each variant [C] on a batch, in nats per token (METHOD 1); C = 1 for one model."""
    batch = token_batch(batch)
    return read_out(shape, params, run_blocks(shape, params, embed(shape, params, batch.tokens)), batch)


def against(shape: ModelShape, params: Mapping[str, Tensor], batch: TokenBatch) -> TokenBatch:
    """The same predictions, held against this model's distribution of the next token in place of the labels."""
    x = norm(shape, params, "ln_final", run_blocks(shape, params, embed(shape, params, batch.tokens)))
    scores = _plus(linear(batch.predicting(x)[:, None], unembedding(shape, params)), params.get("unembed.b_U"))[0, 0]
    return TokenBatch(batch.tokens, batch.rows, capped(scores, shape.logit_softcap).softmax(-1))


def init_params(shape: ModelShape, seed: int, dtype: torch.dtype = torch.float32) -> Params:
    """A fresh model as the paper's library makes one: every matrix normal with deviation 0.8/√d_model, zero biases, unit norms."""
    generator = torch.Generator().manual_seed(seed)
    params: Params = {}
    for name, size in shape.tensors().items():
        kind = name.rsplit(".", 1)[1]
        if kind == "w":
            params[name] = torch.ones(size, dtype=dtype)
        elif kind.startswith("b"):
            params[name] = torch.zeros(size, dtype=dtype)
        else:
            params[name] = torch.randn(size, generator=generator, dtype=dtype) * (0.8 / shape.d_model**0.5)
    return params

"""The transformer of METHOD 4 written a second time, in loops: what the fast one is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.model.shape import ModelShape

# Nothing fits by accident: no two sizes are equal, and n_heads * d_head is not d_model.
SMALL = ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=17, n_ctx=9)
FAMILY = {
    f"{positions}-{norm}-{'tied' if tied else 'untied'}-{'mlp' if d_mlp else 'attention'}": replace(
        SMALL, positions=positions, norm=norm, tied=tied, d_mlp=d_mlp
    )
    for positions in ("shortformer", "learned", "rotary")
    for norm in ("layernorm", "rmsnorm")
    for tied in (False, True)
    for d_mlp in (0, 11)
}
# What models in use are like, each at no default of what it differs in.
LLAMA = {"positions": "rotary", "norm": "rmsnorm", "d_mlp": 11, "gated_mlp": True, "activation": "silu", "n_heads": 4, "n_kv_heads": 2}
LLAMA |= dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias", "norm_bias", "unembed_bias"), False)
RELATIVES: dict[str, dict[str, Any]] = {
    "gpt2": {"positions": "learned", "d_mlp": 11, "activation": "gelu_tanh", "tied": True, "unembed_bias": False},
    "nanogpt": {"positions": "learned", "d_mlp": 11, **{name: False for name in LLAMA if name.endswith("_bias")}},
    "neox": {"positions": "rotary", "rotary_dim": 2, "d_mlp": 11, "parallel": True, "unembed_bias": False},
    "llama": LLAMA | {"rotary_base": 50.0, "rotary_scaling": (8.0, 1.0, 4.0, 100.0)},
    "qwen2": LLAMA | {"qkv_bias": True, "tied": True, "rotary_base": 50.0, "rotary_scaling": (2.0, 1.0, 4.0, 20.0)},
    "qwen3": LLAMA | {"qk_norm": True},
    "folded": {"norm": "layernorm_pre", "d_mlp": 11, "activation": "relu"},
    "folded-rms": {"norm": "rmsnorm_pre", "output_bias": False},
    "olmo2": LLAMA | {"norm_place": "post", "qk_norm": True, "qk_norm_over": "layer"},
    "phi3": LLAMA | {"rotary_dim": 2},
    "gemma": LLAMA | {"activation": "gelu_tanh", "tied": True, "embedding_scale": 3.0, "n_kv_heads": 1},
    "gemma2": LLAMA
    | {"norm_place": "both", "activation": "gelu_tanh", "tied": True, "embedding_scale": 3.0}
    | {"score_scale": 0.7, "score_softcap": 0.8, "logit_softcap": 2.0},
    "gemma3": LLAMA
    | {"norm_place": "both", "activation": "gelu_tanh", "tied": True, "embedding_scale": 3.0, "score_scale": 0.7, "qk_norm": True}
    | {"rotary_base": 50.0, "rotary_scaling": (3.0,), "local_layers": (0,), "local_rotary_base": 7.0},
    # No model in use is like these: what the others have, where they have it not.
    "capped": {"score_softcap": 0.8, "logit_softcap": 2.0, "positions": "learned", "embedding_scale": 3.0},
    "behind": {"norm_place": "post", "positions": "rotary", "qk_norm": True, "qk_norm_over": "layer", "local_layers": (1,)},
    "both-beside": {"norm_place": "both", "positions": "rotary", "d_mlp": 11, "parallel": True},
}
FAMILY |= {name: replace(SMALL, **change) for name, change in RELATIVES.items()}


def random_params(shape: ModelShape, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every tensor random, biases and norms too, so that none of them can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(size, generator=generator, dtype=dtype) for name, size in shape.tensors().items()}


def random_tokens(shape: ModelShape, n: int = 3, length: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(0, shape.d_vocab, (n, length), generator=torch.Generator().manual_seed(seed))


def plain_norm(shape: ModelShape, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    if shape.norm.startswith("layernorm"):
        x = x - x.mean(1, keepdim=True)
    return x / (x.pow(2).mean(1, keepdim=True) + shape.norm_eps).sqrt() * params.get(name + ".w", 1.0) + params.get(name + ".b", 0.0)


def plain_turn(shape: ModelShape, layer: int, vectors: Tensor) -> Tensor:
    """The first R numbers of queries or keys [T, K] of a layer as R/2 complex numbers each, the i-th of position t turned by t / base^(2i/R)."""
    if shape.positions != "rotary":
        return vectors
    size = shape.rotary_dim or shape.d_head
    local = layer in shape.local_layers
    speeds = [(shape.local_rotary_base if local else shape.rotary_base) ** (-2 * i / size) for i in range(size // 2)]
    if len(shape.rotary_scaling) == 1 and not local:
        speeds = [speed / shape.rotary_scaling[0] for speed in speeds]
    elif shape.rotary_scaling and not local:
        speeds = [stretched(speed, *shape.rotary_scaling) for speed in speeds]
    angles = [[t * speed for speed in speeds] for t in range(len(vectors))]
    half = size // 2
    turned = torch.complex(vectors[:, :half], vectors[:, half:size]) * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    return torch.cat([turned.real, turned.imag, vectors[:, size:]], 1)


def stretched(speed: float, factor: float, low: float, high: float, original: float) -> float:
    """By wave lengths: short ones stay, long ones grow by the factor, between them the speeds are mixed."""
    length = 2 * math.pi / speed
    if length < original / high:
        return speed
    if length > original / low:
        return speed / factor
    share = (original / length - low) / (high - low)
    return (1 - share) * speed / factor + share * speed


def plain_activation(shape: ModelShape, x: Tensor) -> Tensor:
    if shape.activation == "gelu":
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))
    if shape.activation == "gelu_tanh":
        return x * 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return x.clamp_min(0) if shape.activation == "relu" else x / (1 + torch.exp(-x))


def plain_mlp(shape: ModelShape, params: Mapping[str, Tensor], layer: int, weights: Mapping[str, Tensor], stream: Tensor) -> Tensor:
    read = plain_norm(shape, params, f"blocks.{layer}.ln2", stream) if shape.norm_place != "post" else stream
    hidden = read @ weights["W_in"] + weights.get("b_in", 0.0)
    hidden = plain_activation(shape, read @ weights["W_gate"]) * hidden if shape.gated_mlp else plain_activation(shape, hidden)
    written = hidden @ weights["W_out"] + weights.get("b_out", 0.0)
    return plain_norm(shape, params, f"blocks.{layer}.ln2_post", written) if shape.norm_place != "pre" else written


def plain_queries_or_keys(shape: ModelShape, layer: int, weights: Mapping[str, Tensor], piece: str, read: Tensor) -> list[Tensor]:
    """Of every head, or of every group of heads."""
    found = [read @ matrix for matrix in weights[f"W_{piece}"]]
    if shape.qkv_bias:
        found = [vectors + bias for vectors, bias in zip(found, weights[f"b_{piece}"], strict=True)]
    if shape.qk_norm:
        norm = weights[f"{piece.lower()}_norm.w"]
        squares = [vectors.pow(2).mean(1, keepdim=True) for vectors in found]
        if shape.qk_norm_over == "layer":
            squares = [sum(squares[1:], squares[0]) / len(squares)] * len(squares)
        own = norm if shape.qk_norm_over == "layer" else [norm] * len(found)
        found = [vectors / (square + shape.norm_eps).sqrt() * w for vectors, square, w in zip(found, squares, own, strict=True)]
    return [plain_turn(shape, layer, vectors) for vectors in found]


def plain_cap(x: Tensor, cap: float) -> Tensor:
    return cap * (1 - 2 / (torch.exp(2 * x / cap) + 1)) if cap else x


def plain_sequence(shape: ModelShape, params: Mapping[str, Tensor], sequence: Tensor) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
    """Logits [T, V] of one sequence, and the attention [T, T] of every (layer, head)."""
    stream = torch.stack([params["embed.W_E"][token] * shape.embedding_scale for token in sequence])
    length = len(sequence)
    if shape.positions == "learned":
        stream = stream + params["pos.W_pos"][:length]
    patterns: dict[tuple[int, int], Tensor] = {}
    for layer in range(shape.n_layers):
        weights = {name.split(".", 3)[3]: tensor for name, tensor in params.items() if name.startswith(f"blocks.{layer}.") and "ln" not in name}
        before = stream
        read = plain_norm(shape, params, f"blocks.{layer}.ln1", stream) if shape.norm_place != "post" else stream
        asked = read + params["pos.W_pos"][:length] if shape.positions == "shortformer" else read
        queries, keys = (plain_queries_or_keys(shape, layer, weights, piece, asked) for piece in "QK")
        written = torch.zeros_like(stream)
        for h in range(shape.n_heads):
            group = h if not shape.n_kv_heads else h // (shape.n_heads // shape.n_kv_heads)
            value = read @ weights["W_V"][group] + (weights["b_V"][group] if shape.qkv_bias else 0.0)
            scores = queries[h] @ keys[group].T * (shape.score_scale or 1 / shape.d_head**0.5)
            powers = torch.exp(plain_cap(scores, shape.score_softcap)).tril()
            patterns[layer, h] = powers / powers.sum(1, keepdim=True)
            written = written + patterns[layer, h] @ value @ weights["W_O"][h]
        written = written + weights.get("b_O", 0.0)
        stream = stream + (plain_norm(shape, params, f"blocks.{layer}.ln1_post", written) if shape.norm_place != "pre" else written)
        if shape.d_mlp:
            stream = stream + plain_mlp(shape, params, layer, weights, before if shape.parallel else stream)
    unembed = params["embed.W_E"].T if shape.tied else params["unembed.W_U"]
    return plain_cap(plain_norm(shape, params, "ln_final", stream) @ unembed + params.get("unembed.b_U", 0.0), shape.logit_softcap), patterns


def plain_logits(shape: ModelShape, params: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    return torch.stack([plain_sequence(shape, params, sequence)[0] for sequence in tokens])


def plain_loss(shape: ModelShape, params: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    scores = plain_logits(shape, params, tokens)
    return F.cross_entropy(scores[:, :-1].reshape(-1, shape.d_vocab), tokens[:, 1:].reshape(-1))


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    return SimpleNamespace(
        SMALL=SMALL,
        FAMILY=FAMILY,
        RELATIVES=RELATIVES,
        params=random_params,
        tokens=random_tokens,
        sequence=plain_sequence,
        logits=plain_logits,
        loss=plain_loss,
    )


@pytest.fixture(params=list(FAMILY))
def family_shape(request: pytest.FixtureRequest) -> ModelShape:
    return FAMILY[request.param]

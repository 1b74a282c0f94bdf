"""The transformer of METHOD 4 written a second time, in loops: what the fast one is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

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


def random_params(shape: ModelShape, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every tensor random, biases and norms too, so that none of them can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(size, generator=generator, dtype=dtype) for name, size in shape.tensors().items()}


def random_tokens(shape: ModelShape, n: int = 3, length: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(0, shape.d_vocab, (n, length), generator=torch.Generator().manual_seed(seed))


def plain_norm(shape: ModelShape, params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    if shape.norm == "rmsnorm":
        return x / (x.pow(2).mean(1, keepdim=True) + shape.norm_eps).sqrt() * params[name + ".w"]
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.pow(2).mean(1, keepdim=True) + shape.norm_eps).sqrt() * params[name + ".w"] + params[name + ".b"]


def plain_turn(shape: ModelShape, vectors: Tensor) -> Tensor:
    """Queries or keys [T, K] as K/2 complex numbers each, the i-th of position t turned by t / 10000^(2i/K)."""
    if shape.positions != "rotary":
        return vectors
    half = shape.d_head // 2
    angles = [[t / 10_000 ** (2 * i / shape.d_head) for i in range(half)] for t in range(len(vectors))]
    turned = torch.complex(vectors[:, :half], vectors[:, half:]) * torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
    return torch.cat([turned.real, turned.imag], 1)


def plain_sequence(shape: ModelShape, params: Mapping[str, Tensor], sequence: Tensor) -> tuple[Tensor, dict[tuple[int, int], Tensor]]:
    """Logits [T, V] of one sequence, and the attention [T, T] of every (layer, head)."""
    stream = torch.stack([params["embed.W_E"][token] for token in sequence])
    length = len(sequence)
    if shape.positions == "learned":
        stream = stream + params["pos.W_pos"][:length]
    patterns: dict[tuple[int, int], Tensor] = {}
    for layer in range(shape.n_layers):
        weights = {name.rsplit(".", 1)[1]: tensor for name, tensor in params.items() if name.startswith(f"blocks.{layer}.")}
        read = plain_norm(shape, params, f"blocks.{layer}.ln1", stream)
        asked = read + params["pos.W_pos"][:length] if shape.positions == "shortformer" else read
        for h in range(shape.n_heads):
            query = plain_turn(shape, asked @ weights["W_Q"][h] + weights["b_Q"][h])
            key = plain_turn(shape, asked @ weights["W_K"][h] + weights["b_K"][h])
            value = read @ weights["W_V"][h] + weights["b_V"][h]
            powers = torch.exp(query @ key.T / shape.d_head**0.5).tril()
            patterns[layer, h] = powers / powers.sum(1, keepdim=True)
            stream = stream + patterns[layer, h] @ value @ weights["W_O"][h]
        stream = stream + weights["b_O"]
        if shape.d_mlp:
            hidden = plain_norm(shape, params, f"blocks.{layer}.ln2", stream) @ weights["W_in"] + weights["b_in"]
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
            stream = stream + hidden @ weights["W_out"] + weights["b_out"]
    unembed = params["embed.W_E"].T if shape.tied else params["unembed.W_U"]
    return plain_norm(shape, params, "ln_final", stream) @ unembed + params["unembed.b_U"], patterns


def plain_logits(shape: ModelShape, params: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    return torch.stack([plain_sequence(shape, params, sequence)[0] for sequence in tokens])


def plain_loss(shape: ModelShape, params: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    scores = plain_logits(shape, params, tokens)
    return F.cross_entropy(scores[:, :-1].reshape(-1, shape.d_vocab), tokens[:, 1:].reshape(-1))


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    return SimpleNamespace(
        SMALL=SMALL, FAMILY=FAMILY, params=random_params, tokens=random_tokens, sequence=plain_sequence, logits=plain_logits, loss=plain_loss
    )


@pytest.fixture(params=list(FAMILY))
def family_shape(request: pytest.FixtureRequest) -> ModelShape:
    return FAMILY[request.param]

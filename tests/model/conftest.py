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
        return x / (x.pow(2).mean() + shape.norm_eps).sqrt() * params[name + ".w"]
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + shape.norm_eps).sqrt() * params[name + ".w"] + params[name + ".b"]


def plain_turn(shape: ModelShape, vector: Tensor, position: int) -> Tensor:
    """A query or key as K/2 complex numbers, the i-th turned by position / 10000^(2i/K)."""
    if shape.positions != "rotary":
        return vector
    half = shape.d_head // 2
    angle = torch.tensor([position / 10_000 ** (2 * i / shape.d_head) for i in range(half)], dtype=vector.dtype)
    turned = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag])


def plain_sequence(shape: ModelShape, params: Mapping[str, Tensor], sequence: Tensor) -> tuple[Tensor, dict[tuple[int, int, int], Tensor]]:
    """Logits [T, V] of one sequence, and the attention of (layer, head, query) to the positions 0 to query."""
    stream = [params["embed.W_E"][token] for token in sequence]
    if shape.positions == "learned":
        stream = [x + params["pos.W_pos"][t] for t, x in enumerate(stream)]
    patterns: dict[tuple[int, int, int], Tensor] = {}
    for layer in range(shape.n_layers):
        block = f"blocks.{layer}."
        read = [plain_norm(shape, params, block + "ln1", x) for x in stream]
        asked = [x + params["pos.W_pos"][t] for t, x in enumerate(read)] if shape.positions == "shortformer" else read
        written = [params[block + "attn.b_O"]] * len(stream)
        for h in range(shape.n_heads):

            def project(x: Tensor, kind: str, block: str = block, h: int = h) -> Tensor:
                return params[f"{block}attn.W_{kind}"][h].T @ x + params[f"{block}attn.b_{kind}"][h]

            queries = [plain_turn(shape, project(x, "Q"), t) for t, x in enumerate(asked)]
            keys = [plain_turn(shape, project(x, "K"), t) for t, x in enumerate(asked)]
            values = [project(x, "V") for x in read]
            for t, query in enumerate(queries):
                powers = torch.stack([torch.exp(query @ keys[s] / shape.d_head**0.5) for s in range(t + 1)])
                patterns[layer, h, t] = powers / powers.sum()
                attended = sum(weight * values[s] for s, weight in enumerate(patterns[layer, h, t]))
                written[t] = written[t] + attended @ params[block + "attn.W_O"][h]
        stream = [x + y for x, y in zip(stream, written, strict=True)]
        if shape.d_mlp:
            for t, x in enumerate(stream):
                hidden = plain_norm(shape, params, block + "ln2", x) @ params[block + "mlp.W_in"] + params[block + "mlp.b_in"]
                hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
                stream[t] = x + hidden @ params[block + "mlp.W_out"] + params[block + "mlp.b_out"]
    final = torch.stack([plain_norm(shape, params, "ln_final", x) for x in stream])
    unembed = params["embed.W_E"].T if shape.tied else params["unembed.W_U"]
    return final @ unembed + params["unembed.b_U"], patterns


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

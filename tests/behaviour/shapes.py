"""One small model of every kind that the family knows, with weights large enough that heads differ, and forward passes that can be meddled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rllc.model import forward as fw
from rllc.model.attention import attention_weights, placed
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape
from rllc.model.softcap import capped

N = 9
_BASE = ModelShape(n_layers=3, d_model=12, n_heads=4, d_head=4, d_vocab=17, n_ctx=N)
SHAPES = {
    "shortformer": _BASE,
    "gpt2": replace(_BASE, positions="learned", d_mlp=14, activation="gelu_tanh", tied=True),
    "neox": replace(_BASE, positions="rotary", rotary_dim=2, d_mlp=14, parallel=True),
    "llama": replace(_BASE, positions="rotary", norm="rmsnorm", d_mlp=14, gated_mlp=True, activation="silu", n_kv_heads=2, qkv_bias=False,
                        output_bias=False, mlp_bias=False, unembed_bias=False),
    "qwen3": replace(_BASE, positions="rotary", norm="rmsnorm", d_mlp=14, gated_mlp=True, activation="silu", n_kv_heads=2, qk_norm=True),
    "gemma2": replace(_BASE, positions="rotary", norm="rmsnorm", d_mlp=14, gated_mlp=True, activation="gelu_tanh", n_kv_heads=2, norm_place="both",
                      score_softcap=3.0, logit_softcap=4.0, score_scale=0.4, embedding_scale=1.7, tied=True),
    "olmo2": replace(_BASE, positions="rotary", norm="rmsnorm", d_mlp=14, gated_mlp=True, activation="silu", norm_place="post", qk_norm=True,
                     qk_norm_over="layer"),
    "bare": replace(_BASE, norm="layernorm_pre"),
}  # fmt: skip


ALONE = [name for name, shape in SHAPES.items() if not shape.norms_behind]  # what one head writes is added to the stream as it is


def weights(shape: ModelShape) -> dict[str, Tensor]:
    """float64, everything random: biases and norms too."""
    generator = torch.Generator().manual_seed(3)
    params = init_params(shape, 0, torch.float64)
    return {name: (2 * p if ".W_" in name else p) + 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in params.items()}


def some_tokens(rows: int, seed: int, length: int = N) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 17, (rows, length))


Hook = Callable[[str, int, Tensor], Tensor]


def untouched(_name: str, _layer: int, value: Tensor) -> Tensor:
    """The hook that meddles with nothing."""
    return value


def hooked_losses(shape: ModelShape, params: Mapping[str, Tensor], tokens: np.ndarray, hook: Hook, start: Tensor | None = None) -> np.ndarray:
    """Losses [B, T-1] of a plain forward pass written out anew, in which hook(name, layer, value) may change a value.

    Names: "q", "k", "v" the stream [B, H, T, D] that each head's input of that kind reads (one copy a head), "out" what each head writes
    [B, H, T, D], "mlp" what the MLP writes, "final" the last stream.
    """
    ids = torch.from_numpy(tokens)
    x = fw.embed(shape, params, ids)[0]
    group = [h // (shape.n_heads // shape.groups) for h in range(shape.n_heads)]
    for layer in range(shape.n_layers):
        block = f"blocks.{layer}."
        projected = {}
        for piece in "QKV":
            read = hook(piece.lower(), layer, x[:, None].expand(-1, shape.n_heads, -1, -1).clone())
            read = fw.norm_before(shape, params, block + "ln1", read.flatten(0, 1)[None])[0].view_as(read)
            if piece != "V" and shape.positions == "shortformer":
                read = read + params["pos.W_pos"][: ids.shape[1]]
            rows = range(shape.n_heads) if piece == "Q" else group
            weight, bias = params[f"{block}attn.W_{piece}"][list(rows)], params.get(f"{block}attn.b_{piece}")
            y = read @ weight
            y = y if bias is None else y + bias[list(rows)][:, None]
            projected[piece] = y if piece == "V" else placed(shape, layer, params.get(f"{block}attn.{piece.lower()}_norm.w"), y)
        pattern = attention_weights(shape, projected["Q"], projected["K"])
        out = hook("out", layer, pattern @ projected["V"] @ params[block + "attn.W_O"])
        written = out.sum(1) + params.get(block + "attn.b_O", torch.zeros(()))
        after = fw.joined(shape, params, layer, x[None], written[None])[0]
        if shape.d_mlp:
            after = after + hook("mlp", layer, fw.mlp(shape, params, layer, (x if shape.parallel else after)[None])[0])
        x = after
    x = fw.norm(shape, params, "ln_final", hook("final", shape.n_layers, x)[None])[0]
    scores = capped(x @ fw.unembedding(shape, params) + fw.unembedding_bias(shape, params), shape.logit_softcap)
    return torch.nn.functional.cross_entropy(scores[:, :-1].mT, ids[:, 1:], reduction="none").numpy()

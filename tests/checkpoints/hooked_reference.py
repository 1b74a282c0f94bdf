"""What a HookedTransformer of TransformerLens 3 computes, with its names and formulae, written plainly: a reference where that is not installed."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

VOCAB, CONTEXT = 31, 16
_SMALL = {"n_layers": 2, "d_model": 24, "n_ctx": CONTEXT, "d_head": 8, "n_heads": 3, "d_vocab": VOCAB, "eps": 1e-3, "act_fn": "gelu_new"}
_ROTARY = {"positional_embedding_type": "rotary", "rotary_base": 300}
_LLAMA = _SMALL | _ROTARY | {"normalization_type": "RMS", "final_rms": True, "gated_mlp": True, "act_fn": "silu", "d_mlp": 20}
_STRETCH = {
    "use_NTK_by_parts_rope": True,
    "NTK_by_parts_factor": 8.0,
    "NTK_by_parts_low_freq_factor": 0.3,
    "NTK_by_parts_high_freq_factor": 2.0,
    "NTK_original_ctx_len": 16,
}
CASES: dict[str, dict[str, Any]] = {
    "the paper's": _SMALL | {"attn_only": True, "positional_embedding_type": "shortformer", "d_mlp": 96},
    "GPT-2": _SMALL | {"normalization_type": "LN", "d_mlp": 40},
    "GPT-2, folded": _SMALL | {"normalization_type": "LNPre", "d_mlp": 40, "act_fn": "relu"},
    "NeoX": _SMALL | _ROTARY | {"parallel_attn_mlp": True, "rotary_dim": 4, "d_mlp": 40, "act_fn": "gelu", "normalization_type": "LN"},
    "Llama": _LLAMA | {"n_heads": 4, "n_key_value_heads": 2},
    "Llama 3.1, folded": _LLAMA | _STRETCH | {"normalization_type": "RMSPre"},
    "Qwen3": _LLAMA | {"n_heads": 4, "n_key_value_heads": 4, "use_qk_norm": True, "d_head": 10},
}  # fmt: skip
FLOAT32_ANGLES = ("Llama 3.1, folded",)  # TransformerLens computes these frequencies in float32 whatever the weights are
_ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x * torch.sigmoid(x),
}


def sizes(cfg: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and sizes of the weights, as in TransformerLens' state dict."""
    d, k, h, v, m = cfg["d_model"], cfg["d_head"], cfg["n_heads"], cfg["d_vocab"], cfg["d_mlp"]
    groups, mark = cfg.get("n_key_value_heads") or h, "_" if cfg.get("n_key_value_heads") else ""
    kind = cfg.get("normalization_type", "LN")
    norm = {"LN": {"w": (d,), "b": (d,)}, "RMS": {"w": (d,)}}.get(kind, {})
    found: dict[str, tuple[int, ...]] = {"embed.W_E": (v, d)}
    if cfg.get("positional_embedding_type", "standard") != "rotary":
        found["pos_embed.W_pos"] = (cfg["n_ctx"], d)
    for layer in range(cfg["n_layers"]):
        block = f"blocks.{layer}."
        attn = {"W_Q": (h, d, k), "b_Q": (h, k), "W_O": (h, k, d), "b_O": (d,)}
        attn |= {f"{mark}W_{x}": (groups, d, k) for x in "KV"} | {f"{mark}b_{x}": (groups, k) for x in "KV"}
        if cfg.get("use_qk_norm"):
            attn |= {"q_norm.w": (k,), "k_norm.w": (k,)}
        found |= {f"{block}ln1.{name}": size for name, size in norm.items()} | {f"{block}attn.{name}": size for name, size in attn.items()}
        if not cfg.get("attn_only"):
            mlp = {"W_in": (d, m), "b_in": (m,), "W_out": (m, d), "b_out": (d,)} | ({"W_gate": (d, m)} if cfg.get("gated_mlp") else {})
            found |= {f"{block}ln2.{name}": size for name, size in norm.items()} | {f"{block}mlp.{name}": size for name, size in mlp.items()}
    return found | {f"ln_final.{name}": size for name, size in norm.items()} | {"unembed.W_U": (d, v), "unembed.b_U": (v,)}


def state_of(cfg: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights in float64, nothing at its default, and the buffers that TransformerLens saves along."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, size in sizes(cfg).items():
        state[name] = 0.3 * torch.randn(size, generator=generator, dtype=torch.float64) + (1.0 if name.endswith(".w") else 0.0)
    for layer in range(cfg["n_layers"]):
        state[f"blocks.{layer}.attn.mask"] = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()
        state[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
        if cfg.get("positional_embedding_type") == "rotary":
            state |= {f"blocks.{layer}.attn.rotary_{x}": torch.zeros(CONTEXT, cfg.get("rotary_dim", cfg["d_head"])) for x in ("sin", "cos")}
    return state


def reference_logits(cfg: dict[str, Any], state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits [B, T, V] of tokens [B, T]."""
    kind = cfg.get("positional_embedding_type", "standard")
    x = state["embed.W_E"][ids]
    at = 0.0 if kind == "rotary" else state["pos_embed.W_pos"][: ids.shape[1]]
    if kind == "standard":
        x = x + at
    for layer in range(cfg["n_layers"]):
        block = f"blocks.{layer}."
        normed = _norm(cfg, state, block + "ln1", x)
        attended = x + _attention(cfg, state, block + "attn.", normed + at if kind == "shortformer" else normed, normed)
        if cfg.get("attn_only"):
            x = attended
            continue
        x = attended + _mlp(cfg, state, block + "mlp.", _norm(cfg, state, block + "ln2", x if cfg.get("parallel_attn_mlp") else attended))
    return _norm(cfg, state, "ln_final", x) @ state["unembed.W_U"] + state["unembed.b_U"]


def _norm(cfg: dict[str, Any], state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    kind = cfg.get("normalization_type", "LN")
    if kind.startswith("LN"):
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + cfg["eps"]).sqrt()
    return x if kind.endswith("Pre") else x * state[name + ".w"] + state.get(name + ".b", 0.0)


def _attention(cfg: dict[str, Any], state: dict[str, Tensor], prefix: str, qk: Tensor, v: Tensor) -> Tensor:
    """[B, T, D]; heads one by one."""
    mark, share = ("_", cfg["n_heads"] // cfg["n_key_value_heads"]) if cfg.get("n_key_value_heads") else ("", 1)
    total = state[prefix + "b_O"]
    for h in range(cfg["n_heads"]):
        g = h // share
        queries = qk @ state[prefix + "W_Q"][h] + state[prefix + "b_Q"][h]
        keys = qk @ state[f"{prefix}{mark}W_K"][g] + state[f"{prefix}{mark}b_K"][g]
        values = v @ state[f"{prefix}{mark}W_V"][g] + state[f"{prefix}{mark}b_V"][g]
        if cfg.get("use_qk_norm"):
            queries, keys = (x / (x.pow(2).mean(-1, keepdim=True) + cfg["eps"]).sqrt() for x in (queries, keys))
            queries, keys = queries * state[prefix + "q_norm.w"], keys * state[prefix + "k_norm.w"]
        if cfg.get("positional_embedding_type") == "rotary":
            queries, keys = _turned(cfg, queries), _turned(cfg, keys)
        scores = queries @ keys.mT / math.sqrt(cfg["d_head"])
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        total = total + scores.softmax(-1) @ values @ state[prefix + "W_O"][h]
    return total


def _turned(cfg: dict[str, Any], x: Tensor) -> Tensor:
    """Position t turns the pair (i, i + half) by t over base^(i / half), stretched by parts where the cfg says so."""
    half = cfg.get("rotary_dim", cfg["d_head"]) // 2
    out = x.clone()
    for i in range(half):
        frequency = _frequency(cfg, cfg["rotary_base"] ** (-i / half))
        angle = torch.arange(x.shape[1], dtype=torch.float64) * frequency
        a, b = x[..., i], x[..., i + half]
        out[..., i], out[..., i + half] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
    return out


def _frequency(cfg: dict[str, Any], plain: float) -> float:
    if not cfg.get("use_NTK_by_parts_rope"):
        return plain
    low, high, factor = (cfg[f"NTK_by_parts_{name}"] for name in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = cfg["NTK_original_ctx_len"] / (2 * math.pi / plain)
    if turns > high:
        return plain
    if turns < low:
        return plain / factor
    smooth = (turns - low) / (high - low)
    return (1 - smooth) * plain / factor + smooth * plain


def _mlp(cfg: dict[str, Any], state: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    act = _ACTIVATIONS[cfg["act_fn"]]
    if cfg.get("gated_mlp"):
        hidden = act(x @ state[prefix + "W_gate"]) * (x @ state[prefix + "W_in"]) + state[prefix + "b_in"]
    else:
        hidden = act(x @ state[prefix + "W_in"] + state[prefix + "b_in"])
    return F.linear(hidden, state[prefix + "W_out"].T, state[prefix + "b_out"])

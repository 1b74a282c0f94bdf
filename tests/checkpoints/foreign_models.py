"""Small random models of transformers, nothing in them at its default, and where in them a head lives, said once more and by hand."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.core.names import Part
from rllc.model.forward import logits, token_losses
from rllc.model.parts import insert, select
from rllc.model.slices import Slice, slices

VOCAB, CONTEXT = 37, 24
_TOKENS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": VOCAB}
_GPT2 = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": CONTEXT, "layer_norm_epsilon": 1e-3}
_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 40, "max_position_embeddings": CONTEXT}
_LLAMA = _SIZES | {"rms_norm_eps": 1e-3, "num_key_value_heads": 2}
_GEMMA = _LLAMA | {"head_dim": 12, "query_pre_attn_scalar": 20, "sliding_window": 16}
_THETA = {"rope_type": "default", "rope_theta": 300.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 300.0,
    "factor": 8.0,
    "low_freq_factor": 0.3,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}

# By name: transformers' model_type and what is set in its config.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", _GPT2),
    "gpt2, untied, exact gelu": ("gpt2", _GPT2 | {"tie_word_embeddings": False, "activation_function": "gelu", "n_inner": 40}),
    "gpt_neox": ("gpt_neox", _SIZES | {"layer_norm_eps": 1e-3}),
    "gpt_neox, in sequence, half turned, no biases, tied": (
        "gpt_neox",
        _SIZES
        | {"use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_fast", "tie_word_embeddings": True}
        | {"rope_parameters": _THETA | {"partial_rotary_factor": 0.5}},
    ),
    "llama, grouped, wide heads": ("llama", _LLAMA | {"head_dim": 12, "rope_parameters": _THETA}),
    "llama 3.1, biases, tied": (
        "llama",
        _LLAMA
        | {"num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"}
        | {"rope_parameters": _LLAMA3},
    ),
    "mistral": ("mistral", _LLAMA | {"head_dim": 12, "sliding_window": 16}),
    "qwen2": ("qwen2", _LLAMA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 12, "num_key_value_heads": 1}),
    "qwen3, biases": ("qwen3", _LLAMA | {"head_dim": 6, "attention_bias": True}),
    "llama, all positions stretched": ("llama", _LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0}}),
    "olmo": ("olmo", {name: value for name, value in _LLAMA.items() if name != "rms_norm_eps"}),
    "gemma": ("gemma", _LLAMA | {"head_dim": 12, "num_key_value_heads": 1, "rope_parameters": _THETA}),
    "gemma2": (
        "gemma2",
        _GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "rope_parameters": _THETA},
    ),
    "gemma2, biases, no caps, untied": (
        "gemma2",
        _GEMMA
        | {"attention_bias": True, "attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False}
        | {"hidden_activation": "gelu"},
    ),
    "gemma3": (
        "gemma3_text",
        _GEMMA
        | {"layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 3.0}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 300.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            }
        },
    ),
    "olmo2": ("olmo2", _LLAMA | {"rope_parameters": _THETA}),
    "olmo2, biases, tied, no groups": ("olmo2", _LLAMA | {"num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": True}),
    "olmo3": (
        "olmo3",
        _LLAMA
        | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
        | {"rope_parameters": {"full_attention": _THETA, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}},
    ),
    "phi3": ("phi3", _LLAMA | {"rope_parameters": _THETA}),
    "phi3, half turned, window, tied": (
        "phi3",
        _LLAMA
        | {"num_key_value_heads": 4, "sliding_window": 16, "tie_word_embeddings": True, "hidden_act": "gelu"}
        | {"rope_parameters": _THETA | {"partial_rotary_factor": 0.5}},
    ),
}


def tokens(length: int, vocab: int = VOCAB) -> Tensor:
    return torch.randint(vocab, (2, length), generator=torch.Generator().manual_seed(3))


def perturbed(model: Any) -> Any:
    """The model with every parameter away from where it starts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def built(kind: str, settings: dict[str, Any]) -> Any:
    """A model of transformers in float32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return perturbed(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **_TOKENS | settings)))


def in_double(model: Any) -> Any:
    """The model in float64, also where transformers computes in float32 whatever the weights are: norms, angles, Gemma's scale, eager softmax."""
    if model.config._attn_implementation == "eager":
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import eager_mask

        AttentionInterface.register("rllc_double", _capped_attention)
        AttentionMaskInterface.register("rllc_double", eager_mask)
        model.set_attn_implementation("rllc_double")
    for module in model.double().modules():
        kind = type(module).__name__
        if hasattr(module, "scalar_embed_scale"):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
        if kind.startswith("Gemma") and kind.endswith("RMSNorm"):
            module.forward = lambda x, m=module: (1 + m.weight) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.eps)
        elif kind.endswith("RMSNorm"):
            module.forward = lambda x, m=module: m.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon)
        elif kind == "OlmoLayerNorm":
            module.forward = lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-5)
        elif kind.endswith("RotaryEmbedding"):
            module.forward = partial(_angles, _frequencies(module))
    return model


def _capped_attention(_: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **how: Any) -> tuple[Tensor, None]:
    """Eager attention without its detour through float32."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores, cap = query @ key.mT * how["scaling"], how["softcap"]
    scores = scores if cap is None else torch.tanh(scores / cap) * cap
    return ((scores + attention_mask).softmax(-1) @ value).transpose(1, 2), None


def _frequencies(module: Any) -> dict[str | None, Tensor]:
    """Of each kind of layers, or of all by None."""
    kinds = getattr(module, "layer_types", None)
    if kinds is None:
        return {None: _frequencies_of(module.config.rope_parameters, module.inv_freq)}
    return {kind: _frequencies_of(module.config.rope_parameters[kind], getattr(module, f"{kind}_inv_freq")) for kind in kinds}


def _frequencies_of(rope: dict[str, Any], single: Tensor) -> Tensor:
    half = len(single)
    found = [rope["rope_theta"] ** (-i / half) for i in range(half)]
    if rope["rope_type"] == "linear":
        found = [f / rope["factor"] for f in found]
    if rope["rope_type"] == "llama3":
        found = [_stretched(f, rope) for f in found]
    torch.testing.assert_close(torch.tensor(found), single.float(), rtol=1e-6, atol=0)
    return torch.tensor(found, dtype=torch.float64)


def _stretched(frequency: float, rope: dict[str, Any]) -> float:
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    if turns > rope["high_freq_factor"]:
        return frequency
    if turns < rope["low_freq_factor"]:
        return frequency / rope["factor"]
    smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
    return (1 - smooth) * frequency / rope["factor"] + smooth * frequency


def _angles(frequencies: dict[str | None, Tensor], x: Tensor, position_ids: Tensor, kind: str | None = None) -> tuple[Tensor, Tensor]:
    angles = (position_ids[..., None].double() * frequencies[kind]).repeat(1, 1, 2)
    return angles.cos(), angles.sin()


def place(kind: str, state: dict[str, Tensor], d_head: int, piece: Slice) -> Tensor:
    """A view of a head's slice in the foreign tensors, turned as ours: [D, K], [K] or [K, D]."""
    assert piece.head is not None
    _, layer, _, tensor = piece.tensor.split(".")
    letter, which = tensor.split("_")
    here = slice(piece.head * d_head, (piece.head + 1) * d_head)
    ending = "weight" if letter == "W" else "bias"
    if kind in ("gpt2", "nanogpt"):
        name, width = f"transformer.h.{layer}.attn.", state["transformer.wte.weight"].shape[1]
        if which == "O":
            weight = state[name + "c_proj.weight"]
            return weight[here] if kind == "gpt2" else weight[:, here].T
        start = "QKV".index(which) * width + piece.head * d_head
        fused = state[name + "c_attn." + ending]
        rows = slice(start, start + d_head)
        return fused[rows] if letter == "b" else fused[:, rows] if kind == "gpt2" else fused[rows].T
    if kind == "gpt_neox":
        name = f"gpt_neox.layers.{layer}.attention."
        if which == "O":
            return state[name + "dense.weight"][:, here].T
        start = 3 * piece.head * d_head + "QKV".index(which) * d_head
        rows = state[name + "query_key_value." + ending][start : start + d_head]
        return rows if letter == "b" else rows.T
    if kind == "phi3" and which != "O":
        fused, heads = (
            state[f"model.layers.{layer}.self_attn.qkv_proj.weight"],
            state[f"model.layers.{layer}.self_attn.o_proj.weight"].shape[1] // d_head,
        )
        groups = (len(fused) // d_head - heads) // 2
        start = {"Q": 0, "K": heads, "V": heads + groups}[which] * d_head
        return fused[start:][here].T
    name = f"model.layers.{layer}.self_attn.{which.lower()}_proj."
    if which == "O":
        return state[name + "weight"][:, here].T
    return state[name + ending][here] if letter == "b" else state[name + ending][here].T


def all_parts(shape: Any) -> list[Part]:
    """Every head, and every group where heads share keys and values."""
    heads = [Part.of_head(head.layer, head.index) for head in shape.heads()]
    if shape.shares_keys:
        heads += [Part.parse(f"{layer}:g{group}") for layer in range(shape.n_layers) for group in range(shape.groups)]
    return heads


def check_zeroing(kind: str, imported: Any, state: dict[str, Tensor], run: Any, length: int) -> None:
    """Every part zeroed in ours, and in the original's tensors `state`, which `run` reads, gives the same logits; and others than before."""
    shape, params, ids = imported.shape, imported.params, tokens(length)
    before = run(ids)
    for part in all_parts(shape):
        values = select(shape, params, part)
        views = [place(kind, state, shape.d_head, piece) for piece in slices(shape, part)]
        kept = [view.clone() for view in views]
        for view in views:
            view.zero_()
        theirs = run(ids)
        for view, old in zip(views, kept, strict=True):
            view.copy_(old)
        ours = logits(shape, insert(shape, params, part, {name: torch.zeros_like(value) for name, value in values.items()}), ids)
        assert (theirs - before).abs().max() > 1e-2, part
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def check_gradients(kind: str, imported: Any, gradients: dict[str, Tensor], length: int) -> None:
    """The gradients of the mean loss with respect to every head, or group where heads share keys, are the original's slices."""
    shape = imported.shape
    parts = [part for part in all_parts(shape) if not shape.shares_keys or part.head is None]
    whole = Part(tuple(atom for part in parts for atom in part.atoms))
    values = {name: value.requires_grad_() for name, value in select(shape, imported.params, whole).items()}
    token_losses(shape, insert(shape, imported.params, whole, values), tokens(length)).mean().backward()
    for part in parts:
        pairs = [(values[str(piece)].grad, place(kind, gradients, shape.d_head, piece)) for piece in slices(shape, part)]
        scale = max(theirs.abs().max() for _, theirs in pairs)
        assert scale > 1e-4, part
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=float(1e-9 * scale))


def mean_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Of the next token, as the original's users compute it."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

"""Shrunken foreign transformers with random weights, none of them at a default, and where each one's heads can be seen at work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

V, LAYERS, H, G, C, T = 23, 2, 4, 2, 16, 7
_SIZES = {"vocab_size": V, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_NEW = _SIZES | {"num_hidden_layers": LAYERS, "num_attention_heads": H, "hidden_size": C, "intermediate_size": 12, "max_position_embeddings": 32}
_GROUPED = _NEW | {"num_key_value_heads": G}
_WIDE = _GROUPED | {"head_dim": 6}  # H · 6 is not C

# class of the configuration, its settings, and the output projection of attention
TRANSFORMERS = {
    "gpt2": ("GPT2", _SIZES | {"n_layer": LAYERS, "n_head": H, "n_embd": C, "n_positions": 32}, "transformer.h.{}.attn.c_proj"),
    "gpt_neox": ("GPTNeoX", _NEW | {"tie_word_embeddings": False}, "gpt_neox.layers.{}.attention.dense"),
    "gpt_neo": (
        "GPTNeo",
        _SIZES
        | {"num_layers": LAYERS, "num_heads": H, "hidden_size": C, "max_position_embeddings": 32, "attention_types": [[["global", "local"], 1]]},
        "transformer.h.{}.attn.attention.out_proj",
    ),
    "llama": ("Llama", _WIDE | {"attention_bias": True}, "model.layers.{}.self_attn.o_proj"),
    "mistral": ("Mistral", _WIDE, "model.layers.{}.self_attn.o_proj"),
    "olmo": ("Olmo", _NEW | {"clip_qkv": 50.0}, "model.layers.{}.self_attn.o_proj"),
    "olmo2": ("Olmo2", _GROUPED, "model.layers.{}.self_attn.o_proj"),
    "qwen2": ("Qwen2", _GROUPED, "model.layers.{}.self_attn.o_proj"),
    "qwen3": ("Qwen3", _WIDE, "model.layers.{}.self_attn.o_proj"),
    "gemma": ("Gemma", _WIDE | {"num_key_value_heads": 1}, "model.layers.{}.self_attn.o_proj"),
    "gemma2": ("Gemma2", _WIDE | {"query_pre_attn_scalar": 6}, "model.layers.{}.self_attn.o_proj"),
    "gemma3_text": ("Gemma3Text", _WIDE | {"query_pre_attn_scalar": 6}, "model.layers.{}.self_attn.o_proj"),
    "phi3": ("Phi3", _GROUPED, "model.layers.{}.self_attn.o_proj"),
    "granite": ("Granite", _GROUPED, "model.layers.{}.self_attn.o_proj"),  # not in the table
}
GROUPED = ("llama", "mistral", "olmo2", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "granite", "hooked grouped")


class NanoAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (H, C // H)).transpose(1, 2) for t in self.c_attn(x).split(C, -1))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class NanoBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(C), NanoAttention(), nn.LayerNorm(C)
        self.mlp = nn.Sequential(nn.Linear(C, 12), nn.GELU(), nn.Linear(12, C))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Nano(nn.Module):
    """A stand-in with the names and habits of nanoGPT: tied, and the last position's logits alone unless it is given targets."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(n_head=H, n_embd=C, vocab_size=V)
        self.transformer = nn.ModuleDict(
            {"wte": nn.Embedding(V, C), "wpe": nn.Embedding(32, C), "h": nn.ModuleList(NanoBlock() for _ in range(LAYERS)), "ln_f": nn.LayerNorm(C)}
        )
        self.lm_head = nn.Linear(C, V, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, idx, targets=None):
        x = self.transformer["wte"](idx) + self.transformer["wpe"](torch.arange(idx.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        x = self.transformer["ln_f"](x)
        if targets is None:
            return self.lm_head(x[:, [-1]]), None
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class HookedAttention(nn.Module):
    def __init__(self, grouped, d=5):
        super().__init__()
        self.key, self.hook_z = "_" if grouped else "", nn.Identity()
        for name, heads in {"W_Q": H, f"{self.key}W_K": G if grouped else H, f"{self.key}W_V": G if grouped else H}.items():
            self.register_parameter(name, nn.Parameter(torch.randn(heads, C, d) / 4))
            self.register_parameter(name.replace("W_", "b_"), nn.Parameter(torch.randn(heads, d)))
        self.W_O, self.b_O = nn.Parameter(torch.randn(H, d, C) / 4), nn.Parameter(torch.randn(C))

    def forward(self, x):
        weights = [("W_Q", "b_Q"), *((f"{self.key}W_{n}", f"{self.key}b_{n}") for n in "KV")]
        q, k, v = (torch.einsum("btc,hcd->bhtd", x, getattr(self, w)) + getattr(self, b)[:, None] for w, b in weights)
        share = H // k.shape[1]
        z = F.scaled_dot_product_attention(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), is_causal=True)
        return torch.einsum("bthd,hdc->btc", self.hook_z(z.transpose(1, 2)), self.W_O) + self.b_O


class HookedBlock(nn.Module):
    def __init__(self, grouped):
        super().__init__()
        self.ln1, self.attn = nn.LayerNorm(C), HookedAttention(grouped)

    def forward(self, x):
        return x + self.attn(self.ln1(x))


class Hooked(nn.Module):
    """A stand-in with the names of TransformerLens' HookedTransformer."""

    def __init__(self, grouped):
        super().__init__()
        self.cfg = SimpleNamespace(
            n_heads=H, d_head=5, n_key_value_heads=G if grouped else None, d_vocab=V, positional_embedding_type="standard", attn_scores_soft_cap=-1.0
        )
        self.embed, self.unembed = nn.Module(), nn.Module()
        self.embed.W_E, self.unembed.W_U = nn.Parameter(torch.randn(V, C)), nn.Parameter(torch.randn(C, V))
        self.blocks = nn.ModuleList(HookedBlock(grouped) for _ in range(LAYERS))

    def forward(self, tokens):
        x = F.embedding(tokens, self.embed.W_E)
        for block in self.blocks:
            x = block(x)
        return x @ self.unembed.W_U


OTHERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "nano": (Nano, "transformer.h.{}.attn.c_proj"),
    "hooked": (lambda: Hooked(False), "blocks.{}.attn.hook_z"),
    "hooked grouped": (lambda: Hooked(True), "blocks.{}.attn.hook_z"),
}
KINDS = (*TRANSFORMERS, *OTHERS)


def configuration(kind, **settings):
    import transformers

    name, given, _ = TRANSFORMERS[kind]
    return getattr(transformers, f"{name}Config")(**(given | settings))


def perturbed(module):
    """In float64 and evaluation mode, with every parameter away from its default."""
    module = module.double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


@functools.cache
def built(kind):
    """One for all tests, which leave it as it was."""
    torch.manual_seed(5)
    if kind in OTHERS:
        return perturbed(OTHERS[kind][0]())
    from transformers import AutoModelForCausalLM

    return perturbed(AutoModelForCausalLM.from_config(configuration(kind), attn_implementation="eager"))


def tokens(count=3, length=T, seed=1):
    return torch.randint(0, V, (count, length), generator=torch.Generator().manual_seed(seed))


def mixed_at(kind, module, layer):
    """The module where attention's heads lie side by side, and whether they are its output or its input."""
    path = (TRANSFORMERS[kind][2] if kind in TRANSFORMERS else OTHERS[kind][1]).format(layer)
    return module.get_submodule(path), path.endswith("hook_z")


@contextmanager
def heads_seen(kind, module, layer, change=None) -> Iterator[list[torch.Tensor]]:
    """What the heads of a layer put out, [B, T, H, D], in every call; `change` may write into it."""
    seen: list[torch.Tensor] = []
    place, output = mixed_at(kind, module, layer)

    def look(_, inputs, *outputs):
        z = (outputs if output else inputs)[0].clone()
        blocks = z if output else z.unflatten(-1, (H, -1))
        if change is not None:
            change(blocks)
        seen.append(blocks.detach().clone())
        return z if output else (z,)

    handle = place.register_forward_hook(look) if output else place.register_forward_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()

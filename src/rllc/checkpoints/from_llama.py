"""Llama and its kin as Hugging Face has them: Mistral, Qwen2, Qwen3, OLMo and Phi-3, which differ in biases, norms and what a query sees.

Gemma is a kin too, with a file of its own for what only it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rllc.checkpoints.foreign import (
    Into,
    Plan,
    Rule,
    Settings,
    Source,
    heads,
    keep,
    not_importable,
    output,
    sharing,
    turn,
    unembedding,
    unembedding_rules,
)
from rllc.checkpoints.layouts import by_head
from rllc.checkpoints.rope import rotary
from rllc.model.shape import ModelShape

PREFIX = "model."
BUFFERS = r"(layers\.\d+\.self_attn\.)?rotary_emb\.(original_)?inv_freq"

# The names of a layer's norms and ours, by where they are. Llama calls the norm before the MLP after the attention that it follows.
NORMS = {
    "pre": {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"},
    "post": {"post_attention_layernorm": "ln1_post", "post_feedforward_layernorm": "ln2_post"},
    "both": {
        "input_layernorm": "ln1",
        "post_attention_layernorm": "ln1_post",
        "pre_feedforward_layernorm": "ln2",
        "post_feedforward_layernorm": "ln2_post",
    },
}


def _nothing(_: Settings) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kin:
    """How a family differs from Llama.

    Args:
        norm: the kind of its norms.
        qkv_bias: whether queries, keys and values have biases; None where `attention_bias` says so.
        output_bias: whether the layer behind the heads has one; None likewise.
        norm_place: where its norms are.
        unit_norm: its norms weigh by 1 + w.
        qk_norm: queries and keys pass a norm of their own, over a "head" or over all heads of a "layer".
        fused: the matrices of queries, keys and values are one, and those of gate and input of the MLP.
        partial: a share of every head may be turned.
        window: queries see `sliding_window` tokens, in all layers or those of `layer_types`; otherwise only where `use_sliding_window` says so.
        tied: whether the unembedding is the embedding,
        norm_eps: what norms add to a variance,
        rotary_base: the base of its positions, and
        window_size: of its window, 0 for none, where the config does not say.
        more: fields of our shape that only it has, from its config.
    """

    norm: Literal["rmsnorm", "layernorm_pre"] = "rmsnorm"
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    norm_place: Literal["pre", "post", "both"] = "pre"
    unit_norm: bool = False
    qk_norm: Literal["", "head", "layer"] = ""
    fused: bool = False
    partial: bool = False
    window: bool = False
    tied: bool = False
    norm_eps: float = 1e-6
    rotary_base: float = 10_000.0
    window_size: int = 0
    more: Callable[[Settings], dict[str, Any]] = _nothing

    def __call__(self, settings: Settings, source: Source, n_ctx: int) -> Plan:
        """The plan by which a model of this family becomes ours."""
        settings.refuse({"clip_qkv": (lambda _: True, "it clips queries, keys and values")})
        gate_bias = "layers.0.mlp.gate_proj.bias"
        if settings.get("mlp_bias", False) or gate_bias in source:
            raise not_importable(settings.what, f"the gates of its MLPs have biases ({source.full(gate_bias)}, mlp_bias), and ours have none")
        shape, tied_notes, notes = self._shape(settings, source, n_ctx)
        rules = [Rule("embed_tokens.weight", (shape.d_vocab, shape.d_model), keep("embed.W_E")), *self._norm(shape, "norm", "ln_final")]
        for layer in range(shape.n_layers):
            theirs, ours = f"layers.{layer}.", f"blocks.{layer}."
            for name, our in NORMS[self.norm_place].items():
                rules += self._norm(shape, theirs + name, ours + our)
            rules += [*self._attention(shape, theirs + "self_attn.", ours + "attn."), *self._mlp(shape, theirs + "mlp.", ours + "mlp.")]
        notes = (*notes, *sharing(shape.n_heads, shape.groups), *tied_notes)
        return Plan(shape, (*rules, *unembedding_rules(source, "lm_head.weight", shape)), notes)

    def _shape(self, settings: Settings, source: Source, n_ctx: int) -> tuple[ModelShape, list[str], tuple[str, ...]]:
        window = settings.values.get("sliding_window", self.window_size) if _slides(settings, self.window) else 0
        length, notes = settings.context("max_position_embeddings", n_ctx, window or 0)
        width, n_heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        d_head = settings.whole("head_dim") if settings.get("head_dim") else settings.per_head("hidden_size", "num_attention_heads")
        groups = settings.whole("num_key_value_heads", n_heads)
        bias = bool(settings.get("attention_bias", False))
        tied, tied_notes = unembedding(settings, source, "embed_tokens.weight", "lm_head.weight", self.tied)
        fields: dict[str, Any] = {
            "n_layers": settings.whole("num_hidden_layers"),
            "d_model": width,
            "n_heads": n_heads,
            "d_head": d_head,
            "d_vocab": settings.whole("vocab_size"),
            "n_ctx": length,
            "d_mlp": settings.whole("intermediate_size"),
            "norm": self.norm,
            "norm_eps": float(settings.get("rms_norm_eps", self.norm_eps)),
            "tied": tied,
            "n_kv_heads": 0 if groups == n_heads else groups,
            "gated_mlp": True,
            "qkv_bias": bias if self.qkv_bias is None else self.qkv_bias,
            "output_bias": bias if self.output_bias is None else self.output_bias,
            "mlp_bias": False,
            "unembed_bias": False,
            "norm_place": self.norm_place,
            "qk_norm": bool(self.qk_norm),
            "qk_norm_over": self.qk_norm or "head",
        }
        fields |= rotary(settings, d_head, partial=self.partial, base=self.rotary_base) | self.more(settings)
        if "activation" not in fields:
            fields["activation"] = settings.activation("hidden_act", "silu")
        return ModelShape(**fields), tied_notes, notes

    def _norm(self, shape: ModelShape, theirs: str, ours: str) -> list[Rule]:
        return [] if shape.norm.endswith("_pre") else [self._weight(theirs, (shape.d_model,), keep(ours + ".w"))]

    def _weight(self, theirs: str, size: tuple[int, ...], into: Into) -> Rule:
        """Of a norm, as it weighs."""
        return Rule(theirs + ".weight", size, (lambda tensor: into(_one_more(tensor))) if self.unit_norm else into)

    def _attention(self, shape: ModelShape, theirs: str, ours: str) -> list[Rule]:
        d, k = shape.d_model, shape.d_head
        pieces = {"Q": shape.n_heads, "K": shape.groups, "V": shape.groups}
        rules: list[Rule] = []
        if self.fused:
            rules.append(Rule(theirs + "qkv_proj.weight", (sum(pieces.values()) * k, d), _split(ours + "W_", pieces, k)))
        for piece, n in pieces.items():
            name = f"{theirs}{piece.lower()}_proj."
            if not self.fused:
                rules.append(Rule(name + "weight", (n * k, d), heads(f"{ours}W_{piece}", n)))
            if shape.qkv_bias:
                rules.append(Rule(name + "bias", (n * k,), heads(f"{ours}b_{piece}", n)))
            if self.qk_norm and piece in "QK":
                wide, name = self.qk_norm == "layer", f"{ours}{piece.lower()}_norm.w"
                size, into = (n * k if wide else k,), heads(name, n) if wide else keep(name)
                rules.append(self._weight(f"{theirs}{piece.lower()}_norm", size, into))
        rules.append(Rule(theirs + "o_proj.weight", (d, shape.n_heads * k), output(ours + "W_O", shape.n_heads)))
        return [*rules, Rule(theirs + "o_proj.bias", (d,), keep(ours + "b_O"))] if shape.output_bias else rules

    def _mlp(self, shape: ModelShape, theirs: str, ours: str) -> list[Rule]:
        d, m = shape.d_model, shape.d_mlp
        down = Rule(theirs + "down_proj.weight", (d, m), turn(ours + "W_out"))
        if self.fused:
            return [Rule(theirs + "gate_up_proj.weight", (2 * m, d), _halves(ours + "W_gate", ours + "W_in")), down]
        return [
            Rule(theirs + "gate_proj.weight", (m, d), turn(ours + "W_gate")),
            Rule(theirs + "up_proj.weight", (m, d), turn(ours + "W_in")),
            down,
        ]


LLAMA = Kin()
MISTRAL = Kin(qkv_bias=False, output_bias=False, window=True, window_size=4096)
QWEN2 = Kin(qkv_bias=True, output_bias=False)
QWEN3 = Kin(qk_norm="head")
OLMO = Kin(norm="layernorm_pre", norm_eps=1e-5)  # its config knows no other
OLMO2 = Kin(norm_place="post", qk_norm="layer", norm_eps=1e-5, window=True)
OLMO3 = replace(OLMO2, window_size=4096, rotary_base=500_000.0)  # some of its layers see a window, and its names are OLMo-2's
PHI3 = Kin(qkv_bias=False, output_bias=False, fused=True, partial=True, norm_eps=1e-5, window=True)


def _slides(settings: Settings, window: bool) -> bool:
    """Whether some layers see a window only: of a family where that is so, or of a Qwen that says so."""
    if not window and not settings.get("use_sliding_window", False):
        return False
    kinds = settings.get("layer_types", ())
    return "sliding_attention" in kinds if kinds else window or settings.get("max_window_layers", 0) < settings.whole("num_hidden_layers")


def _one_more(tensor: Tensor) -> Tensor:
    """1 + w, summed in no less than 32 bits, as the original does it."""
    return 1 + tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _split(name: str, pieces: dict[str, int], d_head: int) -> Into:
    """Rows of all queries, then of all keys, then of all values."""

    def into(tensor: Tensor) -> dict[str, Tensor]:
        rows = tensor.split([n * d_head for n in pieces.values()])
        return {name + piece: by_head(own, n) for (piece, n), own in zip(pieces.items(), rows, strict=True)}

    return into


def _halves(first: str, second: str) -> Into:
    """Rows of one linear layer, then of another."""
    return lambda tensor: {name: rows.t() for name, rows in zip((first, second), tensor.chunk(2), strict=True)}

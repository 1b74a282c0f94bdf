"""Llama and its kin as Hugging Face has them: Mistral, Qwen2, Qwen3 and OLMo have its names and differ in biases, norms and what a query sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rllc.checkpoints.foreign import (
    Plan,
    Rule,
    Settings,
    Source,
    heads,
    keep,
    norm,
    not_importable,
    output,
    sharing,
    turn,
    unembedding,
    unembedding_rules,
)
from rllc.checkpoints.rope import rotary
from rllc.model.shape import ModelShape

PREFIX = "model."
BUFFERS = r"(layers\.\d+\.self_attn\.)?rotary_emb\.(original_)?inv_freq"


@dataclass(frozen=True)
class Kin:
    """How a family differs from Llama.

    Args:
        norm: the kind of its norms.
        qkv_bias: whether queries, keys and values have biases; None where `attention_bias` says so.
        output_bias: whether the layer behind the heads has one; None likewise.
        qk_norm: queries and keys pass a norm of their own.
        window: every query sees `sliding_window` tokens; otherwise only where `use_sliding_window` says so.
    """

    norm: Literal["rmsnorm", "layernorm_pre"] = "rmsnorm"
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    qk_norm: bool = False
    window: bool = False

    def __call__(self, settings: Settings, source: Source, n_ctx: int) -> Plan:
        """The plan by which a model of this family becomes ours."""
        settings.refuse({"clip_qkv": (lambda _: True, "it clips queries, keys and values")})
        gate_bias = "layers.0.mlp.gate_proj.bias"
        if settings.get("mlp_bias", False) or gate_bias in source:
            raise not_importable(settings.what, f"the gates of its MLPs have biases ({source.full(gate_bias)}, mlp_bias), and ours have none")
        shape, tied_notes, notes = self._shape(settings, source, n_ctx)
        rules = [Rule("embed_tokens.weight", (shape.d_vocab, shape.d_model), keep("embed.W_E")), *_norm(shape, "norm", "ln_final")]
        for layer in range(shape.n_layers):
            rules += _layer(shape, layer)
        notes = (*notes, *sharing(shape.n_heads, shape.groups), *tied_notes)
        return Plan(shape, (*rules, *unembedding_rules(source, "lm_head.weight", shape)), notes)

    def _shape(self, settings: Settings, source: Source, n_ctx: int) -> tuple[ModelShape, list[str], tuple[str, ...]]:
        window = settings.get("sliding_window", 0) if self.window or _slides(settings) else 0
        length, notes = settings.context("max_position_embeddings", n_ctx, window)
        width, n_heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        d_head = settings.whole("head_dim") if settings.get("head_dim") else settings.per_head("hidden_size", "num_attention_heads")
        groups = settings.whole("num_key_value_heads", n_heads)
        bias = bool(settings.get("attention_bias", False))
        tied, tied_notes = unembedding(settings, source, "embed_tokens.weight", "lm_head.weight", False)
        shape = ModelShape(
            n_layers=settings.whole("num_hidden_layers"),
            d_model=width,
            n_heads=n_heads,
            d_head=d_head,
            d_vocab=settings.whole("vocab_size"),
            n_ctx=length,
            d_mlp=settings.whole("intermediate_size"),
            norm=self.norm,
            norm_eps=1e-5 if self.norm == "layernorm_pre" else float(settings.get("rms_norm_eps", 1e-6)),
            tied=tied,
            n_kv_heads=0 if groups == n_heads else groups,
            activation=settings.activation("hidden_act", "silu"),
            gated_mlp=True,
            qk_norm=self.qk_norm,
            qkv_bias=bias if self.qkv_bias is None else self.qkv_bias,
            output_bias=bias if self.output_bias is None else self.output_bias,
            mlp_bias=False,
            unembed_bias=False,
            **rotary(settings, d_head),
        )
        return shape, tied_notes, notes


LLAMA = Kin()
MISTRAL = Kin(qkv_bias=False, output_bias=False, window=True)
QWEN2 = Kin(qkv_bias=True, output_bias=False)
QWEN3 = Kin(qk_norm=True)
OLMO = Kin(norm="layernorm_pre")


def _slides(settings: Settings) -> bool:
    """Whether some layers of a Qwen see a window only."""
    if not settings.get("use_sliding_window", False):
        return False
    kinds = settings.get("layer_types", ())
    return "sliding_attention" in kinds if kinds else settings.get("max_window_layers", 0) < settings.whole("num_hidden_layers")


def _norm(shape: ModelShape, theirs: str, ours: str) -> list[Rule]:
    return [] if shape.norm.endswith("_pre") else norm(theirs, ours, shape.d_model, False)


def _layer(shape: ModelShape, layer: int) -> list[Rule]:
    d, m, k = shape.d_model, shape.d_mlp, shape.d_head
    theirs, ours = f"layers.{layer}.", f"blocks.{layer}."
    rules = [*_norm(shape, theirs + "input_layernorm", ours + "ln1"), *_norm(shape, theirs + "post_attention_layernorm", ours + "ln2")]
    for piece, n in (("q", shape.n_heads), ("k", shape.groups), ("v", shape.groups)):
        name = f"{theirs}self_attn.{piece}_proj."
        rules.append(Rule(name + "weight", (n * k, d), heads(f"{ours}attn.W_{piece.upper()}", n)))
        if shape.qkv_bias:
            rules.append(Rule(name + "bias", (n * k,), heads(f"{ours}attn.b_{piece.upper()}", n)))
    rules.append(Rule(theirs + "self_attn.o_proj.weight", (d, shape.n_heads * k), output(ours + "attn.W_O", shape.n_heads)))
    if shape.output_bias:
        rules.append(Rule(theirs + "self_attn.o_proj.bias", (d,), keep(ours + "attn.b_O")))
    if shape.qk_norm:
        rules += [rule for piece in "qk" for rule in norm(f"{theirs}self_attn.{piece}_norm", f"{ours}attn.{piece}_norm", k, False)]
    return [
        *rules,
        Rule(theirs + "mlp.gate_proj.weight", (m, d), turn(ours + "mlp.W_gate")),
        Rule(theirs + "mlp.up_proj.weight", (m, d), turn(ours + "mlp.W_in")),
        Rule(theirs + "mlp.down_proj.weight", (d, m), turn(ours + "mlp.W_out")),
    ]

"""TransformerLens up to release 3: our names with a few exceptions, weights in our layout, folded or not."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rllc.checkpoints.foreign import Plan, Rule, Settings, Source, keep, not_importable, sharing
from rllc.model.shape import ModelShape

BUFFERS = r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)"
_NORMS = {"LN": "layernorm", "LNPre": "layernorm_pre", "RMS": "rmsnorm", "RMSPre": "rmsnorm_pre"}
_POSITIONS = {"standard": "learned", "shortformer": "shortformer", "rotary": "rotary"}
_ONLY = "which is converted from the model of transformers alone"
_WIDE_NORMS = ("Olmo2ForCausalLM", "Olmo3ForCausalLM", "OlmoeForCausalLM")


def _positive(value: float) -> bool:
    return value > 0


_REFUSED = {
    "use_attn_scale": (lambda value: not value, "its attention scores are not scaled"),
    "scale_attn_by_inverse_layer_idx": (bool, "its attention scores are scaled by the layer"),
    "attention_dir": (lambda value: value != "causal", "its attention looks ahead"),
    "use_local_attn": (bool, "its layers see a window of the context only"),
    "attn_scores_soft_cap": (_positive, f"its attention scores are capped, {_ONLY}"),
    "output_logits_soft_cap": (_positive, f"its logits are capped, {_ONLY}"),
    "use_attention_sinks": (bool, "its attention has sinks"),
    "use_logn_attn": (bool, "its queries grow with the position"),
    "clip_qkv": (lambda _: True, "it clips queries, keys and values"),
    "use_normalization_before_and_after": (bool, f"it has norms behind attention and MLP, {_ONLY}"),
    "original_architecture": (_WIDE_NORMS.__contains__, f"it has norms behind attention and MLP, or over all heads at once, {_ONLY}"),
    "post_embedding_ln": (bool, "it has a norm behind the embedding"),
    "rotary_adjacent_pairs": (bool, "its rotary positions turn adjacent pairs, and ours halves"),
    "rotary_scaling_factor": (lambda value: value != 1, "its rotary frequencies are stretched evenly"),
    "use_yarn_rope": (bool, "its rotary frequencies are stretched by YaRN"),
    "use_dynamic_ntk_rope": (bool, "its rotary frequencies depend on the context"),
    "num_experts": (bool, "its MLPs are mixtures of experts"),
    "load_in_4bit": (bool, "its weights are quantised"),
}


def hooked_transformer(settings: Settings, source: Source, n_ctx: int) -> Plan:
    """The plan for a HookedTransformer's tensors and cfg."""
    settings.refuse(_REFUSED)
    _check_scale(settings)
    length, notes = settings.context("n_ctx", n_ctx)
    shape, more = _shape(settings, source, length)
    rules = [Rule("embed.W_E", (shape.d_vocab, shape.d_model), keep("embed.W_E"))]
    if shape.positions != "rotary":
        rules.append(Rule("pos_embed.W_pos", (settings.whole("n_ctx"), shape.d_model), lambda tensor: {"pos.W_pos": tensor[:length]}))
    grouped = "_" if settings.get("n_key_value_heads") else ""
    for layer in range(shape.n_layers):
        rules += [*_attention(shape, f"blocks.{layer}.", grouped), *_mlp(shape, f"blocks.{layer}.", source)]
    rules += [
        *_norm(shape, "ln_final"),
        Rule("unembed.W_U", (shape.d_model, shape.d_vocab), (lambda _: {}) if shape.tied else keep("unembed.W_U")),
        _same("unembed.b_U", shape.d_vocab),
    ]
    return Plan(shape, tuple(rules), (*notes, *sharing(shape.n_heads, shape.groups), *more))


def _check_scale(settings: Settings) -> None:
    """TransformerLens divides the scores by any number; ours is the root of d_head. -1 stands for that."""
    usual = math.sqrt(settings.whole("d_head"))
    scale = float(settings.get("attn_scale", -1.0))
    if scale != -1 and not math.isclose(scale, usual, rel_tol=1e-6):
        raise not_importable(
            settings.what,
            f"its attention scores are divided by {scale:g} (attn_scale), and converted are those divided by the root of d_head, {usual:g}",
        )


def _shape(settings: Settings, source: Source, n_ctx: int) -> tuple[ModelShape, list[str]]:
    gated, mlp = bool(settings.get("gated_mlp", False)), not settings.get("attn_only", False)
    width, n_heads, d_head = settings.whole("d_model"), settings.whole("n_heads"), settings.whole("d_head")
    d_vocab, n_layers = settings.whole("d_vocab"), settings.whole("n_layers")
    if (out := settings.get("d_vocab_out", -1)) not in (-1, d_vocab):
        raise not_importable(settings.what, f"it reads {d_vocab} tokens (d_vocab) and predicts {out} (d_vocab_out)")
    groups = settings.whole("n_key_value_heads", n_heads)
    notes = []
    if mlp and gated:
        notes.append(
            "b_in of the gated MLPs, which TransformerLens adds behind the product and we before it, is folded into b_out: the same function and the "
            "same heads, but other coordinates for parts that hold an MLP."
        )
    tied = _tied(source)
    if tied:
        notes.append("unembed.W_U equals the transpose of embed.W_E: they are taken as one tensor, tied.")
    shape = ModelShape(
        n_layers=n_layers,
        d_model=width,
        n_heads=n_heads,
        d_head=d_head,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        d_mlp=settings.whole("d_mlp", 4 * width) if mlp else 0,
        norm=_norm_kind(settings),
        norm_eps=float(settings.get("eps", 1e-5)),
        tied=tied,
        n_kv_heads=0 if groups == n_heads else groups,
        activation=settings.activation("act_fn", "relu") if mlp else "gelu",
        gated_mlp=gated and mlp,
        parallel=bool(settings.get("parallel_attn_mlp", False)) and mlp,
        qk_norm=bool(settings.get("use_qk_norm", False)),
        **_positions(settings, d_head),
    )
    return shape, notes


def _norm_kind(settings: Settings) -> Any:
    given = settings.values.get("normalization_type", "LN")  # None is a value of its own here
    if given not in _NORMS:
        raise not_importable(settings.what, f"its norms are {given!r} (normalization_type), and the known ones are {', '.join(_NORMS)}")
    if settings.get("final_rms", False) and not given.startswith("RMS"):
        raise not_importable(settings.what, f"its last norm is an RMSNorm (final_rms) and the others are of another kind ({given})")
    return _NORMS[given]


def _positions(settings: Settings, d_head: int) -> dict[str, Any]:
    given = settings.get("positional_embedding_type", "standard")
    if given not in _POSITIONS:
        reason = f"its positions are {given!r} (positional_embedding_type), and the known ones are {', '.join(_POSITIONS)}"
        raise not_importable(settings.what, reason)
    if given != "rotary":
        return {"positions": _POSITIONS[given]}
    turned = settings.whole("rotary_dim", d_head)
    stretch = ("NTK_by_parts_factor", "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_original_ctx_len")
    defaults = (8.0, 1.0, 4.0, 8192.0)
    return {
        "positions": "rotary",
        "rotary_dim": 0 if turned == d_head else turned,
        "rotary_base": float(settings.get("rotary_base", 10_000.0)),
        "rotary_scaling": tuple(float(settings.get(name, default)) for name, default in zip(stretch, defaults, strict=True))
        if settings.get("use_NTK_by_parts_rope", False)
        else (),
    }


def _tied(source: Source) -> bool:
    if not {"embed.W_E", "unembed.W_U"} <= source.names():
        return False
    embedding, unembedding = source.read("embed.W_E"), source.read("unembed.W_U")
    return embedding.shape == unembedding.shape[::-1] and torch.equal(embedding, unembedding.t())


def _same(name: str, *size: int) -> Rule:
    return Rule(name, size, keep(name))


def _norm(shape: ModelShape, name: str) -> list[Rule]:
    if shape.norm.endswith("_pre"):
        return []
    return [_same(f"{name}.{letter}", shape.d_model) for letter in ("wb" if shape.norm == "layernorm" else "w")]


def _attention(shape: ModelShape, block: str, grouped: str) -> list[Rule]:
    d, k = shape.d_model, shape.d_head
    rules = _norm(shape, block + "ln1")
    for piece, n, mark in (("Q", shape.n_heads, ""), ("K", shape.groups, grouped), ("V", shape.groups, grouped)):
        for letter, size in (("W", (n, d, k)), ("b", (n, k))):
            rules.append(Rule(f"{block}attn.{mark}{letter}_{piece}", size, keep(f"{block}attn.{letter}_{piece}")))
    if shape.qk_norm:
        rules += [_same(f"{block}attn.{piece}_norm.w", k) for piece in "qk"]
    return [*rules, _same(block + "attn.W_O", shape.n_heads, k, d), _same(block + "attn.b_O", d)]


def _mlp(shape: ModelShape, block: str, source: Source) -> list[Rule]:
    d, m = shape.d_model, shape.d_mlp
    if not m:
        return []
    rules = [*_norm(shape, block + "ln2"), _same(block + "mlp.W_in", d, m), _same(block + "mlp.W_out", m, d)]
    if not shape.gated_mlp:
        return [*rules, _same(block + "mlp.b_in", m), _same(block + "mlp.b_out", d)]
    b_in, b_out = block + "mlp.b_in", block + "mlp.b_out"

    def folded(tensor: Tensor) -> dict[str, Tensor]:
        """(a * u + b_in) W_out + b_out = (a * u) W_out + (b_in W_out + b_out), which ours can say."""
        return {b_out: tensor.double() + source.read(b_in).double() @ source.read(block + "mlp.W_out").double()}

    rules += [_same(block + "mlp.W_gate", d, m), Rule(b_out, (d,), folded)]
    return [*rules, Rule(b_in, (m,), lambda tensor: {b_in: torch.zeros_like(tensor)})]

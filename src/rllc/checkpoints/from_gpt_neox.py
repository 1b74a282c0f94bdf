"""GPT-NeoX and Pythia as Hugging Face has them: queries, keys and values of one head after those of the other."""

from __future__ import annotations

from rllc.checkpoints.foreign import Into, Plan, Rule, Settings, Source, keep, norm, output, turn, unembedding, unembedding_rules
from rllc.checkpoints.layouts import interleaved
from rllc.checkpoints.rope import rotary
from rllc.model.shape import ModelShape

PREFIX = "gpt_neox."
BUFFERS = r"layers\.\d+\.attention\.(bias|masked_bias)|(layers\.\d+\.attention\.)?rotary_emb\.(original_)?inv_freq"  # causal masks, frequencies


def huggingface(settings: Settings, source: Source, n_ctx: int) -> Plan:
    """GPT-NeoX of transformers: attention and MLP beside each other or one after the other, a part of every head turned."""
    length, notes = settings.context("max_position_embeddings", n_ctx)
    width, n_heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
    d_head = settings.per_head("hidden_size", "num_attention_heads")
    # The hub's checkpoints say embed_out, transformers since release 5 says lm_head.
    last = "lm_head.weight" if "lm_head.weight" in source else "embed_out.weight"
    tied, more = unembedding(settings, source, "embed_in.weight", last, False)
    bias = bool(settings.get("attention_bias", True))
    shape = ModelShape(
        n_layers=settings.whole("num_hidden_layers"),
        d_model=width,
        n_heads=n_heads,
        d_head=d_head,
        d_vocab=settings.whole("vocab_size"),
        n_ctx=length,
        d_mlp=settings.whole("intermediate_size"),
        norm_eps=float(settings.get("layer_norm_eps", 1e-5)),
        tied=tied,
        activation=settings.activation("hidden_act", "gelu"),
        parallel=bool(settings.get("use_parallel_residual", True)),
        qkv_bias=bias,
        output_bias=bias,
        unembed_bias=False,
        **rotary(settings, d_head, 0.25, "rotary_emb_base", "rotary_pct", partial=True),
    )
    rules = [Rule("embed_in.weight", (shape.d_vocab, width), keep("embed.W_E")), *norm("final_layer_norm", "ln_final", width, True)]
    for layer in range(shape.n_layers):
        rules += _layer(shape, layer)
    return Plan(shape, (*rules, *unembedding_rules(source, last, shape)), (*notes, *more))


def _layer(shape: ModelShape, layer: int) -> list[Rule]:
    d, m, h = shape.d_model, shape.d_mlp, shape.n_heads
    theirs, ours = f"layers.{layer}.", f"blocks.{layer}."
    biases = [
        Rule(theirs + "attention.query_key_value.bias", (3 * d,), _fused(ours + "attn.b_", h)),
        Rule(theirs + "attention.dense.bias", (d,), keep(ours + "attn.b_O")),
    ]
    return [
        *norm(theirs + "input_layernorm", ours + "ln1", d, True),
        Rule(theirs + "attention.query_key_value.weight", (3 * d, d), _fused(ours + "attn.W_", h)),
        Rule(theirs + "attention.dense.weight", (d, d), output(ours + "attn.W_O", h)),
        *(biases if shape.qkv_bias else ()),
        *norm(theirs + "post_attention_layernorm", ours + "ln2", d, True),
        Rule(theirs + "mlp.dense_h_to_4h.weight", (m, d), turn(ours + "mlp.W_in")),
        Rule(theirs + "mlp.dense_h_to_4h.bias", (m,), keep(ours + "mlp.b_in")),
        Rule(theirs + "mlp.dense_4h_to_h.weight", (d, m), turn(ours + "mlp.W_out")),
        Rule(theirs + "mlp.dense_4h_to_h.bias", (d,), keep(ours + "mlp.b_out")),
    ]


def _fused(name: str, n_heads: int) -> Into:
    return lambda tensor: {name + piece: value for piece, value in interleaved(tensor, n_heads).items()}

"""GPT-2 as Hugging Face and nanoGPT have it: equal names, but the former keeps its matrices in × out."""

from __future__ import annotations

from rllc.checkpoints.foreign import Activation, Into, Plan, Rule, Settings, Source, keep, norm, output, turn, unembedding, unembedding_rules
from rllc.checkpoints.layouts import thirds
from rllc.model.shape import ModelShape

PREFIX = "transformer."
BUFFERS = r"h\.\d+\.attn\.(bias|masked_bias)"  # causal masks
_REFUSED = {
    "scale_attn_weights": (lambda value: not value, "its attention scores are not scaled"),
    "scale_attn_by_inverse_layer_idx": (bool, "its attention scores are scaled by the layer"),
    "add_cross_attention": (bool, "it has cross-attention"),
}


def huggingface(settings: Settings, source: Source, n_ctx: int) -> Plan:
    """GPT-2 of transformers: matrices in × out, biases everywhere, the activation named."""
    settings.refuse(_REFUSED)
    activation = settings.activation("activation_function", "gelu_new")
    d_mlp = settings.whole("n_inner", 4 * settings.whole("n_embd"))
    return _plan(settings, source, n_ctx, context="n_positions", activation=activation, d_mlp=d_mlp, bias=True, conv=True)


def nanogpt(settings: Settings, source: Source, n_ctx: int) -> Plan:
    """nanoGPT: linear layers and norms with or without biases, exact GELU."""
    bias = bool(settings.get("bias", True))
    d_mlp = 4 * settings.whole("n_embd")
    return _plan(settings, source, n_ctx, context="block_size", activation="gelu", d_mlp=d_mlp, bias=bias, conv=False)


def _plan(settings: Settings, source: Source, n_ctx: int, *, context: str, activation: Activation, d_mlp: int, bias: bool, conv: bool) -> Plan:
    length, notes = settings.context(context, n_ctx)
    width, n_heads = settings.whole("n_embd"), settings.whole("n_head")
    tied, more = unembedding(settings, source, "wte.weight", "lm_head.weight", True)
    shape = ModelShape(
        n_layers=settings.whole("n_layer"),
        d_model=width,
        n_heads=n_heads,
        d_head=settings.per_head("n_embd", "n_head"),
        d_vocab=settings.whole("vocab_size"),
        n_ctx=length,
        d_mlp=d_mlp,
        positions="learned",
        norm_eps=float(settings.get("layer_norm_epsilon", 1e-5)),
        tied=tied,
        activation=activation,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        norm_bias=bias,
        unembed_bias=False,
    )
    vocabulary = (shape.d_vocab, width)
    rules = [
        Rule("wte.weight", vocabulary, keep("embed.W_E")),
        Rule("wpe.weight", (settings.whole(context), width), lambda tensor: {"pos.W_pos": tensor[:length]}),
        *norm("ln_f", "ln_final", width, bias),
    ]
    for layer in range(shape.n_layers):
        rules += _layer(shape, layer, conv)
    return Plan(shape, (*rules, *unembedding_rules(source, "lm_head.weight", shape)), (*notes, *more))


def _layer(shape: ModelShape, layer: int, conv: bool) -> list[Rule]:
    d, m, bias = shape.d_model, shape.d_mlp, shape.qkv_bias
    theirs, ours = f"h.{layer}.", f"blocks.{layer}."
    matrices = [
        Rule(theirs + "attn.c_attn.weight", (3 * d, d), _fused(ours + "attn.W_", shape.n_heads)),
        Rule(theirs + "attn.c_proj.weight", (d, d), output(ours + "attn.W_O", shape.n_heads)),
        Rule(theirs + "mlp.c_fc.weight", (m, d), turn(ours + "mlp.W_in")),
        Rule(theirs + "mlp.c_proj.weight", (d, m), turn(ours + "mlp.W_out")),
    ]
    vectors = [
        Rule(theirs + "attn.c_attn.bias", (3 * d,), _fused(ours + "attn.b_", shape.n_heads)),
        Rule(theirs + "attn.c_proj.bias", (d,), keep(ours + "attn.b_O")),
        Rule(theirs + "mlp.c_fc.bias", (m,), keep(ours + "mlp.b_in")),
        Rule(theirs + "mlp.c_proj.bias", (d,), keep(ours + "mlp.b_out")),
    ]
    norms = [rule for i in (1, 2) for rule in norm(f"{theirs}ln_{i}", f"{ours}ln{i}", d, bias)]
    return [*(map(_transposed, matrices) if conv else matrices), *(vectors if bias else ()), *norms]


def _fused(name: str, n_heads: int) -> Into:
    return lambda tensor: {name + piece: value for piece, value in thirds(tensor, n_heads).items()}


def _transposed(rule: Rule) -> Rule:
    """The rule of a layer that keeps its matrix in × out."""
    return Rule(rule.name, rule.size[::-1], lambda tensor: rule.into(tensor.t()))

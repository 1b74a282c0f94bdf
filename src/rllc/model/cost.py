"""What one evaluation costs: operations and memory by counting, for plans. Torch-free.

Counted are the matrix products that each variant needs of its own (forward and the gradient with respect to activations, and to weights
where the part holds them) and the activations that the backward pass keeps.
"""

from __future__ import annotations

import math

from rllc.core.names import Part
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, last_layer_head, size, slices, within_one_head

# Up to this many numbers, the logits of a minibatch at the checkpoint are kept for all passes over it.
KEPT_LOGITS = 1 << 24


def operations(shape: ModelShape, part: Part, batch: int, context: int, chains: int = 4) -> float:
    """Floating-point operations of one variant on one minibatch, forward and backward, with its share of what the chains of a part have in common."""
    tokens = batch * context
    d, k, v = shape.d_model, shape.d_head, shape.d_vocab
    # Of a head and token: the kernel leaves out what lies ahead; capped scores are whole, and both their factors have gradients.
    scores = (3 if shape.score_softcap else 1) * context * k
    if last_layer_head(shape, part):
        # Those of Q, K, V that are sampled, forward and their gradients; the scores; what is written against the rest; then the logits.
        output = _samples_output(shape, part)
        own = 2 * tokens * ((2 * _sampled_inputs(shape, part) + (2 if output else 1)) * d * k + 3 * scores)
        return own + (2 * tokens * k * v * (3 + 1 / chains) + 4 * k * d * v if output else 4 * tokens * k * v)
    mlp, layer = _mlp(shape, tokens), _layer(shape, tokens, context)
    start = first_layer(shape, part)
    read_out = 2 * tokens * d * v
    if within_one_head(shape, part):
        # Forward, the gradient of the activations, and that of the head's own weights.
        head = 2 * tokens * ((_sampled_inputs(shape, part) + 1) * d * k + scores)
        return 3 * head + 2 * ((0 if shape.parallel else mlp) + layer * (shape.n_layers - start - 1) + read_out)
    weights = 2 * tokens * sum(_touched(shape, part))  # of a tensor of which only some is sampled, the gradient is made whole
    return 2 * (layer * (shape.n_layers - start) + read_out) + weights


def forward_operations(shape: ModelShape, context: int, start: int = 0, read_out: bool = True) -> float:
    """Floating-point operations of a forward pass of one context, from a layer on; with the logits unless told otherwise."""
    return _layer(shape, context, context) * (shape.n_layers - start) + read_out * 2 * context * shape.d_model * shape.d_vocab


def _layer(shape: ModelShape, tokens: int, context: int) -> float:
    scores = (3 if shape.score_softcap else 1) * context * shape.d_head
    return 2 * tokens * (2 * (shape.n_heads + shape.groups) * shape.d_model * shape.d_head + shape.n_heads * scores) + _mlp(shape, tokens)


def _mlp(shape: ModelShape, tokens: int) -> float:
    return 2 * tokens * (3 if shape.gated_mlp else 2) * shape.d_model * shape.d_mlp


def bytes_per_variant(shape: ModelShape, part: Part, batch: int, context: int, itemsize: int = 4) -> int:
    """Memory that one variant needs while a pass runs, in bytes: kept activations, gradients of them, its tensors and theirs."""
    tokens = batch * context
    d, k, h = shape.d_model, shape.d_head, shape.n_heads
    patterns = _patterns(shape, context)
    if last_layer_head(shape, part):
        written = 3 * k * shape.d_vocab if _samples_output(shape, part) else 0
        return itemsize * (tokens * (20 * k + 8 + patterns) + written + 5 * k * d + 4 * size(shape, part))
    wide = h * k
    mlp = (6 if shape.gated_mlp else 4) * shape.d_mlp + 3 * d if shape.d_mlp else 0
    layer = (10 if shape.norms_behind else 6) * d + (10 if shape.qk_norm else 6) * wide + h * patterns + mlp
    start = first_layer(shape, part)
    if within_one_head(shape, part):
        numbers = tokens * (8 * k + 5 * d + patterns + mlp + layer * (shape.n_layers - start - 1))
    else:
        numbers = tokens * (4 * d + layer * (shape.n_layers - start))
        # A tensor of which only heads, or single weights, are sampled exists as a whole for every variant, and so does its gradient.
        numbers += 2 * (sum(_touched(shape, part)) - size(shape, part))
    return itemsize * (numbers + 4 * size(shape, part))


def bytes_shared(shape: ModelShape, part: Part, n_parts: int, batch: int, context: int, itemsize: int = 4) -> int:
    """Memory that all variants of `n_parts` such parts share while a minibatch is worked on, in bytes."""
    tokens = batch * context
    d, k, h, v = shape.d_model, shape.d_head, shape.n_heads, shape.d_vocab
    stream = tokens * (
        4 * d + 4 * h * k + h * _patterns(shape, context) + (3 if shape.gated_mlp else 2) * shape.d_mlp
    )  # a forward pass without gradients
    if not within_one_head(shape, part):
        return itemsize * stream
    numbers = stream + tokens * d * (h + n_parts) + tokens * 2 * d
    if last_layer_head(shape, part):
        numbers += d * v + n_parts * k * v + (tokens * v if tokens * v <= KEPT_LOGITS else 0) + n_parts * tokens * (d + k)
    return itemsize * numbers


def _patterns(shape: ModelShape, context: int) -> int:
    """Numbers that the patterns of one head take for a token, where scores are capped and so exist as a whole, with their gradients."""
    return 4 * context if shape.score_softcap else 0


def _touched(shape: ModelShape, part: Part) -> list[int]:
    """Sizes of the tensors of which the part holds some."""
    sizes = shape.tensors()
    return [math.prod(sizes[name]) for name in {s.tensor for s in slices(shape, part)}]


def _sampled_inputs(shape: ModelShape, part: Part) -> int:
    return sum(s.tensor.rsplit(".", 1)[1] in ("W_Q", "W_K", "W_V") for s in slices(shape, part))


def _samples_output(shape: ModelShape, part: Part) -> bool:
    return any(s.tensor.endswith("W_O") for s in slices(shape, part))

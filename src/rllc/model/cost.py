"""What one evaluation costs: operations and memory by counting, for plans. Torch-free.

Counted are the matrix products that each variant needs of its own (forward and the gradient with respect to activations, and to weights
where the part holds them) and the activations that the backward pass keeps.
"""

from __future__ import annotations

from rllc.core.names import Part
from rllc.model.shape import ModelShape, first_layer, size, within_one_head


def operations(shape: ModelShape, part: Part, batch: int, context: int) -> float:
    """Floating-point operations of one variant on one minibatch, forward and backward."""
    tokens = batch * context
    d, k, v, h = shape.d_model, shape.d_head, shape.d_vocab, shape.n_heads
    head = 2 * tokens * (4 * d * k + context * k)
    mlp = 2 * tokens * 2 * d * shape.d_mlp
    layer = h * head + mlp
    start = first_layer(shape, part)
    read_out = 2 * tokens * d * v
    if within_one_head(shape, part):
        # Forward, the gradient of the activations, and that of the head's own weights.
        return 3 * head + 2 * (mlp + layer * (shape.n_layers - start - 1) + read_out)
    weights = 2 * tokens * size(shape, part)
    return 2 * (layer * (shape.n_layers - start) + read_out) + weights


def bytes_per_variant(shape: ModelShape, part: Part, batch: int, context: int, itemsize: int = 4) -> int:
    """Memory that one variant needs while a pass runs, in bytes: kept activations, gradients of them, its tensors and theirs."""
    tokens = batch * context
    d, k, h = shape.d_model, shape.d_head, shape.n_heads
    wide = h * k
    mlp = 4 * shape.d_mlp + 3 * d if shape.d_mlp else 0
    layer = 6 * d + 6 * wide + mlp
    start = first_layer(shape, part)
    if within_one_head(shape, part):
        numbers = tokens * (8 * k + 5 * d + mlp + layer * (shape.n_layers - start - 1))
    else:
        numbers = tokens * (5 * d + layer * (shape.n_layers - start))
    return itemsize * (numbers + 4 * size(shape, part))

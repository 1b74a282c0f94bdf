"""Ablation of every head: how much each prediction suffers where a head is taken away (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.clean import after_layer, clean_pass, outputs, replacement, row_numbers, stream_losses
from rllc.behaviour.contexts import Contexts, contexts_of
from rllc.behaviour.inputs import pieces
from rllc.model.forward import run_blocks
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@torch.no_grad()
def ablation_effects(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    tokens: Int[Ints, "B T"] | Contexts,
    kind: str = "zero",
    reference: Int[Ints, "R U"] | Contexts | None = None,
    seed: int = 0,
) -> Float[Floats, "H B S"]:
    """Rise of the loss of every prediction, in nats, when a head is ablated; heads layer by layer, column p - 1 is the prediction of token p.

    What head h writes, z_h W_O[h] (the layer's output bias is no head's and stays), is replaced at every position, and everything after it is
    computed anew: MLPs, later heads with their patterns, norms. "zero" puts nothing there; "mean" the head's mean output at each position over
    the contexts of `reference`; "resample" what it writes on another context of the reference, at the same positions, the same context for all
    heads, drawn from `seed` (Chan et al. 2022, causal scrubbing). The reference is the tokens themselves unless given. Positive where the head
    helps. Every prediction is in the answer; `Contexts.mean` averages over those that count. Divided by the mean loss it is METHOD 6's normalised
    effect; an effect per domain is one call a domain.

    One clean pass serves all heads, and a head's variant starts at its own layer.

    Raises RllcError where tokens or reference do not fit the model or each other, or the kind is unknown.
    """
    found, start = [], 0
    prepared, contexts = None, contexts_of(tokens)
    for batch in pieces(shape, params, contexts.tokens, row_numbers(shape, contexts.tokens.shape[-1]), "The contexts to ablate on"):
        prepared = prepared or replacement(shape, params, contexts, kind, reference, seed)
        clean = clean_pass(shape, params, batch)
        base = stream_losses(shape, params, clean.streams[-1][None], batch).double()
        instead = prepared.heads(shape, params, slice(start, start + len(batch)), clean)
        start += len(batch)
        effects = []
        for layer in range(shape.n_layers):
            change = outputs(params, layer, instead[layer] - clean.heads[layer]).transpose(0, 1)
            x = after_layer(shape, params, layer, clean.streams[layer], clean.written[layer] + change, clean.beside[layer])
            x = run_blocks(shape, params, x, start=layer + 1)
            effects.append(stream_losses(shape, params, x, batch).double() - base)
        found.append(torch.cat(effects).cpu().numpy())
    return np.concatenate(found, 1)

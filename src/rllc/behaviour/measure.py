"""Everything that is measured of one checkpoint's behaviour, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.attention import attention_scores, snippet_pattern
from rllc.behaviour.contexts import Given, contexts_of
from rllc.behaviour.loss_scores import loss_scores
from rllc.core.errors import RllcError
from rllc.core.names import Head
from rllc.model.shape import ModelShape

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Probes:
    """What every checkpoint is shown: token ids, each sequence starting with BOS.

    Args:
        text: held-out contexts [B, T] for the previous- and current-token scores.
        repeated: BOS and a random segment repeated [B, T], for prefix matching.
        segment: tokens in a segment.
        contexts: held-out contexts [B, T] by name of data, for the losses, perhaps with what counts of them; one T for all.
        snippets: sequences [T] by name, for looking at.
    """

    text: Ints
    repeated: Ints
    segment: int
    contexts: Mapping[str, Given]
    snippets: Mapping[str, Ints]

    def __post_init__(self) -> None:
        lengths = {name: contexts_of(tokens).tokens.shape[-1] for name, tokens in self.contexts.items()}
        if len(set(lengths.values())) > 1:
            raise RllcError(
                f"The held-out contexts differ in length: {', '.join(f'{name} {length}' for name, length in lengths.items())}.",
                "Cut them to one length.",
            )


@dataclass(frozen=True)
class Measurement:
    """The behaviour of one checkpoint. Axes: H heads layer by layer, N kinds of data, T positions of a context."""

    heads: tuple[Head, ...]  # H
    scores: dict[str, Floats]  # by the names of `attention.SCORES`, each [H], attention 0 to 1
    scores_stderr: dict[str, Floats]  # by the same names, each [H] standard error over contexts
    data: tuple[str, ...]  # N
    losses: Floats  # [N] nats per token, held-out
    losses_stderr: Floats  # [N] standard error over contexts
    position_losses: Floats  # [N, T-1] nats, by the token predicted; NaN where no prediction counts
    icl: Floats  # [N] in-context-learning score, nats per token
    icl_stderr: Floats  # [N]
    snippets: tuple[str, ...]
    patterns: tuple[NDArray[np.uint8], ...]  # per snippet [H, T, T], attention × 255, row = query


def measure(shape: ModelShape, params: Mapping[str, Tensor], probes: Probes) -> Measurement:
    """Measure one model on the probes; deterministic, nothing is drawn.

    Raises RllcError where a probe does not fit the model, and where weights are not finite.
    """
    for name, tensor in params.items():
        if not torch.isfinite(tensor).all():
            raise RllcError(f"The weights hold numbers that are not finite, in {name}.", "Measure an earlier checkpoint, and train again.")
    scores = attention_scores(shape, params, probes.text, probes.repeated, probes.segment)
    losses = [loss_scores(shape, params, tokens) for tokens in probes.contexts.values()]
    return Measurement(
        heads=shape.heads(),
        scores={name: value for name, (value, _) in scores.items()},
        scores_stderr={name: stderr for name, (_, stderr) in scores.items()},
        data=tuple(probes.contexts),
        losses=np.array([found.loss for found in losses]),
        losses_stderr=np.array([found.stderr for found in losses]),
        position_losses=np.array([found.by_position for found in losses]),
        icl=np.array([found.icl for found in losses]),
        icl_stderr=np.array([found.icl_stderr for found in losses]),
        snippets=tuple(probes.snippets),
        patterns=tuple(snippet_pattern(shape, params, tokens) for tokens in probes.snippets.values()),
    )

"""What the model knows: held-out losses by position, and how much a longer context helps (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.inputs import pieces
from rllc.core.errors import RllcError
from rllc.model.forward import token_losses
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Olsson et al.: the loss at token 500 minus that at token 50, in a context of 1024.
_EARLY, _LATE = 50 / 1024, 500 / 1024


@dataclass(frozen=True)
class LossScores:
    """Losses on one kind of data, in nats per token; errors are standard errors over contexts."""

    loss: float  # mean over contexts and positions
    stderr: float
    by_position: Floats  # [T-1], the loss of predicting token 1 … T-1
    icl: float  # in-context-learning score; negative where later tokens are easier
    icl_stderr: float


@torch.no_grad()
def context_losses(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> Float[Floats, "B T-1"]:
    """Loss of every prediction, in nats; column p - 1 is the loss of predicting token p. Raises RllcError where tokens do not fit the model."""
    size = np.shape(tokens)[-1] * shape.d_vocab
    return np.concatenate(
        [token_losses(shape, params, batch).double().cpu().numpy() for batch in pieces(shape, params, tokens, size, "The held-out contexts")]
    )


def icl_windows(context: int) -> tuple[slice, slice]:
    """The columns of `context_losses` that count as early and as late in contexts of T = `context` tokens.

    Early are the tokens within max(1, T // 128) places of T · 50/1024, late those within as many of T · 500/1024 (rounded, BOS being token 0).
    Raises RllcError below T = 8, where they would overlap.

    >>> icl_windows(1024)  # tokens 42 to 58 and 492 to 508
    (slice(41, 58, None), slice(491, 508, None))
    >>> icl_windows(64)  # tokens 2 to 4 and 30 to 32
    (slice(1, 4, None), slice(29, 32, None))
    """
    if context < 8:
        raise RllcError(f"The in-context-learning score needs contexts of at least 8 tokens, and these hold {context}.", "Give longer contexts.")
    reach = max(1, context // 128)
    early, late = (max(1, round(context * share)) for share in (_EARLY, _LATE))
    return slice(max(early - reach, 1) - 1, early + reach), slice(late - reach - 1, late + reach)


def loss_scores(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"]) -> LossScores:
    """Held-out loss on contexts of one kind of data, by position, and the in-context-learning score.

    The score is the mean loss in the late window of `icl_windows` minus that in the early one, context by context.
    Raises RllcError where the tokens do not fit the model or are fewer than 2 contexts of 8 tokens.
    """
    losses = context_losses(shape, params, tokens)
    if len(losses) < 2:
        raise RllcError("One context has no standard error.", "Give two held-out contexts or more.")
    early, late = icl_windows(np.shape(tokens)[-1])
    mean, stderr = _mean(losses.mean(1))
    icl, icl_stderr = _mean(losses[:, late].mean(1) - losses[:, early].mean(1))
    return LossScores(mean, stderr, losses.mean(0), icl, icl_stderr)


def _mean(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)

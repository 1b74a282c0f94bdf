"""What the model knows: held-out losses by position, and how much a longer context helps (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.contexts import Contexts, contexts_of
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

    loss: float  # mean over all predictions that count
    stderr: float
    by_position: Floats  # [T-1], the loss of predicting token 1 … T-1; NaN where no context's counts
    icl: float  # in-context-learning score; negative where later tokens are easier; NaN where fewer than two contexts reach that far
    icl_stderr: float


@torch.no_grad()
def context_losses(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"] | Contexts) -> Float[Floats, "B S"]:
    """Loss of every prediction, those that do not count too, in nats; column p - 1 is the loss of predicting token p.

    Raises RllcError where tokens do not fit the model.
    """
    tokens = contexts_of(tokens).tokens
    size = tokens.shape[-1] * shape.d_vocab
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


def loss_scores(shape: ModelShape, params: Mapping[str, Tensor], tokens: Int[Ints, "B T"] | Contexts) -> LossScores:
    """Held-out loss on contexts of one kind of data, by position, and the in-context-learning score.

    The score is the mean loss in the late window of `icl_windows` minus that in the early one, context by context; contexts in which nothing of one
    of them counts, as where a document ends early, are left out of it.
    Raises RllcError where the tokens do not fit the model or are fewer than 2 contexts of 8 tokens.
    """
    contexts = contexts_of(tokens)
    losses = context_losses(shape, params, contexts)
    if len(losses) < 2:
        raise RllcError("One context has no standard error.", "Give two held-out contexts or more.")
    early, late = icl_windows(contexts.tokens.shape[-1])
    mean, stderr = contexts.mean(losses)
    icl, icl_stderr = _icl(losses, contexts.counted, early, late)
    return LossScores(float(mean), float(stderr), contexts.by_position(losses), icl, icl_stderr)


def _icl(losses: Floats, counted: NDArray[np.bool_], early: slice, late: slice) -> tuple[float, float]:
    both = counted[:, early].any(1) & counted[:, late].any(1)
    if both.sum() < 2:
        return float("nan"), float("nan")
    after, before = (losses[both, window].mean(1, where=counted[both, window]) for window in (late, early))
    return float((after - before).mean()), float((after - before).std(ddof=1) / both.sum() ** 0.5)

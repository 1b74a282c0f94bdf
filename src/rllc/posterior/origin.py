"""The gradient at w* itself, which a local minimum would not have (METHOD 2, Tilt)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.flat import Layout
from rllc.posterior.protocol import Context, Objective
from rllc.posterior.traces import Floats, OriginGradient

if TYPE_CHECKING:
    from jaxtyping import Float


def gradient_at_origin(objective: Objective[Context], origin: Mapping[str, Float[Tensor, "P ..."]], batches: Iterable[Any]) -> OriginGradient:
    """Estimate `‖∇_V l(w*)‖²` of each part over n independent minibatches, and the mean loss there.

    The squared norm of a mean gradient holds the gradient noise and is never small. Products of *different* minibatches
    do not: `(‖Σ_b ĝ_b‖² - Σ_b ‖ĝ_b‖²)/(n(n-1))` has expectation `‖E ĝ‖²`, as `E[ĝ_a·ĝ_b] = ‖E ĝ‖²` for a ≠ b.
    Its standard error is the jackknife's over minibatches, which for such averages over pairs errs to the wide side.

    Args:
        objective: the loss.
        origin: the parts' tensors at w*, each with a leading axis P.
        batches: n ≥ 3 minibatches that the chains do not use; n gradients of all parts are held at once.

    Raises:
        RllcError: there are fewer than three minibatches, or the part cannot be sampled.
    """
    layout = Layout.of(origin)
    at_origin = layout.views(layout.flatten(origin))
    gradients: list[Tensor] = []
    losses: list[Tensor] = []
    for batch in batches:
        evaluation = objective.evaluate(at_origin, objective.prepare(batch))
        if evaluation.gradients is None:
            raise ValueError("The objective returned no gradients.")
        gradients.append(layout.flatten(evaluation.gradients))
        losses.append(evaluation.baseline.detach())
    n = len(gradients)
    if n < 3:
        raise RllcError(f"The gradient at the checkpoint needs at least 3 minibatches to have an error, but {n} were given.", "Give 16, for example.")
    gram = np.stack([_gram(torch.stack([g[p] for g in gradients])) for p in range(gradients[0].shape[0])])
    sq_norm, stderr = _off_diagonal_mean(gram)
    sq_batch_norm = np.diagonal(gram, axis1=1, axis2=2).mean(axis=1)
    loss = torch.stack(losses, dim=1).cpu().double().numpy().mean(axis=1)
    return OriginGradient(sq_norm, stderr, sq_batch_norm, loss, n)


def _gram(rows: Float[Tensor, "n d"]) -> Float[Floats, "n n"]:
    """Inner products of n gradients, [n, n]."""
    return (rows @ rows.T).cpu().double().numpy()


def _off_diagonal_mean(gram: Float[Floats, "P n n"]) -> tuple[Float[Floats, " P"], Float[Floats, " P"]]:
    """Mean over pairs of different minibatches, and its jackknife standard error; [P] each, of [P, n, n]."""
    n = gram.shape[-1]
    off = gram.sum(axis=-1) - np.diagonal(gram, axis1=1, axis2=2)  # [P, n], each minibatch with all others
    total = off.sum(axis=-1)
    without = (total[:, None] - 2 * off) / ((n - 1) * (n - 2))  # [P, n], the estimate with one minibatch left out
    stderr = np.sqrt((n - 1) / n * ((without - without.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1))
    return total / (n * (n - 1)), stderr

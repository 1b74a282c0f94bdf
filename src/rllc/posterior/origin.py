"""What the loss is like at w* itself: its gradient, which a local minimum would not have (METHOD 2, Tilt), and its steepest curvature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.posterior.flat import Layout
from rllc.posterior.protocol import Context, Objective, Tensors
from rllc.posterior.samplers.base import dot, squared
from rllc.posterior.traces import Floats, OriginGradient

if TYPE_CHECKING:
    from jaxtyping import Float

_PROBE = 1e-2  # length of the step along which a gradient is differenced, of the part's own norm


def gradient_at_origin(objective: Objective[Context], origin: Mapping[str, Float[Tensor, "P ..."]], batches: Iterable[Any]) -> OriginGradient:
    """Estimate `‖∇_V l(w*)‖²` and the largest eigenvalue of the Hessian of each part over n independent minibatches, and the mean loss there.

    The squared norm of a mean gradient holds the gradient noise and is never small. Products of *different* minibatches
    do not: `(‖Σ_b ĝ_b‖² - Σ_b ‖ĝ_b‖²)/(n(n-1))` has expectation `‖E ĝ‖²`, as `E[ĝ_a·ĝ_b] = ‖E ĝ‖²` for a ≠ b.
    Its standard error is the jackknife's over minibatches, which for such averages over pairs errs to the wide side.

    The eigenvalue is found by power iteration, one step a minibatch: `u ← H_b u/‖H_b u‖`, H_b u by differencing two gradients of the same
    minibatch. A minibatch is independent of the u that it meets, so `u·H_b u` never exceeds the largest eigenvalue of H in
    expectation, where H has no negative one of larger size; reported is its mean over the second half of the minibatches.

    Args:
        objective: the loss.
        origin: the parts' tensors at w*, each with a leading axis P.
        batches: n ≥ 3 minibatches that the chains do not use; n gradients of all parts are held at once.

    Raises:
        RllcError: there are fewer than three minibatches, or the part cannot be sampled.
    """
    layout = Layout.of(origin)
    center = layout.flatten(origin)
    length = _PROBE * _norm(center).clamp_min(1.0)
    direction = _first_direction(center)
    gradients: list[Tensor] = []
    losses: list[Tensor] = []
    quotients: list[Tensor] = []
    for batch in batches:
        both = torch.stack([center, center + length * direction], dim=1).flatten(0, 1)
        evaluation = objective.evaluate(layout.views(both), objective.prepare(batch))
        if evaluation.gradients is None:
            raise ValueError("The objective returned no gradients.")
        here, there = layout.flatten(evaluation.gradients).view(len(center), 2, -1).unbind(1)
        bent = (there - here) / length
        gradients.append(here)
        losses.append(evaluation.baseline.detach()[::2])
        quotients.append(dot(direction, bent))
        # a part that the loss does not depend on keeps its direction
        norm = _norm(bent)
        direction = torch.where(norm > 0, bent / norm.clamp_min(torch.finfo(norm.dtype).tiny), direction)
    n = len(gradients)
    if n < 3:
        raise RllcError(f"The gradient at the checkpoint needs at least 3 minibatches to have an error, but {n} were given.", "Give 16, for example.")
    gram = np.stack([_gram(torch.stack([g[p] for g in gradients])) for p in range(gradients[0].shape[0])])
    sq_norm, stderr = _off_diagonal_mean(gram)
    sq_batch_norm = np.diagonal(gram, axis1=1, axis2=2).mean(axis=1)
    loss = torch.stack(losses, dim=1).cpu().double().numpy().mean(axis=1)
    curvature = torch.stack(quotients, dim=1).cpu().double().numpy()[:, n // 2 :].mean(axis=1)
    return OriginGradient(sq_norm, stderr, sq_batch_norm, loss, n, squared(center).cpu().double().numpy(), curvature)


def mean_gradient(objective: Objective[Context], origin: Mapping[str, Float[Tensor, "P ..."]], batches: Iterable[Any]) -> Tensors:
    """∇l_n(w*) of each part over n minibatches, for the control variate (METHOD 2). Raises RllcError where there is no minibatch."""
    layout = Layout.of(origin)
    views = layout.views(layout.flatten(origin))
    total, n = torch.zeros(0), 0
    for batch in batches:
        evaluation = objective.evaluate(views, objective.prepare(batch))
        if evaluation.gradients is None:
            raise ValueError("The objective returned no gradients.")
        gradient = layout.flatten(evaluation.gradients).double()
        total, n = (gradient if n == 0 else total + gradient), n + 1
    if n == 0:
        raise RllcError("The control variate needs the gradient at the checkpoint over at least one minibatch.", "Give it minibatches.")
    return layout.views((total / n).to(layout.dtype))


def _first_direction(center: Float[Tensor, "P d"]) -> Float[Tensor, "P d"]:
    """Unit vectors that are the same on every run, whatever is sampled beside them."""
    generator = torch.Generator().manual_seed(seeds.derive(0, "power iteration"))
    one = torch.randn(1, center.shape[1], generator=generator, dtype=torch.float64)
    return (one / _norm(one)).to(center).expand_as(center)


def _norm(rows: Float[Tensor, "P d"]) -> Float[Tensor, "P 1"]:
    return squared(rows).sqrt()[:, None]


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

"""The Hessian of the loss restricted to one part: its trace and its largest eigenvalues, each with an error (STACK, curvature).

The Hessian H is that of the mean loss over all predictions that count, in nats per token and squared unit of weight. Nothing of it is ever formed:
a product of H with a vector is one backward pass over the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from rllc.behaviour.contexts import Contexts, contexts_of, ratio_and_stderr
from rllc.behaviour.part_loss import PartLoss, twice_differentiable
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.seeds import generator
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Spectrum:
    """The top of a part's Hessian.

    Args:
        eigenvalues: [k] algebraically largest, descending, nats per token and squared unit of weight.
        stderr: [k] standard error over contexts, of first order: of `qᵀH_b q` with the eigenvectors q held.
        residuals: [k] `‖Hq - λq‖`, how far Lanczos is from an eigenvector of these contexts' Hessian.
        vectors: [k, d] orthonormal.
    """

    eigenvalues: Float[Floats, " k"]
    stderr: Float[Floats, " k"]
    residuals: Float[Floats, " k"]
    vectors: Float[Floats, "k d"]


@dataclass(frozen=True)
class Estimate:
    """A mean over contexts and its standard error, which holds the spread of contexts and of what was drawn."""

    value: float
    stderr: float


class _Products:
    """Products of each context's Hessian H_b with vectors. The gradients' graphs are kept, so memory grows with the contexts.

    H_b is that of the context's share of the loss: the sum over its predictions that count, over how many a context has on average. So H is the mean
    over contexts, whatever counts of each; `weights` [B] are how many count, in the same unit.
    """

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], part: Part, contexts: Contexts) -> None:
        if len(contexts.tokens) < 2:
            raise RllcError("One context has no standard error.", "Give two contexts or more.")
        loss = PartLoss(shape, params, part)
        self.size, self._weights, self._gradients = loss.size, loss.origin, list[Tensor]()
        average = contexts.counted.sum() / len(contexts.tokens)
        self.weights: Floats = contexts.counted.sum(1) / average
        with torch.enable_grad(), twice_differentiable():
            for context, counted in zip(loss.contexts(contexts.tokens), contexts.counted, strict=True):
                share = loss.losses(self._weights, context)[torch.tensor(counted, device=context.device)].sum() / average
                (gradient,) = torch.autograd.grad(share, self._weights, create_graph=True)
                self._gradients.append(gradient)

    def gradient_norm(self) -> Estimate:
        """Norm of the mean gradient g and its error over contexts, of first order: that of `gᵀg_b / ‖g‖`. Noise of the contexts adds to a norm, so
        that one which is not clearly above its error is too large.
        """
        each: Floats = torch.stack([g.detach().double() for g in self._gradients]).cpu().numpy()
        norm = float(np.linalg.norm(each.mean(0)))
        return Estimate(norm, mean_and_stderr(each @ each.mean(0) / norm, self.weights).stderr if norm > 0 else 0.0)

    def of(self, context: int, vector: Float[Floats, " d"]) -> Float[Floats, " d"]:
        """H_b times a vector. A gradient that does not depend on the weights has no graph, and its Hessian is zero."""
        gradient = self._gradients[context]
        if not gradient.requires_grad:
            return np.zeros(self.size)
        v = torch.as_tensor(vector).to(gradient)
        with twice_differentiable():
            (product,) = torch.autograd.grad(gradient, self._weights, v, retain_graph=True, allow_unused=True, materialize_grads=True)
        return product.double().cpu().numpy()

    def mean(self, vector: Float[Floats, " d"]) -> Float[Floats, " d"]:
        """H times a vector."""
        return np.mean([self.of(b, vector) for b in range(len(self))], axis=0)

    def __len__(self) -> int:
        return len(self._gradients)


@dataclass(frozen=True)
class Curvature:
    """What is known of a part's curvature at w*; `gradient_norm` is `‖∇l(w*)‖` over the part, nats per token and unit of weight, and its error."""

    trace: Estimate
    spectrum: Spectrum
    gradient_norm: float
    gradient_stderr: float
    twin: Estimate | None = None  # ½ tr[nβH(nβH + γ)⁻¹], where a prior was given


@dataclass(frozen=True)
class Prior:
    """What the curvature twin is of (METHOD 3.1c), and how it is found: `probes` random vectors, `steps` products of H with each."""

    nbeta: float
    precision: float  # γ
    probes: int = 4
    steps: int = 12


def curvature(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    part: Part,
    tokens: Int[Ints, "B T"] | Contexts,
    *,
    top: int = 4,
    probes: int = 2,
    seed: int = 0,
    prior: Prior | None = None,
) -> Curvature:
    """Trace, top eigenvalues and gradient norm of a part on B contexts.

    The trace is Hutch++'s with eigenvectors for a sketch: `Σ_k qᵀHq` exactly, and Hutchinson's estimate `zᵀHz` (z of random signs, `probes` of them
    a context, each context its own) on what is orthogonal to them; unbiased given the contexts. Its error is over contexts.

    Args:
        top: eigenvalues to find, k ≥ 0 and below d; 0 is plain Hutchinson.
        probes: draws a context.
        prior: of the curvature twin, which is left out without it.
        seed: root of the draws; they are derived from (seed, "curvature", part).

    Raises:
        RllcError: the tokens do not fit the model or are fewer than two contexts, there is no such part, Lanczos does not converge, `top` or
            `probes` is out of range.
    """
    if probes < 1:
        raise RllcError(f"The trace takes one probe a context or more, not {probes}.", "Give a positive number.")
    products = _Products(shape, params, part, contexts_of(tokens))
    rng = generator(seed, "curvature", str(part))
    spectrum, within = _top(products, top, rng, part)
    q = spectrum.vectors
    values = np.zeros(len(products))
    for b in range(len(products)):
        for _ in range(probes):
            z = rng.choice([-1.0, 1.0], products.size)
            z -= q.T @ (q @ z)
            values[b] += z @ products.of(b, z) / probes
    slope = products.gradient_norm()
    twin = _twin(products, spectrum, within, prior, rng) if prior is not None else None
    return Curvature(mean_and_stderr(values + within.sum(1), products.weights), spectrum, slope.value, slope.stderr, twin)


def _twin(products: _Products, spectrum: Spectrum, within: Float[Floats, "B k"], prior: Prior, rng: np.random.Generator) -> Estimate:
    """`tr f(H)`, f(h) = ½ nβh / (nβh + γ): exactly on the eigenvectors found, by stochastic Lanczos quadrature on the rest.

    The error joins the spread of the probes and that of the contexts, to first order: a context changes the trace by `tr f'(H)(H_b - H)`. NaN where
    some direction has nβh + γ ≤ 0, along which a quadratic has no posterior (METHOD 3.1c).
    """
    size, q = prior.precision / prior.nbeta if prior.nbeta > 0 else np.inf, spectrum.vectors  # f(h) = ½ h / (h + size)
    found, slopes = np.zeros(prior.probes), np.zeros((prior.probes, len(products)))
    for p in range(prior.probes):
        z = rng.choice([-1.0, 1.0], products.size)
        z -= q.T @ (q @ z)
        values, basis, first = _lanczos(products, z, q, prior.steps)
        theta, vectors = np.linalg.eigh(values)
        if (theta <= -size).any():
            return Estimate(np.nan, np.nan)
        length = float(z @ z)
        found[p] = length * float(vectors[0] ** 2 @ (theta / (theta + size))) / 2
        toward = np.sqrt(length) * basis.T @ (vectors @ (vectors[0] * size / (2 * (theta + size) ** 2)))  # f'(H) z
        slopes[p] = first @ toward
    if (spectrum.eigenvalues <= -size).any():
        return Estimate(np.nan, np.nan)
    exact = float((spectrum.eigenvalues / (spectrum.eigenvalues + size)).sum()) / 2
    changes = slopes.mean(0) + within @ (size / (2 * (spectrum.eigenvalues + size) ** 2))
    of_contexts = mean_and_stderr(changes, products.weights).stderr
    of_probes = float(found.std(ddof=1)) / np.sqrt(prior.probes) if prior.probes > 1 else np.nan
    return Estimate(exact + float(found.mean()), float(np.hypot(of_contexts, of_probes)))


def _lanczos(products: _Products, z: Floats, away: Floats, steps: int) -> tuple[Floats, Floats, Floats]:
    """The tridiagonal matrix [m, m] of H from z on, its basis [m, d], orthogonal to the rows of `away`, and every context's product with z [B, d]."""
    basis, diagonal, beside = [z / np.linalg.norm(z)], list[float](), list[float]()
    first = np.array([products.of(b, basis[0]) for b in range(len(products))])
    ahead = first.mean(0)
    while True:
        diagonal.append(float(basis[-1] @ ahead))
        known = np.concatenate([away, np.array(basis)])
        for _ in range(2):  # twice is enough
            ahead = ahead - known.T @ (known @ ahead)
        length = float(np.linalg.norm(ahead))
        if len(basis) == min(steps, products.size - len(away)) or length <= 1e-7 * max(map(abs, diagonal)):
            break
        beside.append(length)
        basis.append(ahead / length)
        ahead = products.mean(basis[-1])
    return np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1), np.array(basis), first * float(np.linalg.norm(z))


def mean_and_stderr(values: Float[Floats, " B"], weights: Float[Floats, " B"]) -> Estimate:
    """The sum of one number a context over that of the contexts' weights, contexts being independent."""
    return Estimate(*map(float, ratio_and_stderr(values, weights)))


def _top(products: _Products, k: int, rng: np.random.Generator, part: Part) -> tuple[Spectrum, Float[Floats, "B k"]]:
    d, n = products.size, len(products)
    if not 0 <= k < d:
        raise RllcError(f"{k} eigenvalues are asked for of {part}, which has {d} weights.", f"Ask for 0 to {d - 1}.")
    if k == 0:
        return Spectrum(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, d))), np.zeros((n, 0))
    operator = cast("Any", LinearOperator)((d, d), matvec=lambda v: products.mean(np.ravel(v)), dtype=np.float64)
    try:
        # the products are of the weights' precision: a tolerance below theirs would never be met
        found, vectors = cast("Any", eigsh)(operator, k, which="LA", v0=rng.standard_normal(d), tol=1e-4)
    except ArpackNoConvergence as error:
        raise RllcError(f"Lanczos did not find {k} eigenvalues of {part}.", "Ask for fewer.") from error
    order = np.argsort(found)[::-1]
    q = np.linalg.qr(vectors[:, order])[0].T
    each = np.array([[products.of(b, vector) for vector in q] for b in range(n)])  # [B, k, d]
    within = np.einsum("bkd,kd->bk", each, q)
    values, stderr = ratio_and_stderr(within.T, products.weights)
    residuals = np.linalg.norm(each.mean(0) - values[:, None] * q, axis=1)
    return Spectrum(values, stderr, residuals, q), within

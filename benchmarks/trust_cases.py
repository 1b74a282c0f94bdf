"""The cases of `trust.py`: losses that both tools can sample, and what must come out, worked out here without the help of either.

A case is one function, `loss(weights, items) → nats of each item`. A minibatch is a set of items of a fixed pool, whose noise is centred over the
pool, so that the loss of the whole pool is the noiseless one. Two numbers are known of most cases:

- truth: λ = nβ(E l(w) - l(w*)) of the local posterior itself, which is what one wants to know;
- limit: what SGLD's average tends to with ever more draws, its finite step included. An error bar speaks of the distance to this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]  # (weights [C, d], items [B]) → nats [C, B]


@dataclass(frozen=True)
class Chain:
    """Settings that both tools take under some name."""

    step_size: float
    localization: float
    nbeta: float
    draws: int
    burn_in: int
    chains: int = 4


@dataclass(frozen=True)
class Case:
    """A loss around a point w*, its pool of items, and what is known of it."""

    name: str
    about: str
    loss: Loss
    origin: Tensor  # w*, [d], fp32
    chain: Chain
    truth: float
    limit: float  # of SGLD; NaN where it is not known
    items: int = 64
    batch: int = 1
    expected: dict[str, float] = field(default_factory=dict[str, float])  # what a tool's own average has in expectation, where that is known


def shrink(h: Floats, c: Chain, stretch: float = 0.0) -> Floats:
    """Factor of v² in one SGLD step on a quadratic whose minibatches stretch the curvature by 1 ± stretch."""
    return (1 - c.step_size * (c.nbeta * h + c.localization) / 2) ** 2 + (c.step_size * c.nbeta * h * stretch / 2) ** 2


def quadratic_truth(h: Floats, c: Chain) -> float:
    """λ of the posterior of `½ Σ h v²` (METHOD 3.1 at ε → 0)."""
    return float((c.nbeta * h / (c.nbeta * h + c.localization)).sum() / 2)


def quadratic_limit(h: Floats, c: Chain, stretch: float = 0.0) -> float:
    """λ̂ of a stationary SGLD chain there: METHOD 3.1, with `E v² = ε/(1 - shrink)`."""
    return float((c.nbeta * h * c.step_size / (1 - shrink(h, c, stretch))).sum() / 2)


def quadratic_averages(h: Floats, c: Chain, stretch: float = 0.0) -> dict[str, float]:
    """λ̂ in expectation, by which of w_0 = w*, w_1, … are averaged (METHOD 3.1, relaxation): one step shrinks the distance of v² from its limit."""
    factor = shrink(h, c, stretch)
    t = np.arange(c.burn_in + c.draws + 1)[:, None]
    llc = (c.nbeta * h * c.step_size / (1 - factor) * (1 - factor**t)).sum(axis=1) / 2
    return {
        "draws": float(llc[c.burn_in + 1 :].mean()),  # what rllc keeps
        "all": float(llc[:-1].mean()),  # every evaluation before a step, w* and burn-in among them
        "stored": float(llc[c.burn_in : -1].mean()),  # what devinterp stores as draws
    }


def line_truth(loss: Callable[[Floats], Floats], c: Chain, reach: float, nodes: int = 601) -> float:
    """λ of the posterior of a loss of one coordinate v = w - w*, by quadrature in |v| ≤ reach."""
    v = np.linspace(-reach, reach, nodes)
    weight = np.exp(-c.nbeta * loss(v) - c.localization / 2 * v**2)
    return float(c.nbeta * (weight @ loss(v)) / weight.sum())


def line_limit(loss: Callable[[Floats], Floats], slope: Callable[[Floats], Floats], c: Chain, reach: float, nodes: int = 601) -> float:
    """λ̂ of a stationary SGLD chain there, from the transition density of one step on a grid, squared twelve times."""
    v = np.linspace(-reach, reach, nodes)
    ahead = v - c.step_size / 2 * (c.nbeta * slope(v) + c.localization * v)
    exponent = -((v[None, :] - ahead[:, None]) ** 2) / (2 * c.step_size)  # [from, to]
    density = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    density /= density.sum(axis=1, keepdims=True)
    for _ in range(12):
        density = density @ density
    return float(c.nbeta * density[nodes // 2] @ loss(v))


def _centred(generator: torch.Generator, items: int, *shape: int) -> Tensor:
    """Normals of mean 0 and variance 1 over the pool, to rounding."""
    z = torch.randn(items, *shape, dtype=torch.float64, generator=generator)
    z = z - z.mean(dim=0)
    return z / z.std(dim=0, correction=0)


def _quadratic(
    name: str, about: str, h: Floats, localization: float, offset_sd: float = 0.0, stretch_sd: float = 0.0, batch: int = 1, items: int = 64
) -> Case:
    """`½ Σ h v²`; each item adds to the loss, and stretches all curvatures, by amounts with these standard deviations."""
    c = Chain(step_size=1e-3, localization=localization, nbeta=30.0, draws=300, burn_in=50)
    curvature, generator = torch.tensor(h, dtype=torch.float32), torch.Generator().manual_seed(1)
    offset, stretch = offset_sd * _centred(generator, items).float(), stretch_sd * _centred(generator, items).float()

    def loss(w: Tensor, ids: Tensor) -> Tensor:
        return 3 + offset[ids] + (1 + stretch[ids]) * ((w**2) @ curvature / 2)[:, None]

    of_batch = stretch_sd / math.sqrt(batch)
    limit, expected = quadratic_limit(h, c, of_batch), quadratic_averages(h, c, of_batch)
    return Case(name, about, loss, torch.zeros(len(h)), c, quadratic_truth(h, c), limit, items, batch, expected)


def quadratic() -> Case:
    """METHOD 3.1, nothing random but the chains' own noise."""
    return _quadratic("quadratic", "50 coordinates with nβh of 1 to 4 γ, full gradients", np.geomspace(2.0, 8.0, 50), 60.0)


def shared_offset() -> Case:
    """Minibatches that move the loss by 0.12 nats: what the unpaired spread of a small language model in METHOD 2 comes from."""
    about = "the same, minibatches of 8 that move the loss by 0.12 nats"
    return _quadratic("shared offset", about, np.geomspace(2.0, 8.0, 50), 60.0, offset_sd=0.34, batch=8, items=8192)


def shared_curvature() -> Case:
    """Minibatches that stretch the curvature where localization rules, as in most directions of a head; pairing does not remove this.

    Where nβh ≫ γ it matters little: a batch that is steep now pulls the weights back, so that the next losses are small.
    """
    about = "400 coordinates with nβh well below γ, minibatches of 8 that stretch h by 28 %"
    return _quadratic("shared curvature", about, np.geomspace(0.5, 2.0, 400), 200.0, stretch_sd=0.8, batch=8, items=8192)


def quartic() -> Case:
    """METHOD 3.3: a singular loss; w* is no quadratic minimum."""
    c = Chain(step_size=2e-3, localization=5.0, nbeta=100.0, draws=400, burn_in=100)
    truth, limit = line_truth(lambda v: v**4, c, 1.2), line_limit(lambda v: v**4, lambda v: 4 * v**3, c, 1.2)

    def loss(w: Tensor, items: Tensor) -> Tensor:
        return (w**4).sum(dim=1, keepdim=True).expand(-1, len(items))

    return Case("w⁴", "16 coordinates of w⁴, localised", loss, torch.zeros(16), c, 16 * truth, 16 * limit)


def reduced_rank() -> Case:
    """METHOD 3.4 and 3.5: `½‖y - W₂W₁x‖²` with widths 6, 4, 5 at a smooth zero, W₁ of rank 4 and W₂ of rank 3, labels with noise."""
    c = Chain(step_size=2e-4, localization=3.0, nbeta=300.0, draws=300, burn_in=150)
    items, batch, generator = 8192, 16, torch.Generator().manual_seed(2)
    z = _centred(generator, items, 11)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / items)).T  # white, so that noise and input are uncorrelated over the pool
    first = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64, generator=generator))[0].T
    second = torch.cat(
        [torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64, generator=generator))[0], torch.zeros(5, 1, dtype=torch.float64)], dim=1
    )
    origin = torch.cat([first.flatten(), second.flatten()])
    x, y = z[:, :6].float(), (z[:, :6] @ (second @ first).T + 0.1 * z[:, 6:]).float()

    def product(w: Tensor) -> Tensor:
        return w[24:].view(5, 4) @ w[:24].view(4, 6)

    def loss(w: Tensor, ids: Tensor) -> Tensor:
        predicted = w[:, 24:].view(-1, 1, 5, 4) @ (w[:, :24].view(-1, 1, 4, 6) @ x[ids][None, :, :, None])
        return ((y[ids] - predicted[..., 0]) ** 2).sum(dim=2) / 2

    jacobian = torch.autograd.functional.jacobian(product, origin).flatten(0, 1)
    squares = torch.linalg.svdvals(jacobian).numpy() ** 2
    h = squares[squares > 1e-9]
    about = f"½ rank J = {len(h) / 2:g}; limit from the Hessian's eigenvalues"
    return Case("reduced rank", about, loss, origin.float(), c, len(h) / 2, quadratic_limit(h, c), items, batch)


def burn_in(steps: int) -> Case:
    """METHOD 3.1, relaxation: a slow quadratic from w*, with and without burn-in."""
    c = Chain(step_size=1e-3, localization=10.0, nbeta=30.0, draws=100, burn_in=steps)
    h = np.full(50, 1.0)

    def loss(w: Tensor, items: Tensor) -> Tensor:
        return ((w**2).sum(dim=1, keepdim=True) / 2).expand(-1, len(items))

    about = f"100 draws that relax over 25 steps, burn-in {steps}"
    return Case(f"burn-in {steps}", about, loss, torch.zeros(50), c, quadratic_truth(h, c), quadratic_limit(h, c), expected=quadratic_averages(h, c))


def _walled(name: str, about: str, wall: Callable[[Tensor], Tensor]) -> Case:
    c = Chain(step_size=1e-3, localization=60.0, nbeta=30.0, draws=300, burn_in=50)
    h = np.full(10, 4.0)

    def loss(w: Tensor, items: Tensor) -> Tensor:
        return (2 * (w**2).sum(dim=1) + wall(w[:, 0]))[:, None].expand(-1, len(items))

    return Case(name, about, loss, torch.zeros(10), c, quadratic_truth(h, c), quadratic_limit(h, c))


_WALL = 0.225  # 2.9 standard deviations of the stationary chain: one chain in five gets there


def not_a_number() -> Case:
    """A quadratic whose loss is NaN beyond a wall that some chains reach."""
    return _walled("NaN beyond a wall", "loss is NaN for w₀ > 0.225, 2.9 sd away", lambda v: torch.where(v > _WALL, torch.nan, 0.0))


def diverging() -> Case:
    """A quadratic that turns steep beyond the wall: there the step is unstable and the chain runs off to infinity."""
    return _walled(
        "divergence", "loss + 10⁷ (|w₀| - 0.225)⁴ beyond walls on both sides: steps explode", lambda v: 1e7 * torch.relu(v.abs() - _WALL) ** 4
    )


def bouncing() -> Case:
    """`h(√(1 + v²) - 1)` at εA = 6: unstable at the bottom, but the loss grows so slowly that every number stays finite."""
    c = Chain(step_size=2e-2, localization=10.0, nbeta=30.0, draws=300, burn_in=50)
    truth = line_truth(lambda v: 10 * (np.sqrt(1 + v**2) - 1), c, 6.0)

    def loss(w: Tensor, items: Tensor) -> Tensor:
        return (10 * (torch.sqrt(1 + w**2) - 1)).sum(dim=1, keepdim=True).expand(-1, len(items))

    return Case("finite, unstable", "εA = 6.2 at w*, where 4 is the limit; nothing overflows", loss, torch.zeros(20), c, 20 * truth, math.nan)


def two_checkpoints(second: bool, steep: bool = False) -> Case:
    """`Σ c w²(w - 1)⁴`, with a quadratic minimum at 0 and a quartic one at 1: one model, two settings of its weights. Items from 64 on have c = 4."""
    c = Chain(step_size=4e-4, localization=50.0, nbeta=100.0, draws=300, burn_in=0)
    at, scale = float(second), 4.0 if steep else 1.0
    truth = line_truth(lambda v: scale * (v + at) ** 2 * (v + at - 1) ** 4, c, 1.0)

    def loss(w: Tensor, items: Tensor) -> Tensor:
        return (w**2 * (w - 1) ** 4).sum(dim=1, keepdim=True) * torch.where(items < 64, 1.0, 4.0)

    return Case(f"w* = {at:g}", "", loss, torch.full((16,), at), c, 16 * truth, math.nan)


def statistics() -> list[Case]:
    """Cases of which bias, spread and coverage are told."""
    return [quadratic(), shared_offset(), shared_curvature(), quartic(), reduced_rank(), burn_in(0), burn_in(100)]


def failures() -> list[Case]:
    """Cases in which some or all chains fail."""
    return [not_a_number(), diverging(), bouncing()]

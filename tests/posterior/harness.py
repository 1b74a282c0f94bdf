"""The one harness that every sampler goes through: its settings, its exact answer on quadratics, and how to drive it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rllc.posterior import exact
from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import estimate
from rllc.posterior.potential import Potential
from rllc.posterior.protocol import Objective
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.samplers.base import Draw
from rllc.posterior.samplers.registry import SAMPLERS
from rllc.posterior.settings import SamplerName, SamplerSettings

NAMES: tuple[SamplerName, ...] = ("sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht", "mala")
TOLERANCE = 0.015  # the noise of every test here is below a third of it
CHANGED: dict[str, dict[str, float]] = {
    "rmsprop-sgld": {"step_size": 5e-4, "rmsprop_stabilizer": 0.5, "rmsprop_decay": 1.0},  # V frozen: only then is there an exact answer
    "sgnht": {"burn_in": 200},
    "mala": {"step_size": 4e-4, "draws": 250, "burn_in": 100},
}


def paper(sampler: SamplerName, **change: float) -> SamplerSettings:
    """The settings of METHOD 2, changed where a sampler needs it."""
    values = {"step_size": 1e-3, "localization": 200.0, "nbeta": 30.0, "chains": 4, "draws": 200, "burn_in": 60} | CHANGED.get(sampler, {}) | change
    return SamplerSettings(sampler, **values)  # type: ignore[arg-type]


def copies(sampler: SamplerName, values: Sequence[float], number: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Coordinates [P, d] that repeat `values` that many times in all: in one part, but for MALA, which wants few dimensions, in many."""
    block, together = torch.tensor(values, dtype=dtype), 5
    return block.repeat(number // together, together) if sampler == "mala" else block.repeat(number)[None]


def noise_seeds(parts: int, chains: int) -> list[list[int]]:
    return np.arange(parts * chains).reshape(parts, chains).tolist()


def sampled_llc(objective: Objective, origin: dict[str, torch.Tensor], settings: SamplerSettings) -> float:
    """λ̂ of all parts together."""
    parts = len(next(iter(origin.values())))
    batches = range(settings.steps + 1)
    return sum(e.llc for e in estimate(run_chains(objective, origin, batches, settings, noise_seeds(parts, settings.chains))))


def quadratic(sampler: SamplerName, h: Sequence[float], number: int, g: Sequence[float] | None = None, **rest: object) -> Quadratic:
    curvature = copies(sampler, h, number)
    gradient = {} if g is None else {"w": copies(sampler, g, number)}
    return Quadratic({"w": torch.full_like(curvature, 0.1)}, {"w": curvature}, gradient, **rest)  # type: ignore[arg-type]


def moments(
    settings: SamplerSettings, h: Sequence[float], g: Sequence[float], number: int, w: float = 0.0, spread: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of v over draws and copies, by driving the pure pair directly; [len(h)] each. `spread` is the variance at the start."""
    method, few = SAMPLERS[settings.sampler], settings.sampler != "sgnht"
    rows = number if few else 4  # the thermostat's friction couples the coordinates of a row: its answer is that of many
    repeats = 1 if few else number // 4
    curvature, slope = (torch.tensor(x, dtype=torch.float32).repeat(repeats) for x in (h, g))
    generator = torch.Generator().manual_seed(1)

    def draw() -> Draw:
        return Draw(torch.randn(rows, len(curvature), generator=generator), torch.rand(rows, generator=generator))

    potential = Potential(settings, torch.full((rows, len(curvature)), w))
    start = torch.randn(rows, len(curvature), generator=generator) * torch.tensor(np.zeros(len(h)) if spread is None else spread).sqrt().repeat(
        repeats
    )
    state = method.init(start.float(), draw(), settings)
    total, squares, kept = torch.zeros(len(h), dtype=torch.float64), torch.zeros(len(h), dtype=torch.float64), 0
    for t in range(settings.steps):
        v = state.displacement
        loss = (slope * v + curvature * v * v / 2).double().sum(dim=1)
        point = potential.at(v, loss, torch.zeros_like(loss), slope + curvature * v)
        step = method.step(state, point, draw(), settings)
        state = step.state
        if t > settings.burn_in:
            drawn = step.visited.displacement.double().reshape(-1, len(h))
            total, squares, kept = total + drawn.sum(0), squares + drawn.square().sum(0), kept + len(drawn)
    mean = (total / kept).numpy()
    return mean, (squares / kept).numpy() - mean**2


def check_llc(sampler: SamplerName, h: Sequence[float], number: int, g: Sequence[float] | None = None, **change: float) -> None:
    """METHOD 3.1 and 3.1b: λ̂ is what the sampler's stationary law says, discretisation included."""
    settings = paper(sampler, **change)
    toy = quadratic(sampler, h, number, g, constant=1.0)
    whole = copies("sgld", h, number)[0].numpy()
    slopes = 0.0 if g is None else copies("sgld", g, number)[0].numpy()
    truth = exact.llc(whole, settings, slopes, origin=0.1).sum()
    found = sampled_llc(toy, toy.origin, settings)
    np.testing.assert_allclose(found, truth, rtol=TOLERANCE)

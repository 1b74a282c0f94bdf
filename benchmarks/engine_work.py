"""The engine's work in the benchmarks: all heads × chains of a layer, stepped by SGLD on random tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.posterior.chains import Chains
from rllc.posterior.settings import SamplerSettings

PAPER = ModelShape(n_ctx=256)  # the model of METHOD 4 on shorter contexts
Advance = Callable[[int], None]  # by so many evaluations of all chains


def paper_work(
    shape: ModelShape,
    layer: int,
    batch: int,
    chains: int,
    products: torch.dtype = torch.float32,
    device: torch.device | None = None,
    *,
    heads: int = 0,
    chunk: int = 0,
) -> Advance:
    """Chains of the first `heads` heads of a layer (all where it is 0), by METHOD 2's settings, on fresh weights."""
    params = {name: tensor.to(device) for name, tensor in fw.init_params(shape, 0).items()}
    parts = tuple(Part.of_head(layer, head) for head in range(heads or shape.n_heads))
    objective = build_objective(shape, params, parts, chunk, products)
    settings = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=chains, draws=10_000, burn_in=0)
    noise = [[len(parts) * chain + head for chain in range(chains)] for head in range(len(parts))]
    sampler = Chains(objective, objective.origin, settings, noise)
    generator = torch.Generator().manual_seed(0)

    def advance(evaluations: int) -> None:
        tokens = [torch.randint(0, shape.d_vocab, (batch, shape.n_ctx), generator=generator).to(device) for _ in range(evaluations)]
        sampler.advance(iter(tokens), evaluations)

    return advance


def step_seconds(advance: Advance, rounds: int, evaluations: int = 5) -> float:
    """Median seconds of an evaluation of all chains, over rounds of so many (five at least); the first round warms up."""
    times: list[float] = []
    for turn in range(rounds + 1):
        started = time.perf_counter()
        advance(evaluations)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if turn:
            times.append((time.perf_counter() - started) / evaluations)
    return statistics.median(times)

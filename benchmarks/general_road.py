"""The general road on small MLPs: 64 chains in one pass under vmap, against a loop of single chains with the same sampler.

    python benchmarks/general_road.py [--format table|json] [--chains 64] [--draws 20] [--rounds 5] [--batch 64]

Every side makes the same chain-steps from the same noise, and the losses must agree. Sides alternate; told are medians over the rounds of chain-steps
a second, and of each round's ratio, by the clock and by processor time, which other work on the machine disturbs less. The loop of single chains is
one `run_chains` a chain by the loop road, the quicker road for one chain; the third side is the loop road inside one pass, which shares the sampler's
own work alone. "noise" is the share of the pass under vmap that goes into drawing normals, one stream a chain.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rllc.core import seeds
from rllc.model.module_objective import ModuleObjective
from rllc.posterior.chains import run_chains
from rllc.posterior.noise import Noise
from rllc.posterior.settings import SamplerSettings

SETTINGS = SamplerSettings("sgld", step_size=1e-4, localization=100.0, nbeta=30.0, chains=1, draws=20, burn_in=0)
NETS: dict[str, tuple[tuple[int, int, int], type[nn.Module]]] = {
    "16-32-1 tanh": ((16, 32, 1), nn.Tanh),
    "16-32-1 relu": ((16, 32, 1), nn.ReLU),
    "32-64-10 tanh": ((32, 64, 10), nn.Tanh),
    "32-64-10 relu": ((32, 64, 10), nn.ReLU),
}


def squares(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of a regression."""
    return F.mse_loss(module(batch[0]), batch[1])


def entropy(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Of a classification."""
    return F.cross_entropy(module(batch[0]), batch[1])


def problem(net: str, items: int) -> tuple[Callable[[str], ModuleObjective], Iterator[Any]]:
    """How to build the objective of all weights of a net by a road, and its minibatches."""
    (first, hidden, last), activation = NETS[net]
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(first, hidden), activation(), nn.Linear(hidden, last))
    names = [name for name, _ in module.named_parameters()]
    targets = torch.randn(items, 1) if last == 1 else torch.randint(0, last, (items,))
    loss = squares if last == 1 else entropy
    return lambda road: ModuleObjective(module, loss, names, road=road), repeat((torch.randn(items, first), targets))


def measure(net: str, settings: SamplerSettings, rounds: int, items: int) -> dict[str, float | str]:
    """Chain-steps a second of every side, and ratios to the loop of single chains."""
    build, batches = problem(net, items)
    noise = [seeds.derive(0, "general road", chain) for chain in range(settings.chains)]

    def together(road: str) -> np.ndarray:
        objective = build(road)
        return run_chains(objective, objective.origin, batches, settings, [noise]).losses[0]

    def apart() -> np.ndarray:
        one = replace(settings, chains=1)
        runs = ((build("loop"), seed) for seed in noise)
        return np.concatenate([run_chains(objective, objective.origin, batches, one, [[seed]]).losses[0] for objective, seed in runs])

    sides: dict[str, Callable[[], np.ndarray]] = {
        "vmap, one pass": lambda: together("vmap"),
        "loop, one pass": lambda: together("loop"),
        "single chains": apart,
    }
    wall: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for side, call in sides.items():
            started = time.perf_counter(), time.process_time()
            losses[side] = call()
            if turn:  # the first warms up
                wall[side].append(time.perf_counter() - started[0])
                processor[side].append(time.process_time() - started[1])
    for side, found in losses.items():
        np.testing.assert_allclose(found, losses["single chains"], rtol=0, atol=1e-6, err_msg=f"{side} differs from single chains")
    row: dict[str, float | str] = {"net": net, "weights": sum(t.numel() for t in build("loop").origin.values())}
    steps = settings.steps + 1
    row |= {f"{side}, chain-steps/s": round(settings.chains * steps / statistics.median(times)) for side, times in wall.items()}
    for side in list(sides)[:-1]:
        for clock, times in (("ratio", wall), ("ratio by processor time", processor)):
            row[f"{side}, {clock}"] = round(statistics.median(b / a for a, b in zip(times[side], times["single chains"], strict=True)), 1)
    share = drawing(noise, int(row["weights"])) * steps / statistics.median(processor["vmap, one pass"])
    return row | {"noise": round(share, 2)}


def drawing(noise: list[int], dimension: int) -> float:
    """Processor seconds to draw the noise of one step of all chains."""
    streams = Noise(noise, dimension, torch.float32, torch.device("cpu"))
    times: list[float] = []
    for _ in range(20):
        started = time.process_time()
        streams.draw()
        times.append(time.process_time() - started)
    return statistics.median(times)


def machine() -> str:
    """In words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--draws", type=int, default=SETTINGS.draws)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--net", choices=list(NETS), action="append", help="all of them if not given")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = replace(SETTINGS, chains=given.chains, draws=given.draws)
    rows = [measure(net, settings, given.rounds, given.batch) for net in given.net or NETS]
    on = {"processor": machine(), "threads": torch.get_num_threads(), "torch": torch.__version__, "platform": platform.platform()}
    if given.format == "json":
        print(json.dumps({"machine": on, "chains": given.chains, "batch": given.batch, "rounds": given.rounds, "rows": rows}, indent=1))
        return
    print(f"{given.chains} chains, SGLD, batch {given.batch}, medians of {given.rounds}; {', '.join(f'{k} {v}' for k, v in on.items())}")
    for name in rows[0]:  # a line a figure, a column a net
        print(f"{name:<48}" + "".join(f"{row[name]:>16}" for row in rows))


if __name__ == "__main__":
    main()

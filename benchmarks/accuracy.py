"""Seconds to a given accuracy, a head of a trained transformer: ours in several ways, and devinterp 2.0.1 at its best batch size.

    python benchmarks/accuracy.py --run runs/demo [--heads 0:1 1:6] [--seeds 8] [--draws 120] [--format table|json]

Every way of sampling has a long reference run of its own sampler and step size. Its error is the root mean square over the seeds of the distance
from that reference, of the first n draws, for growing n; the time is burn-in and draws at the measured seconds a step. Where the longest run does
not reach the target, the error is carried on as 1/√n, and the row says so. Beside it stands the bias of the discretisation: the reference against
that of Leimkuhler–Matthews at a small step.

We sample all heads of a layer in one pass: a head's seconds are those of a step of all of them, measured apart, by their number. The errors are
those of two heads a layer. devinterp samples one head at a
time; `accuracy_devinterp.py` says how its numbers are taken. One thread each, all in one process.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.core.names import DataKey, Part
from rllc.model.batch import TokenBatch
from rllc.posterior.chains import Chains
from rllc.posterior.estimate import paired, standard_error
from rllc.posterior.origin import mean_gradient
from rllc.posterior.samplers.base import Draw
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Traces
from rllc.runs.experiment import Experiment, load, preset
from rllc.runs.pipeline import run_experiment
from rllc.runs.plan import make_unit
from rllc.runs.sampling import OpenedUnit, Work

Floats = NDArray[np.float64]
TARGETS = (0.05, 0.02)


@dataclass(frozen=True)
class Way:
    """One way to sample: sampler, step, batch."""

    name: str
    sampler: SamplerSettings
    batch: int
    antithetic: bool = False  # every second chain takes the negative of the noise before it
    positions: float = 1.0  # share of a minibatch's predictions that count, chosen at random

    @property
    def burn_in(self) -> int:
        """Steps until ‖w - w*‖² has come within 4 % of where it stays on flat directions: (1 - εγ/2)^{2t}."""
        shrink = abs(1 - self.sampler.step_size * self.sampler.localization / 2)
        return max(2, math.ceil(math.log(0.04) / (2 * math.log(max(shrink, 1e-3)))))


@dataclass(frozen=True)
class Row:
    """What one way takes for one layer; medians over its heads."""

    layer: int
    by: str
    llc: float  # of the reference, median over heads
    bias: float  # relative, of the reference against the smallest step; median over heads
    bias_error: float
    ms_per_chain_step: float
    error: float  # relative RMS error at the longest run
    seconds: tuple[float, ...]  # a head, to each of the targets
    extrapolated: tuple[bool, ...]


def ways(experiment: Experiment) -> list[Way]:
    """What is compared: the paper's settings, then one change at a time."""
    sgld, batch = replace(experiment.sampler, sampler="sgld"), experiment.sampling.batch_size
    lm = replace(sgld, sampler="leimkuhler-matthews")

    def longer(factor: int) -> SamplerSettings:
        return replace(lm, step_size=factor * lm.step_size)

    controlled = replace(longer(8), control_variate=True)
    return [
        Way("SGLD", sgld, batch),
        *(Way(f"SGLD, batch {size}", sgld, size) for size in (1, 3, 12)),
        Way("SGLD, antithetic", sgld, batch, antithetic=True),
        *(Way(f"SGLD, batch {n * batch}, 1/{n} of its positions", sgld, n * batch, positions=1 / n) for n in (2, 4)),
        Way("LM", lm, batch),
        *(Way(f"LM, {factor} × step", longer(factor), batch) for factor in (2, 4, 8, 12)),
        *(Way(f"LM, 8 × step, batch {size}", longer(8), size) for size in (1, 3)),
        *(Way(f"LM, 8 × step, batch {size}, control", controlled, size) for size in (1, 3)),
    ]


class Antithetic:
    """Noise of which every second variant takes the negative of the one before."""

    def __init__(self, noise: Any) -> None:
        self.noise = noise

    def draw(self) -> Draw:
        """The next normals and uniforms."""
        normal, uniform = self.noise.draw()
        normal[1::2] = -normal[::2]
        return Draw(normal, uniform)


def thinned(tokens: torch.Tensor, share: float, seed: int) -> TokenBatch:
    """A minibatch of which a random share of the predictions counts."""
    count = tokens[:, 1:].numel()
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: round(share * count)]
    return TokenBatch(tokens, chosen.sort().values)


class Sampled:
    """Runs of one way on one layer."""

    def __init__(self, folder: Path, experiment: Experiment, step: int, parts: tuple[Part, ...], way: Way) -> None:
        self.way, self.experiment, self.step, self.folder, self.parts = way, experiment, step, folder, parts

    def run(self, seed: int, draws: int, chains: int) -> tuple[Traces, float]:
        """Traces of all parts, and seconds an evaluation of all of them."""
        settings = replace(self.way.sampler, chains=chains, draws=draws, burn_in=self.way.burn_in)
        sampling = replace(self.experiment.sampling, batch_size=self.way.batch)
        experiment = replace(self.experiment, sampler=settings, sampling=sampling, seed=seed)
        unit = make_unit(experiment, self.step, DataKey.parse("mixture"), self.parts)
        opened = OpenedUnit(Work(self.folder, experiment, unit))
        batches: list[Any] = list(islice(opened.data.stream("sample"), settings.steps + 1))
        if self.way.positions < 1:
            batches = [thinned(batch, self.way.positions, 1_000_003 * seed + i) for i, batch in enumerate(batches)]
        objective, control = opened.objective, None
        if settings.control_variate:
            control = mean_gradient(objective, objective.origin, opened.data.batches("control", sampling.control_batches))
        chain = Chains(objective, objective.origin, settings, opened.noise_seeds(chains), control=control)
        if self.way.antithetic:
            chain._noise = Antithetic(chain._noise)  # pyright: ignore[reportAttributeAccessIssue]
        started = time.perf_counter()
        traces = chain.advance(iter(batches), settings.steps + 1)
        return traces, (time.perf_counter() - started) / (settings.steps + 1)

    def reference(self, draws: int, chains: int) -> tuple[Floats, Floats]:
        """λ̂ and its standard error of every head from a long run under a seed of its own."""
        traces, _ = self.run(10_000, draws, chains)
        series = paired(traces)
        return series.mean(axis=(1, 2)), standard_error(series)[0]


def seconds_to(target: float, errors: Floats, counts: NDArray[np.int64], burn_in: int, step: float) -> tuple[float, bool]:
    """Seconds of the shortest run whose relative error meets the target from there on; beyond the longest, by 1/√n."""
    met = errors <= target
    tail = np.logical_and.accumulate(met[::-1])[::-1]
    if tail.any():
        return float((burn_in + 1 + counts[tail.argmax()]) * step), False
    return float((burn_in + 1 + counts[-1] * (errors[-1] / target) ** 2) * step), True


def measured(sampled: Sampled, given: argparse.Namespace, small: tuple[Floats, Floats]) -> Row:
    """One row: reference, seeds, error against length."""
    reference, error = sampled.reference(given.reference_draws, given.reference_chains)
    counts = np.unique(np.geomspace(5, given.draws, 24).astype(np.int64))
    runs: list[Floats] = []
    for seed in range(given.seeds):
        series = paired(sampled.run(seed, given.draws, given.chains)[0]).mean(axis=1)  # [P, draws]
        runs.append(np.stack([series[:, :n].mean(axis=1) for n in counts], axis=1))
    relative = np.sqrt(np.mean((np.stack(runs) - reference[:, None]) ** 2, axis=0)) / reference[:, None]  # [P, counts]
    layer, heads = sampled.parts[0].atoms[0].layer, sampled.experiment.model.n_heads
    whole = Sampled(sampled.folder, sampled.experiment, sampled.step, tuple(Part.of_head(layer, h) for h in range(heads)), sampled.way)
    step = statistics.median(whole.run(seed, 4, given.chains)[1] for seed in range(5))
    per_head = [[seconds_to(target, row, counts, sampled.way.burn_in, step / heads) for row in relative] for target in TARGETS]
    return Row(
        layer=layer,
        by=sampled.way.name,
        llc=float(np.median(reference)),
        bias=float(np.median(reference / small[0] - 1)),
        bias_error=float(np.median(np.hypot(error / reference, small[1] / small[0]))),
        ms_per_chain_step=1e3 * step / heads / given.chains,
        error=float(np.median(relative[:, -1])),
        seconds=tuple(float(np.median([s for s, _ in rows])) for rows in per_head),
        extrapolated=tuple(sum(e for _, e in rows) > len(rows) / 2 for rows in per_head),
    )


def rows(given: argparse.Namespace) -> Iterator[Row]:
    """All ways, layer by layer."""
    experiment = load(given.run / "experiment.toml")
    step = given.step or max(experiment.checkpoints())
    by_layer: dict[int, list[Part]] = {}
    for text in given.heads:
        by_layer.setdefault(Part.parse(text).atoms[0].layer, []).append(Part.parse(text))
    for chosen in by_layer.values():
        parts = tuple(chosen)
        small = replace(experiment.sampler, sampler="leimkuhler-matthews", step_size=experiment.sampler.step_size / 2)
        tiny = Sampled(given.run, experiment, step, parts, Way("small", small, experiment.sampling.batch_size))
        truth = tiny.reference(given.reference_draws, given.reference_chains)
        for way in ways(experiment):
            if given.ways and not any(name == way.name for name in given.ways):
                continue
            yield measured(Sampled(given.run, experiment, step, parts, way), given, truth)
        if importlib.util.find_spec("devinterp") and not given.ours:
            yield from importlib.import_module("accuracy_devinterp").rows(given, experiment, step, parts, truth)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=None, help="folder of a trained run, such as runs/demo; otherwise the quick preset is trained")
    parser.add_argument("--step", type=int, default=None, help="checkpoint; the last one otherwise")
    parser.add_argument("--heads", nargs="+", default=["0:1", "0:5", "1:2", "1:6"])
    parser.add_argument("--ways", nargs="*", default=[], help="names of the ways to try; all otherwise")
    parser.add_argument("--ours", action="store_true", help="leave devinterp out")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=120)
    parser.add_argument("--reference-draws", type=int, default=800)
    parser.add_argument("--reference-chains", type=int, default=8)
    parser.add_argument("--their-draws", type=int, default=60)
    parser.add_argument("--their-batches", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.run is None:
            given.run = Path(scratch) / "run"
            run_experiment(preset("quick"), given.run, "train", None, None, quiet=True)
        torch.set_num_threads(given.threads)
        tell(given)


def tell(given: argparse.Namespace) -> None:
    """Measure and print what was asked for."""
    if given.format == "table":
        print(f"{platform.machine()}, {given.threads} thread(s), torch {torch.__version__}, {given.chains} chains, {given.seeds} seeds")
        print(f"{'layer':5} {'by':30} {'λ':>6} {'bias':>14} {'ms/chain-step':>13} {'error':>7}  " + "  ".join(f"s to {t:.0%}" for t in TARGETS))
    found: list[Row] = []
    for row in rows(given):
        found.append(row)
        if given.format == "table":
            times = "  ".join(f"{'~' if e else ' '}{s:8.2f}" for s, e in zip(row.seconds, row.extrapolated, strict=True))
            bias = f"{row.bias:+7.1%} ± {row.bias_error:4.1%}"
            print(f"{row.layer:5} {row.by:30} {row.llc:6.2f} {bias} {row.ms_per_chain_step:13.2f} {row.error:7.1%}  {times}", flush=True)
    if given.format == "json":
        print(json.dumps([asdict(row) for row in found]))


if __name__ == "__main__":
    main()

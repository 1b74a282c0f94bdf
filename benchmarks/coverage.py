"""Does the error cover? One head of a small trained transformer a run, many seeds, against a long reference of the same sampler and step size.

Nominal 90 % intervals should hold the reference in 85 to 97 % of the runs. Beside ours stands what other programs report: one baseline on other
minibatches, and the spread of the chains as the error. And ours with a stopping target on, where chains go on until the error is small enough.

    python benchmarks/coverage.py                        # trains the quick preset first; about twenty minutes on two cores
    python benchmarks/coverage.py --run runs/demo --step 3000 --heads 0:7 1:1 --format json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rllc.core.names import DataKey, Part
from rllc.posterior.estimate import t_quantile
from rllc.posterior.sampling import Minibatches, sample
from rllc.posterior.settings import SamplerSettings, Stopping
from rllc.runs.engines.local import run_units
from rllc.runs.experiment import Experiment, load, parse, preset
from rllc.runs.memory import cores
from rllc.runs.pipeline import run_experiment
from rllc.runs.plan import make_unit
from rllc.runs.sampling import OpenedUnit, Work

NOMINAL = 0.90


@dataclass(frozen=True)
class Job:
    """One run of one head under one seed."""

    work: Work
    stopping: Stopping


@dataclass(frozen=True)
class Found:
    """What came of a run."""

    llc: float
    stderr: float
    df: int
    unpaired: float
    spread: float  # sd of the chains' unpaired means over the root of their number: the error that others report
    draws: int


def run(job: Job) -> Found:
    """Sample one head: minibatches, noise and baseline all of this seed."""
    unit, settings = OpenedUnit(job.work), job.work.experiment.sampler
    batches: Minibatches = unit.minibatches()
    sampled = sample(unit.objective, batches, settings, noise_seeds=unit.noise_seeds(settings.chains), stopping=job.stopping)
    estimate, traces = sampled.results[0].estimate, sampled.traces[0]
    if estimate is None:
        raise SystemExit(f"A run was refused: {sampled.results[0].reason}")
    means = settings.nbeta * traces.losses[0][:, traces.kept - 1].mean(axis=-1)
    spread = float(means.std(ddof=1) / np.sqrt(len(means)))
    return Found(estimate.llc, estimate.stderr, estimate.df, estimate.llc_unpaired, spread, estimate.draws)


@dataclass(frozen=True)
class Row:
    """How often one kind of interval held the reference."""

    head: str
    estimator: str
    runs: int
    coverage: float
    coverage_error: float  # binomial
    bias: float  # mean estimate minus reference, in units of the reference
    actual_sd: float  # over seeds
    reported_error: float  # root mean square
    draws: float  # mean, a chain


def rows_of(head: str, found: list[Found], stopped: list[Found], reference: float) -> Iterator[Row]:
    """The estimators side by side."""

    def row(name: str, runs: list[Found], value: str, error: str, reach: np.ndarray) -> Row:
        values, errors = (np.array([getattr(run, field) for run in runs]) for field in (value, error))
        held = np.abs(values - reference) <= reach * errors
        share = float(held.mean())
        return Row(
            head,
            name,
            len(runs),
            share,
            float(np.sqrt(share * (1 - share) / len(runs))),
            float(values.mean() - reference) / reference,
            float(values.std(ddof=1)),
            float(np.sqrt(np.mean(errors**2))),
            float(np.mean([run.draws for run in runs])),
        )

    def students(runs: list[Found]) -> np.ndarray:
        return t_quantile(np.array([run.df for run in runs]), NOMINAL)

    yield row("paired, our error", found, "llc", "stderr", students(found))
    yield row("paired, our error, stopped at a target", stopped, "llc", "stderr", students(stopped))
    yield row("unpaired, spread of chains, z", found, "unpaired", "spread", np.full(len(found), 1.645))
    yield row("unpaired, spread of chains, t", found, "unpaired", "spread", np.full(len(found), 2.353))


def experiment_in(folder: Path | None, scratch: Path) -> tuple[Experiment, Path]:
    """A trained run: the one given, or the quick preset trained in `scratch`."""
    if folder is not None:
        return load(folder / "experiment.toml"), folder
    run_experiment(preset("quick"), scratch, "train", None, None, quiet=True)
    return parse(preset("quick")), scratch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=None, help="folder of a trained run; otherwise the quick preset is trained")
    parser.add_argument("--step", type=int, default=None, help="checkpoint; the last one otherwise")
    parser.add_argument("--heads", nargs="+", default=["0:1", "1:2"])
    parser.add_argument("--data", default="mixture")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--reference-draws", type=int, default=6000)
    parser.add_argument("--target", type=float, default=0.04, help="relative standard error of the runs that stop at a target")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        experiment, folder = experiment_in(given.run, Path(scratch) / "run")
        sampler = replace(experiment.sampler, sampler="sgld", chains=4, draws=given.draws, burn_in=30)
        step = given.step or max(experiment.checkpoints())

        def job(head: str, seed: int, settings: SamplerSettings, stopping: Stopping) -> Job:
            changed = replace(experiment, seed=seed, sampler=settings)
            unit = make_unit(changed, step, DataKey.parse(given.data), (Part.parse(head),))
            return Job(Work(folder, changed, unit), stopping)

        def all_of(jobs: list[Job]) -> list[Found]:
            # results come in the order in which they finish, and a job is known by its seed
            by_seed = {done.work.experiment.seed: found for done, found in run_units(run, jobs, given.workers, 1)}
            return [by_seed[one.work.experiment.seed] for one in jobs]

        rows: list[Row] = []
        references: dict[str, tuple[float, float]] = {}
        stopping = Stopping(given.target, relative=True, max_draws=10 * given.draws)
        for head in given.heads:
            # two halves of seeds that no run uses, so that the reference has an error of its own
            long = replace(sampler, chains=8, draws=given.reference_draws // 2)
            halves = all_of([job(head, seed, long, Stopping()) for seed in (1_000_001, 1_000_002)])
            reference = float(np.mean([half.llc for half in halves]))
            references[head] = (reference, float(np.sqrt(sum(half.stderr**2 for half in halves)) / 2))
            found = all_of([job(head, seed, sampler, Stopping()) for seed in range(1, given.seeds + 1)])
            stopped = all_of([job(head, seed, sampler, stopping) for seed in range(1, given.seeds + 1)])
            rows += rows_of(head, found, stopped, reference)
    result = {
        "nominal": NOMINAL,
        "settings": asdict(sampler) | {"batch_size": experiment.sampling.batch_size, "context": experiment.model.n_ctx, "step": step},
        "target": asdict(stopping),
        "reference": {head: {"llc": llc, "stderr": stderr} for head, (llc, stderr) in references.items()},
        "rows": [asdict(row) for row in rows],
        "machine": {"cores": cores(), "threads": 1, "python": platform.python_version(), "torch": torch.__version__},
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result, indent=1) if given.format == "json" else as_table(result))


def as_table(result: dict) -> str:
    """The result for reading."""
    s = result["settings"]
    lines = [
        f"Coverage of nominal {100 * NOMINAL:.0f} % intervals: {s['sampler']}, ε {s['step_size']:g}, γ {s['localization']:g}, nβ {s['nbeta']:g}, "
        f"{s['chains']} chains × {s['draws']} draws after {s['burn_in']}, {s['batch_size']} × {s['context']} tokens, step {s['step']}.",
        *(f"Reference {head}: {r['llc']:.4f} ± {r['stderr']:.4f}" for head, r in result["reference"].items()),
        "",
        f"{'head':<6}{'estimator':<42}{'coverage':>14}{'bias':>9}{'actual sd':>11}{'reported':>10}{'draws':>8}",
    ]
    lines += [
        f"{row['head']:<6}{row['estimator']:<42}{100 * row['coverage']:>8.0f} ± {100 * row['coverage_error']:.0f} %"
        f"{100 * row['bias']:>7.1f} %{row['actual_sd']:>11.4f}{row['reported_error']:>10.4f}{row['draws']:>8.0f}"
        for row in result["rows"]
    ]
    return "\n".join([*lines, f"{result['seconds']} s on {result['machine']['cores']} cores."])


if __name__ == "__main__":
    sys.exit(main())

"""What a second worker brings, and what an engine costs beside the computing.

    python benchmarks/engines.py [--engines local ray] [--workers 1 2] [--rounds 3] [--units 64] [--format table|json] [--quick]

A grid like the demo's, with the plan's own units in its order, on a model that was not trained: what is sampled does not decide how long it takes.
Every worker has one thread, and is up and warm before the clock starts. `efficiency` is the time of one worker over that of n, over n; the machine's
memory is shared, so that it stays below 1 even where handing out costs nothing. `overhead` is seconds of workers that went into handing out, fetching
and waiting, a cell: n · wall time less what the units took by their own clocks. `handing out` is the wall time of a unit that does nothing. Run it on
an idle machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from peers_timing import machine

from rllc.checkpoints.store import save
from rllc.corpus.build import build_corpus
from rllc.model.forward import init_params
from rllc.runs.engines.job import Engine, Job
from rllc.runs.engines.registry import close, engine
from rllc.runs.experiment import Experiment, parse, preset
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan
from rllc.runs.sampling import Work, sample_unit
from rllc.runs.unit_files import files_of_run

Item = tuple[str, Any]  # what a work of this file is: one of the grid, or one that does nothing


@dataclass(frozen=True)
class Row:
    """One engine with so many workers."""

    engine: str
    workers: int
    wall_s: float  # median over rounds
    spread_s: float  # largest less smallest
    efficiency: float | None  # against the same engine's first number of workers
    overhead_ms: float  # a cell
    handing_out_ms: float  # a unit that does nothing


def demo_like(quick: bool) -> Experiment:
    """The demo's sampler and minibatches on two checkpoints; a toy where it is to be quick."""
    demo = parse(preset("quick" if quick else "demo"))
    steps = demo.checkpoints()
    asked = tuple(replace(block, checkpoints=(steps[0], steps[-1])) for block in demo.sample)
    draws = {"draws": 8, "burn_in": 0} if quick else {"draws": demo.sampler.draws // 4}
    return replace(demo, sample=asked, siblings={}, sampler=replace(demo.sampler, **draws))


@contextmanager
def prepared(experiment: Experiment) -> Iterator[RunFolder]:
    """A run folder with text and with checkpoints of a model as it begins."""
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="rllc-engines-")))
    try:
        build_corpus(experiment.corpus, folder.corpus)
        for step in {unit.step for unit in make_plan(experiment).units}:
            save(folder.checkpoints, step, experiment.model, init_params(experiment.model, step))
        yield folder
    finally:
        shutil.rmtree(folder.root, ignore_errors=True)


def nothing(work: int) -> int:
    """A unit that does nothing."""
    return work


def one(computing: Engine, works: list[Work]) -> tuple[float, float]:
    """Wall seconds of a grid, and the sum of what its units took by their own clocks."""
    started, spent = time.perf_counter(), 0.0
    for work, samples in computing.run(Job(sample_unit, works, files=files_of_run(RunFolder(works[0].folder)))):
        spent += samples[0].meta["seconds"] * len(work.unit.parts)
    return time.perf_counter() - started, spent


def rows(folder: RunFolder, experiment: Experiment, engines: list[str], numbers: list[int], rounds: int, units: int) -> list[Row]:
    """Every engine with every number of workers."""
    found: list[Row] = []
    for kind in engines:
        first: Row | None = None
        for workers in numbers:
            settings = replace(experiment.engine, kind=kind, workers=workers, threads=1, device="cpu")
            computing, given = engine(settings), replace(experiment, engine=settings)
            works = [Work(folder.root, given, unit) for unit in sorted(make_plan(given).units, key=lambda unit: -unit.cost)]
            cells = sum(len(work.unit.cells) for work in works)
            one(computing, works[-workers:])  # until the workers are up, with what they import
            times = [one(computing, works) for _ in range(rounds)]
            wall = statistics.median(seconds for seconds, _ in times)
            over = statistics.median(workers * seconds - spent for seconds, spent in times)
            started = time.perf_counter()
            done = sum(1 for _ in computing.run(Job(nothing, list(range(units)))))
            idle = (time.perf_counter() - started) / done
            spread = max(seconds for seconds, _ in times) - min(seconds for seconds, _ in times)
            efficiency = None if first is None else first.wall_s * first.workers / (wall * workers)
            row = Row(kind, workers, wall, spread, efficiency, 1e3 * over / cells, 1e3 * idle)
            found.append(row)
            first = first or row
            close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--units", type=int, default=64, help="units that do nothing")
    parser.add_argument("--quick", action="store_true", help="a toy, to see that it runs")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    experiment = demo_like(given.quick)
    with prepared(experiment) as folder:
        found = rows(folder, experiment, given.engines, given.workers, given.rounds, given.units)
    if given.format == "json":
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in found]}))
        return
    print(", ".join(f"{name}: {value}" for name, value in machine().items()))
    plan = make_plan(experiment)
    print(f"{len(plan.cells)} cells in {len(plan.units)} units, {plan.cost:.3g} operations")
    print(f"{'engine':8} {'workers':>7} {'wall s':>8} {'spread':>7} {'efficiency':>10} {'overhead ms a cell':>19} {'handing out ms a unit':>22}")
    for row in found:
        efficiency = "" if row.efficiency is None else f"{row.efficiency:.3f}"
        numbers = f"{row.wall_s:8.2f} {row.spread_s:7.2f} {efficiency:>10} {row.overhead_ms:19.1f} {row.handing_out_ms:22.1f}"
        print(f"{row.engine:8} {row.workers:7} {numbers}")


if __name__ == "__main__":
    main()

"""What a run will do, how far it is, and its numbers: texts and tables for the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import pandas as pd

from rllc.records import table
from rllc.runs.earlier import told_anew
from rllc.runs.experiment import Experiment, load
from rllc.runs.layout import RunFolder, existing
from rllc.runs.measures.cost import plan_measuring
from rllc.runs.memory import cores
from rllc.runs.plan import GUESSED_RATE, Plan, make_plan, pass_bytes, weight_bytes
from rllc.runs.progress import duration
from rllc.runs.status import status_of
from rllc.runs.status_text import render

SAMPLE = "sample"


def describe_plan(experiment: Experiment, workers: int | None = None, rate: float | None = None, root: Path | None = None) -> str:
    """The plan of an experiment in words: cells, chain-steps, measurements, memory, hours, bytes.

    Args:
        workers: otherwise the experiment decides.
        rate: operations a second of a worker; otherwise a guess.
        root: folder of its run, where there is one: what an earlier version has computed there is told, as it will be computed anew.
    """
    plan = make_plan(experiment)
    workers = workers or experiment.engine.workers or cores()
    blocks: Counter[str] = Counter(str(cell.data) for cell in plan.cells)
    by_data = ", ".join(f"{data} {count}" for data, count in blocks.items())
    sampler = experiment.sampler
    return "\n".join(
        [
            experiment.title,
            f"  {_weights(experiment)}",
            f"  sampler     {sampler.sampler}, ε {sampler.step_size:g}, γ {sampler.localization:g}, nβ {sampler.nbeta:g}; "
            f"{sampler.chains} chains × ({sampler.burn_in} + {sampler.draws}) steps, "
            f"{experiment.sampling.batch_size} × {experiment.model.n_ctx} tokens each",
            f"  cells       {len(plan.cells):,} in {len(plan.units):,} units: {by_data}",
            f"  chain-steps {plan.chain_steps:,}"
            + (f", up to {plan.most_chain_steps:,} where the target error needs them" if plan.most_chain_steps > plan.chain_steps else ""),
            f"  operations  {plan.cost:.3g} by counting matrix products; " + _hours(plan, workers, rate),
            f"  measuring   {_measuring(experiment, workers, rate)}",
            f"  memory      {_gigabytes(weight_bytes(experiment))} of weights and up to {_gigabytes(pass_bytes(experiment, plan))} of a pass, "
            f"in each of {workers} workers",
            f"  records     {plan.record_bytes / 1e6:.1f} MB at most, before compression"
            + (f"; and {plan.state_bytes / 1e6:.1f} MB of kept chains for each time they are prolonged" if plan.state_bytes else ""),
            *(f"  beside it   {name}: {_beside(experiment.sibling(name), workers, rate)}" for name in experiment.siblings),
            *(f"  in {root}: {told}" for told in _anew(experiment, root)),
        ]
    )


def _anew(experiment: Experiment, root: Path | None) -> list[str]:
    """What an earlier version of rllc has computed in a run folder."""
    if root is None:
        return []
    folder = RunFolder(root)
    beside = [told for name in experiment.siblings for told in told_anew(experiment.sibling(name), folder.sibling(name), name)]
    return told_anew(experiment, folder) + beside


def _beside(sibling: Experiment, workers: int, rate: float | None) -> str:
    plan = make_plan(sibling)
    steps = sibling.training.steps if sibling.training else 0
    trained = f"seed {sibling.seed}, {sibling.model.n_layers} layers, {steps:,} steps of training"
    sampled = f"; {len(plan.cells):,} cells, {plan.cost:.3g} operations, {_hours(plan, workers, rate)}" if plan.cells else ""
    return f"{trained}{sampled}; measuring {_measuring(sibling, workers, rate, beside=True)}"


def _measuring(experiment: Experiment, workers: int, rate: float | None, beside: bool = False) -> str:
    """Which measurements are made at how many checkpoints, what that takes, and what of it cannot be told."""
    found = plan_measuring(experiment, beside, workers)
    at: dict[int, list[str]] = {}
    for name, count in found.steps.items():
        at.setdefault(count, []).append(name)
    made = "; ".join(f"{', '.join(names)} at {count} checkpoint{'s' * (count != 1)}" for count, names in at.items())
    seconds = found.seconds(GUESSED_RATE if rate is None else rate)
    told = f"{sum(found.cost.values()):.3g} operations, {'very roughly ' * (rate is None)}{duration(seconds)}"
    where = f"on {workers} {'cores' if rate is None else 'workers'}"
    return f"{made}; {told} {where}" + (f"; not counted: {', '.join(found.not_counted)}" if found.not_counted else "")


def _hours(plan: Plan, workers: int, rate: float | None) -> str:
    if rate is None:
        return f"very roughly {duration(3600 * plan.hours(workers))} on {workers} cores"
    return f"{duration(3600 * plan.hours(workers, rate))} on {workers} workers that do {rate / 1e9:g} GFLOP/s each"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _weights(experiment: Experiment) -> str:
    count = len(experiment.checkpoints())
    if experiment.training is None:
        return f"imported    {count} checkpoints from {experiment.imported.source}" if experiment.imported else ""
    return f"training    {experiment.training.steps:,} steps, {count} checkpoints"


def describe_status(root: Path) -> str:
    """How far a run is, in words. Raises RllcError where the folder holds no run."""
    return render(status_of(root))


def export_table(root: Path, format: Literal["csv", "json", "parquet"]) -> bytes:  # noqa: A002
    """The tidy table of every recorded cell, those of siblings under a run's name of their own: "mine/seed-1".

    Raises RllcError where the folder holds no run or the format's extra is missing.
    """
    folder = existing(root)
    name = folder.root.resolve().name
    places = {name: folder} | {f"{name}/{sibling}": folder.sibling(sibling) for sibling in load(folder.experiment).siblings}
    frames = [table.stored_frame(place.store(), run=run) for run, place in places.items()]
    return table.export(pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True), format)

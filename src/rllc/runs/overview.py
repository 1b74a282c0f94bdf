"""What a run will do, how far it is, and its numbers: texts and tables for the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd

from rllc.core.files import parse_json
from rllc.core.outcome import Outcome
from rllc.records import table
from rllc.records.index import opened
from rllc.runs.earlier import told_anew
from rllc.runs.experiment import Experiment, load
from rllc.runs.layout import RunFolder, existing
from rllc.runs.mapping import plain
from rllc.runs.measures.cost import one_checkpoint, plan_measuring
from rllc.runs.measures.steps import asked_digest, planned_steps
from rllc.runs.memory import cores
from rllc.runs.pipeline import read_timings
from rllc.runs.plan import GUESSED_RATE, Plan, make_plan, pass_bytes, weight_bytes
from rllc.runs.progress import duration
from rllc.runs.selecting import data_name, said

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
            f"  measuring   {_measuring(experiment, rate)}",
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
    return f"{trained}{sampled}; measuring {_measuring(sibling, rate, beside=True)}"


def _measuring(experiment: Experiment, rate: float | None, beside: bool = False) -> str:
    """Which measurements are made at how many checkpoints, what that takes, and what of it cannot be told."""
    found = plan_measuring(experiment, beside)
    at: dict[int, list[str]] = {}
    for name, count in found.steps.items():
        at.setdefault(count, []).append(name)
    made = "; ".join(f"{', '.join(names)} at {count} checkpoint{'s' * (count != 1)}" for count, names in at.items())
    # A worker's rate is that of its threads together.
    seconds = found.seconds(GUESSED_RATE if rate is None else rate / experiment.engine.threads)
    told = (
        f"{sum(found.cost.values()):.3g} operations, {'very roughly ' * (rate is None)}{duration(seconds)} in one process of {found.threads} threads"
    )
    return f"{made}; {told}" + (f"; not counted: {', '.join(found.not_counted)}" if found.not_counted else "")


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
    folder = existing(root)
    experiment = load(folder.experiment)
    lines = [f"{experiment.title} ({root})"]
    seconds = read_timings(folder)
    index = opened(folder.store(), SAMPLE)
    records, problems = said(index), index.problems
    cells = {(cell.step, str(cell.data), str(cell.part)) for cell in make_plan(experiment).cells}
    everything = len(records)
    asked = _as_asked(experiment)
    records = [r for r in records if (r["step"], data_name(r), r["part"]) in cells and all(r.get(name) == value for name, value in asked.items())]
    outcomes = Counter(str(record["outcome"]) for record in records)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    stages = {
        "corpus": _done((folder.corpus / "corpus.json").exists()),
        "train": _done(_trained(experiment, folder)),
        "sample": f"{len(records)} cells recorded, {len(cells)} planned"
        + (f": {counts}" if counts else "")
        + (f"; {everything - len(records)} more of other settings" if everything > len(records) else ""),
        "measure": _measured(experiment, folder),
        "analyse": _done(folder.findings.exists()),
        "report": _done(folder.report.exists()),
    }
    for stage, state in stages.items():
        lines.append(f"  {stage:<8} {state}" + (f" ({duration(seconds[stage])})" if stage in seconds else ""))
    for name in experiment.siblings:
        sibling, place = experiment.sibling(name), folder.sibling(name)
        planned, recorded = len(make_plan(sibling).cells), len(opened(place.store(), SAMPLE).newest()[0])
        lines.append(f"  beside it, {name}: training {_done(_trained(sibling, place))}; {recorded} cells recorded, {planned} planned")
    refused = [record for record in records if Outcome(record["outcome"]).refused]
    lines += [f"    refused: step {r['step']}, {data_name(r)}, {r['part']}: {r['reason']}" for r in refused]
    lines += [f"    {problem}" for problem in problems]
    if folder.report.exists():
        lines.append(f"  page     {folder.report}")
    return "\n".join(lines)


def export_table(root: Path, format: Literal["csv", "json", "parquet"]) -> bytes:  # noqa: A002
    """The tidy table of every recorded cell, those of siblings under a run's name of their own: "mine/seed-1".

    Raises RllcError where the folder holds no run or the format's extra is missing.
    """
    folder = existing(root)
    name = folder.root.resolve().name
    places = {name: folder} | {f"{name}/{sibling}": folder.sibling(sibling) for sibling in load(folder.experiment).siblings}
    frames = [table.stored_frame(place.store(), run=run) for run, place in places.items()]
    return table.export(pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True), format)


def _done(done: bool) -> str:
    return "done" if done else "not finished"


def _trained(experiment: Experiment, folder: RunFolder) -> bool:
    names = {path.name for path in folder.checkpoints.glob("step-*")}
    return len(names) >= len(experiment.checkpoints())


def _measured(experiment: Experiment, folder: RunFolder) -> str:
    """Whether every measurement is done; else how many checkpoints those have that are not, and how long the rest may take."""
    store, behind, left, guessed = folder.store(), list[str](), 0.0, list[str]()
    planned = plan_measuring(experiment)
    for name in planned.steps:
        steps, found = planned_steps(experiment, folder, name), {record["step"]: record for record in said(opened(store, name))}
        if number := len(set(steps) - set(found)):
            behind.append(f"{name} {len(steps) - number} of {len(steps)}")
            taken = [record["seconds"] for record in found.values() if record.get("seconds") is not None]
            each = median(taken) if taken else one_checkpoint(experiment, name) / GUESSED_RATE / planned.threads
            left += number * each
            guessed += [] if taken else [name]
    if behind:
        how = f"very roughly, as {', '.join(guessed)} had no checkpoint yet" if guessed else "at the pace until now"
        return f"not finished: {', '.join(behind)} checkpoints; {duration(left)} left {how}"
    return "done" if _noted(folder) == asked_digest(experiment) else "of other settings, perhaps: `rllc measure` computes what today's ask for"


def _noted(folder: RunFolder) -> str:
    """The settings for which all is measured."""
    try:
        return str(parse_json(folder.measured.read_text(encoding="utf-8"))["asked"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _as_asked(experiment: Experiment) -> dict[str, Any]:
    """What a record says that was sampled with the experiment's settings of today, and not with earlier ones."""
    asked = plain(experiment.sampler) | {"batch_size": experiment.batch_size(), "seed": experiment.seed, "dtype": experiment.engine.dtype}
    return {name: value for name, value in asked.items() if name != "draws"}

"""The measuring stage: every checkpoint looks at the same probes, on an engine, and what it does is recorded as it comes."""

from __future__ import annotations

import json
import math
from typing import Any

from rllc.core.errors import RllcError
from rllc.core.files import write_atomic
from rllc.runs.engines.job import Job
from rllc.runs.engines.registry import engine
from rllc.runs.experiment import Experiment
from rllc.runs.forecast import Forecast, Task
from rllc.runs.grid import checkpoints_by_step
from rllc.runs.layout import RunFolder
from rllc.runs.left_out import LeftOut
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.cost import NOT_COUNTED, cost_of
from rllc.runs.measures.events import MeasureEvents, facts_of
from rllc.runs.measures.kinds import lacking
from rllc.runs.measures.measure import Measure, find
from rllc.runs.measures.steps import asked_digest, planned_steps
from rllc.runs.measures.unit import MeasureWork, files_of_measures, reads_text, take_unit, works_of
from rllc.runs.progress import Reporter, duration

Missing = dict[int, list[tuple[Measure, dict[str, Any]]]]


def measure_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter, only: int | None = None, bench: Bench | None = None) -> None:
    """Measure every checkpoint, or `only` one, as the settings ask, where there is no record yet; longest first.

    Raises RllcError where a checkpoint is missing, not finite or not the one that it was, and where a worker is lost; what was recorded stays.
    """
    bench = bench or Bench.of(experiment, folder)
    for name in experiment.behaviour.asked():
        if reason := lacking(name, experiment.model):
            reporter.line(f"There is no measurement of {name} for this model. {reason}")
    missing = missing_measures(experiment, folder, bench, only)
    if missing:
        _measure(experiment, folder, bench, missing, reporter, only)
    if only is None:
        note_measured(experiment, folder)


def note_measured(experiment: Experiment, folder: RunFolder) -> None:
    """Write down that everything is measured as the settings of now ask; only the keys of records tell it otherwise, and they take the text."""
    write_atomic(folder.measured, json.dumps({"asked": asked_digest(experiment)}) + "\n")


def _measure(experiment: Experiment, folder: RunFolder, bench: Bench, missing: Missing, reporter: Reporter, only: int | None) -> None:
    infos, store = checkpoints_by_step(experiment, folder, only), folder.store()
    if any(reads_text(key) for todo in missing.values() for _, key in todo):
        bench.count_text()  # here, for workers write no records
    works = [work for step, todo in missing.items() for work in works_of(folder, experiment, bench, infos[step], todo)]
    tasks = {str(work): Task(str(work), cost_of(experiment, work.names), (" ".join(work.names),)) for work in works}
    works.sort(key=lambda work: -tasks[str(work)].cost)
    forecast, computing = Forecast([tasks[str(work)] for work in works]), engine(experiment.engine)
    events = MeasureEvents(reporter)
    left_out = LeftOut(reporter, "measurements", facts_of)

    def at_most(work: MeasureWork) -> float:
        return forecast.at_most(tasks[str(work)]) if NOT_COUNTED.keys().isdisjoint(work.names) else math.inf

    def given_up(work: MeasureWork, error: RllcError) -> None:
        left_out(work, error)
        forecast.given_up(str(work))
        bar.less(len(work.wanted))

    job = Job(
        take_unit,
        works,
        files=files_of_measures(folder, bench),
        seconds=at_most,
        begun=lambda work: forecast.begun(str(work)),
        tell=lambda text: reporter.line(f"  {text}"),
        failed=given_up,
        hear=events.heard,
    )
    with reporter.stage("Measuring", sum(len(work.wanted) for work in works), "measurements") as bar:
        bar.count(workers=computing.at_once)
        for work, taken in computing.run(job):
            for one in taken:
                store.put(one.kind, one.key, one.arrays, one.meta)
            forecast.finished(str(work), events.finished(work, taken))
            left_out.finished += 1
            bar.advance(len(taken), str(work), forecast.left(computing.at_once))
    each = ", ".join(f"{kind} {spent:.1f} s" for kind, spent in events.seconds.items())
    heads = experiment.model.n_layers * experiment.model.n_heads
    reporter.line(f"Measured {heads} heads at {len(missing)} checkpoints in {duration(bar.seconds)}, of each worker's time: {each}.")
    left_out.check(len(works))


def missing_measures(experiment: Experiment, folder: RunFolder, bench: Bench, only: int | None = None) -> Missing:
    """What is not recorded yet, by step: measurements with the keys of their records. Raises RllcError where a checkpoint is missing."""
    store, missing = folder.store(), Missing()
    for name in experiment.behaviour.asked():
        if lacking(name, experiment.model):
            continue
        measure = find(name)
        for step, key in planned_keys(experiment, folder, bench, measure, only).items():
            if not store.has(measure.kind, key):
                missing.setdefault(step, []).append((measure, key))
    return missing


def planned_keys(experiment: Experiment, folder: RunFolder, bench: Bench, measure: Measure, only: int | None = None) -> dict[int, dict[str, Any]]:
    """The keys of a measurement's records by step. Raises RllcError where a checkpoint is missing."""
    infos = checkpoints_by_step(experiment, folder, only)
    steps = [step for step in planned_steps(experiment, folder, measure.kind) if only in (None, step)]
    return {step: measure.record_key(bench, infos[step].digest, experiment.engine.dtype) for step in steps}

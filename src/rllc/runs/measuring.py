"""The measuring stage: every checkpoint looks at the same probes, and what it does is recorded, one kind of measurement after another."""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from rllc.checkpoints.store import load
from rllc.core.files import write_atomic
from rllc.runs.device import check_fits, choose_device
from rllc.runs.engines.local import set_threads
from rllc.runs.experiment import Experiment
from rllc.runs.grid import checkpoints_by_step
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.kinds import lacking
from rllc.runs.measures.measure import Measure, Subject, find
from rllc.runs.measures.steps import asked_digest, planned_steps
from rllc.runs.memory import cores
from rllc.runs.progress import Reporter
from rllc.runs.unit_data import exchanged

Missing = dict[int, list[tuple[Measure, dict[str, Any]]]]


def measure_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter, only: int | None = None, bench: Bench | None = None) -> None:
    """Measure every checkpoint, or `only` one, as the settings ask, where there is no record yet; one after another, in the order of training.

    Raises RllcError where a checkpoint is missing or not finite.
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
    store = folder.store()
    infos = checkpoints_by_step(experiment, folder, only)
    set_threads(experiment.engine.training_threads or cores())
    device, dtype = choose_device(experiment.engine.device), getattr(torch, experiment.engine.dtype)
    check_fits(experiment.model, dtype, device)
    seconds: dict[str, float] = {}
    with reporter.stage("Measuring", sum(map(len, missing.values())), "measurements") as bar:
        for step, todo in sorted(missing.items()):
            shape, weights, info = load(infos[step].folder, experiment.model)
            if info.digest != infos[step].digest:
                raise exchanged(f"the checkpoint of step {step}", folder.root)
            subject = Subject(shape, {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()}, bench)
            for measure, key in todo:
                bar.note(f"step {step}, {measure.kind}")
                started = time.monotonic()
                arrays, meta = measure.take(subject, bench)
                spent = time.monotonic() - started
                bench.corpus.check_untouched()
                heads = [str(head) for head in shape.heads()]
                store.put(measure.kind, key, arrays, {"step": step, "heads": heads, **meta, "seconds": round(spent, 3)})
                seconds[measure.kind] = seconds.get(measure.kind, 0.0) + spent
                bar.advance(1, f"step {step}, {measure.kind}")
    each = ", ".join(f"{kind} {spent:.1f} s" for kind, spent in seconds.items())
    reporter.line(f"Measured {experiment.model.n_layers * experiment.model.n_heads} heads at {len(missing)} checkpoints: {each}.")


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

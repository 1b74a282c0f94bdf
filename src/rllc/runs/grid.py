"""The sampling stage: every planned cell that the store does not hold, on an engine, recorded as it comes."""

from __future__ import annotations

import time
from collections import Counter

from rllc.checkpoints.store import CheckpointInfo, list_checkpoints
from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.corpus.tokens import open_corpus
from rllc.records.store import Store
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.local import cores, run_units
from rllc.runs.plan import Unit, make_plan
from rllc.runs.progress import Reporter, duration
from rllc.runs.sampling import KIND, Work, record_key, sample_unit


def sample_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Compute every unit of which a cell is not recorded yet, longest first.

    A unit is computed whole even where only some of its cells are missing: its numbers then do not depend on when it was interrupted.

    Raises RllcError where a planned checkpoint is missing or a worker is lost; what was recorded stays.
    """
    store = Store(folder.records)
    for problem in store.check():
        reporter.line(str(problem))
    units = sorted(missing_units(experiment, folder, store), key=lambda unit: -unit.cost)
    if not units:
        return
    workers = experiment.engine.workers or cores()
    cells = sum(len(unit.parts) for unit in units)
    reporter.line(f"Sampling {cells} cells in {len(units)} units, {workers} at a time.")
    tally: Counter[str] = Counter()
    started = time.monotonic()
    works = [Work(folder.root, experiment, unit) for unit in units]
    with reporter.stage("Sampling", sum(unit.cost for unit in units)) as bar:
        for work, samples in run_units(sample_unit, works, workers, experiment.engine.threads):
            for sample in samples:
                store.put(KIND, sample.key, sample.arrays, sample.meta)
                tally[sample.meta["outcome"]] += 1
                if Outcome(sample.meta["outcome"]).refused:
                    reporter.line(f"  refused: {sample.cell}: {sample.meta['reason']}")
            bar.advance(work.unit.cost, str(work.unit))
            reporter.log(f"recorded {work.unit}")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.items()))
    rate = cells * experiment.sampler.chains * experiment.sampler.steps / (time.monotonic() - started)
    reporter.line(f"Sampled {cells} cells in {duration(bar.seconds)} ({rate:.0f} chain-steps a second): {counts}.")


def missing_units(experiment: Experiment, folder: RunFolder, store: Store) -> list[Unit]:
    """The planned units of which the store lacks a cell. Raises RllcError where a planned checkpoint is missing."""
    infos = checkpoints_by_step(experiment, folder)
    corpus_digest = open_corpus(folder.corpus).digest
    return [
        unit
        for unit in make_plan(experiment).units
        if not all(store.has(KIND, record_key(experiment, cell, infos[cell.step].digest, corpus_digest)) for cell in unit.cells)
    ]


def checkpoints_by_step(experiment: Experiment, folder: RunFolder) -> dict[int, CheckpointInfo]:
    """The planned checkpoints. Raises RllcError where one is missing or of another shape."""
    infos = {info.step: info for info in list_checkpoints(folder.checkpoints)}
    for step in experiment.checkpoints():
        if step not in infos:
            raise RllcError(f"The checkpoint of step {step} is missing in {folder.checkpoints}.", "Run `rllc train` first.")
        if infos[step].shape != experiment.model:
            raise RllcError(
                f"The checkpoint of step {step} in {folder.checkpoints} is of another shape than the experiment's model.",
                "Choose another folder with --out, or the experiment that it was trained with.",
            )
    return infos

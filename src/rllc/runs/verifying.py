"""Recorded cells computed once more and held against their records: a sample of a run, chosen at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.names import Cell
from rllc.posterior.settings import Stopping
from rllc.records.packing import Record
from rllc.records.store import DamagedRecordError
from rllc.runs.agreement import Verified, compare, prefix
from rllc.runs.device import choose_device, described
from rllc.runs.engines.local import run_units
from rllc.runs.experiment import Experiment, load
from rllc.runs.grid import keyed_units
from rllc.runs.keys import KIND
from rllc.runs.layout import RunFolder, existing
from rllc.runs.memory import cores
from rllc.runs.pipeline import override
from rllc.runs.plan import Unit
from rllc.runs.progress import Reporter
from rllc.runs.sampling import Work, sample_unit


@dataclass(frozen=True)
class Verification:
    """All cells that were computed again, and how many are recorded of what the experiment asks for."""

    cells: tuple[Verified, ...]
    recorded: int
    dtype: str

    @property
    def passed(self) -> bool:
        """Nothing is wrong with any of them."""
        return not any(cell.problem for cell in self.cells)


@dataclass(frozen=True)
class _Place:
    """A run or one of its siblings."""

    name: str
    experiment: Experiment
    folder: RunFolder


@dataclass(frozen=True)
class _Task:
    """A unit to compute again, with what its records are and which of its cells were chosen."""

    place: _Place
    work: Work
    records: Mapping[Cell, Record]
    chosen: frozenset[Cell]
    whole: bool  # each cell is one call's draws, equally many, so that everything that it says can be compared


def verify_run(root: Path, cells: int = 4, seed: int = 0, workers: int | None = None, device: str | None = None, quiet: bool = False) -> Verification:
    """Compute a random sample of a run's recorded cells again, siblings' among them, and compare. Nothing in the folder is changed.

    A unit is computed whole, with the threads and the chunk that its record names, so that the bits can be equal: they must be, where device and
    torch are those of the record too, and otherwise losses agree to `PROMISE`. Of chains that were prolonged, what was drawn before they first
    started again at the checkpoint is computed again, as one run, to the promise.

    Args:
        root: folder of the run.
        cells: how many to choose.
        seed: chooses them.
        workers: processes; otherwise the experiment decides.
        device: otherwise the experiment's.
        quiet: show no progress.

    Raises RllcError where the folder holds no run, or no records of what its experiment asks for, and as sampling does.
    """
    if cells < 1:
        raise RllcError(f"{cells} cells are to be verified.", "Give --cells 1 or more.")
    folder = existing(root)
    experiment = override(load(folder.experiment), workers, device)
    places = [_Place("", experiment, folder)]
    places += [_Place(name, experiment.sibling(name), folder.sibling(name)) for name in experiment.siblings]
    recorded = [(place, unit, n) for place in places if place.experiment.sample for unit, there in _recorded(place) for n in there]
    if not recorded:
        raise RllcError(
            f"{root} holds no record of what its experiment asks for today.", "Run `rllc sample` first; `rllc status` tells what is there."
        )
    rng = seeds.generator(seed, "verify")
    picked = sorted(rng.choice(len(recorded), size=min(cells, len(recorded)), replace=False).tolist())
    found: list[Verified] = []
    tasks: list[_Task] = []
    for place, unit, numbers in _by_unit([recorded[i] for i in picked]):
        damaged, task = _task(place, unit, numbers)
        found += damaged
        tasks += task
    reporter = Reporter(quiet)
    try:
        with _at_hand(tasks, folder, reporter):
            found += _compared(tasks, experiment, reporter)
    finally:
        reporter.close()
    return Verification(tuple(sorted(found, key=lambda one: not one.chosen)), len(recorded), experiment.engine.dtype)


def _recorded(place: _Place) -> Iterator[tuple[Unit, list[int]]]:
    """The planned units and the numbers of their cells that are recorded."""
    store = place.folder.store()
    for unit, keys in keyed_units(place.experiment, place.folder):
        if there := [n for n, key in enumerate(keys) if store.has(KIND, key)]:
            yield unit, there


def _by_unit(chosen: Sequence[tuple[_Place, Unit, int]]) -> list[tuple[_Place, Unit, set[int]]]:
    found: dict[tuple[str, str], tuple[_Place, Unit, set[int]]] = {}
    for place, unit, n in chosen:
        found.setdefault((place.name, f"{unit.cells}"), (place, unit, set()))[2].add(n)
    return list(found.values())


def _task(place: _Place, unit: Unit, numbers: set[int]) -> tuple[list[Verified], list[_Task]]:
    """What of a unit's records is damaged, and what there is to compute again."""
    store = place.folder.store(sets_aside=False)
    (keys,) = (keys for other, keys in keyed_units(place.experiment, place.folder, unit.step) if other.cells == unit.cells)
    records: dict[Cell, Record] = {}
    damaged: list[Verified] = []
    for n, (cell, key) in enumerate(zip(unit.cells, keys, strict=True)):
        try:
            if store.has(KIND, key):
                records[cell] = store.get(KIND, key)
        except DamagedRecordError as error:
            damaged.append(Verified(_name(place, cell), n in numbers, (0, 0), False, np.nan, (np.nan, np.nan), str(error)))
    chosen = frozenset(cell for n, cell in enumerate(unit.cells) if n in numbers and cell in records)
    if not chosen:
        return damaged, []
    first = next(records[cell] for cell in unit.cells if cell in chosen)
    prefixes = {record.digest: prefix(record) for record in records.values()}
    whole = len({record.meta["draws"] for record in records.values()}) == 1 and all(record.segments == 1 for record in records.values())
    # at least as many as a sampler takes: records may tell of fewer, and then it is they that are wrong
    draws = max(4, *(prefixes[records[cell].digest] for cell in (records if whole else chosen)))
    experiment = place.experiment
    again = replace(
        experiment,
        sampler=replace(experiment.sampler, draws=draws),
        stopping=Stopping(),
        sampling=replace(experiment.sampling, keep_state=False, share_contexts=0),
        engine=replace(experiment.engine, threads=first.meta["threads"]),
    )
    work = Work(place.folder.root, again, replace(unit, chunk=first.meta["chunk"]))
    return damaged, [_Task(place, work, records, chosen, whole)]


def _compared(tasks: Sequence[_Task], experiment: Experiment, reporter: Reporter) -> list[Verified]:
    here = (described(choose_device(experiment.engine.device)), torch.__version__)
    found: list[Verified] = []
    with reporter.stage("Verifying", sum(task.work.unit.cost for task in tasks)) as bar:
        for threads in sorted({task.work.experiment.engine.threads for task in tasks}):
            works = [task.work for task in tasks if task.work.experiment.engine.threads == threads]
            for work, samples in run_units(sample_unit, works, experiment.engine.workers or cores(), threads):
                task = next(task for task in tasks if task.work is work)
                found += [
                    compare(
                        task.records[sample.cell],
                        sample,
                        sample.cell in task.chosen,
                        _name(task.place, sample.cell),
                        here,
                        task.whole,
                        task.records.get(replace(sample.cell, data=sample.cell.data.sampled)),
                    )
                    for sample in samples
                    if sample.cell in task.records
                ]
                bar.advance(work.unit.cost, str(work.unit))
    return found


def _name(place: _Place, cell: Cell) -> str:
    return f"{place.name}: {cell}" if place.name else str(cell)


@contextmanager
def _at_hand(tasks: Sequence[_Task], folder: RunFolder, reporter: Reporter) -> Iterator[None]:
    """The weights that the tasks need: those of an import that were given back after their use are fetched, and given back again."""
    from rllc.runs.streaming import fetched

    with ExitStack() as stack:
        if any(task.place.experiment.imported is not None for task in tasks):
            stack.enter_context(folder.locked())
            for task in tasks:
                stack.enter_context(fetched(task.place.experiment, task.place.folder, (task.work.unit.step,), reporter))
        yield

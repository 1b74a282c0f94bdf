"""Recorded cells computed once more and held against their records: a sample of a run, chosen at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.names import Cell
from rllc.posterior.estimate import estimate
from rllc.posterior.result import assess
from rllc.posterior.settings import Stopping
from rllc.records.packing import Record
from rllc.records.store import DamagedRecordError
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
from rllc.runs.recording import ESTIMATE, origin_of, traces_of
from rllc.runs.sampling import Sample, Work, sample_unit

# The promise (DESIGN, the engine): what two computations of one step's loss may differ by, in nats, where not all that decides the bits is equal.
PROMISE = {"float32": 1e-6, "float64": 1e-10}
_LOSSES = ("losses", "baseline", "fixed_losses")
# What a record says of how it was computed and of how it grew, and not of what came out.
_OF_COMPUTING = ("seconds", "chunk", "chunk_planned", "threads", "device", "torch", "history", "prolonged")


@dataclass(frozen=True)
class Verified:
    """A cell and its record, side by side.

    Args:
        cell: its name, with the sibling's before it where it is one's.
        chosen: it is of the sample; others were computed beside it, since a unit is computed whole.
        draws: how many draws of a chain were computed again, and of how many.
        bits: everything that decides the bits was equal, so that nothing may differ.
        apart: the largest difference of a loss, nats; NaN where there is nothing to compare.
        llc: what the record says, and what came out now; NaN where the cell is refused, or not all draws were computed again.
        problem: what is wrong, as a sentence; empty where nothing is.
    """

    cell: str
    chosen: bool
    draws: tuple[int, int]
    bits: bool
    apart: float
    llc: tuple[float, float]
    problem: str


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
    prefixes = {record.digest: _prefix(record) for record in records.values()}
    whole = len({record.meta["draws"] for record in records.values()}) == 1 and all(record.segments == 1 for record in records.values())
    draws = max(prefixes[records[cell].digest] for cell in (records if whole else chosen))
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
                    compare(task.records[sample.cell], sample, sample.cell in task.chosen, _name(task.place, sample.cell), here, task.whole)
                    for sample in samples
                    if sample.cell in task.records
                ]
                bar.advance(work.unit.cost, str(work.unit))
    return found


def compare(record: Record, sample: Sample, chosen: bool, name: str, here: tuple[str, str], whole: bool) -> Verified:
    """A record beside the same cell computed again.

    Args:
        record: what was stored.
        sample: what came out now, of as many draws as `whole` says, or of at least those that can be compared.
        chosen: whether it is of the sample.
        name: what to call the cell.
        here: device and torch of now.
        whole: the record is of one call, with the draws of `sample`.
    """
    meta, draws = record.meta, min(_prefix(record), sample.meta["draws"])
    evaluations = meta["burn_in"] + 1 + draws
    bits = whole and (meta.get("device"), meta.get("torch")) == here and meta["chunk"] == sample.meta["chunk"]
    allowed = 0.0 if bits else PROMISE[meta["dtype"]]
    apart = 0.0
    problem = _other_shape(record, sample, evaluations)
    if not problem:
        pairs = {n: (record.arrays[n][..., :evaluations], sample.arrays[n][..., :evaluations]) for n in sample.arrays}
        apart = max(_apart(*pairs[n]) for n in _LOSSES if n in pairs)
        if not apart <= allowed:
            problem = f"Losses differ by up to {apart:.2g} nats."
        elif bits and (other := [n for n, (old, new) in pairs.items() if not np.array_equal(old, new, equal_nan=True)]):
            problem = f"The losses are equal, but {other[0]} is not."
    llc = (_number(meta.get("llc")), _number(sample.meta.get("llc")) if whole else np.nan)
    problem = problem or untrue(record) or (_said_otherwise(meta, sample.meta, bits, allowed) if whole else "")
    return Verified(name, chosen, (draws, meta["draws"]), bits, apart, llc, problem)


def _prefix(record: Record) -> int:
    """Draws of a chain before it first started again at the checkpoint."""
    history = record.meta["history"]
    last = next((i for i, part in enumerate(history) if part["how"] == "restarted"), len(history))
    return sum(part["draws"] for part in history[:last])


def _other_shape(record: Record, sample: Sample, evaluations: int) -> str:
    if record.arrays.keys() != sample.arrays.keys():
        return "It holds other traces than sampling makes."
    for name, array in sample.arrays.items():
        there = record.arrays[name]
        if there.shape[:-1] != array.shape[:-1] or there.dtype != array.dtype or min(there.shape[-1], array.shape[-1]) < evaluations:
            return f"{name} is of another shape than sampling makes."
    return ""


def _apart(old: Any, new: Any) -> float:
    """The largest difference, where what is not finite has to be so in both."""
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return np.inf
    finite = np.isfinite(old)
    return float(np.max(np.abs(old[finite] - new[finite]), initial=0.0))


def untrue(record: Record) -> str:
    """What a record says of its number that does not follow from its own traces, as a sentence; empty where all of it does."""
    traces, meta = traces_of(record), record.meta
    own = meta["evaluated_on"] == meta["data"]
    if "llc" not in meta:
        refused = not own or assess(traces, origin_of(record))[0].outcome.refused
        return "" if refused else "It says that it has no number, and its own traces give one."
    with np.errstate(over="ignore", invalid="ignore"):
        origin = origin_of(record) if own else None
        found = estimate(traces, init_loss=None if origin is None else origin.loss)[0]
    for name in ESTIMATE:
        said, follows = _number(meta.get(name)), _number(getattr(found, name))
        if not np.isclose(said, follows, rtol=1e-9, atol=1e-12, equal_nan=True):
            return f"It says {name} {said:.6g}, and its own traces say {follows:.6g}."
    return ""


def _said_otherwise(old: Mapping[str, Any], new: Mapping[str, Any], bits: bool, allowed: float) -> str:
    """What a record says that sampling does not: all of it where bits must be equal, and otherwise settings, names and the number itself."""
    new = {name: value if not isinstance(value, float) or np.isfinite(value) else None for name, value in new.items()}
    for name in [*new, *(name for name in old if name not in new)]:
        before, now = old.get(name), new.get(name)
        if name in _OF_COMPUTING or before == now or [before] == [now]:
            continue
        if bits or (not isinstance(now, float) and name not in ("outcome", "reason")):
            return f"It says {name} {before}, and sampling {now}."
    before, now = old.get("llc"), new.get("llc")
    # a mean of differences of two losses each
    if before is not None and now is not None and abs(before - now) > old["nbeta"] * 2 * allowed + 1e-12 * abs(before):
        return f"It says llc {before:.6g}, and sampling {now:.6g}."
    return ""


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


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

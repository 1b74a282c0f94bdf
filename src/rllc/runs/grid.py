"""The sampling stage: every planned cell that the store does not hold, on an engine, recorded as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from rllc.checkpoints.store import CheckpointInfo, list_checkpoints
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.outcome import Outcome
from rllc.corpus.tokens import open_corpus
from rllc.posterior.settings import Stopping
from rllc.records.index import opened
from rllc.records.store import Record, Store, key_digest
from rllc.runs.earlier import cells_anew
from rllc.runs.engines.job import Job
from rllc.runs.engines.registry import engine
from rllc.runs.experiment import Experiment
from rllc.runs.forecast import Forecast, Task
from rllc.runs.keys import KIND, SHARES, record_key, shares_key
from rllc.runs.layout import RunFolder
from rllc.runs.left_out import LeftOut
from rllc.runs.plan import Unit, make_plan, make_unit, pass_key
from rllc.runs.progress import Reporter, duration
from rllc.runs.sampling import Work, sample_unit
from rllc.runs.setting_right import set_right
from rllc.runs.shards import Shard
from rllc.runs.unit_data import reads_of, referred
from rllc.runs.unit_events import UnitEvents, facts_of
from rllc.runs.unit_files import files_of_run


def sample_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter, only: int | None = None) -> None:
    """Compute every unit of which a cell is not recorded yet, longest first; then prolong those that want more draws. With `only`, of one checkpoint.

    A unit is computed whole even where only some of its cells are missing: its numbers then do not depend on when it was interrupted.

    Raises RllcError where a planned checkpoint is missing or a worker is lost; what was recorded stays.
    """
    store = folder.store()
    with folder.turn("records"):  # what is damaged is set aside by one shard
        for problem in set_right(store) if only is None else ():
            reporter.line(problem, "record_damaged", "warning")
    begun = missing_work(experiment, folder, store, only)
    if begun and (told := cells_anew(experiment, store, only=only)):
        reporter.line(told)
    _run(begun, experiment, folder, store, reporter, "Sampling")
    if begun and experiment.sampling.share_contexts:  # of cells that were there, beside others that were not
        _run(missing_work(experiment, folder, store, only), experiment, folder, store, reporter, "Sampling")
    prolonged = unfinished_work(experiment, folder, store, only)
    _run(prolonged, experiment, folder, store, reporter, "Prolonging")
    if (begun or prolonged) and only is None and experiment.stopping.target_stderr:
        reporter.line(_saving(experiment, folder, store))


def _run(works: list[Work], experiment: Experiment, folder: RunFolder, store: Store, reporter: Reporter, verb: str) -> None:
    if not works:
        return
    works = sorted(works, key=lambda work: -work.unit.cost)
    tasks = {_name(work): _task(work) for work in works}
    forecast, computing = Forecast(list(tasks.values())), engine(experiment.engine)
    cells = sum(len(work.unit.cells) for work in works)
    reporter.line(f"{verb} {cells} cells in {len(works)} units, {computing.at_once} at a time.")
    events = UnitEvents(reporter, cells)

    def halved(work: Work) -> Work:
        less = work.smaller()
        events.halved(work, less.unit.chunk)
        return less

    left_out = LeftOut(reporter, "units", facts_of)

    def given_up(work: Work, error: RllcError) -> None:
        left_out(work, error)
        forecast.given_up(_name(work))
        bar.less(work.unit.cost)

    job = Job(
        sample_unit,
        works,
        smaller=halved,
        files=files_of_run(folder),
        seconds=lambda work: forecast.at_most(tasks[_name(work)]),
        begun=lambda work: forecast.begun(_name(work)),
        tell=lambda text: reporter.line(f"  {text}"),
        failed=given_up,
        hear=events.heard,
    )
    with reporter.stage(verb, sum(work.unit.cost for work in works), "operations") as bar:
        bar.count(cells=0, cells_total=cells, workers=computing.at_once)
        for work, samples in computing.run(job):
            forecast.finished(_name(work), samples[0].meta["seconds"] * len(work.unit.parts))
            for sample in samples:
                sample.put(store)
            events.finished(work, samples, bar, computing.at_once)
            left_out.finished += 1
            bar.advance(work.unit.cost, str(work.unit), forecast.left(computing.at_once))
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(events.outcomes.items()))
    reporter.line(f"{verb} {cells} cells took {duration(bar.seconds)} ({events.chain_steps / bar.seconds:.0f} chain-steps a second): {counts}.")
    rate = forecast.rate() / 1e9
    reporter.event("worker_rate", f"a worker did {rate:.3g} GFLOP/s, which `rllc plan --rate` takes", gflops=round(rate, 3))
    left_out.check(len(works))


def _name(work: Work) -> tuple[Any, ...]:
    return work.unit.step, str(work.unit.data), work.unit.parts, work.segment


def _task(work: Work) -> Task:
    """A unit takes as long an operation as those of the same layer and pieces on the same data, or else on any."""
    key = pass_key(work.experiment.model, work.unit.parts[0])
    return Task(_name(work), work.unit.cost, (f"{key} {work.unit.data}", key))


def _saving(experiment: Experiment, folder: RunFolder, store: Store) -> str:
    """How many of the draws that the cap allows were not needed."""
    stopping, records = experiment.stopping, [bundle[0] for _, bundles, _ in _recorded(experiment, folder, store) for bundle in bundles]
    drawn, cap = sum(record.meta["draws"] for record in records), stopping.max_draws * len(records)
    reached = sum(r.meta["llc"] is not None and stopping.reached(r.meta["llc"], r.meta["stderr"]) for r in records if "llc" in r.meta)
    return (
        f"The target error was reached by {reached} of {len(records)} cells, with {drawn:,} draws a chain in all "
        f"where the cap allows {cap:,}: {100 * (1 - drawn / cap):.0f} % saved."
    )


def missing_work(experiment: Experiment, folder: RunFolder, store: Store, only: int | None = None) -> list[Work]:
    """The planned units of which the store lacks a cell, or the shares of its tokens. Raises RllcError where a planned checkpoint is missing."""
    works: list[Work] = []
    for unit, keys, reads in _planned(experiment, folder, only):
        if not all(store.has(KIND, key) for key in keys):
            works.append(Work(folder.root, experiment, unit, reads=reads))
        elif experiment.shares_at(unit.step):
            works += [replace(work, reads=reads) for work in _shares_work(experiment, folder, store, unit, keys)]
    return works


def _shares_work(experiment: Experiment, folder: RunFolder, store: Store, unit: Unit, keys: list[dict[str, Any]]) -> list[Work]:
    """A recorded unit once more for the shares of its tokens, with as many draws as its first segment has, whatever is asked for by now."""
    groups: dict[int, list[Part]] = {}
    for cell, key in zip(unit.cells, keys, strict=True):
        if not cell.data.elsewhere and not store.has(SHARES, shares_key(experiment, key_digest(KIND, key), 0)):
            groups.setdefault(store.get(KIND, key).meta["history"][0]["draws"], []).append(cell.part)
    return [
        Work(
            folder.root,
            replace(experiment, sampler=replace(experiment.sampler, draws=draws), stopping=Stopping()),
            replace(make_unit(experiment, unit.step, unit.data, tuple(parts)), chunk=unit.chunk),
        )
        for draws, parts in groups.items()
    ]


def unfinished_work(experiment: Experiment, folder: RunFolder, store: Store, only: int | None = None) -> list[Work]:
    """The planned cells whose record has fewer draws than are asked for, or a larger error; those of a unit with equally many go together."""
    works: list[Work] = []
    # Of a whole grid the index tells which cells have all; a record is read, and proven, where it is to be gone on with.
    told = {} if only is not None else dict(zip(*_newest(store), strict=True))

    def wanting(unit: Unit, keys: Sequence[Mapping[str, Any]]) -> bool:
        metas = iter([told.get(key_digest(KIND, key)) for key in keys])
        bundles = [list(islice(metas, len(unit.bundle(part)))) for part in unit.parts]
        return not all(meta and bundle[0] and finished(experiment, meta, bundle[0]) for bundle in bundles for meta in bundle)

    for unit, bundles, reads in _recorded(experiment, folder, store, only, wanting):
        groups: dict[str, list[int]] = {}
        for p, bundle in enumerate(bundles):
            if not all(finished(experiment, record.meta, bundle[0].meta) for record in bundle):
                groups.setdefault(str([(record.segments, record.meta["segments"]) for record in bundle]), []).append(p)
        for places in groups.values():
            part = make_unit(experiment, unit.step, unit.data, tuple(unit.parts[p] for p in places), unit.evaluate_on)
            works.append(Work(folder.root, experiment, replace(part, chunk=unit.chunk), bundles[places[0]][0].segments, reads=reads))
    return works


def finished(experiment: Experiment, meta: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a cell has all that is asked for, by what its record says; one that was refused gets no better by more draws.

    `own` is what the record of its chains on their own data says, whose error decides when they stop.
    """
    if Outcome(own["outcome"]).refused:
        return True
    if meta["draws"] < experiment.sampler.draws:
        return False
    stopping = experiment.stopping
    if not stopping.target_stderr or own["draws"] >= stopping.max_draws:
        return True
    llc, stderr = own.get("llc"), own.get("stderr")  # one that is not finite is recorded as none
    return llc is not None and stderr is not None and stopping.reached(llc, stderr)


def _newest(store: Store) -> tuple[list[str], list[dict[str, Any]]]:
    """What the index has of every recorded cell: digests, and what decides whether a cell has all that is asked for."""
    digests, columns = opened(store, KIND).newest()
    plain = {name: columns[name].plain() for name in ("outcome", "draws", "llc", "stderr") if name in columns}
    return digests, [{name: values[row] for name, values in plain.items()} for row in range(len(digests))]


def keyed_units(experiment: Experiment, folder: RunFolder, only: int | None = None) -> list[tuple[Unit, list[dict[str, Any]]]]:
    """The planned units with the keys of their cells' records. Raises RllcError where a planned checkpoint is missing."""
    return [(unit, keys) for unit, keys, _ in _planned(experiment, folder, only)]


def _planned(experiment: Experiment, folder: RunFolder, only: int | None = None) -> list[tuple[Unit, list[dict[str, Any]], Mapping[str, str]]]:
    """As `keyed_units`, with the digests of what each unit reads."""
    corpus_digest, weights = open_corpus(folder.corpus).digest, weights_of(experiment, folder, only)
    units, shard = make_plan(experiment, only).units, Shard.parse(experiment.engine.shard)
    if shard is not None:
        units = shard.share(units, lambda unit: unit.cost)
    held = {refinement.reference for refinement in experiment.refinements.values() if refinement.refers}
    reads = {step: reads_of(corpus_digest, {name: weights[name] for name in {step, *held}}) for step in {unit.step for unit in units}}
    return [(unit, [record_key(experiment, cell, weights, corpus_digest) for cell in unit.cells], reads[unit.step]) for unit in units]


def _recorded(
    experiment: Experiment,
    folder: RunFolder,
    store: Store,
    only: int | None = None,
    wanted: Callable[[Unit, Sequence[Mapping[str, Any]]], bool] = lambda unit, keys: True,  # noqa: ARG005
) -> list[tuple[Unit, list[list[Record]], Mapping[str, str]]]:
    """The planned units that are recorded whole and wanted, by themselves and the keys of their cells: with the records of each part, on its own data
    first and then elsewhere, and what they read.
    """
    found: list[tuple[Unit, list[list[Record]], Mapping[str, str]]] = []
    for unit, keys, reads in _planned(experiment, folder, only):
        if all(store.has(KIND, key) for key in keys) and wanted(unit, keys):
            records = iter([store.get(KIND, key) for key in keys])
            found.append((unit, [list(islice(records, len(unit.bundle(part)))) for part in unit.parts], reads))
    return found


def weights_of(experiment: Experiment, folder: RunFolder, only: int | None = None) -> dict[int | str, str]:
    """Digests of the checkpoints by step, and by name of the siblings that refinements refer to.

    Raises RllcError as `checkpoints_by_step` does.
    """
    found: dict[int | str, str] = {step: info.digest for step, info in checkpoints_by_step(experiment, folder, only).items()}
    for reference in {refinement.reference for refinement in experiment.refinements.values() if refinement.refers}:
        found |= reference_weights(experiment, folder, reference)
    return found


def reference_weights(experiment: Experiment, folder: RunFolder, reference: int | str) -> dict[int | str, str]:
    """The digest of the checkpoint that a refinement is held against, by its step or its sibling's name. Raises RllcError where it is missing."""
    place, step, shape = referred(experiment, folder, reference)
    info = next((info for info in list_checkpoints(place.checkpoints) if info.step == step and info.shape == shape), None)
    if info is None:
        raise RllcError(f"The checkpoint of step {step} is missing in {place.checkpoints}.", "Run `rllc train` first.")
    return {reference: info.digest}


def checkpoints_by_step(experiment: Experiment, folder: RunFolder, only: int | None = None) -> dict[int, CheckpointInfo]:
    """The planned checkpoints, of which all or `only` one has to be there. Raises RllcError where one is missing or of another shape."""
    infos = {info.step: info for info in list_checkpoints(folder.checkpoints)}
    for step in experiment.checkpoints() if only is None else (only,):
        if step not in infos:
            raise RllcError(f"The checkpoint of step {step} is missing in {folder.checkpoints}.", "Run `rllc train` first.")
        if infos[step].shape != experiment.model:
            raise RllcError(
                f"The checkpoint of step {step} in {folder.checkpoints} is of another shape than the experiment's model.",
                "Choose another folder with --out, or the experiment that it was trained with.",
            )
    return infos

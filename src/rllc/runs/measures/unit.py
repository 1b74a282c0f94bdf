"""Measuring one checkpoint in one way, or in ways that share what they compute: a unit that any process can do, as sampling's units are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rllc.behaviour.settings import MeasureName
from rllc.checkpoints.store import CheckpointInfo, checkpoint_name, load
from rllc.core import digest
from rllc.corpus.tokens import Corpus
from rllc.runs.device import check_fits, choose_device
from rllc.runs.engines.job import Files
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, find
from rllc.runs.measures.steps import asked_digest
from rllc.runs.unit_data import exchanged, opened, reads_of
from rllc.runs.unit_files import corpus_files

# The effects of ablating every head are taken for the first and cut up by tokens for the second.
_TOGETHER: tuple[MeasureName, ...] = ("ablation", "tokens")


@dataclass(frozen=True)
class MeasureWork:
    """Measurements of one checkpoint in a run folder; picklable.

    Args:
        wanted: their names with the keys of their records.
        reads: digests of what they read, by what to call it (`reads_of`); where that was exchanged since, nothing is measured.
    """

    folder: Path
    experiment: Experiment
    step: int
    wanted: tuple[tuple[MeasureName, Key], ...]
    reads: Mapping[str, str]

    @property
    def names(self) -> tuple[MeasureName, ...]:
        """What is measured."""
        return tuple(name for name, _ in self.wanted)

    def __str__(self) -> str:
        return f"step {self.step}, {' and '.join(self.names)}"


@dataclass(frozen=True)
class Taken:
    """What becomes a record: its kind, key, arrays and meta."""

    kind: MeasureName
    key: Key
    arrays: Arrays
    meta: Meta


def works_of(
    folder: RunFolder, experiment: Experiment, bench: Bench, checkpoint: CheckpointInfo, wanted: Sequence[tuple[Measure, Key]]
) -> list[MeasureWork]:
    """What is wanted of a checkpoint, in as many works as share nothing."""
    named: list[tuple[MeasureName, Key]] = [(measure.kind, key) for measure, key in wanted]
    together = tuple(one for one in named if one[0] in _TOGETHER)
    groups: list[tuple[tuple[MeasureName, Key], ...]] = [(one,) for one in named if one not in together]
    if together:
        groups.append(together)
    reads = reads_of(bench.corpus.digest, {checkpoint.step: checkpoint.digest})
    return [MeasureWork(folder.root, experiment, checkpoint.step, group, reads) for group in groups]


def take_unit(work: MeasureWork) -> list[Taken]:
    """Measure. Raises RllcError where weights are not finite, and where checkpoint or corpus are not those that the work was made with."""
    folder, experiment = RunFolder(work.folder), work.experiment
    device, dtype = choose_device(experiment.engine.device), getattr(torch, experiment.engine.dtype)
    check_fits(experiment.model, dtype, device)
    bench = _bench(folder, experiment, opened(folder.corpus))
    shape, weights, info = load(folder.checkpoints / checkpoint_name(work.step), experiment.model)
    for what, there in reads_of(bench.corpus.digest, {work.step: info.digest}).items():
        if work.reads[what] != there:
            raise exchanged(what, work.folder)
    subject = Subject(shape, {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()}, bench)
    found: list[Taken] = []
    for name, key in work.wanted:
        started = time.monotonic()
        arrays, meta = find(name).take(subject, bench)
        spent = time.monotonic() - started
        bench.corpus.check_untouched()
        common = {"step": work.step, "heads": [str(head) for head in shape.heads()]}
        found.append(Taken(name, key, arrays, common | meta | {"seconds": round(spent, 3)}))
    return found


def reads_text(key: Key) -> bool:
    """Whether a measurement with this key reads the tables of the training text."""
    return "text" in key


def files_of_measures(folder: RunFolder, bench: Bench) -> Files[MeasureWork]:
    """What the works of a run, or of a sibling, read: the corpus, the checkpoint, and the tables of the text where they are wanted."""
    main = folder.main
    inside = folder.root.relative_to(main.root)

    def of(work: MeasureWork) -> tuple[Path, ...]:
        checkpoint = folder.checkpoints / checkpoint_name(work.step)
        found = [*corpus_files(folder), *(path for path in sorted(checkpoint.iterdir()) if path.is_file())]
        if any(reads_text(key) for _, key in work.wanted):
            # where records lie at a URL, it is the experiment file that tells it
            found += bench.text_files() if isinstance(main.records, Path) else [main.experiment]
        return tuple(found)

    def moved(work: MeasureWork, there: Path) -> MeasureWork:
        return replace(work, folder=there / inside)

    return Files(main.root, of, moved)


_benches: dict[str, Bench] = {}


def _bench(folder: RunFolder, experiment: Experiment, corpus: Corpus) -> Bench:
    """The probes of an experiment; a worker draws them once for the checkpoints of a run, and again where its corpus was opened again."""
    name = digest.of_json([str(folder.main.root.resolve()), asked_digest(experiment), corpus.digest])
    if name not in _benches or _benches[name].corpus is not corpus:
        _benches.clear()  # they hold contexts and tables
        _benches[name] = Bench(experiment, corpus, folder.main.store())
    return _benches[name]

"""What a unit reads from the run folder, for workers on machines that do not see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rllc.checkpoints.store import checkpoint_name, read_info
from rllc.core.names import DataKey
from rllc.corpus.tokens import read_header
from rllc.records.store import key_digest
from rllc.runs.engines.job import Files
from rllc.runs.keys import KIND, STATE, record_key, state_key
from rllc.runs.layout import RunFolder
from rllc.runs.sampling import Work
from rllc.runs.unit_data import referred


def files_of_run(folder: RunFolder) -> Files[Work]:
    """What the works of a run, or of a sibling, read; all of it lies in the main run's folder."""
    root = folder.corpus.parent
    inside = folder.root.relative_to(root)

    def moved(work: Work, there: Path) -> Work:
        return replace(work, folder=there / inside)

    return Files(root, files_of, moved)


def files_of(work: Work) -> tuple[Path, ...]:
    """The corpus, the checkpoint, those that its data are held against, and where chains are prolonged their records and last states."""
    folder, experiment, unit = RunFolder(work.folder), work.experiment, work.unit
    checkpoints: dict[int | str, Path] = {unit.step: folder.checkpoints / checkpoint_name(unit.step)}
    for data in (unit.data, *map(DataKey.parse, unit.evaluate_on)):
        refinement = experiment.refinement_of(data)
        if refinement is not None and refinement.refers:
            place, step, _ = referred(experiment, folder, refinement.reference)
            checkpoints[refinement.reference] = place.checkpoints / checkpoint_name(step)
    found = [*corpus_files(folder), *(path for checkpoint in checkpoints.values() for path in sorted(checkpoint.iterdir()) if path.is_file())]
    return (*found, *(_records(work, folder, checkpoints) if work.segment else ()))


def corpus_files(folder: RunFolder) -> list[Path]:
    """The files of a run's corpus."""
    return [path for path in sorted(folder.corpus.iterdir()) if path.is_file() and not path.name.startswith(".")]


def _records(work: Work, folder: RunFolder, checkpoints: dict[int | str, Path]) -> list[Path]:
    store, weights = folder.store(), {name: read_info(path).digest for name, path in checkpoints.items()}
    found: list[Path] = []
    for cell in work.unit.cells:
        key = record_key(work.experiment, cell, weights, read_header(folder.corpus)["digest"])
        digest = key_digest(KIND, key)
        found += store.files(KIND, digest)
        found += store.files(STATE, state_key(digest, work.segment - 1))
    # where records lie at a URL, it is the experiment file that tells it
    return [*store.files(), *found] if isinstance(folder.records, Path) else [folder.main.experiment]

"""Under which names the planned cells of a run are recorded, found without torch and without reading weights or tokens, for `rllc status`.

The sampling itself proves what it goes on from (`grid.py`); here what the run folder says of its checkpoints and its corpus is believed.
"""

from __future__ import annotations

from pathlib import Path

from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text
from rllc.core.names import Cell
from rllc.corpus.tokens import read_header
from rllc.records.store import key_digest
from rllc.runs.experiment import Experiment
from rllc.runs.keys import KIND, record_keys
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan
from rllc.runs.provenance import known_weights, read_provenance


def planned_checkpoints(experiment: Experiment, folder: RunFolder) -> dict[int, str]:
    """The planned checkpoints that are there, or were and gave their weights back, by step: the digest that each tells of, "" where it tells none."""
    there = {path.name: path for path in folder.checkpoints.glob("step-*")}
    planned = {step: there.get(f"step-{step:08d}") for step in experiment.checkpoints()}
    return {step: _told(path / "checkpoint.json") for step, path in planned.items() if path is not None}


def planned_records(experiment: Experiment, folder: RunFolder) -> dict[str, Cell]:
    """The planned cells by the digest of their record.

    Those whose checkpoint or corpus is nowhere told of are left out: nothing that is recorded can be theirs. Where they were deleted after their use
    the provenance of the run tells of them.
    """
    weights: dict[int | str, str] = {**_weights(experiment, folder)}
    for reference in {refinement.reference for refinement in experiment.refinements.values() if refinement.refers}:
        if isinstance(reference, str) and reference in experiment.siblings:
            sibling = experiment.sibling(reference)
            if digest := _weights(sibling, folder.sibling(reference)).get(sibling.checkpoints()[-1]):
                weights[reference] = digest
    cells = make_plan(experiment).cells
    return {key_digest(KIND, key): cell for cell, key in record_keys(experiment, cells, weights, _corpus(folder))}


def _weights(experiment: Experiment, folder: RunFolder) -> dict[int, str]:
    return known_weights(folder) | {step: digest for step, digest in planned_checkpoints(experiment, folder).items() if digest}


def _corpus(folder: RunFolder) -> str:
    try:
        return str(read_header(folder.corpus)["digest"])
    except (RllcError, OSError, KeyError):
        return str((read_provenance(folder.main) or {}).get("corpus", ""))


def _told(path: Path) -> str:
    """The digest that a checkpoint tells of; "" where it cannot be read, of which those who need it tell."""
    try:
        return str(parse_json(read_text(path))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

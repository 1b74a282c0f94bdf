"""What a run has recorded, as the analysis takes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllc.analysis.curves import curves_of
from rllc.analysis.evidence import Evidence, Sibling
from rllc.analysis.findings import Behaviour, Curves, Patterns
from rllc.core.errors import RllcError
from rllc.core.names import DataKey
from rllc.corpus.batches import Mixture
from rllc.corpus.tokens import open_corpus
from rllc.records import table
from rllc.records.store import Record, Store
from rllc.runs.aligning import aligned_of
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.reading import planned_records, read_measured
from rllc.runs.recorded import planned_samples
from rllc.runs.selecting import is_own

# Attention patterns are kept of every checkpoint, but the page shows at most this many, evenly chosen, to stay small.
SHOWN_PATTERNS = 7


def planned_measurements(experiment: Experiment, folder: RunFolder, store: Store) -> list[Record]:
    """The records of behaviour, by step. Raises as `planned_samples`, and RllcError where there is none."""
    found = planned_records(experiment, folder, store, "behaviour")
    if not found:
        raise RllcError(f"{folder.root} holds no measurement of behaviour for this experiment.", "Run `rllc run` on it first.")
    return found


def evidence_of(experiment: Experiment, folder: RunFolder, store: Store, samples: list[Record], measurements: list[Record]) -> Evidence:
    """What a run and its siblings have recorded, as the analysis takes it. Raises as `planned_samples`."""
    tempered = [record for record in samples if DataKey.parse(record.meta["data"]).nbeta]
    samples = [record for record in samples if not DataKey.parse(record.meta["data"]).nbeta]
    columns = own_columns(samples)
    curves = curves_of(columns, heads=True)
    refined = [name for name, refinement in experiment.refinements.items() if isinstance(refinement.reference, str)]
    layers = {name: experiment.sibling(str(experiment.refinements[name].reference)).model.n_layers for name in refined}
    siblings = {name: sibling_of(experiment.sibling(name), folder.sibling(name)) for name in seeds_of(experiment)}
    return Evidence(
        curves=curves,
        full=curves_of(columns, heads=False),
        behaviour=behaviour_of(measurements),
        reference=MIXTURE,
        patterns=patterns_of(measurements),
        planted_share=planted_share(experiment, folder),
        aligned=aligned_of(samples, curves),
        measured=read_measured(experiment, folder, store),
        siblings={name: found for name, found in siblings.items() if found is not None},
        apart=tuple(name for name, refinement in experiment.refinements.items() if refinement.refers or refinement.shuffled),
        circuit=next((name for name in refined if layers[name] < experiment.model.n_layers), ""),
        temperatures=temperatures_of(tempered),
        nbeta=experiment.sampler.nbeta,
        planted=planted_kinds(experiment, folder),
    )


def temperatures_of(samples: list[Record]) -> dict[float, Curves]:
    """The full model on the training mixture at other inverse temperatures, by nβ."""
    full = [record for record in samples if record.meta["part"] == "full"]
    found = curves_of(own_columns(full), heads=False)
    return {key.nbeta: curves for name, curves in found.items() if (key := DataKey.parse(name)).text == DataKey(MIXTURE)}


def own_columns(samples: list[Record]) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of the table; what was evaluated elsewhere is no learning coefficient and is left out."""
    return table.columns(table.frame(filter(is_own, samples)))


def seeds_of(experiment: Experiment) -> list[str]:
    """Siblings of the experiment's own shape."""
    return [name for name in experiment.siblings if experiment.sibling(name).model == experiment.model]


def sibling_of(experiment: Experiment, folder: RunFolder) -> Sibling | None:
    """What a sibling has recorded; None before it was measured."""
    store = folder.store()
    if not store.kinds():
        return None
    measurements = planned_records(experiment, folder, store, "behaviour")
    if not measurements:
        return None
    return Sibling(curves_of(own_columns(planned_samples(experiment, folder, store)), heads=True), behaviour_of(measurements))


def behaviour_of(measurements: list[Record]) -> Behaviour:
    """Scores of heads and losses over checkpoints, from records by step."""
    first = measurements[0]
    names = [name.removeprefix("score/") for name in first.arrays if name.startswith("score/")]
    data = tuple(first.meta["data"])
    return Behaviour(
        heads=tuple(first.meta["heads"]),
        steps=np.array([record.meta["step"] for record in measurements], dtype=np.int64),
        scores={name: np.stack([record.arrays[f"score/{name}"] for record in measurements], axis=1) for name in names},
        data=data,
        losses=np.stack([record.arrays["losses"] for record in measurements], axis=1),
        icl=np.array([record.arrays["icl"][data.index(MIXTURE)] for record in measurements]),
        losses_stderr=np.stack([record.arrays["losses_stderr"] for record in measurements], axis=1),
        icl_stderr=np.array([record.arrays["icl_stderr"][data.index(MIXTURE)] for record in measurements]),
        score_stderr={name: np.stack([record.arrays[f"score_stderr/{name}"] for record in measurements], axis=1) for name in names},
    )


def patterns_of(measurements: list[Record]) -> Patterns | None:
    """Attention patterns of at most SHOWN_PATTERNS checkpoints, the first and the last among them; None where no snippet was asked for."""
    first = measurements[0]
    if not first.meta["snippets"]:
        return None
    chosen = np.unique(np.linspace(0, len(measurements) - 1, min(SHOWN_PATTERNS, len(measurements))).round().astype(int))
    kept = [measurements[i] for i in chosen]
    return Patterns(
        heads=tuple(first.meta["heads"]),
        steps=np.array([record.meta["step"] for record in kept], dtype=np.int64),
        snippets=tuple(first.meta["snippets"]),
        tokens=tuple(tuple(tokens) for tokens in first.meta["tokens"]),
        weights=tuple(np.stack([record.arrays[f"pattern/{i}"] for record in kept]) for i in range(len(first.meta["snippets"]))),
    )


def planted_kinds(experiment: Experiment, folder: RunFolder) -> dict[str, tuple[str, ...]]:
    """Kinds of planted text in the training mixture and in each domain; data without any are left out."""
    domains = open_corpus(folder.corpus).domains
    parts = {MIXTURE: [name for name, share in Mixture(MIXTURE, experiment.mixture).weights.items() if share > 0]} | {
        name: [name] for name in domains
    }
    kinds = {data: tuple(str(domains[name].structure["kind"]) for name in names if domains[name].planted) for data, names in parts.items()}
    return {data: found for data, found in kinds.items() if found}


def planted_share(experiment: Experiment, folder: RunFolder) -> float:
    """Share of the training mixture's sequences that a program made up."""
    domains = open_corpus(folder.corpus).domains
    return sum(share for name, share in Mixture(MIXTURE, experiment.mixture).weights.items() if domains[name].planted)

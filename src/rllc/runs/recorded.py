"""What a run has recorded of what its experiment asks for today."""

from __future__ import annotations

from rllc.corpus.tokens import open_corpus
from rllc.records.store import Record, Store
from rllc.runs.experiment import Experiment
from rllc.runs.grid import weights_of
from rllc.runs.keys import KIND, record_key
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan


def planned_samples(experiment: Experiment, folder: RunFolder, store: Store) -> list[Record]:
    """The records of the planned cells alone: others may lie beside them from earlier settings.

    Raises DamagedRecordError where one cannot be read; it has been set aside, and the next run computes it anew.
    """
    corpus_digest, weights = open_corpus(folder.corpus).digest, weights_of(experiment, folder)
    keys = [record_key(experiment, cell, weights, corpus_digest) for cell in make_plan(experiment).cells]
    return [store.get(KIND, key) for key in keys if store.has(KIND, key)]

"""What a run has measured, read back for the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rllc.analysis.measured import Measured
from rllc.behaviour.settings import MeasureName
from rllc.records.store import Record, Store
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.kinds import lacking
from rllc.runs.measures.measure import find
from rllc.runs.measuring import planned_keys

# What a record's meta says alike of all checkpoints, where it says it.
_OF_ALL = (
    "heads", "data", "kinds", "kind", "names", "orders", "classes", "snippets", "tokens", "fractions", "pairs", "inputs", "thresholds", "withins"
)  # fmt: skip


def planned_records(experiment: Experiment, folder: RunFolder, store: Store, name: MeasureName, bench: Bench | None = None) -> list[Record]:
    """The records of one measurement that the experiment asks for today, by step; others may lie beside them from earlier settings.

    Raises RllcError where a checkpoint is missing, and DamagedRecordError where a record cannot be read, or holds other things than most.
    """
    if lacking(name, experiment.model):
        return []
    measure, bench = find(name), bench or Bench.of(experiment, folder)
    keys = planned_keys(experiment, folder, bench, measure).values()
    records = [store.get(name, key) for key in keys if store.has(name, key)]
    _check_alike(store, records)
    return records


def _check_alike(store: Store, records: Sequence[Record]) -> None:
    """Records of one measurement are stacked over checkpoints: what most of them hold, all have to. Where no form is that of most, all are odd."""
    forms = [_form(record) for record in records]
    odd = [record for record, form in zip(records, forms, strict=True) if 2 * forms.count(form) <= len(forms)]
    errors = [store.denied(record, "its arrays or names are not those of the same measurement at other checkpoints") for record in odd]
    if errors:
        raise errors[0]


def _form(record: Record) -> tuple[Any, ...]:
    shapes = sorted((name, array.shape) for name, array in record.arrays.items())
    return shapes, [record.meta.get(name) for name in _OF_ALL]


def read_measured(experiment: Experiment, folder: RunFolder, store: Store | None = None) -> Measured:
    """Everything beside attention scores and losses, stacked over the checkpoints that are recorded; a sibling's with its experiment and folder.

    Raises as `planned_records` does.
    """
    store, bench = store or folder.store(), Bench.of(experiment, folder)
    fields: dict[str, Any] = {}
    for name in experiment.behaviour.asked():
        if records := planned_records(experiment, folder, store, name, bench):
            fields |= find(name).read(records, bench)
    return Measured(**fields)

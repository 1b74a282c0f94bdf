"""What a run folder holds that an earlier version of rllc computed, so that this one computes it anew. Torch-free."""

from __future__ import annotations

from rllc.records.index import opened
from rllc.records.store import Store
from rllc.runs.experiment import Experiment
from rllc.runs.keys import ESTIMATOR, KIND
from rllc.runs.layout import RunFolder
from rllc.runs.measures.kinds import REVISIONS, lacking
from rllc.runs.measures.steps import planned_steps
from rllc.runs.plan import make_plan
from rllc.runs.selecting import data_name, said


def told_anew(experiment: Experiment, folder: RunFolder, name: str = "") -> list[str]:
    """A sentence on planned cells, and one on planned measurements, that are recorded by earlier versions alone; none where there are none.

    `name` is what the folder's model is called where it stands beside another.
    """
    store, where = folder.store(sets_aside=False), f" of {name}" if name else ""  # whoever computes next tells of what is damaged
    return [told for told in (cells_anew(experiment, store, where), _measures_anew(experiment, folder, store, where)) if told]


def cells_anew(experiment: Experiment, store: Store, where: str = "", only: int | None = None) -> str:
    """On planned cells, or those of `only` one checkpoint, that an earlier estimator has sampled and this version's has not; empty where none."""
    planned = {(cell.step, str(cell.data), str(cell.part)) for cell in make_plan(experiment, only).cells}
    by_estimator: dict[str, set[tuple[int, str, str]]] = {}
    for record in said(opened(store, KIND)):
        cell = record["step"], data_name(record), record["part"]
        by_estimator.setdefault(str(record.get("key/estimator")), set()).add(cell)
    there = by_estimator.pop(ESTIMATOR, set())
    old = {name: (found & planned) - there for name, found in by_estimator.items()}
    anew, names = set().union(*old.values()), sorted(name for name, found in old.items() if found)
    if not anew:
        return ""
    return (
        f"{len(anew)} of {len(planned)} cells{where} are recorded by an earlier estimator ({', '.join(names)}) and will be sampled anew by "
        f"this version's, {ESTIMATOR}; the old records stay."
    )


def _measures_anew(experiment: Experiment, folder: RunFolder, store: Store, where: str) -> str:
    old: list[str] = []
    for name in experiment.behaviour.asked():
        if lacking(name, experiment.model):
            continue
        steps: dict[bool, set[int]] = {True: set(), False: set()}
        for record in said(opened(store, name)):
            steps[record.get("key/revision") == REVISIONS[name]].add(record["step"])
        if again := (steps[False] - steps[True]) & set(planned_steps(experiment, folder, name)):
            old.append(f"{name} at {len(again)}")
    return f"Measurements{where} of earlier revisions will be made anew: {', '.join(old)} checkpoints." if old else ""

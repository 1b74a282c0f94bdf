"""At which checkpoints a measurement is made. Torch-free."""

from __future__ import annotations

from rllc.behaviour.settings import MeasureName
from rllc.core import digest
from rllc.runs.experiment import Experiment
from rllc.runs.layout import SIBLINGS, RunFolder
from rllc.runs.mapping import plain
from rllc.runs.measures.kinds import REVISIONS
from rllc.runs.plan import make_plan


def asked_digest(experiment: Experiment) -> str:
    """Digest of all that an experiment file says of its measurements, and of their revisions."""
    told = {"behaviour": plain(experiment.behaviour), "steps": list(experiment.checkpoints()), "model": experiment.model.as_dict()}
    told |= {"documents": experiment.sampling.documents, "revisions": [REVISIONS[name] for name in experiment.behaviour.asked()]}
    return digest.of_json(told | {"mixture": plain(experiment.mixture), "seed": experiment.seed, "dtype": experiment.engine.dtype})


def planned_steps(experiment: Experiment, folder: RunFolder, name: MeasureName) -> tuple[int, ...]:
    """The steps of a measurement of the run in a folder; of a sibling, beyond scores and losses, at most those that have cells and the last."""
    return asked_steps(experiment, name, sibling=folder.root.parent.name == SIBLINGS)


def asked_steps(experiment: Experiment, name: MeasureName, sibling: bool = False) -> tuple[int, ...]:
    """The steps of a measurement of an experiment, or of that of a sibling."""
    steps = experiment.checkpoints()
    if name != "behaviour" and sibling:
        with_cells = {cell.step for cell in make_plan(experiment).cells}
        steps = tuple(step for step in steps if step in with_cells or step == steps[-1])
    return experiment.behaviour.steps(name, steps)

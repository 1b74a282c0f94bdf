"""Imported checkpoints one at a time: fetched, sampled, measured and given back, so that disk and memory stay flat however long the series is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from rllc.checkpoints.store import checkpoint_name, list_checkpoints, release
from rllc.runs.experiment import Experiment
from rllc.runs.grid import missing_work, sample_stage, unfinished_work
from rllc.runs.importing import fetch_checkpoints, tell_exchanged
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measuring import measure_stage, missing_measures, note_measured
from rllc.runs.pipeline import timed
from rllc.runs.progress import Reporter
from rllc.runs.setting_right import set_right


def stream_stages(experiment: Experiment, folder: RunFolder, reporter: Reporter, stages: Sequence[str], referred: Collection[int | str] = ()) -> None:
    """Take an experiment's imported checkpoints through these stages, each in its turn, and before them those of its siblings.

    A checkpoint of which everything is recorded is not fetched again. Those that refinements are held against stay, and go first.

    Args:
        stages: "sample", "measure", or both.
        referred: steps that something outside of the experiment is held against.

    Raises RllcError as the stages do.
    """
    own = {refinement.reference for refinement in experiment.refinements.values() if refinement.refers}
    for name in experiment.siblings:
        sibling = experiment.sibling(name)
        with reporter.during(sibling=name):
            reporter.line(f"Beside it, {name}:")
            stream_stages(sibling, folder.sibling(name), reporter, stages, sibling.checkpoints()[-1:] if name in own else ())
    kept = {step for step in (*own, *referred) if isinstance(step, int)}
    if experiment.imported is not None and experiment.imported.keep:
        kept = set(experiment.checkpoints())
    tell_exchanged(folder, reporter)
    with timed(folder, "train", reporter):
        fetch_checkpoints(experiment, folder, sorted(kept), reporter)
    bench = Bench.of(experiment, folder)  # its contexts are drawn once for all checkpoints
    for problem in set_right(folder.store()):
        reporter.line(problem, "record_damaged", "warning")
    for step in experiment.checkpoints():
        if _wanting(experiment, folder, step, stages, bench):
            with timed(folder, "train", reporter):
                fetch_checkpoints(experiment, folder, [step], reporter)
            if "sample" in stages:
                with timed(folder, "sample", reporter):
                    sample_stage(experiment, folder, reporter, step)
            if "measure" in stages:
                with timed(folder, "measure", reporter):
                    measure_stage(experiment, folder, reporter, step, bench)
        if step not in kept:
            release(folder.checkpoints / checkpoint_name(step))
    if "measure" in stages:
        note_measured(experiment, folder)


@contextmanager
def fetched(experiment: Experiment, folder: RunFolder, steps: Collection[int], reporter: Reporter) -> Iterator[None]:
    """Have the weights of these checkpoints at hand: those of an import that were given back are fetched, and given back again."""
    lent = [info for info in list_checkpoints(folder.checkpoints) if info.released and info.step in steps]
    if lent and experiment.imported is not None:
        fetch_checkpoints(experiment, folder, [info.step for info in lent], reporter)
    try:
        yield
    finally:
        for info in lent:
            release(info.folder)


def _wanting(experiment: Experiment, folder: RunFolder, step: int, stages: Sequence[str], bench: Bench) -> bool:
    """Whether something of a checkpoint is not recorded yet; what it is may not even be known."""
    if step not in {info.step for info in list_checkpoints(folder.checkpoints)}:
        return True
    store = folder.store()
    if "sample" in stages and (missing_work(experiment, folder, store, step) or unfinished_work(experiment, folder, store, step)):
        return True
    return "measure" in stages and bool(missing_measures(experiment, folder, bench, step))

"""A run from text to page: the stages in order, each done once and taken up where it was left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text, write_atomic
from rllc.core.signals import held
from rllc.runs.engines import registry
from rllc.runs.experiment import Experiment, load, parse
from rllc.runs.layout import RunFolder, existing
from rllc.runs.leftovers import sweep
from rllc.runs.memory import fixed
from rllc.runs.ownership import check_folder
from rllc.runs.progress import Reporter
from rllc.runs.session import session
from rllc.runs.shards import Shard

_LONGEST = 1e12  # seconds; nothing took longer, and sums stay finite
STAGES = ("corpus", "train", "sample", "measure", "analyse", "report")


def needed(last: str) -> tuple[str, ...]:
    """The stages that `last` needs, in order, with itself.

    >>> needed("measure")
    ('corpus', 'train', 'measure')
    """
    before = STAGES[: STAGES.index(last) + 1]
    return tuple(stage for stage in before if stage != "sample" or last != "measure")


def run_experiment(
    text: str, out: Path, last: str, workers: int | None, device: str | None, quiet: bool, machine: Mapping[str, Any] | None = None
) -> None:
    """Run the experiment in `text` in the folder `out`, up to and with the stage `last`.

    Whatever is there already stays: the same call after an interruption goes on where it was, and a changed grid adds its cells. Several shards may
    be at work in one folder; they sample, and a call without a shard does the rest.

    Args:
        machine: further settings of the engine, which win over the experiment's where they are not None.

    Raises RllcError for anything that a user can mend; what was done until then is kept.
    """
    experiment = override(parse(text), workers, device, **(machine or {}))
    folder, shard = RunFolder(out), Shard.parse(experiment.engine.shard)
    if shard is not None:
        check_shard(experiment, last)
    check_folder(folder, experiment.siblings)
    engine, verb = experiment.engine, "run" if last == "report" else last
    with (
        folder.locked(shard),
        session(folder, verb, quiet, shard, title=experiment.title, engine=engine.kind, workers=engine.workers, device=engine.device) as reporter,
    ):
        try:
            if shard is None:
                if left := sweep(folder, experiment.siblings):
                    reporter.event("leftovers_removed", f"took away {left} leftovers of interrupted writes", count=left)
                _go(text, experiment, folder, last, reporter)
            else:
                _go_shard(text, experiment, folder, shard, reporter)
        finally:
            registry.close()


def override(experiment: Experiment, workers: int | None, device: str | None, **machine: Any) -> Experiment:
    """The experiment with what the command line says of the machine, None for what it leaves; nothing of it enters a record's key."""
    changes = {name: value for name, value in {"workers": workers, "device": device, **machine}.items() if value is not None}
    return replace(experiment, engine=replace(experiment.engine, **changes)) if changes else experiment


def report_again(root: Path, quiet: bool) -> None:
    """Write page and figures of an existing run anew. Raises RllcError where the folder holds no finished analysis."""
    folder = existing(root)
    if not folder.findings.is_file():
        raise RllcError(f"{root} holds no findings yet.", "Finish the run with `rllc run` first; `rllc status` tells how far it is.")
    experiment = load(folder.experiment)
    check_folder(folder)
    with folder.locked(), session(folder, "report", quiet, title=experiment.title) as reporter, staged("report", reporter):
        _run_stage("report", experiment, folder, reporter)


def check_shard(experiment: Experiment, last: str) -> None:
    """Raises RllcError where a shard makes no sense."""
    if last not in ("sample", "report"):
        raise RllcError(f"A shard was asked for up to the stage {last}.", "Shards are for `rllc run` and `rllc sample`.")
    if _streams(experiment):
        raise RllcError(
            "Shards cannot share checkpoints that are imported one at a time.",
            "Set imported.keep = true, of siblings too: every checkpoint is then converted once and stays in the run folder.",
        )


def _streams(experiment: Experiment) -> bool:
    imported = [one.imported for one in (experiment, *experiment.siblings.values()) if one.imported is not None]
    return any(not one.keep for one in imported)


def _go_shard(text: str, experiment: Experiment, folder: RunFolder, shard: Shard, reporter: Reporter) -> None:
    """One share of the sampling. Text and model are made by whichever shard comes first, and the others wait for it."""
    from rllc.runs.provenance import note_provenance

    with folder.turn("preparation", lambda: reporter.line("Another shard is at work on the text and the model: waiting for it.")):
        experiment = _begin(text, experiment, folder, reporter)
        _reach(experiment, folder, "sample")
        for stage in ("corpus", "train"):
            with timed(folder, stage, reporter):
                _run_stage(stage, experiment, folder, reporter)
            note_provenance(experiment, folder, stage)
    with timed(folder, "sample", reporter):
        _run_stage("sample", experiment, folder, reporter)
    with folder.turn("preparation"):  # which writes it too; shards may be on machines of their own, each of which is told
        note_provenance(experiment, folder, "sample")
    reporter.line(f"The shard {shard} is done. When all are, the same command without --shard does the rest.")


def _begin(text: str, experiment: Experiment, folder: RunFolder, reporter: Reporter) -> Experiment:
    try:
        known = read_text(folder.experiment)
    except (OSError, ValueError):
        known = None  # it is not there, or damaged
    if known != text:
        write_atomic(folder.experiment, text)
    reporter.line(f"{experiment.title}: {folder.root}")
    return fixed(experiment, folder)


def _reach(experiment: Experiment, folder: RunFolder, last: str) -> None:
    """What lies on other machines is asked for before anything long is begun. Raises RllcError where it does not answer."""
    if experiment.engine.records:
        folder.store().kinds()
    if last not in ("corpus", "train") and experiment.engine.kind != "local" and not folder.checkpoints.exists():
        registry.engine(experiment.engine)


def _go(text: str, experiment: Experiment, folder: RunFolder, last: str, reporter: Reporter) -> None:
    from rllc.runs.provenance import note_provenance

    experiment = _begin(text, experiment, folder, reporter)
    _reach(experiment, folder, last)
    stages = needed(last)
    if _streams(experiment) and (streamed := [stage for stage in stages if stage in ("sample", "measure")]):
        from rllc.runs.streaming import stream_stages

        with timed(folder, "corpus", reporter):
            _run_stage("corpus", experiment, folder, reporter)
        note_provenance(experiment, folder, "corpus")
        stream_stages(experiment, folder, reporter, streamed)
        if "sample" in streamed:
            _calibrate(experiment, folder, reporter)
        for stage in ("train", *streamed):
            note_provenance(experiment, folder, stage)
        stages = tuple(stage for stage in stages if stage in ("analyse", "report"))
    for stage in stages:
        with timed(folder, stage, reporter):
            _run_stage(stage, experiment, folder, reporter)
        if stage == "sample":
            _calibrate(experiment, folder, reporter)
        if stage == "measure":
            registry.close()  # no later stage has units, and idle workers hold memory
        note_provenance(experiment, folder, stage)
    if last == "report":
        reporter.line(f"The page: {folder.report}")


def _calibrate(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Where the experiment asks for it: whether the settings that everything was sampled with are good ones, told and kept for the page."""
    if not experiment.calibration.in_run:
        return
    from rllc.runs.calibrating import calibrate_stage
    from rllc.runs.calibration_text import keep

    with timed(folder, "calibrate", reporter):
        if (found := calibrate_stage(experiment, folder, reporter)) is not None:
            reporter.line(keep(found, folder.calibration))


def _run_stage(stage: str, experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    # Imported one by one: a finished stage costs no import, and only those that compute load torch. What is loaded may swallow a signal.
    with held():
        if stage == "corpus":
            from rllc.runs.preparing import corpus_stage as run
        elif stage == "train" and experiment.imported is not None:
            from rllc.runs.importing import import_stage as run
        elif stage == "train":
            from rllc.runs.preparing import train_stage as run
        elif stage == "sample":
            from rllc.runs.grid import sample_stage as run
        elif stage == "measure":
            from rllc.runs.measuring import measure_stage as run
        elif stage == "analyse":
            from rllc.runs.reporting import analyse_stage as run
        else:
            from rllc.runs.reporting import report_stage as run
    run(experiment, folder, reporter)
    if stage in ("train", "sample", "measure"):
        for name in experiment.siblings:
            with reporter.during(sibling=name):
                reporter.line(f"Beside it, {name}:")
                _run_stage(stage, experiment.sibling(name), folder.sibling(name), reporter)


@contextmanager
def staged(stage: str, reporter: Reporter) -> Iterator[None]:
    """Let the log tell when a stage begins and ends, and which one everything between belongs to."""
    started, outcome = time.monotonic(), "stopped"
    with reporter.during(stage=stage):
        reporter.event("stage_begun")
        try:
            yield
            outcome = "done"
        finally:
            reporter.event("stage_ended", seconds=round(time.monotonic() - started, 2), outcome=outcome)


@contextmanager
def timed(folder: RunFolder, stage: str, reporter: Reporter) -> Iterator[None]:
    """Add a stage's wall time to the folder's account, also when it is interrupted, and tell the log of it."""
    started = time.monotonic()
    try:
        with staged(stage, reporter):
            yield
    finally:
        spent = time.monotonic() - started
        with folder.turn("timings"):
            seconds = read_timings(folder)
            seconds[stage] = round(seconds.get(stage, 0.0) + spent, 2)
            write_atomic(folder.timings, json.dumps(seconds, indent=1) + "\n")


def read_timings(folder: RunFolder) -> dict[str, float]:
    """Seconds of wall time by stage so far."""
    try:
        found = {str(stage): float(s) for stage, s in parse_json(read_text(folder.timings)).items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError):
        return {}
    return {stage: s for stage, s in found.items() if 0 <= s < _LONGEST}

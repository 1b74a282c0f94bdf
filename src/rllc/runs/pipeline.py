"""A run from text to page: the stages in order, each done once and taken up where it was left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError
from rllc.core.files import parse_json, write_atomic
from rllc.runs.experiment import Experiment, parse
from rllc.runs.layout import RunFolder, existing
from rllc.runs.memory import fixed
from rllc.runs.progress import Reporter

STAGES = ("corpus", "train", "sample", "measure", "analyse", "report")


def needed(last: str) -> tuple[str, ...]:
    """The stages that `last` needs, in order, with itself.

    >>> needed("measure")
    ('corpus', 'train', 'measure')
    """
    before = STAGES[: STAGES.index(last) + 1]
    return tuple(stage for stage in before if stage != "sample" or last != "measure")


def run_experiment(text: str, out: Path, last: str, workers: int | None, device: str | None, quiet: bool) -> None:
    """Run the experiment in `text` in the folder `out`, up to and with the stage `last`.

    Whatever is there already stays: the same call after an interruption goes on where it was, and a changed grid adds its cells.

    Raises RllcError for anything that a user can mend; what was done until then is kept.
    """
    experiment = override(parse(text), workers, device)
    folder = RunFolder(out)
    with folder.locked():
        reporter = Reporter(quiet, folder.log)
        try:
            _go(text, experiment, folder, last, reporter)
        except RllcError as error:
            reporter.log(f"stopped: {error}")
            raise
        finally:
            reporter.close()


def override(experiment: Experiment, workers: int | None, device: str | None) -> Experiment:
    """The experiment with what the command line says of the machine; neither enters a record's key."""
    changes: dict[str, Any] = {name: value for name, value in (("workers", workers), ("device", device)) if value is not None}
    return replace(experiment, engine=replace(experiment.engine, **changes)) if changes else experiment


def report_again(root: Path, quiet: bool) -> None:
    """Write page and figures of an existing run anew. Raises RllcError where the folder holds no finished analysis."""
    folder = existing(root)
    if not folder.findings.exists():
        raise RllcError(f"{root} holds no findings yet.", "Finish the run with `rllc run` first; `rllc status` tells how far it is.")
    experiment = parse(folder.experiment.read_text(encoding="utf-8"), str(folder.experiment))
    with folder.locked():
        reporter = Reporter(quiet, folder.log)
        try:
            _run_stage("report", experiment, folder, reporter)
        finally:
            reporter.close()


def _go(text: str, experiment: Experiment, folder: RunFolder, last: str, reporter: Reporter) -> None:
    if not folder.experiment.exists() or folder.experiment.read_text(encoding="utf-8") != text:
        write_atomic(folder.experiment, text)
    experiment = fixed(experiment, folder)
    reporter.line(f"{experiment.title}: {folder.root}")
    stages = needed(last)
    imported = [one.imported for one in (experiment, *experiment.siblings.values()) if one.imported is not None]
    if any(not one.keep for one in imported) and (streamed := [stage for stage in stages if stage in ("sample", "measure")]):
        from rllc.runs.streaming import stream_stages

        with timed(folder, "corpus"):
            _run_stage("corpus", experiment, folder, reporter)
        stream_stages(experiment, folder, reporter, streamed)
        stages = tuple(stage for stage in stages if stage in ("analyse", "report"))
    for stage in stages:
        with timed(folder, stage):
            _run_stage(stage, experiment, folder, reporter)
    if last == "report":
        reporter.line(f"The page: {folder.report}")


def _run_stage(stage: str, experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    # Imported one by one: a finished stage costs no import, and only those that compute load torch.
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
            reporter.line(f"Beside it, {name}:")
            _run_stage(stage, experiment.sibling(name), folder.sibling(name), reporter)


@contextmanager
def timed(folder: RunFolder, stage: str) -> Iterator[None]:
    """Add a stage's wall time to the folder's account, also when it is interrupted."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds = read_timings(folder)
        seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - started, 2)
        write_atomic(folder.timings, json.dumps(seconds, indent=1) + "\n")


def read_timings(folder: RunFolder) -> dict[str, float]:
    """Seconds of wall time by stage so far."""
    try:
        return {str(stage): float(s) for stage, s in parse_json(folder.timings.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError):
        return {}

"""What arguments of several verbs are called, and the call that the stages of a run share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

ExperimentFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help="Experiment file (TOML).")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR", help="Folder of a run.")]
Out = Annotated[Path, tyro.conf.arg(help="Folder of the run.")]
Workers = Annotated[int | None, tyro.conf.arg(help="Sampling processes; otherwise the experiment decides.")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, tyro.conf.arg(help="Device; otherwise the experiment decides.")]
Quiet = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Say nothing but errors.")]


def run_to(last: str, experiment: Path, out: Path, workers: int | None, device: str | None, quiet: bool) -> None:
    """Run an experiment up to and with the stage `last`. Raises RllcError where there is no such file."""
    from rllc.runs.pipeline import run_experiment

    run_experiment(text_of(experiment), out, last, workers, device, quiet)


def text_of(experiment: Path) -> str:
    """The text of an experiment file. Raises RllcError where there is none."""
    from rllc.runs.experiment import read

    return read(experiment)

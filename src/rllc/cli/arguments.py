"""What arguments of several verbs are called, and the call that the stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

ExperimentFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT", help="Experiment file (TOML).")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR", help="Folder of a run.")]
Out = Annotated[Path, tyro.conf.arg(help="Folder of the run.")]
Workers = Annotated[int | None, tyro.conf.arg(help="Worker processes; otherwise the experiment decides.")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, tyro.conf.arg(help="Device; otherwise the experiment decides.")]
Quiet = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Say nothing but errors.")]
Shard = Annotated[str | None, tyro.conf.arg(metavar="I/N", help="Sample the I-th of N shares alone, beside others on the same folder.")]


@dataclass(frozen=True)
class Where:
    """Where units are computed; None for what the experiment decides."""

    engine: Annotated[str | None, tyro.conf.arg(metavar="local|ray", help="Where units are computed; otherwise the experiment decides.")] = None
    address: Annotated[
        str | None, tyro.conf.arg(metavar="HOST:PORT|auto", help="Ray cluster to join; otherwise the engine ray starts one on this machine.")
    ] = None
    workers: Workers = None
    gpus_per_worker: Annotated[float | None, tyro.conf.arg(help="GPUs that Ray sets aside for a worker; 0.5 for two workers on each.")] = None
    device: Device = None


EXPERIMENT_DECIDES = Where()
OnEngine = Annotated[Where, tyro.conf.arg(name="", help="Where units are computed.")]


def run_to(last: str, experiment: Path, out: Path, quiet: bool, where: Where = EXPERIMENT_DECIDES, shard: str | None = None) -> None:
    """Run an experiment up to and with the stage `last`. Raises RllcError where there is no such file."""
    from rllc.runs.pipeline import run_experiment

    machine = {"kind": where.engine, "address": where.address, "gpus_per_worker": where.gpus_per_worker, "shard": shard}
    run_experiment(text_of(experiment), out, last, where.workers, where.device, quiet, machine)


def text_of(experiment: Path) -> str:
    """The text of an experiment file. Raises RllcError where there is none."""
    from rllc.runs.experiment import read

    return read(experiment)

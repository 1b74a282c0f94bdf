"""Flags that verbs of the command line share. Nothing heavy is imported here."""

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
Engine = Annotated[str | None, tyro.conf.arg(metavar="local|ray", help="Where units are computed; otherwise the experiment decides.")]
Address = Annotated[
    str | None, tyro.conf.arg(metavar="HOST:PORT|auto", help="Ray cluster to join; otherwise the engine ray starts one on this machine.")
]
GpusPerWorker = Annotated[float | None, tyro.conf.arg(help="GPUs that Ray sets aside for a worker; 0.5 for two workers on each.")]
Shard = Annotated[str | None, tyro.conf.arg(metavar="I/N", help="Sample the I-th of N shares alone, beside others on the same folder.")]

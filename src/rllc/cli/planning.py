"""What comes before a run: what it will compute, with which settings, on whose checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from rllc.cli.arguments import Device, ExperimentFile, Out, Quiet, Workers, text_of
from rllc.cli.output import print_plain


def plan(
    experiment: ExperimentFile,
    workers: Workers = None,
    rate: Annotated[float | None, tyro.conf.arg(help="GFLOP/s of a worker; a guess otherwise.")] = None,
    out: Annotated[Path | None, tyro.conf.arg(help="Folder of the run, where there is one; otherwise runs/ and the experiment's name.")] = None,
) -> None:
    """Print what a run will compute: cells, steps, measurements, memory, hours, bytes; what is recorded by an earlier version. Computes nothing.

    Example: rllc plan experiments/demo.toml --workers 8 --rate 200 --out runs/demo
    """
    from rllc.runs.experiment import load
    from rllc.runs.overview import describe_plan

    print_plain(describe_plan(load(experiment), workers, rate and 1e9 * rate, out or Path("runs") / experiment.stem))


def calibrate(
    experiment: ExperimentFile,
    out: Out,
    data: Annotated[str, tyro.conf.arg(help="Kind of data to sample on.")] = "mixture",
    checkpoints: Annotated[tuple[int, ...], tyro.conf.arg(help="Checkpoints; the grid is tried at the last. Otherwise three over training.")] = (),
    parts: Annotated[tuple[str, ...], tyro.conf.arg(help="Parts; `heads` for all heads.")] = ("heads",),
    sampler: Annotated[
        Literal["sgld", "leimkuhler-matthews", "rmsprop-sgld"] | None, tyro.conf.arg(help="Sampler; otherwise the experiment's.")
    ] = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="A smaller grid at one temperature.")] = False,
    workers: Workers = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Propose step size, localization, nbeta and burn_in for a trained model, with reasons. Goes on where it was.

    Tries a grid of settings in short runs, the best of them in longer ones, and writes DIR/calibration/calibration.toml, .json, .png and .svg.

    Example: rllc calibrate experiments/demo.toml --out runs/demo

    Example: rllc calibrate experiments/demo.toml --out runs/demo --quick --checkpoints 500 3000 --parts 1:0 1:1 1:2
    """
    from rllc.runs.calibrating import Ask
    from rllc.runs.calibrating import calibrate as found
    from rllc.runs.calibration_text import deliver

    text = text_of(experiment)
    deliver(found(text, out, Ask(data, checkpoints, parts, sampler, quick, workers, device), quiet), out / "calibration", print_plain)


def import_(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE", help="Folder, glob or file of checkpoints, or a hub repository.")],
    steps: Annotated[tuple[int, ...], tyro.conf.arg(help="These steps alone; a hub repository needs them.")] = (),
    revision: Annotated[str, tyro.conf.arg(help="The repository's revision of a step; step{step}, or with --file the main branch.")] = "",
    file: Annotated[str, tyro.conf.arg(help="The repository's file of a step, such as checkpoints/ckpt_{step:07d}.pth.")] = "",
    config: Annotated[Path | None, tyro.conf.arg(help="JSON file with what the checkpoints do not say of their model.")] = None,
    context: Annotated[int, tyro.conf.arg(help="Tokens of a context to sample on; otherwise all that the model takes.")] = 0,
) -> None:
    """Look at checkpoints of a model trained elsewhere; print the tables [imported] and [model] of an experiment on them.

    Example: rllc import EleutherAI/pythia-160m --steps 0 512 143000 --context 256
    """
    from rllc.checkpoints.reading import read_object
    from rllc.runs.importing import describe_import

    print_plain(describe_import(source, steps, revision, file, read_object(config) if config else None, context))

"""The stages of a run, and all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rllc.cli.arguments import EXPERIMENT_DECIDES, Device, ExperimentFile, Folder, OnEngine, Out, Quiet, Shard, Where, Workers, run_to


def demo(
    out: Annotated[Path, tyro.conf.arg(help="Folder of the run.")] = Path("runs/demo"),
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Toy size, a minute or two.")] = False,
    workers: Workers = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Train a small transformer on this machine's text, sample its heads, write the page.

    Example: rllc demo --out runs/demo
    """
    from rllc.runs.experiment import preset
    from rllc.runs.pipeline import run_experiment

    run_experiment(preset("quick" if quick else "demo"), out, "report", workers, device, quiet)


def run(
    experiment: ExperimentFile,
    out: Out,
    where: OnEngine = EXPERIMENT_DECIDES,
    shard: Shard = None,
    quiet: Quiet = False,
) -> None:
    """Do everything an experiment file says: corpus, train, sample, measure, analyse, report. Goes on where it was.

    Example: rllc run experiments/demo.toml --out runs/demo

    Example: rllc run experiments/demo.toml --out runs/demo --engine ray --workers 8 --gpus-per-worker 1

    Example: rllc run experiments/demo.toml --out runs/demo --shard 1/8
    """
    run_to("report", experiment, out, quiet, where, shard)


def corpus(experiment: ExperimentFile, out: Out, quiet: Quiet = False) -> None:
    """Collect the text, train the tokenizer, write the tokens.

    Example: rllc corpus experiments/demo.toml --out runs/demo
    """
    run_to("corpus", experiment, out, quiet)


def train(experiment: ExperimentFile, out: Out, device: Device = None, quiet: Quiet = False) -> None:
    """Train the model and keep its checkpoints (after the corpus, if that is missing).

    Example: rllc train experiments/demo.toml --out runs/demo
    """
    run_to("train", experiment, out, quiet, Where(device=device))


def sample(
    experiment: ExperimentFile,
    out: Out,
    where: OnEngine = EXPERIMENT_DECIDES,
    shard: Shard = None,
    quiet: Quiet = False,
) -> None:
    """Sample every cell that is not recorded yet.

    Example: rllc sample experiments/demo.toml --out runs/demo --workers 2
    """
    run_to("sample", experiment, out, quiet, where, shard)


def measure(experiment: ExperimentFile, out: Out, where: OnEngine = EXPERIMENT_DECIDES, quiet: Quiet = False) -> None:
    """Measure behaviour at every checkpoint: attention scores, losses, patterns.

    Example: rllc measure experiments/demo.toml --out runs/demo
    """
    run_to("measure", experiment, out, quiet, where)


def analyse(experiment: ExperimentFile, out: Out, quiet: Quiet = False) -> None:
    """Head types, clusters, stages and specialisation, from what is recorded.

    Example: rllc analyse experiments/demo.toml --out runs/demo
    """
    run_to("analyse", experiment, out, quiet)


def report(folder: Folder, quiet: Quiet = False) -> None:
    """Write the page and the figures again, from what the run folder holds.

    Example: rllc report runs/demo
    """
    from rllc.runs.pipeline import report_again

    report_again(folder, quiet)

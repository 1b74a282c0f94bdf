"""The command line: parse, call one function, print (ANCHORS, principle 16). Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rllc.core.errors import RllcError
from rllc.flags import Address, Device, Engine, ExperimentFile, Folder, GpusPerWorker, Out, Quiet, Shard, Workers
from rllc.posterior.settings import SamplerName
from rllc.printing import print_error, print_line, print_text

_EXAMPLES = """Examples:
  rllc demo                                            train a small transformer here and look at its heads
  rllc plan experiments/demo.toml                      what a run will compute, before it does
  rllc run experiments/demo.toml --out runs/demo       everything; the same command again goes on where it was
  rllc calibrate experiments/demo.toml --out runs/demo which step size, localization and nbeta to sample with
  rllc status runs/demo                                how far it is
  rllc table runs/demo --format csv > llc.csv          the numbers
  rllc compare runs/demo --across part --data code     which heads differ, with errors
  rllc validate --quick                                learning coefficients that are known exactly, estimated here
"""


def _stage(last: str, experiment: Path, out: Path, workers: int | None, device: str | None, quiet: bool, **machine: Any) -> None:
    from rllc.runs.pipeline import run_experiment

    text = experiment.read_text(encoding="utf-8") if experiment.is_file() else _missing(experiment)
    run_experiment(text, out, last, workers, device, quiet, machine)


def _missing(experiment: Path) -> str:
    raise RllcError(f"There is no experiment file {experiment}.", "Give the path of a TOML file, such as experiments/demo.toml.")


def demo(
    out: Annotated[Path, tyro.conf.arg(help="Folder of the run.")] = Path("runs/demo"),
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Toy size, under 90 seconds.")] = False,
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
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    shard: Shard = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Do everything an experiment file says: corpus, train, sample, measure, analyse, report. Goes on where it was.

    Example: rllc run experiments/demo.toml --out runs/demo

    Example: rllc run experiments/demo.toml --out runs/demo --engine ray --workers 8 --gpus-per-worker 1

    Example: rllc run experiments/demo.toml --out runs/demo --shard 1/8
    """
    _stage("report", experiment, out, workers, device, quiet, kind=engine, address=address, gpus_per_worker=gpus_per_worker, shard=shard)


def corpus(experiment: ExperimentFile, out: Out, quiet: Quiet = False) -> None:
    """Collect the text, train the tokenizer, write the tokens.

    Example: rllc corpus experiments/demo.toml --out runs/demo
    """
    _stage("corpus", experiment, out, None, None, quiet)


def train(experiment: ExperimentFile, out: Out, device: Device = None, quiet: Quiet = False) -> None:
    """Train the model and keep its checkpoints (after the corpus, if that is missing).

    Example: rllc train experiments/demo.toml --out runs/demo
    """
    _stage("train", experiment, out, None, device, quiet)


def plan(
    experiment: ExperimentFile,
    workers: Workers = None,
    rate: Annotated[float | None, tyro.conf.arg(help="GFLOP/s of a worker; a guess otherwise.")] = None,
) -> None:
    """Print what a run will compute: cells, steps, memory, hours, bytes. Computes nothing.

    Example: rllc plan experiments/demo.toml --workers 8 --rate 200
    """
    from rllc.runs.experiment import load
    from rllc.runs.overview import describe_plan

    print_line(describe_plan(load(experiment), workers, rate and 1e9 * rate))


def sample(
    experiment: ExperimentFile,
    out: Out,
    engine: Engine = None,
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    shard: Shard = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Sample every cell that is not recorded yet.

    Example: rllc sample experiments/demo.toml --out runs/demo --workers 2
    """
    _stage("sample", experiment, out, workers, device, quiet, kind=engine, address=address, gpus_per_worker=gpus_per_worker, shard=shard)


def measure(experiment: ExperimentFile, out: Out, device: Device = None, quiet: Quiet = False) -> None:
    """Measure behaviour at every checkpoint: attention scores, losses, patterns.

    Example: rllc measure experiments/demo.toml --out runs/demo
    """
    _stage("measure", experiment, out, None, device, quiet)


def analyse(experiment: ExperimentFile, out: Out, quiet: Quiet = False) -> None:
    """Head types, clusters, stages and specialisation, from what is recorded.

    Example: rllc analyse experiments/demo.toml --out runs/demo
    """
    _stage("analyse", experiment, out, None, None, quiet)


def report(folder: Folder, quiet: Quiet = False) -> None:
    """Write the page and the figures again, from what the run folder holds.

    Example: rllc report runs/demo
    """
    from rllc.runs.pipeline import report_again

    report_again(folder, quiet)


def status(folder: Folder) -> None:
    """How far a run is: stages, cells by outcome, what was refused and why.

    Example: rllc status runs/demo
    """
    from rllc.runs.overview import describe_status

    print_line(describe_status(folder))


def table(
    folder: Folder,
    format: Annotated[Literal["csv", "json", "parquet"], tyro.conf.arg(help="Format of the table.")] = "csv",  # noqa: A002
) -> None:
    """Print the tidy table of every recorded cell.

    Example: rllc table runs/demo --format csv > llc.csv
    """
    from rllc.runs.overview import export_table

    sys.stdout.buffer.write(export_table(folder, format))
    sys.stdout.buffer.flush()


def compare(
    folder: Folder,
    across: Annotated[Literal["part", "data", "step"], tyro.conf.arg(help="Axis to compare along, within every combination of the other two.")],
    part: Annotated[tuple[str, ...], tyro.conf.arg(help="These parts alone; `heads` for all heads, which is also what --across part takes.")] = (),
    data: Annotated[tuple[str, ...], tyro.conf.arg(help="These kinds of data alone.")] = (),
    step: Annotated[tuple[int, ...], tyro.conf.arg(help="These checkpoints alone.")] = (),
    against: Annotated[
        str, tyro.conf.arg(metavar="NAME", help="Subtract this one from all others; otherwise all pairs, of steps each and the one before it.")
    ] = "",
    confidence: Annotated[float, tyro.conf.arg(help="Of the intervals; what it lacks to 1 is the level of the correction.")] = 0.9,
    format: Annotated[Literal["table", "csv", "json"], tyro.conf.arg(help="Format of the answer.")] = "table",  # noqa: A002
) -> None:
    """Do heads, kinds of data or checkpoints differ? Differences of LLCs with errors of their own.

    Example: rllc compare runs/demo --across part --data code --step 3000

    Example: rllc compare runs/demo --across data --against mixture --part 1:0 1:1

    Example: rllc compare runs/demo --across step --part heads --data mixture
    """
    from rllc.runs.comparing import compare_run
    from rllc.runs.comparison_text import render

    found = compare_run(folder, across, parts=part, data=data, steps=step, against=against, confidence=confidence)
    text, notes = render(found, format)
    print_text(text)
    if notes:
        sys.stderr.write(f"{notes}\n")


def explain(
    folder: Folder,
    part: Annotated[tuple[str, ...], tyro.conf.arg(help="These parts alone.")] = (),
    data: Annotated[tuple[str, ...], tyro.conf.arg(help="These kinds of data alone.")] = (),
    step: Annotated[tuple[int, ...], tyro.conf.arg(help="These checkpoints alone.")] = (),
) -> None:
    """Why a cell is believed, marked or refused: every diagnostic with its verdict and remedy; without names, of all cells that are not ok.

    Example: rllc explain runs/demo --part 1:6 --data code --step 3000
    """
    from rich.console import Console

    from rllc.runs.explaining import explain_cells

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for heading, found, remedy in explain_cells(folder, part, data, step):
        console.print(heading, style="bold", soft_wrap=True, markup=False)
        console.print(found)
        console.print(f"{remedy}\n", soft_wrap=True, markup=False)


def validate(
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="A case of every kind and every sampler, in a minute.")] = False,
    samplers: Annotated[tuple[SamplerName, ...], tyro.conf.arg(help="These samplers alone; otherwise all.")] = (),
    format: Annotated[Literal["table", "json"], tyro.conf.arg(help="Format of the answer.")] = "table",  # noqa: A002
    workers: Annotated[int | None, tyro.conf.arg(help="Sampling processes; otherwise one a core.")] = None,
    quiet: Quiet = False,
) -> int:
    """Estimate learning coefficients that are known exactly, and compare. Exit code 1 where one is beyond its tolerance.

    Example: rllc validate --quick

    Example: rllc validate --samplers sgld leimkuhler-matthews --format json > validation.json
    """
    from rllc.runs.validating import validate as compared
    from rllc.runs.validation_text import render

    found = compared(quick=quick, samplers=samplers, workers=workers, quiet=quiet)
    print_text(render(found, format))
    return 0 if found.passed else 1


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

    text = experiment.read_text(encoding="utf-8") if experiment.is_file() else _missing(experiment)
    deliver(found(text, out, Ask(data, checkpoints, parts, sampler, quick, workers, device), quiet), out / "calibration", print_line)


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

    print_line(describe_import(source, steps, revision, file, read_object(config) if config else None, context))


VERBS = {
    "demo": demo,
    "run": run,
    "corpus": corpus,
    "train": train,
    "import": import_,
    "plan": plan,
    "sample": sample,
    "measure": measure,
    "analyse": analyse,
    "report": report,
    "status": status,
    "table": table,
    "compare": compare,
    "explain": explain,
    "validate": validate,
    "calibrate": calibrate,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 for a validation that failed, 2 for a user's mistake, 130 interrupted."""
    try:
        code = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="rllc",
            description=f"Refined local learning coefficients: how the parts of a network develop over training.\n\n{_EXAMPLES}",
            args=arguments,
        )
    except RllcError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("Interrupted. The same command goes on where it was.")
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; leave no complaint at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0


if __name__ == "__main__":
    sys.exit(main())

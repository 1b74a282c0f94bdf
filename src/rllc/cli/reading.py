"""What a run folder holds: how far it is, its numbers, how they differ and why they are believed."""

from __future__ import annotations

import sys
from json import dumps
from typing import Annotated, Literal

import tyro

from rllc.cli.arguments import Folder
from rllc.cli.output import print_bytes, print_plain, print_text, write_error
from rllc.core.errors import RllcError
from rllc.figures.text import on_terminal


def status(
    folder: Folder,
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Everything as JSON, for a program.")] = False,
    watch: Annotated[float | None, tyro.conf.arg(metavar="SECONDS", help="Show it again and again, until nothing is at work.")] = None,
) -> None:
    """How far a run is, also while it is at work: stage, rate, time left; cells by outcome, what failed and why, what it takes on the disk.

    Example: rllc status runs/demo

    Example: rllc status runs/demo --watch 2

    Example: rllc status runs/demo --json
    """
    from rllc.runs.overview import describe_status
    from rllc.runs.status import status_of

    if watch is not None:
        if json:
            raise RllcError("--watch is for people and --json for programs.", "Leave one of them out, and call --json again and again.")
        from rllc.cli.watching import watch_run

        watch_run(folder, watch)
    elif json:
        print_plain(dumps(status_of(folder), indent=1))
    else:
        print_plain(describe_status(folder))


def table(
    folder: Folder,
    format: Annotated[Literal["csv", "json", "parquet"], tyro.conf.arg(help="Format of the table.")] = "csv",  # noqa: A002
) -> None:
    """Print the tidy table of every recorded cell.

    Example: rllc table runs/demo --format csv > llc.csv
    """
    from rllc.runs.overview import export_table

    print_bytes(export_table(folder, format))


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
        write_error(f"{notes}\n")


def explain(
    folder: Folder,
    part: Annotated[tuple[str, ...], tyro.conf.arg(help="These parts alone.")] = (),
    data: Annotated[tuple[str, ...], tyro.conf.arg(help="These kinds of data alone.")] = (),
    step: Annotated[tuple[int, ...], tyro.conf.arg(help="These checkpoints alone.")] = (),
) -> None:
    """Why a cell is believed, marked or refused: every diagnostic with its verdict and remedy; without names, of all cells that are not ok.

    Example: rllc explain runs/demo --part 1:6 --data code --step 3000
    """
    from rllc.cli.console import OutputConsole
    from rllc.runs.explaining import explain_cells

    console = OutputConsole(highlight=False, width=None if sys.stdout.isatty() else 160)
    for heading, found, remedy in explain_cells(folder, part, data, step):
        console.print(on_terminal(heading), style="bold", soft_wrap=True, markup=False)
        console.print(found)
        console.print(f"{on_terminal(remedy)}\n", soft_wrap=True, markup=False)

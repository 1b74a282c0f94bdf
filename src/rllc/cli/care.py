"""The verbs that look after a run, `doctor` and `verify`: thin, and nothing heavy is imported before one is called."""

from __future__ import annotations

from typing import Annotated

import tyro

from rllc.cli.arguments import Device, Folder, Quiet, Workers
from rllc.cli.output import print_plain
from rllc.core.exit_codes import ExitCode


def doctor(
    folder: Folder,
    repair: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Mend what can be mended.")] = False,
) -> int:
    """Look a run folder over: what is wrong in it, in sentences. Exit code 0 where nothing is, or all is mended; 1 otherwise; 2 for no run.

    With --repair damaged things are moved to DIR/damaged, so that the next run makes them anew, and leftovers of interrupted writes are removed.
    Nothing else is deleted, and nothing of yours is touched.

    Example: rllc doctor runs/demo --repair
    """
    from rllc.runs.doctor import describe, examine

    found = examine(folder, repair)
    print_plain(describe(found))
    return ExitCode.DONE if found.sound else ExitCode.FOUND


def verify(
    folder: Folder,
    cells: Annotated[int, tyro.conf.arg(help="How many recorded cells to compute again.")] = 4,
    seed: Annotated[int, tyro.conf.arg(help="Chooses them; another seed, other cells.")] = 0,
    workers: Workers = None,
    device: Device = None,
    quiet: Quiet = False,
) -> int:
    """Compute a random sample of recorded cells again and hold them against their records. Exit code 1 where one differs.

    Threads, chunk and number type are the record's: on the same device with the same torch every bit has to agree, elsewhere losses to 1e-6 nats
    (1e-10 in float64). A record that was changed is found, whether its digest was made right or not.

    Example: rllc verify runs/demo --cells 8 --seed 1
    """
    from rllc.runs.verification_text import render
    from rllc.runs.verifying import verify_run

    found = verify_run(folder, cells, seed, workers, device, quiet)
    print_plain(render(found))
    return ExitCode.DONE if found.passed else ExitCode.FOUND

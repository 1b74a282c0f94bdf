"""`rllc status --watch`: the status again and again while something is at work."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.live import Live
from rich.text import Text

from rllc.cli.console import OutputConsole
from rllc.cli.output import print_plain
from rllc.core.errors import RllcError
from rllc.figures.text import on_terminal
from rllc.runs.live import Pulse
from rllc.runs.status import running_of, status_of
from rllc.runs.status_text import render, running_lines

_WHOLE = 30.0  # seconds between looks at records and disk; who is at work is looked at every time


def watch_run(root: Path, seconds: float) -> None:
    """Show the status every so many seconds until nothing is at work in the folder; without a terminal only who is at work, again and again.

    Raises RllcError where the folder holds no run.
    """
    if not seconds >= 0.5:
        raise RllcError(f"The status is to be shown every {seconds:g} seconds.", "Give --watch half a second or more.")
    found, looked = status_of(root), time.monotonic()
    try:
        if sys.stdout.isatty():
            with Live(console=OutputConsole(highlight=False), auto_refresh=False, transient=True) as shown:
                while _at_work(found["running"]):
                    shown.update(Text(on_terminal(render(found)), overflow="fold"), refresh=True)
                    time.sleep(seconds)
                    if time.monotonic() - looked > _WHOLE:
                        found, looked = status_of(root), time.monotonic()
                    else:
                        found["running"] = running_of(root)
        else:
            while _at_work(found["running"]):
                print_plain("\n".join(running_lines(found["running"])))
                sys.stdout.flush()
                time.sleep(seconds)
                found["running"] = running_of(root)
    except KeyboardInterrupt:
        pass  # whoever watched has seen enough
    print_plain(render(status_of(root)))


def _at_work(running: list[dict[str, object]]) -> bool:
    return any(one["state"] == Pulse.AT_WORK for one in running)

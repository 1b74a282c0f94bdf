"""One session of work on a run folder: its log and its live file from begin to end, however it ends."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rllc
from rllc.core.exit_codes import ExitCode
from rllc.core.files import refusal
from rllc.runs.layout import RunFolder
from rllc.runs.live import LiveFile
from rllc.runs.log import warnings_heard
from rllc.runs.progress import Reporter
from rllc.runs.shards import Shard

_OUTCOMES = {ExitCode.MISTAKE: "stopped", ExitCode.FAULT: "failed", ExitCode.INTERRUPTED: "interrupted", ExitCode.TERMINATED: "terminated"}


@contextmanager
def session(folder: RunFolder, command: str, quiet: bool, shard: Shard | None = None, **facts: Any) -> Iterator[Reporter]:
    """The reporter of a command at work on a folder that it has locked. Whatever ends it is logged, with its exit code, and goes on its way.

    Args:
        command: the verb.
        shard: where it does a share alone.
        facts: what else the log should say of it.
    """
    reporter = Reporter(quiet, folder.log_of(shard))
    begun = time.monotonic()
    known = {"command": command, "version": rllc.__version__} | facts | {"shard": str(shard) if shard else ""}
    reporter.event("run_begun", **known)

    def complain(problem: str) -> None:
        reporter.event("live_not_written", f"{problem} The run goes on without.", "warning")

    def hear(text: str, **where: str) -> None:
        reporter.event("python_warning", text, "warning", **where)

    try:
        with warnings_heard(hear), LiveFile(folder.live_of(shard), {**known, "log": folder.log_of(shard).name}, reporter.state, complain):
            yield reporter
    except BaseException as error:
        code = ExitCode.of(error)
        signalled = code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
        told: dict[str, Any] = {"reason": code.text if signalled else str(refusal(error) or error) or type(error).__name__}
        if code == ExitCode.FAULT:
            told |= {"exception": type(error).__name__, "traceback": "".join(traceback.format_exception(error))}
        _ended(reporter, _OUTCOMES[code], code, begun, told)
        raise
    else:
        _ended(reporter, "done", ExitCode.DONE, begun, {})
    finally:
        reporter.close()


def _ended(reporter: Reporter, outcome: str, code: ExitCode, begun: float, told: dict[str, Any]) -> None:
    level = "info" if code == ExitCode.DONE else "error"
    reporter.event("run_ended", "", level, outcome=outcome, exit_code=int(code), seconds=round(time.monotonic() - begun, 2), **told)

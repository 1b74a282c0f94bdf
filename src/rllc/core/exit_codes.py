"""What the exit code of a command says. This is the one list: the command line, `rllc --help` and the log of a run take it from here."""

from __future__ import annotations

from enum import IntEnum

from rllc.core.errors import RllcError
from rllc.core.files import refusal


class ExitCode(IntEnum):
    """The exit codes of `rllc`. The text of each member says what it means.

    >>> ExitCode.MISTAKE, ExitCode.of(RllcError("There is no such file.", "Name another."))
    (<ExitCode.MISTAKE: 2>, <ExitCode.MISTAKE: 2>)
    """

    DONE = 0
    FOUND = 1
    MISTAKE = 2
    FAULT = 70
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def text(self) -> str:
        """What it means, in a line."""
        return _TEXT[self]

    @classmethod
    def of(cls, error: BaseException) -> ExitCode:
        """The exit code of a command that this exception ends."""
        if isinstance(error, RllcError | MemoryError) or refusal(error):
            return cls.MISTAKE
        if isinstance(error, KeyboardInterrupt):
            return cls.INTERRUPTED
        if isinstance(error, SystemExit) and error.code == cls.TERMINATED:  # a signal; nothing else in here ends a run like that
            return cls.TERMINATED
        return cls.FAULT


_TEXT = {
    ExitCode.DONE: "done",
    ExitCode.FOUND: "done, and something was found: validate beyond a tolerance, verify a difference, doctor something wrong",
    ExitCode.MISTAKE: "a mistake of the user or a limit of the machine, told in a sentence with what to do; also wrong arguments",
    ExitCode.FAULT: "a fault of rllc itself, with its traceback, which the log of the run has too",
    ExitCode.INTERRUPTED: "interrupted from the keyboard; the same command goes on where it was",
    ExitCode.TERMINATED: "ended by a SIGTERM, as schedulers send it; the same command goes on where it was",
}


def listed() -> str:
    """All of them, a line each."""
    return "\n".join(f"  {code:<4d}{code.text}" for code in ExitCode)

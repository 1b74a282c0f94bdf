"""Units that go wrong, in a module that a worker process imports in no time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def moody(work: tuple[str, Path, int]) -> str:
    """A unit that goes wrong the first time, or always."""
    name, folder, size = work
    if name == "hopeless":
        raise MemoryError("there is none")
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return f"{name} again, {size}"
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hung":
        time.sleep(600)
    if name == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if name == "busy":  # longer than others may be silent
        until = time.monotonic() + 8
        while time.monotonic() < until:
            pass
    if name == "short":
        raise MemoryError
    return f"{name}, {size}"


def smaller(work: tuple[str, Path, int]) -> tuple[str, Path, int]:
    """Half of it."""
    return (work[0], work[1], work[2] // 2)


def burn(seconds: float) -> int:
    """The process that computed for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return os.getpid()

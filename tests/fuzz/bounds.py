"""What every hostile input is held to: an end in time, within memory, in a right result or an RllcError."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings

from rllc.core.errors import RllcError

T = TypeVar("T")
FACTOR = float(os.environ.get("RLLC_FUZZ", "1"))  # `make soak` draws many times more


def examples(number: int) -> settings:
    """So many examples in `make test`, `RLLC_FUZZ` times as many in the long suite, which draws anew each time."""
    return settings(max_examples=max(1, round(number * FACTOR)), deadline=None, derandomize=FACTOR == 1, database=None, print_blob=True)


@contextmanager
def bounded(seconds: int = 10, megabytes: int = 400) -> Iterator[None]:
    """A piece of work that may take so long and so much more memory than the process has now; beyond, it fails with an error that is none of ours."""

    def ring(*_: object) -> None:
        raise AssertionError(f"it was not done within {seconds} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    old = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    if pages is not None:  # where the system does not tell how large the process is, time alone is bounded
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, old[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, old)


def outcome(work: Callable[[], T], seconds: int = 10, megabytes: int = 400) -> T | RllcError:
    """What the work gives, or the RllcError that it ends in, which tells what to do; every other end is the caller's failure."""
    with bounded(seconds, megabytes):
        try:
            return work()
        except RllcError as error:
            told = error
    assert told.problem
    assert told.remedy
    assert len(str(told)) < 5000
    return told


def refused(work: Callable[[], Any], seconds: int = 10, megabytes: int = 400) -> RllcError:
    """The RllcError that the work ends in; it must end in one."""
    found = outcome(work, seconds, megabytes)
    assert isinstance(found, RllcError), found
    return found


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A run of `rllc` in a process of its own."""
    return subprocess.run([sys.executable, "-m", "rllc.main", *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=cwd, check=False)

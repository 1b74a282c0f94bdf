"""Standard output and error whose reader has left."""

from __future__ import annotations

import os
import select
from typing import IO, Any


def has_left(stream: IO[Any] | None) -> bool:
    """Whether whoever read a stream has left: the other end of its pipe is closed."""
    try:
        number = -1 if stream is None else stream.fileno()
    except (OSError, ValueError):
        return False  # no stream of the system's
    if number < 0:
        return False
    asked = select.poll()
    asked.register(number, 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in asked.poll(0))


def goes_nowhere(stream: IO[Any]) -> None:
    """Let all that is written to a stream go nowhere, what waits in it too: nobody reads it, and the end of this process is no time to complain."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)

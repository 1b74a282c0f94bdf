"""Standard output and error whose reader has left, that take nothing more, or that were closed before this process began."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

from rllc.core.errors import RllcError


class Forgiving:
    """A stream whose writes never fail: what cannot be written goes nowhere from then on, as of a reader that left or a disk that is full."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, content: Any) -> int:
        """Write a text, as far as somebody takes it."""
        return self._done(lambda: self._stream.write(content), len(content))

    def flush(self) -> None:
        """Write what waits, as far as somebody takes it."""
        self._done(self._stream.flush, None)

    def _done(self, do: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return do()
        except OSError as error:
            self._failed(error)
            return otherwise

    def _failed(self, error: OSError) -> None:  # noqa: ARG002
        goes_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Telling(Forgiving):
    """A stream whose writes fail with a sentence: RllcError where the disk is full, for example, and BrokenPipeError where its reader left."""

    @property
    def buffer(self) -> Telling:
        """The stream of bytes below it, as itself."""
        return Telling(cast("TextIO", self._stream).buffer)

    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        goes_nowhere(self._stream)  # what waits would be tried again when this process ends
        raise RllcError(
            f"The output could not be written: {error.strerror or error}.", "Free some space, or send it elsewhere, and give the same command again."
        ) from error


@contextmanager
def standing() -> Generator[None]:
    """Both streams are there for a while: one that was closed leads nowhere. Output that fails is told, and nothing hangs on standard error."""
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        output, errors = Telling(before[0] or nowhere), Forgiving(before[1] or nowhere)
        sys.stdout, sys.stderr = output, errors
        try:
            yield
        finally:
            errors.flush()
            sys.stdout, sys.stderr = before


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

"""The log of a run: a JSON object a line, appended in one write each, so that several processes may write and a machine can read.

Every line has `time` (ISO 8601, UTC), `level` and `event`; `text` is the sentence for a reader where there is one, and the rest are the named facts
of the event. Characters that could steer a terminal, or hide in it, are escaped as JSON allows, so that nothing is lost.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rllc.core.files import open_own, open_regular, parse_json
from rllc.figures.text import hidden

MESSAGE = "message"  # the event of what is told in words alone


def iso(seconds: float) -> str:
    """A time since the epoch as ISO 8601 in UTC.

    >>> iso(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; what the record carries as `event` and `facts` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        head = {"time": iso(record.created), "level": record.levelname.lower(), "event": getattr(record, "event", MESSAGE), "pid": record.process}
        text = record.getMessage()
        content = head | ({"text": text} if text else {}) | {k: v for k, v in getattr(record, "facts", {}).items() if k not in head}
        line = json.dumps(content, ensure_ascii=False, default=str)
        return line if line.isascii() and line.isprintable() else "".join(map(_shown, line))


def _shown(character: str) -> str:
    return json.dumps(character)[1:-1] if hidden(character) else character


class LogFile(logging.Handler):
    """Appends to the log, a write a line. A disk that refuses loses lines and nothing else; their number is told when it takes lines again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._path, self._handle, self._lost = path, -1, 0
        self._torn = _is_torn(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line down, or count it as lost."""
        line = self.format(record)
        if self._lost:
            told = {"time": iso(record.created), "level": "warning", "event": "lines_lost", "pid": record.process, "count": self._lost}
            line = f"{json.dumps(told)}\n{line}"
        content = (b"\n" if self._torn else b"") + f"{line}\n".encode()
        try:
            if self._handle < 0:
                self._handle = open_own(self._path, os.O_WRONLY | os.O_APPEND)
            written = os.write(self._handle, content)
        except OSError:
            self._lost += 1
            return
        self._torn = written < len(content)
        self._lost = 1 if self._torn else 0

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        super().close()


def _is_torn(path: Path) -> bool:
    """Whether the last line was not finished, as after a loss of power."""
    try:
        with open_regular(path) as stream:
            return stream.seek(0, os.SEEK_END) > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
    except OSError:
        return False


@contextmanager
def warnings_heard(hear: Callable[..., None]) -> Iterator[None]:
    """Tell `hear` of every Python warning of this process, as a text with its category and place, beside showing it as before."""
    shown = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None) -> None:
        hear(str(message), category=category.__name__, place=f"{Path(filename).name}:{lineno}")
        shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def read_log(path: Path, most: int = 4 * 2**20) -> list[dict[str, Any]]:
    """The events of the last `most` bytes of a log, in their order; lines that are torn or none of ours are passed over."""
    try:
        with open_regular(path) as stream:
            start = max(stream.seek(0, os.SEEK_END) - most, 0)
            stream.seek(start)
            lines = stream.read().split(b"\n")[bool(start) :]
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict) and all(isinstance(event.get(name), str) for name in ("time", "level", "event")):
            found.append(event)
    return found

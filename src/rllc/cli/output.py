"""Writing to the terminal: rich where it is one, plain elsewhere. Titles and names are others' text, and none of them steers a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rllc.figures.text import on_terminal

if TYPE_CHECKING:
    from rich.text import Text


def print_text(text: Text) -> None:
    """A text with its styles on a terminal, without them elsewhere."""
    if not sys.stdout.isatty():
        print_plain(text.plain)
        return
    from rllc.cli.console import OutputConsole

    text = text.copy()
    text.plain = on_terminal(text.plain)  # of the same length, so that styles stay in their places
    OutputConsole(highlight=False).print(text, soft_wrap=True, end="")


def print_plain(text: str) -> None:
    """A text as it is, its last line ended."""
    text = on_terminal(text)
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_bytes(content: bytes) -> None:
    """A file's content to the standard output, byte by byte; on a terminal as text."""
    if sys.stdout.isatty():
        print_plain(content.decode("utf-8", "replace"))
        return
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_error(text: str) -> None:
    """A line of our own to standard error."""
    write_error(f"rllc: {text}\n")


def write_error(text: str) -> None:
    """A text to standard error, as far as somebody reads it."""
    sys.stderr.write(on_terminal(text))
    sys.stderr.flush()

"""What the command line writes: answers on the standard output, errors beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def print_text(text: Text) -> None:
    """With its styles on a terminal, plainly elsewhere."""
    if not sys.stdout.isatty():
        print_line(text.plain)
        return
    from rich.console import Console

    Console(highlight=False).print(text, soft_wrap=True, end="")


def print_line(text: str) -> None:
    """A text, with an end of line."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_error(text: str) -> None:
    """What went wrong."""
    sys.stderr.write(f"rllc: {text}\n")

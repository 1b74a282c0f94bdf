"""Writing to the terminal: rich where it is one, plain elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def print_text(text: Text) -> None:
    """A text with its styles on a terminal, without them elsewhere."""
    if not sys.stdout.isatty():
        print_plain(text.plain)
        return
    from rich.console import Console

    Console(highlight=False).print(text, soft_wrap=True, end="")


def print_plain(text: str) -> None:
    """A text as it is, its last line ended."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def print_error(text: str) -> None:
    """A line of our own to standard error."""
    sys.stderr.write(f"rllc: {text}\n")

"""Standard output through rich, which is not imported before something is shown so."""

from __future__ import annotations

import errno

from rich.console import Console


class OutputConsole(Console):
    """Where the reader has left, the BrokenPipeError goes to whoever called; rich alone would end the process."""

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError."""
        raise BrokenPipeError(errno.EPIPE, "whoever read the output has left")

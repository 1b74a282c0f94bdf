"""Units that an engine gives up: the others go on, and the stage ends with a sentence that names them. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rllc.core.errors import RllcError
from rllc.runs.progress import Reporter

_MOST = 3  # units that may be given up before any is finished, and that the sentence names


class LeftOut:
    """What is told of each work that is given up (`Job.failed`).

    Args:
        what: what the works are called, in the plural.
        facts: which work it is, for the log.
    """

    def __init__(self, reporter: Reporter, what: str, facts: Callable[[Any], dict[str, Any]]) -> None:
        self._reporter, self._what, self._facts = reporter, what, facts
        self._told: list[str] = []
        self.finished = 0

    def __call__(self, work: Any, error: RllcError) -> None:
        """Tell of it. Raises the error where nothing was finished by now: what fails from the first unit on is no matter of one unit."""
        if len(self._told) + 1 >= _MOST and not self.finished:
            raise error
        self._told.append(f"{work}: {error.problem}")
        self._reporter.line(f"  not computed: {self._told[-1]}", "unit_failed", "warning", **self._facts(work), why=error.problem)

    def check(self, of: int) -> None:
        """Raises RllcError where any of so many works was left out."""
        if self._told:
            raise RllcError(
                f"{len(self._told)} of {of} {self._what} could not be computed, and the others are recorded. {' '.join(self._told[:_MOST])}",
                "Run the same command again, it takes them up; with a smaller engine.memory or sampling.batch_size if it happens again.",
            )

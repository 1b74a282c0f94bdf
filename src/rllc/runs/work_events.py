"""What the log of a run says of the works of any job: who has finished which, and what went wrong with one. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from rllc.runs.progress import Reporter


class WorkEvents:
    """The events of the works of one job.

    Args:
        name: what tells a work from the others, also where a smaller one is tried in its place.
        facts: which work it is, for the log.
    """

    def __init__(self, reporter: Reporter, name: Callable[[Any], Hashable], facts: Callable[[Any], dict[str, Any]]) -> None:
        self._reporter, self._name, self._facts = reporter, name, facts
        self._workers: dict[Hashable, str] = {}

    def heard(self, event: str, work: Any = None, **facts: Any) -> None:
        """What an engine tells (`Job.hear`): the worker that has finished a work, and everything that went wrong with one."""
        if event == "work_finished" and work is not None:
            self._workers[self._name(work)] = str(facts["worker"])
            return
        level = "info" if event == "worker_begun" else "warning"
        self._reporter.event(event, "", level, **(self._facts(work) if work is not None else {}), **facts)

    def worker(self, work: Any) -> str:
        """Who has finished a work, asked once; "" where nobody said so."""
        return self._workers.pop(self._name(work), "")

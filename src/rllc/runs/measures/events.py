"""What the log of a run says of its measurements, and how long they took by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rllc.runs.measures.unit import MeasureWork, Taken
from rllc.runs.progress import Reporter


class MeasureEvents:
    """The events of the measurements of one job.

    Attributes:
        seconds: that each kind has taken, of all workers together.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._workers: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def heard(self, event: str, work: MeasureWork | None = None, **facts: Any) -> None:
        """What an engine tells: the worker that has finished a work, and everything that went wrong with one."""
        if event == "work_finished" and work is not None:
            self._workers[str(work)] = str(facts["worker"])
            return
        level = "info" if event == "worker_begun" else "warning"
        self._reporter.event(event, "", level, **(facts_of(work) if work is not None else {}), **facts)

    def finished(self, work: MeasureWork, taken: Sequence[Taken]) -> float:
        """These are recorded; the seconds that they took their worker."""
        for one in taken:
            self.seconds[one.kind] = self.seconds.get(one.kind, 0.0) + one.meta["seconds"]
        seconds = sum(one.meta["seconds"] for one in taken)
        worker = self._workers.pop(str(work), "")
        self._reporter.event("measured", f"recorded {work}", **facts_of(work), seconds=round(seconds, 3), worker=worker)
        return seconds


def facts_of(work: MeasureWork) -> dict[str, Any]:
    """Which measurements they are, as named facts."""
    return {"step": work.step, "measures": list(work.names)}

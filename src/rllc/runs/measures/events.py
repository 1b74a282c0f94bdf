"""What the log of a run says of its measurements, and how long they took by kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rllc.runs.measures.unit import MeasureWork, Taken
from rllc.runs.progress import Reporter
from rllc.runs.work_events import WorkEvents


class MeasureEvents(WorkEvents):
    """The events of the measurements of one job.

    Attributes:
        seconds: that each kind has taken, of all workers together.
    """

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter, str, facts_of)
        self.seconds: dict[str, float] = {}

    def finished(self, work: MeasureWork, taken: Sequence[Taken]) -> float:
        """These are recorded; the seconds that they took their worker."""
        for one in taken:
            self.seconds[one.kind] = self.seconds.get(one.kind, 0.0) + one.meta["seconds"]
        seconds = sum(one.meta["seconds"] for one in taken)
        self._reporter.event("measured", f"recorded {work}", **facts_of(work), seconds=round(seconds, 3), worker=self.worker(work))
        return seconds


def facts_of(work: MeasureWork) -> dict[str, Any]:
    """Which measurements they are, as named facts."""
    return {"step": work.step, "measures": list(work.names)}

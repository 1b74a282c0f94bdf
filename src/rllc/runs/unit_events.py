"""What the log of a run says of its units: who computed them in which time, what became of their cells, and which were tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rllc.core.outcome import Outcome
from rllc.model.slices import first_layer
from rllc.runs.progress import Bar, Reporter
from rllc.runs.sampling import Sample, Work
from rllc.runs.work_events import WorkEvents


class UnitEvents(WorkEvents):
    """The events of the units of one job, and the counts that its bar shows.

    Args:
        cells: how many the job has.
    """

    def __init__(self, reporter: Reporter, cells: int) -> None:
        super().__init__(reporter, _name, facts_of)
        self._cells = cells
        self.outcomes: Counter[str] = Counter()
        self.chain_steps = 0

    def halved(self, work: Work, chunk: int) -> None:
        """A unit that was lost, or found too little memory, goes on with fewer variants at a time."""
        text = f"  perhaps for want of memory: {work.unit} goes on with {chunk} variants at a time."
        self._reporter.line(text, "unit_halved", "warning", **facts_of(work), chunk=chunk)

    def finished(self, work: Work, samples: Sequence[Sample], bar: Bar, workers: int) -> None:
        """A unit is recorded, with these samples."""
        first = samples[0].meta
        if (used := first["chunk"]) < work.unit.chunk:
            text = f"  memory ran short: {work.unit} was computed {used} variants at a time, not {work.unit.chunk}."
            self._reporter.line(text, "memory_short", "warning", **facts_of(work), chunk=used, planned_chunk=work.unit.chunk)
        outcomes = Counter(str(sample.meta["outcome"]) for sample in samples)
        self.outcomes += outcomes
        self.chain_steps += sum(sample.arrays["losses"].size for sample in samples if not sample.cell.data.elsewhere)
        for sample in samples:
            if Outcome(sample.meta["outcome"]).refused:
                cell, outcome, reason = sample.cell, str(sample.meta["outcome"]), sample.meta["reason"]
                facts = {"step": cell.step, "data": str(cell.data), "part": str(cell.part), "outcome": outcome, "reason": reason}
                self._reporter.line(f"  refused: {cell}: {reason}", "cell_refused", "warning", **facts)
        self._reporter.event(
            "unit_finished",
            f"recorded {work.unit}",
            **facts_of(work),
            seconds=round(first["seconds"] * len(work.unit.parts), 3),
            worker=self.worker(work),
            outcomes=dict(outcomes),
            segment=work.segment,
        )
        refused = sum(count for name, count in self.outcomes.items() if Outcome(name).refused)
        rate = self.chain_steps / max(bar.seconds, 1e-9)
        bar.count(cells=self.outcomes.total(), cells_total=self._cells, refused=refused, chain_steps_per_second=round(rate, 1), workers=workers)


def _name(work: Work) -> Any:
    return work.unit.step, str(work.unit.data), work.unit.parts


def facts_of(work: Work) -> dict[str, Any]:
    """Which unit it is, as named facts; its layer is the first that a part of it changes."""
    unit = work.unit
    layer = first_layer(work.experiment.model, unit.parts[0])
    return {"step": unit.step, "data": str(unit.data), "layer": layer, "parts": [str(part) for part in unit.parts], "cells": len(unit.cells)}

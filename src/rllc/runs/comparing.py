"""Comparing the recorded cells of a run with each other, along one axis of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from rllc.analysis.curves import is_head
from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.posterior.difference import Difference, difference, holm, joint_confidence
from rllc.records.store import Record
from rllc.runs.experiment import load
from rllc.runs.layout import existing
from rllc.runs.recorded import planned_samples
from rllc.runs.recording import traces_of
from rllc.runs.selecting import AXES, ORDER, PLURAL, Axis, canonical, chosen, is_refused, record_name, record_names, recorded, title

HEADS = "heads"


@dataclass(frozen=True)
class Comparison:
    """One difference of a run, a minus b, and what it is worth among all that were asked for with it."""

    what: str  # the two names that a and b have in common
    a: str
    b: str
    found: Difference
    p_holm: float  # over all comparisons of the call
    joint_low: float  # of intervals that hold all at once
    joint_high: float
    marks: str  # of tilted and drifting cells, and of draws that were left out


@dataclass(frozen=True)
class Comparisons:
    """The answer to one question about a run; `refused` names the cells that have no number, with the reason."""

    across: Axis
    confidence: float
    rows: tuple[Comparison, ...]
    refused: tuple[str, ...]

    def differs(self, row: Comparison) -> bool:
        """Whether a difference is one after Holm's correction, at the level 1 - confidence."""
        return row.p_holm <= 1 - self.confidence


def compare_run(
    root: Path,
    across: Axis,
    *,
    parts: Sequence[str] = (),
    data: Sequence[str] = (),
    steps: Sequence[int] = (),
    against: str = "",
    confidence: float = 0.90,
) -> Comparisons:
    """Differences of λ̂ along one axis, within every combination of the other two.

    Parts and kinds of data are compared each with each; checkpoints each with the one before it. With `against` the cells of that name are
    subtracted from all others, and nothing else is compared. Where no part is named, `across="part"` takes the whole heads, if the run has any:
    that a model's λ̂ is larger than its heads' is no question.

    Args:
        root: folder of the run.
        across: along which axis.
        parts: names of parts, "heads" for all heads; empty for all, as of the other two.
        data: names of data.
        steps: checkpoints.
        against: a name on the axis `across`.
        confidence: of the intervals; 1 - confidence is the level of the correction.

    Raises RllcError for a folder without a run, a name that nothing recorded has, and where there are no two cells to compare.
    """
    if not 0 < confidence < 1:
        raise RllcError(f"The confidence is {confidence:g}, but must lie between 0 and 1.", "Use 0.9, for example.")
    folder = existing(root)
    records = planned_samples(load(folder.experiment), folder, folder.store())
    if not records:
        raise RllcError(f"{root} holds no sampled cell yet.", "Run `rllc sample` first; `rllc status` tells how far the run is.")
    reference = canonical(across, against) if against else ""
    named: dict[Axis, list[str]] = {
        "part": [canonical("part", name) for name in parts if name != HEADS],
        "data": [canonical("data", name) for name in data],
        "step": [canonical("step", str(step)) for step in steps],
    }
    wanted: dict[Axis, set[str]] = {axis: set(names) for axis, names in named.items()}
    heads = {name for name in record_names(records, "part") if is_head(name)}
    if HEADS in parts or (across == "part" and not parts):
        wanted["part"] |= heads
    if reference:
        named[across].append(reference)
        wanted[across] |= {reference} if wanted[across] else set()
    selected = chosen(records, wanted, named)
    return compare_records(selected, across, reference, confidence)


def compare_records(selected: Sequence[Record], across: Axis, reference: str = "", confidence: float = 0.90) -> Comparisons:
    """Differences of the λ̂ of these records along one axis, as `compare_run` says; `reference` is a name on it, or empty.

    Raises RllcError where there are no two cells to compare.
    """
    refused = tuple(f"{title(r, AXES)}: {r.meta['reason']}" for r in selected if is_refused(r))
    groups = _groups([record for record in selected if not is_refused(record)], across)
    pairs = [pair for group in groups for pair in _pairs(group, across, reference)]
    if not pairs:
        partners = f"{across} {reference} and of another" if reference else f"two {PLURAL[across]}"
        told = f" Refused: {' '.join(refused)}" if refused else ""
        raise RllcError(
            f"There is nothing to compare: no combination of {' and '.join(_others(across))} has cells of {partners}.{told}",
            f"What is chosen is {recorded(selected)}. Name less, or compare across another axis.",
        )
    return Comparisons(across, confidence, tuple(_compared(pairs, across, confidence)), refused)


def _others(across: Axis) -> list[Axis]:
    return [axis for axis in AXES if axis != across]


def _groups(records: Sequence[Record], across: Axis) -> list[list[Record]]:
    """Cells that differ in one name alone, in the order of the others and, within, of that name."""
    others = _others(across)
    ordered = sorted(records, key=lambda record: [ORDER[axis](record_name(record, axis)) for axis in (*others, across)])
    groups: dict[str, list[Record]] = {}
    for record in ordered:
        groups.setdefault(title(record, others), []).append(record)
    return list(groups.values())


def _pairs(group: Sequence[Record], across: Axis, reference: str) -> list[tuple[Record, Record]]:
    if reference:
        base = [record for record in group if record_name(record, across) == reference]
        return [(record, base[0]) for record in group if base and record is not base[0]]
    if across == "step":
        return [(later, earlier) for earlier, later in pairwise(group)]
    return list(combinations(group, 2))


def _compared(pairs: Sequence[tuple[Record, Record]], across: Axis, confidence: float) -> list[Comparison]:
    traces = {record.digest: traces_of(record) for pair in pairs for record in pair}
    # the chains of two parts have noise of their own; those of one part at two checkpoints or on two kinds of data have the same
    found = [difference(traces[a.digest], traces[b.digest], shared_noise=across != "part", confidence=confidence) for a, b in pairs]
    adjusted = holm(np.array([d.p for d in found]))
    joint = joint_confidence(confidence, len(found))
    return [
        Comparison(
            what=title(a, _others(across)),
            a=record_name(a, across),
            b=record_name(b, across),
            found=d,
            p_holm=float(p),
            joint_low=d.interval(joint)[0],
            joint_high=d.interval(joint)[1],
            marks="; ".join([*_marks(a, d.draws_a, across), *_marks(b, d.draws_b, across)]),
        )
        for (a, b), d, p in zip(pairs, found, adjusted, strict=True)
    ]


def _marks(record: Record, draws: int, across: Axis) -> list[str]:
    name, outcome, drawn = record_name(record, across), record.meta["outcome"], record.meta["draws"]
    return [f"{name} {outcome}"] * (outcome != Outcome.OK) + [f"{name} by {draws} of {drawn} draws"] * (draws < drawn)

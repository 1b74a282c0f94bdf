"""A record beside the same cell computed again, and beside its own traces: whether what it says is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllc.posterior.estimate import estimate
from rllc.posterior.result import assess
from rllc.records.packing import Record
from rllc.runs.recording import ESTIMATE, origin_of, traces_of
from rllc.runs.sampling import Sample

# The promise (DESIGN, the engine): what two computations of one step's loss may differ by, in nats, where not all that decides the bits is equal.
PROMISE = {"float32": 1e-6, "float64": 1e-10}
_LOSSES = ("losses", "baseline", "fixed_losses")
# What a record says of how it was computed and of how it grew, and not of what came out.
_OF_COMPUTING = ("seconds", "chunk", "chunk_planned", "threads", "device", "torch", "history", "prolonged")


@dataclass(frozen=True)
class Verified:
    """A cell and its record, side by side.

    Args:
        cell: its name, with the sibling's before it where it is one's.
        chosen: it is of the sample; others were computed beside it, since a unit is computed whole.
        draws: how many draws of a chain were computed again, and of how many.
        bits: everything that decides the bits was equal, so that nothing may differ.
        apart: the largest difference of a loss, nats; NaN where there is nothing to compare.
        llc: what the record says, and what came out now; NaN where the cell is refused, or not all draws were computed again.
        problem: what is wrong, as a sentence; empty where nothing is.
    """

    cell: str
    chosen: bool
    draws: tuple[int, int]
    bits: bool
    apart: float
    llc: tuple[float, float]
    problem: str


def compare(record: Record, sample: Sample, chosen: bool, name: str, here: tuple[str, str], whole: bool) -> Verified:
    """A record beside the same cell computed again.

    Args:
        record: what was stored.
        sample: what came out now, of as many draws as `whole` says, or of at least those that can be compared.
        chosen: whether it is of the sample.
        name: what to call the cell.
        here: device and torch of now.
        whole: the record is of one call, with the draws of `sample`.
    """
    meta, draws = record.meta, min(prefix(record), sample.meta["draws"])
    evaluations = meta["burn_in"] + 1 + draws
    bits = whole and (meta.get("device"), meta.get("torch")) == here and meta["chunk"] == sample.meta["chunk"]
    allowed = 0.0 if bits else PROMISE[meta["dtype"]]
    apart = 0.0
    problem = _other_shape(record, sample, evaluations)
    if not problem:
        pairs = {n: (record.arrays[n][..., :evaluations], sample.arrays[n][..., :evaluations]) for n in sample.arrays}
        apart = max(_apart(*pairs[n]) for n in _LOSSES if n in pairs)
        if not apart <= allowed:
            problem = f"Losses differ by up to {apart:.2g} nats."
        elif bits and (other := [n for n, (old, new) in pairs.items() if not np.array_equal(old, new, equal_nan=True)]):
            problem = f"The losses are equal, but {other[0]} is not."
    llc = (_number(meta.get("llc")), _number(sample.meta.get("llc")) if whole else np.nan)
    problem = problem or untrue(record) or (_said_otherwise(meta, sample.meta, bits, allowed) if whole else "")
    return Verified(name, chosen, (draws, meta["draws"]), bits, apart, llc, problem)


def prefix(record: Record) -> int:
    """Draws of a chain before it first started again at the checkpoint."""
    history = record.meta["history"]
    last = next((i for i, part in enumerate(history) if part["how"] == "restarted"), len(history))
    return sum(part["draws"] for part in history[:last])


def _other_shape(record: Record, sample: Sample, evaluations: int) -> str:
    if record.arrays.keys() != sample.arrays.keys():
        return "It holds other traces than sampling makes."
    for name, array in sample.arrays.items():
        there = record.arrays[name]
        if there.shape[:-1] != array.shape[:-1] or there.dtype != array.dtype or min(there.shape[-1], array.shape[-1]) < evaluations:
            return f"{name} is of another shape than sampling makes."
    return ""


def _apart(old: Any, new: Any) -> float:
    """The largest difference, where what is not finite has to be so in both."""
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return np.inf
    finite = np.isfinite(old)
    return float(np.max(np.abs(old[finite] - new[finite]), initial=0.0))


def untrue(record: Record) -> str:
    """What a record says of its number that does not follow from its own traces, as a sentence; empty where all of it does."""
    traces, meta = traces_of(record), record.meta
    own = meta["evaluated_on"] == meta["data"]
    if "llc" not in meta:
        refused = not own or assess(traces, origin_of(record))[0].outcome.refused
        return "" if refused else "It says that it has no number, and its own traces give one."
    with np.errstate(over="ignore", invalid="ignore"):
        origin = origin_of(record) if own else None
        found = estimate(traces, init_loss=None if origin is None else origin.loss)[0]
    for name in ESTIMATE:
        said, follows = _number(meta.get(name)), _number(getattr(found, name))
        if not np.isclose(said, follows, rtol=1e-9, atol=1e-12, equal_nan=True):
            return f"It says {name} {said:.6g}, and its own traces say {follows:.6g}."
    return ""


def _said_otherwise(old: Mapping[str, Any], new: Mapping[str, Any], bits: bool, allowed: float) -> str:
    """What a record says that sampling does not: all of it where bits must be equal, and otherwise settings, names and the number itself."""
    new = {name: value if not isinstance(value, float) or np.isfinite(value) else None for name, value in new.items()}
    for name in [*new, *(name for name in old if name not in new)]:
        before, now = old.get(name), new.get(name)
        if name in _OF_COMPUTING or before == now or [before] == [now]:
            continue
        if bits or (not isinstance(now, float) and name not in ("outcome", "reason")):
            return f"It says {name} {before}, and sampling {now}."
    before, now = old.get("llc"), new.get("llc")
    # a mean of differences of two losses each
    if before is not None and now is not None and abs(before - now) > old["nbeta"] * 2 * allowed + 1e-12 * abs(before):
        return f"It says llc {before:.6g}, and sampling {now:.6g}."
    return ""


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)

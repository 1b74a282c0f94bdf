"""A record beside the same cell computed again, and beside its own traces: whether what it says is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rllc.posterior.diagnostics import Diagnostics, Extras, diagnose
from rllc.posterior.estimate import estimate
from rllc.posterior.result import OF_SERIES, Result, assess, assess_elsewhere
from rllc.records.packing import Record
from rllc.runs.recording import ESTIMATE, origin_of, traces_of
from rllc.runs.sampling import Sample

# The promise (DESIGN, the engine): what two computations of one step's loss may differ by, in nats, where not all that decides the bits is equal.
PROMISE = {"float32": 1e-6, "float64": 1e-10}
# What the other traces may differ by, as a share of the largest number in each; of a product of two vectors that may cancel, of the product
# of their lengths, and of Metropolis' logarithm, of the terms that it is the difference of. Between chunks of 1, 3 and as planned, on 16 and
# 100 draws of a small run, they moved by up to 2e-7 of that in float32 (3e-16 in float64): the bound leaves fifty times as much to other
# devices and wider sums.
_OF_SIZE = {"float32": 1e-5, "float64": 1e-9}
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


def compare(record: Record, sample: Sample, chosen: bool, name: str, here: tuple[str, str], whole: bool, own: Record | None = None) -> Verified:
    """A record beside the same cell computed again.

    Args:
        record: what was stored.
        sample: what came out now, of as many draws as `whole` says, or of at least those that can be compared.
        chosen: whether it is of the sample.
        name: what to call the cell.
        here: device and torch of now.
        whole: the record is of one call, with the draws of `sample`.
        own: that of the same chains on their own data, where this one was evaluated elsewhere.
    """
    meta, draws = record.meta, min(prefix(record), sample.meta["draws"])
    evaluations = meta["burn_in"] + 1 + draws
    bits = whole and (meta.get("device"), meta.get("torch")) == here and meta["chunk"] == sample.meta["chunk"]
    allowed = 0.0 if bits else PROMISE[meta["dtype"]]
    apart = 0.0
    problem = _other_shape(record, sample, evaluations)
    if not problem:
        traces = {n: (record.arrays[n][..., :evaluations], sample.arrays[n][..., :evaluations]) for n in sample.arrays}
        apart = max(_apart(*traces[n]) for n in _LOSSES if n in traces)
        if not apart <= allowed:
            problem = f"Losses differ by up to {apart:.2g} nats."
        elif bits and (other := [n for n, (old, new) in traces.items() if not np.array_equal(old, new, equal_nan=True)]):
            problem = f"The losses are equal, but {other[0]} is not."
        elif not bits:
            problem = _further_apart(traces, meta) or _other_checkpoint(meta, sample.meta, whole)
        if not problem and draws == 0:
            problem = "By its history its chains started again before their first draw, so that none could be computed again."
    llc = (_number(meta.get("llc")), _number(sample.meta.get("llc")) if whole else np.nan)
    problem = problem or untrue(record, own) or (_said_otherwise(meta, sample.meta, bits, allowed) if whole else "")
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


def _further_apart(traces: Mapping[str, tuple[Any, Any]], meta: Mapping[str, Any]) -> str:
    """Which of the other traces is further apart than rounding brings it, as a sentence; empty where none is."""
    size = {name: float(np.max(np.abs(new), initial=0.0, where=np.isfinite(new))) for name, (_, new) in traces.items()}
    terms = {"gradient_dot": (size["sq_distance"] * size["sq_gradient"]) ** 0.5}
    terms["log_acceptance"] = size["force_dot"] + meta["nbeta"] * size["losses"]
    for name in (name for name in traces if name not in _LOSSES):
        apart, allowed = _apart(*traces[name]), _OF_SIZE[meta["dtype"]] * max(size[name], terms.get(name, 0.0))
        if not apart <= allowed:
            return f"The losses agree, but {name} differs by up to {apart:.2g}, where rounding moves it by {allowed:.2g} at most."
    return ""


def _other_checkpoint(old: Mapping[str, Any], new: Mapping[str, Any], whole: bool) -> str:
    """What a record says of the checkpoint and of the checks beside its chains, of which it keeps no traces, further from sampling than rounding."""
    loss, share = PROMISE[old["dtype"]], _OF_SIZE[old["dtype"]]
    size = {name: abs(value) if isinstance(value, float) and np.isfinite(value) else 0.0 for name, value in new.items()}
    gradient = share * size.get("sq_batch_norm", 0.0)
    allowed = {
        "dimension": 0.0,
        "origin_batches": 0.0,
        "init_loss": loss,
        "fixed_baseline": loss,
        "sq_norm_of_part": share * size.get("sq_norm_of_part", 0),
    }
    allowed |= dict.fromkeys(("sq_gradient_norm", "sq_gradient_norm_stderr", "sq_batch_norm"), gradient)
    # a Hessian by differences of gradients over a hundredth of the weights' length
    allowed["top_curvature"] = 100 * share * max(size.get("top_curvature", 0.0), size.get("sq_batch_norm", 0.0) ** 0.5)
    allowed["twin"] = 100 * share * max(size["twin"], 1.0)
    if whole:
        allowed |= dict.fromkeys(("halving", "halving_stderr"), 4 * old["nbeta"] * loss)  # of two means of differences
    for name, most in allowed.items():
        before, now = _number(old.get(name)), _number(new.get(name))
        if not (abs(before - now) <= most or (np.isnan(before) and not np.isfinite(now))):
            return f"It says {name} {before:.6g}, and sampling {now:.6g}."
    return ""


def _apart(old: Any, new: Any) -> float:
    """The largest difference, where what is not finite has to be so in both."""
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return np.inf
    finite = np.isfinite(old)
    return float(np.max(np.abs(old[finite] - new[finite]), initial=0.0))


def untrue(record: Record, own: Record | None = None) -> str:
    """What a record says of its number that does not follow from its own traces, as a sentence; empty where all of it does.

    Outcome, reason, estimate and diagnostics are computed once more. What was evaluated on other data inherits from the chains' `own` record; without
    that, or beside one of other draws, only what follows from its own traces is held against them.
    """
    traces, meta = traces_of(record), record.meta
    if meta["evaluated_on"] == meta["data"]:
        return _denied(meta, _of_own(record))
    if own is not None and _same_chains(record, own):
        return _denied(meta, assess_elsewhere(_of_own(own), traces))
    there = diagnose(traces)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        found = estimate(traces)[0]
    said = {name: getattr(there, name) for name in OF_SERIES if name in meta}
    return "" if "llc" not in meta else _other_number(meta, said | {name: getattr(found, name) for name in ESTIMATE})


def _of_own(record: Record) -> Result:
    """What comes of chains on their own data. Checks that took sampling of their own left no traces: the record's word is taken for their numbers."""
    extras = {field.name: np.array([_number(record.meta.get(field.name))]) for field in fields(Extras)}
    return assess(traces_of(record), origin_of(record), extras=Extras(**extras))[0]


def _same_chains(record: Record, own: Record) -> bool:
    shared = [name for name in ("sq_distance", "sq_gradient", "force_dot") if name in record.arrays]
    return record.meta["segments"] == own.meta["segments"] and all(
        np.array_equal(record.arrays[name], own.arrays[name], equal_nan=True) for name in shared
    )


def _denied(meta: Mapping[str, Any], found: Result) -> str:
    """What a record says that its traces deny."""
    if "llc" not in meta and not found.outcome.refused:
        return "It says that it has no number, and its own traces give one."
    if "llc" in meta and found.estimate is None:
        return f"It says llc {_number(meta['llc']):.6g}, and its own traces refuse a number."
    # records of before a diagnostic came are without it
    said = {field.name: getattr(found.diagnostics, field.name) for field in fields(Diagnostics) if field.name in meta}
    if problem := _other_number(meta, ({} if found.estimate is None else {name: getattr(found.estimate, name) for name in ESTIMATE}) | said):
        return problem
    for name in ("outcome", "reason"):
        if meta[name] != str(getattr(found, name)):
            return f"It says {name} {meta[name]!r}, and its own traces say {str(getattr(found, name))!r}."
    return ""


def _other_number(meta: Mapping[str, Any], found: Mapping[str, float]) -> str:
    for name, value in found.items():
        said, follows = _number(meta.get(name)), value if np.isfinite(value) else np.nan  # a record holds nothing where a number is not finite
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

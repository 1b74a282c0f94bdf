"""Between a sampled part and its record: arrays and meta one way, traces the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllc.posterior.result import Result
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import OriginGradient, Segment, Traces
from rllc.records.store import Record
from rllc.runs.mapping import settings_from

if TYPE_CHECKING:
    from rllc.posterior.sampling import Earlier

# Of the parts' tensors at w*; each is a column of the table.
_ORIGIN = {
    "init_loss": "loss",
    "sq_gradient_norm": "sq_norm",
    "sq_gradient_norm_stderr": "sq_norm_stderr",
    "sq_batch_norm": "sq_batch_norm",
    "sq_norm_of_part": "sq_center",
    "top_curvature": "top_curvature",
}
ESTIMATE = ("llc", "stderr", "ci_low", "ci_high", "df", "llc_unpaired")


def arrays_of(traces: Traces) -> dict[str, NDArray[Any]]:
    """The traces of one part, [chains, S] or [S]; what a segment's file holds."""
    return {name: array[0] for name, array in traces.arrays().items() if name != "fixed_baseline"}


def meta_of(traces: Traces, result: Result, origin: OriginGradient | None) -> dict[str, Any]:
    """What a record says of a part: settings, segments, outcome, estimate and diagnostics, as plain values."""
    meta: dict[str, Any] = dataclasses.asdict(traces.settings) | {
        "dimension": traces.dimension,
        "segments": [list(segment) for segment in traces.segments],
        "outcome": str(result.outcome),
        "reason": result.reason,
    }
    meta |= dataclasses.asdict(result.diagnostics)
    if traces.fixed_baseline is not None:
        meta["fixed_baseline"] = float(traces.fixed_baseline[0])
    if origin is not None:
        meta |= {name: float(getattr(origin, field)[0]) for name, field in _ORIGIN.items()} | {"origin_batches": origin.batches}
    if result.estimate is not None:
        meta |= {name: getattr(result.estimate, name) for name in ESTIMATE}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in meta.items()}


def prolonged(previous: Mapping[str, Any] | None, traces: Traces, earlier: Earlier | None) -> dict[str, Any]:
    """How the cell's draws came about, segment by segment of the store, and in words; `previous` is the meta that held until now."""
    draws = traces.settings.draws
    if previous is None or earlier is None:
        return {"history": [{"draws": draws, "how": "begun"}], "prolonged": ""}
    how = "restarted" if earlier.snapshot is None else "continued"
    history = [*previous["history"], {"draws": draws - previous["draws"], "how": how}]
    words = {
        "begun": "{} draws",
        "continued": "{} more, exactly as in one run",
        "restarted": "{} more, started again at the checkpoint with a burn-in of their own",
    }
    return {"history": history, "prolonged": "; ".join(words[step["how"]].format(step["draws"]) for step in history)}


def traces_of(record: Record) -> Traces:
    """The traces of a sample record, with P = 1, all its segments joined."""
    meta = record.meta
    names = {field.name for field in dataclasses.fields(SamplerSettings)}
    settings = settings_from(SamplerSettings, {name: meta[name] for name in names})
    arrays: dict[str, NDArray[Any]] = {name: np.asarray(array, np.float64)[None] for name, array in record.arrays.items()}
    if "fixed_baseline" in meta:
        arrays["fixed_baseline"] = np.array([meta["fixed_baseline"]])
    return Traces.of(settings, meta["dimension"], arrays, [Segment(*pair) for pair in meta["segments"]])


def origin_of(record: Record) -> OriginGradient | None:
    """What the record knows of w* itself, with P = 1; None where nothing was measured there."""
    if "origin_batches" not in record.meta:
        return None
    fields = {field: np.array([np.nan if record.meta[name] is None else record.meta[name]]) for name, field in _ORIGIN.items()}
    return OriginGradient(**fields, batches=record.meta["origin_batches"])

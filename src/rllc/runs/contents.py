"""What the records of a run must say to be read as what they are: a digest proves that nothing changed since they were written, and not by whom.

A record that fails is damaged: it is set aside, named, and computed anew. Records of an earlier estimator are asked for what tables read; those of
this one for all that prolonging and verifying read. Torch-free, and what needs more than numpy is imported where a record is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rllc.behaviour.settings import MeasureName
from rllc.core.errors import RllcError
from rllc.core.names import DataKey, Part
from rllc.core.outcome import Outcome
from rllc.records.names import COLUMNS, TRACES
from rllc.records.packing import Record, joined
from rllc.records.store import Check
from rllc.runs.keys import ESTIMATOR, KIND, SHARES, STATE
from rllc.runs.measures.holding import lacks
from rllc.runs.measures.kinds import REVISIONS

_MOST = 2**63
_WAYS = ("continued", "restarted")  # how a segment's chains came about, but the first's, which were begun
_OF_COMPUTING = {"chunk": int, "threads": int, "dtype": str, "batch_size": int, "prolonged": str}


class _Nonsense(Exception):  # noqa: N818
    """What is wrong with a record, in words."""


def _told(check: Callable[[Record, int, Sequence[Record]], None]) -> Check:
    def problem(record: Record, segment: int, earlier: Sequence[Record]) -> str:
        try:
            check(record, segment, earlier)
        except _Nonsense as error:
            return str(error)
        return ""

    return problem


def _sample(record: Record, segment: int, earlier: Sequence[Record]) -> None:
    meta = record.meta
    for name in meta.keys() & COLUMNS.keys():
        if meta[name] is not None and not _KINDS[COLUMNS[name][0]](meta[name]):
            raise _Nonsense(f"its {name} is no {COLUMNS[name][0]}")
    _named(meta, {"step": int, "part": str, "data": str, "evaluated_on": str, "reason": str, "draws": int, "chains": int})
    outcome = _outcome(meta)
    try:
        Part.parse(meta["part"])
        DataKey.parse(meta["data"]).at(meta["evaluated_on"])
    except RllcError as error:
        raise _Nonsense(f"it names no part or no data: {error.problem.rstrip('.')}") from error
    for name, array in record.arrays.items():
        if name in TRACES and (array.dtype.kind != "f" or array.ndim != len(TRACES[name])):
            raise _Nonsense(f"its array {name} is no trace")
    current = meta.get("estimator") == ESTIMATOR
    if not current and record.key.get("estimator") == ESTIMATOR:
        raise _Nonsense("it tells of another estimator than its key")
    _of_its_key(record.key, meta, current)
    if current:
        _complete(record, segment, outcome)
    if len(earlier) == segment:
        _fitting([*earlier, record], current)


def _of_its_key(key: Mapping[str, Any], meta: Mapping[str, Any], current: bool) -> None:
    """What a record says of its cell is what its key says, by which it was asked for. A key may say less than those of runs do."""
    same = {name: key[name] for name in ("step", "part") if name in key}
    if current:
        sampler, sampling, data = (found if isinstance(found := key.get(name), dict) else {} for name in ("sampler", "sampling", "data"))
        batch = "full_batch" if sampler.get("sampler") == "mala" else "batch_size"
        same |= {name: key[name] for name in ("dtype", "seed") if name in key} | sampler
        same |= {name: sampling[name] for name in ("fixed_contexts", "documents") if name in sampling}
        same |= {"batch_size": sampling[batch]} if batch in sampling else {}
        same |= {"context": data["context"]} if "context" in data else {}
    for name, value in same.items():
        if meta.get(name) != value:
            raise _Nonsense(f"its {name} is not that of its key")
    own, there = (DataKey.parse(meta[name]) for name in ("data", "evaluated_on"))
    for name, of in (("data", own), ("evaluated_on", there)):
        told = key.get(name)
        if isinstance(told, dict) and (told.get("name", of.name), told.get("split", of.split)) != (of.name, of.split):
            raise _Nonsense(f"its {name} is not that of its key")
    if not isinstance(key.get("data"), dict):
        return
    if meta["data"] != key.get("called", str(own.text)):
        raise _Nonsense("its data is not that of its key")
    if meta["evaluated_on"] != (str(there) if "evaluated_on" in key else meta["data"]):
        raise _Nonsense("its evaluated_on is not that of its key")


def _complete(record: Record, segment: int, outcome: Outcome) -> None:
    """What this version's estimator writes is there, and of the right types."""
    from dataclasses import MISSING, fields

    from rllc.posterior.diagnostics import Diagnostics
    from rllc.runs.recording import ESTIMATE

    meta = record.meta
    if unknown := sorted(record.arrays.keys() - TRACES.keys()):
        raise _Nonsense(f"its array {unknown[0]} is no trace")
    _named(meta, _OF_COMPUTING)
    numbers = [field.name for field in fields(Diagnostics) if field.default is MISSING or field.name in meta]
    numbers += [] if outcome.refused else ESTIMATE
    for name in numbers:
        if name not in meta or not (meta[name] is None or _is_number(meta[name])):
            raise _Nonsense(f"its {name} is no number")
    if meta["chunk"] < 1 or meta["threads"] < 0 or meta["dtype"] not in ("float32", "float64"):
        raise _Nonsense("it does not tell how it was computed")
    history = meta.get("history")
    steps = [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    begun = [step.get("how") == "begun" if n == 0 else step.get("how") in _WAYS for n, step in enumerate(steps)]
    if len(steps) != segment + 1 or not all(begun) or not all(_is_count(step.get("draws")) for step in steps):
        raise _Nonsense("its history is not that of its segment")
    if sum(step["draws"] for step in steps) != meta["draws"]:
        raise _Nonsense("its history is not that of its draws")


def _fitting(parts: Sequence[Record], current: bool) -> None:
    """The segments belong to each other, and to the traces that the newest tells of."""
    from rllc.runs.recording import origin_of, traces_of

    newest, *before = reversed(parts)
    try:
        whole = joined(parts)
        if any(part.arrays.keys() != newest.arrays.keys() for part in before):
            raise _Nonsense("it holds other traces than the segments before it")
        if not current:
            return
        if before and newest.meta["history"][:-1] != before[0].meta["history"]:
            raise _Nonsense("it went on from another segment than the one before it")
        if traces_of(whole).settings.draws != newest.meta["draws"]:
            raise _Nonsense("its traces have other draws than it says")
        if list(map(list, traces_of(whole).segments)) != _grown(parts):
            raise _Nonsense("its traces are not those of its history")
        origin_of(whole)
    except (RllcError, ValueError, KeyError, TypeError, OverflowError, IndexError, AttributeError) as error:
        raise _Nonsense("its traces are not those of its settings and segments") from error


def _grown(parts: Sequence[Record]) -> list[list[int]]:
    """Runs of evaluations without a break, with what is left out at the start of each, as history and arrays have them."""
    fresh, grown = parts[-1].meta["burn_in"] + 1, list[list[int]]()
    for part, step in zip(parts, parts[-1].meta["history"], strict=True):
        evaluations = step["draws"] + (0 if step["how"] == "continued" else fresh)
        if part.arrays["losses"].shape[-1] != evaluations:
            raise _Nonsense("its traces are not those of its history")
        if step["how"] == "continued":
            grown[-1][0] += evaluations
        else:
            grown.append([evaluations, fresh])
    return grown


def _state(record: Record, segment: int, earlier: Sequence[Record]) -> None:  # noqa: ARG001
    _named(record.key, {"of": str, "segment": int})
    _named(record.meta, {"draws": int})


def _shares(record: Record, segment: int, earlier: Sequence[Record]) -> None:
    _state(record, segment, earlier)
    _outcome(record.meta)
    names = record.meta.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Nonsense("it does not name its texts")


def _measure(record: Record, segment: int, earlier: Sequence[Record]) -> None:  # noqa: ARG001
    _named(record.meta, {"step": int})
    if not (record.meta.get("seconds") is None or _is_number(record.meta["seconds"])):
        raise _Nonsense("its seconds are no number")
    kind: MeasureName = next(name for name in REVISIONS if name == record.kind)
    if record.key.get("revision") == REVISIONS[kind] and (lacking := lacks(kind, record.meta, record.arrays)):
        raise _Nonsense(lacking)
    for name in record.key.keys() & record.meta.keys() & {"data", "kinds", "kind"}:
        if record.key[name] != record.meta[name]:
            raise _Nonsense(f"its {name} is not that of its key")


def _outcome(meta: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome(meta["outcome"])
    except (KeyError, ValueError) as error:
        raise _Nonsense("it does not say what became of it") from error


def _named(table: Mapping[str, Any], types: Mapping[str, type]) -> None:
    for name, kind in types.items():
        if not (_is_count(table.get(name)) if kind is int else isinstance(table.get(name), kind)):
            raise _Nonsense(f"it does not tell its {name}")


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -_MOST <= value < _MOST)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


_KINDS: Mapping[str, Callable[[Any], bool]] = {"text": lambda value: isinstance(value, str), "count": _is_count, "number": _is_number}
# by kind of record, what a store asks of it
CHECKS: Mapping[str, Check] = MappingProxyType(
    {KIND: _told(_sample), STATE: _told(_state), SHARES: _told(_shares), **dict.fromkeys(REVISIONS, _told(_measure))}
)

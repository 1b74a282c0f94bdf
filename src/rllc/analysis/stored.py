"""Findings and the map of a calibration as text, and attention patterns as arrays, for whoever keeps them; reading either back gives equal values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.calibrated import CalibrationMap
from rllc.analysis.comparisons import Ordering
from rllc.analysis.findings import Findings, Patterns
from rllc.core.errors import RllcError
from rllc.core.files import parse_json

FORMAT = 4
LARGEST = 500_000_000  # bytes of findings: those of 10⁵ cells have some ten million
_GONE = {Ordering: ("within_errors", "by_step_low", "by_step_high")}  # what older formats held besides


def to_json(findings: Findings) -> str:
    """Findings as strict JSON, without the attention patterns (see `patterns_to_arrays`); NaN is null."""
    return json.dumps({"format": FORMAT, "findings": _encode(replace(findings, patterns=None))}, allow_nan=False, ensure_ascii=False)


def from_json(text: str, patterns: Patterns | None = None) -> Findings:
    """The findings that `to_json` wrote, with the patterns put back in.

    Raises RllcError where the text is damaged or was written by a newer version.
    """
    try:
        content = parse_json(text)
        version = int(content["format"])
        if version <= FORMAT:
            return replace(cast(Findings, _decode(Findings, content["findings"])), patterns=patterns)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise RllcError("The stored findings are damaged.", "Run the analysis again; it takes seconds.") from error
    raise RllcError(
        f"The findings were written in format {version} by a newer version of rllc; this version reads formats up to {FORMAT}.",
        "Update rllc, or run the analysis again.",
    )


def map_to_json(found: CalibrationMap) -> str:
    """What a calibration found as strict JSON; NaN is null."""
    return json.dumps({"format": FORMAT, "map": _encode(found)}, allow_nan=False, ensure_ascii=False)


def map_from_json(text: str) -> CalibrationMap:
    """What `map_to_json` wrote. Raises RllcError where the text is damaged."""
    try:
        return cast(CalibrationMap, _decode(CalibrationMap, parse_json(text)["map"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise RllcError("The map of a calibration is damaged.", "Run `rllc calibrate` again, or remove the folder calibration.") from error


def patterns_to_arrays(patterns: Patterns) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and JSON-able meta of attention patterns, as a record holds them."""
    arrays: dict[str, NDArray[Any]] = {f"weights_{i}": weights for i, weights in enumerate(patterns.weights)}
    arrays["steps"] = patterns.steps
    return arrays, {"heads": list(patterns.heads), "snippets": list(patterns.snippets), "tokens": [list(tokens) for tokens in patterns.tokens]}


def patterns_from_arrays(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Patterns:
    """The patterns that `patterns_to_arrays` took apart. Raises KeyError where something is missing."""
    return Patterns(
        heads=tuple(meta["heads"]),
        steps=arrays["steps"],
        snippets=tuple(meta["snippets"]),
        tokens=tuple(tuple(tokens) for tokens in meta["tokens"]),
        weights=tuple(arrays[f"weights_{i}"] for i in range(len(meta["snippets"]))),
    )


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _encode(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, np.ndarray):
        array = cast(NDArray[Any], value)
        return {"dtype": array.dtype.str, "shape": list(array.shape), "values": [_encode(item) for item in array.ravel().tolist()]}
    if isinstance(value, dict):
        return {name: _encode(item) for name, item in cast(dict[str, Any], value).items()}
    if isinstance(value, tuple):
        return [_encode(item) for item in cast(tuple[Any, ...], value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _decode(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        known = {name: item for name, item in value.items() if name not in _GONE.get(cast(type, hint), ())}
        return cast(Any, hint)(**{name: _decode(hints[name], item) for name, item in known.items()})
    if origin in (np.ndarray, NDArray):  # numpy 2.5 made NDArray an alias of its own
        kind = np.dtype(value["dtype"])
        items: list[Any] = value["values"]
        return np.array([_decode(float, item) for item in items] if kind.kind == "f" else items, dtype=kind).reshape(value["shape"])
    if origin is UnionType:
        return None if value is None else _decode(next(option for option in arguments if option is not NoneType), value)
    if origin is dict:
        return {name: _decode(arguments[1], item) for name, item in value.items()}
    if origin is tuple:
        hints_of = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(inner, item) for inner, item in zip(hints_of, value, strict=True))
    if hint is float:
        return math.nan if value is None else float(value)
    return value

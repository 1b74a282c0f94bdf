"""Nested named tuples of tensors, row by row: what a chain is at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rllc.posterior.samplers.base import Point, Pull


def pack(value: Any, name: str) -> dict[str, Tensor]:
    """Every tensor in `value` by its dotted name below `name`; None is left out."""
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {name: value}
    return {key: tensor for field in value._fields for key, tensor in pack(getattr(value, field), f"{name}.{field}").items()}


def unpack(like: Any, name: str, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` took apart, in the form of `like`. Raises KeyError where a tensor is missing.

    A chain that has not begun has None where later there is a `Point`, or a `Pull`: that is told by the names of the tensors.
    """
    if isinstance(like, Tensor):
        return tensors[name].to(like)
    if like is not None:
        return type(like)(*(unpack(getattr(like, field), f"{name}.{field}", tensors) for field in like._fields))
    there = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    return next((kind(**there) for kind in (Point, Pull) if set(kind._fields) == set(there)), None)


def rows(value: Any, which: Sequence[int]) -> Any:
    """Some rows of every tensor in `value`."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value[list(which)]
    return type(value)(*(rows(item, which) for item in value))

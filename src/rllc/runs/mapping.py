"""From the tables of a TOML file to frozen settings; an unknown key is an error (ANCHORS, principle 14)."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rllc.core.errors import RllcError

T = TypeVar("T")
_MOST, _LARGEST = 1e300, 2**63 - 1  # beyond, products overflow, and other programs read a whole number as something else
_LEAST = -_MOST
_QUOTED = 200  # characters of a value in an error


def settings_from(cls: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """Build the settings `cls` from a table; keys left out keep their defaults.

    Raises RllcError for an unknown key (with the nearest known one), a missing one, or a value of another type.
    """
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"Perhaps you meant {near[0]!r}." if near else f"Known keys are {', '.join(known)}."
            raise RllcError(f"The experiment holds an unknown key {cut(_join(where, key))}.", hint)
        values[key] = convert(hints[key], value, _join(where, key))
    for name, f in known.items():
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RllcError(f"The experiment lacks {_join(where, name)!r}.", "Add it to the experiment file.")
    return cls(**values)


def convert(hint: Any, value: Any, where: str) -> Any:
    """A value of a TOML file as the type that the settings declare. Raises RllcError where it is of another type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return settings_from(typing.cast(type[Any], hint), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(args) == len(value):
            return tuple(convert(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True)))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(key): convert(args[1], item, _join(where, str(key))) for key, item in value.items()}
    if origin is typing.Literal and value in args:
        return value
    if origin in (typing.Union, types.UnionType):
        tables = [arg for arg in args if dataclasses.is_dataclass(arg)]
        if len(tables) == 1 and isinstance(value, Mapping):
            return convert(tables[0], value, where)  # whose own error says more than that no alternative fits
        for arg in args:
            try:
                return convert(arg, value, where)
            except RllcError:
                continue  # no alternative fits: told below of all of them
    if isinstance(value, int | float) and not isinstance(value, bool) and not _LEAST <= value <= _MOST:  # also false of NaN
        raise RllcError(f"{where} is {cut(value)}, where a finite number of at most {_MOST:g} is expected.", "Mend the experiment file.")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and type(value) is int and abs(value) > _LARGEST:
        raise RllcError(f"{where} is {value}, where whole numbers go up to {_LARGEST}.", "Mend the experiment file.")
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise RllcError(f"{where} is {cut(value)}, but must be {describe(hint)}.", "Mend the experiment file.")


def cut(value: object) -> str:
    """A value as an error quotes it, with its middle left out where it is long.

    >>> cut("a" * 1000) == repr("a" * 99) [:100] + " … " + "a'".rjust(20, "a")
    True
    """
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= _QUOTED else f"{text[:100]} … {text[-20:]}"


def describe(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin is tuple:
        return f"a list of {describe(args[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in args if a is not types.NoneType)
    if origin is not None or dataclasses.is_dataclass(hint):
        return "a table"
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(hint, str(hint))


def plain(value: Any) -> Any:
    """Settings as JSON-able values, the reverse of `settings_from`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key

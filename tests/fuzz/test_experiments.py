"""Experiment files with hostile values: parsed, planned and described, or refused in a sentence."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rllc.runs.experiment import Experiment, parse, preset
from rllc.runs.overview import describe_plan

from .bounds import examples, outcome
from .hostile import document, numbers, values

BASE = tomllib.loads(preset("quick")) | {
    "refinements": {"late": {"data": "code", "after": [" the"]}, "mixed": {"data": {"code": 3, "prose": 1}}},
    "siblings": {"seed-1": {"seed": 1}, "one-layer": {"n_layers": 1}},
}


def places(cls: Any, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every setting there is, tables of tables included."""
    found: list[tuple[str | int, ...]] = []
    for name, hint in typing.get_type_hints(cls).items():
        found.append((*where, name))
        options = [hint, *typing.get_args(hint)] if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint]
        for option in options:
            inner = typing.get_args(option)
            if dataclasses.is_dataclass(option):
                found += places(option, (*where, name))
            elif typing.get_origin(option) is tuple and dataclasses.is_dataclass(inner[0]):
                found += places(inner[0], (*where, name, 0))
            elif typing.get_origin(option) in (Mapping, dict) and dataclasses.is_dataclass(inner[1]):
                key = next(iter(BASE.get(name, {"other": None})))
                found += places(inner[1], (*where, name, key))
    return found


PLACES = [place for place in places(Experiment) if place.count("imported") < 2]


def put(table: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The table with a value at a place, made on the way there where it is missing."""
    whole = deepcopy(table)
    at: Any = whole
    for key, following in zip(place, [*place[1:], ""], strict=True):
        if following == "":
            at[key] = value
        elif isinstance(at, list):
            at = at[key]
        else:
            at = at.setdefault(key, [{}] if following == 0 else {})
    return whole


def planned(text: str) -> str:
    return describe_plan(parse(text))


def test_the_untouched_base_is_planned() -> None:
    assert "cells" in planned(document(BASE))
    assert len(PLACES) > 150


@examples(25)
@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3))
def test_any_value_anywhere(changes: list[tuple[tuple[str | int, ...], Any]]) -> None:
    table = BASE
    for place, value in changes:
        try:
            table = put(table, place, value)
        except (TypeError, AttributeError, KeyError, IndexError):
            return  # one change has put a number where the other goes on
    outcome(lambda: planned(document(table)))


@examples(20)
@given(st.sampled_from(PLACES), numbers)
def test_any_number_anywhere(place: tuple[str | int, ...], value: Any) -> None:
    for given_value in (value, [value], [value, value]):
        outcome(lambda v=given_value: planned(document(put(BASE, place, v))))


@examples(30)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text(text: str) -> None:
    outcome(lambda: parse(text))

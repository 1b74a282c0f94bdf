"""Every test can fail (ANCHORS, principle 9): each mutation of the shipped source turns a named test red.

A mutation replaces text that occurs exactly once in one module. The whole room is then imported afresh around the mutated module,
the test file too, and the named test must fail by an assertion. Unmutated, in the same harness, it must pass.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType

import numpy as np
import pytest
import torch

import rllc

sys.path.insert(0, str(Path(__file__).parent))
from mutations import SGLD, TABLE, Edit

ROOM = "rllc.posterior"
HELPERS = ("harness", "chain_toys")
HERE, SOURCE = Path(__file__).parent, Path(rllc.__file__).parent / "posterior"


@dataclass(frozen=True)
class Mutation:
    """One fault, and the test that must see it."""

    name: str
    test: str  # file::function
    edits: tuple[Edit, ...]

    def sources(self) -> dict[str, str]:
        """The mutated modules by name."""
        found: dict[str, str] = {}
        for module, old, new in self.edits:
            text = found.get(module) or (SOURCE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{self.name}: {old!r} occurs {text.count(old)} times in {module}.py"
            found[module] = text.replace(old, new)
        return found


MUTATIONS = [Mutation(name, test, tuple(edits)) for test, faults in TABLE.items() for name, *edits in faults]


class Afresh(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the room's modules before anything else does, mutated or plain: without the shape checks, whose types outlive a module."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources, self.unused = sources, set(sources)

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname == ROOM:
            return _plain(fullname, SOURCE)
        if fullname in HELPERS:
            return _plain(fullname, HERE / fullname)
        if not fullname.startswith(f"{ROOM}."):
            return None
        module = fullname.removeprefix(f"{ROOM}.")
        return importlib.util.spec_from_loader(fullname, self) if module in self.sources else _plain(fullname, SOURCE.joinpath(*module.split(".")))

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.removeprefix(f"{ROOM}.")
        self.unused.discard(name)
        exec(compile(self.sources[name], f"<mutated {name}>", "exec"), module.__dict__)


@cache
def _compiled(path: str) -> CodeType:
    return compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)


class Plain(importlib.machinery.SourceFileLoader):
    """Compiles a file once, for all mutations."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return _compiled(self.path)


def _plain(fullname: str, path: Path) -> importlib.machinery.ModuleSpec:
    """The module or package at a path without its ending."""
    inside = [str(path)] if path.is_dir() else None
    file = str(path / "__init__.py" if inside else path.with_suffix(".py"))
    spec = importlib.util.spec_from_file_location(fullname, file, loader=Plain(fullname, file), submodule_search_locations=inside)
    assert spec
    return spec


def _bound_to_the_room(name: str) -> bool:
    return name in (ROOM, *HELPERS) or name.startswith(f"{ROOM}.")


@contextmanager
def afresh(mutation: Mutation | None) -> Iterator[None]:
    """The room imported anew, modules of it mutated; afterwards everything is as it was."""
    saved = {name: module for name, module in sys.modules.items() if _bound_to_the_room(name)}
    finder = Afresh(mutation.sources() if mutation else {})
    for name in saved:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
        assert not finder.unused, f"the named test does not import {finder.unused}"
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _bound_to_the_room(name)]:
            del sys.modules[name]
        sys.modules.update(saved)
        if ROOM in saved:
            rllc.posterior = saved[ROOM]  # type: ignore[attr-defined]


def run_named(test: str) -> None:
    """Import the test's file anew, against the room as it now is, and run it with fixed seeds."""
    file, function = test.split("::")
    spec = _plain(f"afresh_{file}", HERE / file)
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        getattr(module, function)()
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.name for m in MUTATIONS])
def test_the_named_test_sees_the_mutation(mutation: Mutation) -> None:
    with afresh(mutation), np.errstate(all="ignore"), pytest.raises(AssertionError):  # no crash will do: the test itself must object
        run_named(mutation.test)


@pytest.mark.parametrize("test", TABLE)
def test_unmutated_the_named_test_passes(test: str) -> None:
    with afresh(None):
        run_named(test)


def test_the_room_is_as_it_was() -> None:
    before = importlib.import_module(f"{ROOM}.{SGLD}")
    with afresh(MUTATIONS[0]):
        mutated = importlib.import_module(f"{ROOM}.{SGLD}")
        assert mutated is not before
    assert importlib.import_module(f"{ROOM}.{SGLD}") is before
    assert sys.modules[ROOM] is rllc.posterior  # type: ignore[attr-defined]


def test_a_mutation_must_name_text_that_occurs_once() -> None:
    with pytest.raises(AssertionError, match=r"occurs 0 times in samplers\.sgld\.py"):
        Mutation("none", "", ((SGLD, "no such text", ""),)).sources()

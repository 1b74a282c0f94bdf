from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rllc.analysis.findings import Findings
from rllc.figures.material import Material
from rllc.figures.whole_set import Drawn, draw_all


def beside(name: str) -> ModuleType:
    """A module beside this one: tests are collected without a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"rllc_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The made-up run, as a module."""
    return beside("synthetic")


@pytest.fixture(scope="session")
def findings(synthetic: ModuleType) -> Findings:
    return synthetic.findings()


@pytest.fixture(scope="session")
def paper() -> ModuleType:
    """The made-up run for the catalogue, as a module."""
    return beside("planted_paper")


@pytest.fixture(scope="session")
def material(paper: ModuleType) -> Material:
    return paper.material()


@pytest.fixture(scope="session")
def drawn(material: Material) -> Drawn:
    return draw_all(material)

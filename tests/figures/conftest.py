from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rllc.analysis.findings import Findings
from rllc.figures.catalogue import Drawn, draw_all
from rllc.figures.material import Material


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The made-up run, as a module: tests are collected without a package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("rllc_synthetic_run", Path(__file__).with_name("synthetic.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def findings(synthetic: ModuleType) -> Findings:
    return synthetic.findings()


@pytest.fixture(scope="session")
def paper() -> ModuleType:
    """The made-up run for the catalogue, as a module."""
    spec = importlib.util.spec_from_file_location("rllc_planted_paper", Path(__file__).with_name("planted_paper.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def material(paper: ModuleType) -> Material:
    return paper.material()


@pytest.fixture(scope="session")
def drawn(material: Material) -> Drawn:
    return draw_all(material)

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rllc.figures.material import Material
from rllc.figures.whole_set import draw_all
from rllc.report.build import build_report
from rllc.report.data import Domain, ReportData

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --no-first-run --disable-component-update --disable-sync --disable-quic"


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    """How pytest-playwright starts the browser that this machine has."""
    if CHROMIUM is None:
        pytest.skip("no Chromium was found: install Debian's package chromium to open the page in a browser")
    return {"executable_path": CHROMIUM, "args": FLAGS.split(), "headless": True}


def _of_figures(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "figures" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"rllc_{name}_of_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _of_figures("synthetic")


@pytest.fixture(scope="session")
def whole(data: ReportData) -> ReportData:
    """A page with every figure of the catalogue."""
    material: Material = _of_figures("planted_paper").material()
    return replace(data, findings=material.findings, drawn=draw_all(material))


@pytest.fixture(scope="session")
def data(synthetic: ModuleType) -> ReportData:
    f = synthetic.findings()
    return ReportData(
        findings=f,
        title="How sixteen attention heads came to differ",
        settings={"seed": 0, "corpus": {"vocabulary": 512, "sources": [{"kind": "python"}, {"kind": "echo"}]}, "training": {"learning_rate": 3e-3}},
        model={"layers": 2, "heads in a layer": 8, "width": 128, "positions": "shortformer", "parameters": 270848},
        domains=(
            Domain("code", 412, 2_113_000, 0.4, False, "Python standard library sources, docstrings taken out."),
            Domain("prose", 390, 1_300_000, 0.35, False, "Docstrings, help topics and licences."),
            Domain("echo", 2000, 900_000, 0.25, True, "Random segments, repeated.", "echo"),
            Domain("brackets", 100, 9_000, 0.0, True, "Dyck words.", "brackets"),
        ),
        sampler={"sampler": "sgld", "step_size": 1e-3, "localization": 200.0, "nbeta": 30.0},
        machine={"cores": 2, "memory": "24 GiB"},
        versions={"rllc": "0.1.0", "torch": "2.13.0"},
        seconds={"corpus": 9.2, "train": 231.0, "sample": 388.0, "report": 3.1},
        table=synthetic.table(f),
        notes=("The learning rate warms up over 100 steps.",),
        mixture="train",
        created="2026-11-23 10:00 UTC",
    )


@pytest.fixture(scope="session")
def small(synthetic: ModuleType, data: ReportData) -> ReportData:
    """The same run with one layer and two checkpoints, for pages that differ from the usual in something else."""
    f = synthetic.findings(layers=1, steps=np.array([0, 1000]), data=("train", "code"), context=16)
    return replace(data, findings=f, table=synthetic.table(f))


@pytest.fixture(scope="session")
def written(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    build_report(data, path)
    return path


@pytest.fixture(scope="session")
def html(written: Path) -> str:
    return written.read_text(encoding="utf-8")

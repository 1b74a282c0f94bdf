"""The notebooks of the documentation run on the present program, and are kept as they ran."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .written import NOTEBOOKS, ROOT, code_cells, wrong_names

# Sizes that put machinery through its paces and measure nothing.
TINY: dict[str, dict[str, Any]] = {
    "five_minutes": {"STEPS": 3, "SEQUENCES": 40, "DRAWS": 6},
    "checkpoint_series": {"STEPS": 3, "KEPT": [0, 3], "SEQUENCES": 40, "DRAWS": 6},
    "own_module": {"CHAINS": 2, "DRAWS": 6, "BURN_IN": 2, "TRAINING": 3, "CLASSIFIER_DRAWS": 6},
}
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def with_sizes(notebook: Path, sizes: dict[str, Any]) -> list[str]:
    """The code of a notebook, cell by cell, with other values in its first cell, which holds nothing but sizes."""
    first, *rest = [cell["source"] for cell in code_cells(notebook)]
    statements = ast.parse(first).body
    assert all(isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) for line in statements)
    assert [line.targets[0].id for line in statements] == list(sizes)  # pyright: ignore[reportAttributeAccessIssue]
    return ["\n".join(f"{name} = {value!r}" for name, value in sizes.items()), *rest]


def run(cells: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run cells in a process of their own, with figures that are drawn and not shown."""
    script = folder / "cells.py"
    preamble = "import matplotlib, warnings\nmatplotlib.use('Agg')\nwarnings.filterwarnings('ignore', 'FigureCanvasAgg is non-interactive')\n"
    script.write_text(preamble + "\n".join(cells), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, env=environment, check=False, timeout=300)


def test_every_notebook_has_tiny_sizes() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(TINY)


@each_notebook
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("matplotlib")
    done = run(with_sizes(notebook, TINY[notebook.stem]), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_cell_that_raises_is_found(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run(["import rllc", "rllc.estimat"], tmp_path)
    assert done.returncode == 1
    assert "estimat" in done.stderr


@each_notebook
def test_a_notebook_is_kept_as_it_ran(notebook: Path) -> None:
    """Cells ran in order from a fresh start, without an error, and nothing of the machine is in what they say."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    text = re.sub(r'"image/png": "[^"]*"', "", notebook.read_text(encoding="utf-8"))
    assert not re.search(r"(?<![\w.\"'])/(tmp|home|root|work|Users|var)/", text)
    assert "<script" not in text
    assert "https://cdn" not in text
    assert notebook.stat().st_size < 400_000


@each_notebook
def test_names_of_a_notebook_exist(notebook: Path) -> None:
    assert not wrong_names("\n".join(cell["source"] for cell in code_cells(notebook)))


def test_a_wrong_name_is_found() -> None:
    assert wrong_names("import rllc\nrllc.estimate(m, d, chainz=2)\nfrom rllc.api import sweeep") == [
        "there is no rllc.api.sweeep",
        "rllc.estimate does not take chainz",
    ]


def test_notebooks_end_with_what_was_learnt() -> None:
    for notebook in NOTEBOOKS:
        last = json.loads(notebook.read_text(encoding="utf-8"))["cells"][-1]
        assert last["cell_type"] == "markdown"
        assert "What was learnt" in "".join(last["source"])
        assert len("".join(last["source"])) > 200, f"{notebook.name} draws no conclusion"

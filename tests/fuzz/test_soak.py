"""The long suite: every test of this folder that Hypothesis draws examples for, again, with many times the examples, drawn anew each time."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Hypothesis marks its tests so; what they are called decides nothing.
DRAWN = ["-q", "-p", "no:cacheprovider", "-m", "hypothesis and not soak"]


def drawn_in(path: Path) -> set[str]:
    """The tests of a file that are given examples, by their names."""
    functions = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef))
    return {
        f"{path.name}::{function.name}"
        for function in functions
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "given"
    }


ALL = {path.name: tests for path in sorted(HERE.glob("test_*.py")) if (tests := drawn_in(path))}


def test_the_long_suite_repeats_every_test_that_is_given_examples() -> None:
    command = [sys.executable, "-m", "pytest", *DRAWN, "--collect-only", *(str(HERE / name) for name in ALL)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], check=True).stdout
    chosen = {line.partition("[")[0].rpartition("/")[2] for line in said.splitlines() if "::" in line}
    assert chosen == set.union(*ALL.values())


@pytest.mark.soak
@pytest.mark.parametrize("name", ALL)
def test_many_examples(name: str) -> None:
    environment = os.environ | {"RLLC_FUZZ": os.environ.get("RLLC_FUZZ", "30")}
    command = [sys.executable, "-m", "pytest", *DRAWN, str(HERE / name)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]

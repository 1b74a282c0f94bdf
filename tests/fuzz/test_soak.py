"""The long suite: every fuzz test of this folder again, with many times the examples, drawn anew each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.name not in (Path(__file__).name, "test_experiment_faults.py"))


@pytest.mark.soak
@pytest.mark.parametrize("name", FILES)
def test_many_examples(name: str) -> None:
    environment = os.environ | {"RLLC_FUZZ": os.environ.get("RLLC_FUZZ", "30")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "any or changed or parts or data", str(HERE / name)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]

"""The benchmark of samplers runs without devinterp."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_ours_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(sys.modules, "devinterp", None)
    monkeypatch.setattr(sys, "argv", ["samplers.py", "--largest", "30", "--draws", "60"])
    spec = importlib.util.spec_from_file_location("samplers_benchmark", BENCHMARKS / "samplers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    spec.loader.exec_module(module)
    module.main()
    text = capsys.readouterr().out
    assert "3-3-3 rank 0 minimal" in text
    assert all(f"rllc {name}" in text for name in ("sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht"))
    assert "devinterp is not installed" in text

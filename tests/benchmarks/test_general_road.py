"""The benchmark of the general road runs, and compares sides that agree."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import count
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "general_road.py"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("general_road_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_small_run(benchmark_module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str) -> None:
    small = ["--chains", "3", "--draws", "4", "--rounds", "1", "--batch", "5", "--net", "16-32-1 tanh", "--format", form]
    monkeypatch.setattr(sys, "argv", ["general_road.py", *small])
    benchmark_module.main()
    text = capsys.readouterr().out
    if form == "table":
        assert "3 chains, SGLD, batch 5, medians of 1" in text
        assert "16-32-1 tanh" in text
        return
    found = json.loads(text)
    assert found["machine"]["threads"] == 1
    assert found["rows"][0]["weights"] == 16 * 32 + 32 + 32 + 1
    assert found["rows"][0]["vmap, one pass, ratio"] > 0


def test_sides_that_differ_are_told(benchmark_module, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = benchmark_module.run_chains, count()

    def other_noise(objective, origin, batches, settings, noise):
        shift = next(calls)
        return run(objective, origin, batches, settings, [[seed + shift for seed in row] for row in noise])

    monkeypatch.setattr(benchmark_module, "run_chains", other_noise)
    settings = benchmark_module.replace(benchmark_module.SETTINGS, chains=2, draws=4)
    with pytest.raises(AssertionError, match="differs from single chains"):
        benchmark_module.measure("16-32-1 tanh", settings, 1, 5)

"""The benchmarks of the engine run on toys, and count what the plan counts."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rllc.core.names import Part
from rllc.model.cost import operations
from rllc.model.shape import ModelShape
from rllc.posterior.noise import Noise
from rllc.posterior.settings import SamplerSettings

SHAPE = ModelShape(n_layers=2, d_model=64, n_heads=4, d_head=16, d_vocab=200, n_ctx=32)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmarks, and what it imports of them, by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if not name.startswith(("rllc", "torch", "numpy")):
            del sys.modules[name]


@pytest.mark.parametrize("layer", [0, 1])
def test_the_roofline_counts_what_the_plan_counts(load, layer: int) -> None:
    products = load("roofline").needed(SHAPE, layer, 4, 16, 4, torch.float32, torch.device("cpu"))
    counted = sum(flops * calls for name, flops, _, calls in products if name != "logits of all")
    planned = operations(SHAPE, Part.of_head(layer, 0), 4, 32)
    assert 0.8 < counted / planned < 1.25
    for _, flops, call, calls in products:
        assert flops > 0
        assert calls > 0
        call()


def test_a_row_of_the_roofline(load) -> None:
    row = load("roofline").row(SHAPE, 1, 2, 2, 1, torch.float32, torch.device("cpu"))
    assert 0 < row.product_ms < row.step_ms
    assert 0 < row.share < row.share_with_softmax
    assert row.textbook > 0


def test_curves_of_the_scaling(load) -> None:
    scaling: ModuleType = load("scaling")
    curves = scaling.curves(scaling.QUICK, 1, 1)
    assert [curve.varied for curve in curves] == ["chains", "heads sampled", "context", "vocabulary", "width, heads of equal size", "layers"]
    assert all(min(curve.ms) > 0 and math.isfinite(curve.exponent) for curve in curves)
    assert scaling.exponent([3, 6, 12], [2.0, 1.0, 0.5]) == pytest.approx(-1)


def test_the_device_script_goes_through_on_a_toy(load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = load("gpu")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--out", str(tmp_path / "gpu.json")])
    monkeypatch.setattr(gpu, "DRAWS", 8)
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [name for name, value in found.items() if str(value).startswith("failed")]
    assert found["the paper's cell, fp32"]["cell s"] > 0
    assert found["bf16 products against fp32"]["largest move in standard errors"] < 0.25
    assert "the paper's cell" in capsys.readouterr().out
    if not torch.cuda.is_available():
        monkeypatch.setattr(sys, "argv", ["gpu.py"])
        with pytest.raises(SystemExit):
            gpu.main()


def test_seconds_to_a_target(load) -> None:
    accuracy = load("accuracy")
    counts, errors = np.array([10, 20, 40, 80]), np.array([0.2, 0.04, 0.08, 0.03])
    assert accuracy.seconds_to(0.05, errors, counts, 9, 0.5) == (0.5 * (9 + 1 + 80), False)  # 20 draws met it by luck
    assert accuracy.seconds_to(0.1, errors, counts, 9, 0.5) == (0.5 * (9 + 1 + 20), False)
    seconds, extrapolated = accuracy.seconds_to(0.015, errors, counts, 9, 0.5)
    assert extrapolated
    assert seconds == pytest.approx(0.5 * (9 + 1 + 320))


def test_burn_in_and_antithetic_noise(load) -> None:
    accuracy = load("accuracy")
    settings = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=10, burn_in=0)
    steps = accuracy.Way("", settings, 1).burn_in
    assert 0.9 ** (2 * steps) <= 0.04 < 0.9 ** (2 * (steps - 1))
    draw = accuracy.Antithetic(Noise([1, 2, 3, 4], 6, torch.float32, torch.device("cpu"))).draw()
    assert torch.equal(draw.normal[1], -draw.normal[0])
    assert torch.equal(draw.normal[3], -draw.normal[2])
    assert not torch.equal(draw.normal[2], draw.normal[0])

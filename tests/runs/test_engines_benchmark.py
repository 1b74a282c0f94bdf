"""The benchmark of the engines runs on a toy, with the engine that needs nothing."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder


def test_rows_of_the_engines(finished, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    engines = importlib.import_module("engines")
    experiment = parse((finished / "experiment.toml").read_text())
    experiment = replace(experiment, sample=(replace(experiment.sample[0], parts=("heads",), checkpoints=(12,)),))
    rows = engines.rows(RunFolder(finished), experiment, ["local"], [1, 1], 2, 8)
    first, again = rows
    assert first.efficiency is None
    assert 0.1 < again.efficiency < 10  # the same once more
    assert first.spread_s < first.wall_s
    for row in rows:
        assert 0 <= row.overhead_ms < 1e3 * row.wall_s
        assert row.handing_out_ms > 0
    quick = engines.demo_like(quick=True)
    assert len({step for block in quick.sample for step in block.checkpoints}) == 2

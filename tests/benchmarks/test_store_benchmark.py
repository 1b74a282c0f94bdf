"""The benchmark of the store runs on a small one, and what it makes up is a store like any other."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from rllc.records.store import Store


def test_the_benchmark_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    benchmark = importlib.import_module("store")
    found = benchmark.measure(tmp_path / "records", 40, 10)
    assert found["records"] == 40
    assert found["opening the table, s"] < 5
    assert len(Store(tmp_path / "records").digests("sample")) == 40
    assert Store(tmp_path / "records").check() == ()
    again = benchmark.measure(tmp_path / "records", 40, 10)
    assert "put, flushed, ms (median)" not in again  # what is there is not made again

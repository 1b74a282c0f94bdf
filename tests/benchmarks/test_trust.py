"""The comparison with peers runs where no peer is installed, and what it holds the tools against is right."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, devinterp hidden."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setitem(sys.modules, "devinterp", None)
    return importlib.import_module("trust")


def test_rllc_alone_is_measured(trust: ModuleType) -> None:
    found = trust.measured(2, quick=True)
    assert "devinterp is not installed" in trust.page(found)
    assert {row["by"].split()[0] for row in found["estimates"]} == {"rllc"}
    for row in found["estimates"]:
        assert abs(row["mean"] - row["aim"]) < 5, row  # one seed's standard deviation is about 1 at this length
    assert [row["finite numbers given"] for row in found["failing chains"]] == [0]
    assert [row["rllc"] for row in found["a folder used again"]] == ["the record is taken"] + 4 * ["sampled anew"]


def test_the_chain_on_a_grid_has_the_closed_form_of_a_quadratic(trust: ModuleType) -> None:
    """METHOD 3.1, by the transition density that w⁴ is held against."""
    cases = trust.trust_cases
    chain = replace(cases.quadratic().chain, step_size=2e-3)
    h = np.array([5.0])
    assert cases.line_limit(lambda v: 2.5 * v**2, lambda v: 5 * v, chain, 0.6) == pytest.approx(cases.quadratic_limit(h, chain), rel=1e-6)
    assert cases.line_truth(lambda v: 2.5 * v**2, chain, 0.6) == pytest.approx(cases.quadratic_truth(h, chain), rel=1e-6)


def test_averages_from_w_star_tend_to_the_limit(trust: ModuleType) -> None:
    """METHOD 3.1, relaxation: by the recursion of v² itself."""
    cases = trust.trust_cases
    chain = replace(cases.burn_in(3).chain, draws=4)
    v2, llc = 0.0, []
    for _ in range(8):
        llc.append(30 * v2 / 2)
        v2 = (1 - 5e-4 * 40) ** 2 * v2 + 1e-3
    found = cases.quadratic_averages(np.ones(1), chain)
    assert found == pytest.approx({"draws": np.mean(llc[4:]), "all": np.mean(llc[:-1]), "stored": np.mean(llc[3:-1])})

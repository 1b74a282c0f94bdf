from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from rllc.analysis.planted import BENDS, Failures, _same, _wilson, failure_rates, planted
from rllc.analysis.settings import AnalysisSettings

SETTINGS = AnalysisSettings(resamples=12, max_bends=4, max_clusters=4)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, float], Failures]:
    return {(row.analysis, row.noise): row for row in failure_rates((0.01, 0.5), 4, SETTINGS, 0)}


def test_hardly_anything_is_missed_at_one_percent_noise_and_nearly_everything_at_fifty(table: dict[tuple[str, float], Failures]) -> None:
    """The lab log's table has 0 of 40 at 1 %, a rate of at most 8.8 %: two failures of four would then have a chance of at most 4 %."""
    for name in ("groups (kmeans)", "groups (hierarchical)", "turns", "bends", "parting missed or late"):
        assert table[name, 0.01].failed <= 1
        assert table[name, 0.5].failed >= 3
        assert table[name, 0.5].draws == 4
    assert table["parting too early", 0.01].failed + table["parting too early", 0.5].failed <= 1


def test_planted_curves_are_what_they_say() -> None:
    clean = planted(0.0, 0)
    x = np.log1p(clean.full.steps)
    np.testing.assert_allclose(np.log1p(clean.bends), BENDS)
    np.testing.assert_allclose(np.log1p(clean.turns), BENDS[1:])
    slopes = np.diff(clean.full.llc[0]) / np.diff(x)
    assert (slopes[x[1:] < BENDS[0]] > 0).all()
    inside = (x[:-1] > BENDS[1]) & (x[1:] < BENDS[2])
    np.testing.assert_allclose(slopes[inside], -5)
    pair = clean.pair.llc[0] - clean.pair.llc[1]
    assert (pair[clean.pair.steps <= clean.parts_after] == 0).all()
    assert (pair[clean.pair.steps > clean.parts_after] > 0).all()
    assert pair[-1] == pytest.approx(10)
    assert (clean.heads.llc[clean.groups == 1] == clean.heads.llc[1]).all()
    noisy = planted(0.1, 0)
    assert (noisy.heads.llc - clean.heads.llc).std() == pytest.approx(1.0, rel=0.15)
    assert (planted(0.1, 1).heads.llc != noisy.heads.llc).any()


def test_a_boundary_too_many_or_too_far_is_a_failure() -> None:
    truth = np.expm1([2.0, 5.0])
    assert _same(np.expm1([5.4, 1.6]), truth)
    assert not _same(np.expm1([5.6, 2.0]), truth)
    assert not _same(np.expm1([2.0, 5.0, 8.0]), truth)
    assert not _same(np.zeros(0), truth)


def test_wilsons_interval() -> None:
    assert _wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert _wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_script_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["planted.py", "--draws", "1", "--noise", "0.01", "--resamples", "10"])
    runpy.run_path(str(ROOT / "benchmarks" / "planted.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "groups (kmeans)" in printed
    assert printed.count("0.01") == 6

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rllc.analysis.calibrated import CalibrationMap, Point
from rllc.core.errors import RllcError
from rllc.figures.calibration import PROBLEMS, draw, write_calibration

pytest.importorskip("matplotlib")


def found(temperatures: int = 2) -> CalibrationMap:
    """A map with one cell of every kind."""
    shape = (temperatures, 2, 3)
    problem = np.full(shape, "", dtype="<U10")
    problem[0, 1] = ["biased", "refused", "far"]
    problem[-1, 1, 0] = "drifting"
    llc = np.linspace(0.5, 30, int(np.prod(shape))).reshape(shape)
    llc[problem == "refused"] = np.nan
    tau = np.where(problem == "", 0.7, np.nan)
    own, star = Point(0.015, 0.1, 30.0, "ε 0.001, γ 200, nβ 30"), Point(0.03, 0.1, 30.0, "ε 0.002, γ 100, nβ 30")
    places = np.array([0.0075, 0.015, 0.03]), np.array([0.1, 0.2]), np.array([30.0, 100.0])[:temperatures]
    return CalibrationMap(*places, llc, tau, problem, star, own, 16, "step 3,000, mixture")


def texts(figure: object) -> str:
    """Everything written in a figure."""
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text))  # type: ignore[attr-defined]


def test_both_files_are_written_the_same_every_time(tmp_path: Path) -> None:
    first, second = ([p.read_bytes() for p in write_calibration(found(), tmp_path / name)] for name in ("a", "b"))
    assert first == second
    assert first[0].startswith(b"\x89PNG")
    assert b"<svg" in first[1]


def test_it_says_what_it_shows() -> None:
    text = texts(draw(found()))
    for word in ("16 parts", "step 3,000", "nβ 30", "nβ 100", "ε nβ/2", "ε γ/2", "Kendall τ", "median λ̂", "recommended: ε 0.002, γ 100, nβ 30"):
        assert word in text
    assert "own: ε 0.001, γ 200, nβ 30" in text
    for kind in PROBLEMS:
        assert PROBLEMS[kind][1] in text


def test_an_unhealthy_cell_is_hatched_and_has_no_number() -> None:
    from matplotlib.patches import Rectangle

    upper = draw(found()).axes[0]
    hatches = {p.get_hatch() for p in upper.patches if isinstance(p, Rectangle)} - {None}
    assert hatches == {PROBLEMS[kind][0] for kind in ("biased", "refused", "far")}
    assert len(upper.texts) == 3  # of six cells


def test_marks_stand_where_the_settings_are_and_a_setting_outside_at_the_edge() -> None:
    figure = draw(replace(found(), own=Point(1.0, 0.1, 30.0, "far out")))
    marks = {line.get_marker(): line for line in figure.axes[0].lines}
    assert float(marks["*"].get_xdata()[0]) == pytest.approx(0.03)  # type: ignore[index]
    assert float(marks["o"].get_xdata()[0]) == pytest.approx(0.03 * 1.3)  # type: ignore[index]
    assert not figure.axes[1].lines, "the other temperature has none"


def test_without_a_recommendation_and_with_one_temperature(tmp_path: Path) -> None:
    figure = draw(replace(found(1), recommended=None))
    assert "recommended:" not in texts(figure)
    assert len(write_calibration(replace(found(1), recommended=None), tmp_path)) == 2


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RllcError, match=r"rllc\[paper\]"):
        write_calibration(found(), tmp_path)

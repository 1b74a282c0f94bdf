"""The table of diagnostics: the worst cell of each, how many pass, and what is left out."""

from __future__ import annotations

import re

from rllc.report.diagnostics import diagnostics_table

CELL = {"step": 10, "part": "0:1", "data": "train", "rhat": 1.01, "ess": 90.0, "stein_ratio": 1.05, "stein_expected": 1.05, "geweke": 0.3}


def rows(html: str) -> dict[str, list[str]]:
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    return {cells[0]: cells[1:] for cells in found}


def test_the_worst_cell_stands_with_the_share_that_passes() -> None:
    bad = CELL | {"part": "1:6", "step": 2000, "rhat": 1.3, "ess": 7.0, "stein_ratio": 0.7, "geweke": -3.25, "hw_discard": 0.2}
    found = rows(str(diagnostics_table([CELL, CELL, bad, CELL | {"rhat": float("nan")}])))
    assert found["split R-hat"][1:] == ["67 %", "1.3", "1:6, step 2,000, train", "3"]
    assert found["effective draws"][1:3] == ["75 %", "7"]
    assert found["Stein ratio over its value at equilibrium"][1:3] == ["75 %", "0.667"]
    assert next(cells for name, cells in found.items() if name.startswith("Geweke"))[1:3] == ["75 %", "−3.25"]
    assert found["Heidelberger and Welch, share of draws to leave out"][1:] == ["0 %", "0.2", "1:6, step 2,000, train", "1"]
    assert not any("half width" in name for name in found)


def test_a_cell_that_no_share_of_draws_settles_is_counted_against_it() -> None:
    cells = [CELL | {"hw_discard": 0.0, "draws": 60, "burn_in": 10}, CELL | {"hw_discard": None, "draws": 60, "burn_in": 10}]
    found = next(c for name, c in rows(str(diagnostics_table(cells))).items() if "leave out" in name)
    assert found[1:3] == ["50 %", "more than half"]


def test_what_is_left_out_is_said() -> None:
    said = str(diagnostics_table([CELL]))
    assert "No cell has what Heidelberger and Welch, Heidelberger and Welch and Raftery and Lewis take" not in said
    assert "No cell has what Heidelberger and Welch and Raftery and Lewis take: they need longer chains." in said
    assert "No cell has" not in str(diagnostics_table([CELL | {"hw_discard": 0.0, "hw_halfwidth": 0.02, "raftery_lewis": 1.4}]))
    assert "No diagnostic" in str(diagnostics_table([{"step": 0, "part": "0:0", "data": "x"}]))

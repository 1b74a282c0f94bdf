"""The pages of single figures run their own scripts, and no other."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

import numpy as np

from rllc.figures.drawing import Line, Panel, Plot, Table
from rllc.figures.interactive import write_page
from rllc.figures.palette import Style


def rules_of(page: str) -> dict[str, list[str]]:
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    return {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}


def test_a_plot_names_exactly_its_scripts_and_those_beside_it(tmp_path: Path) -> None:
    line = Line(np.arange(3.0), np.arange(3.0), Style("#123456", "solid", "circle", "o"), "</script><script>alert(1)</script>")
    page = write_page(Plot("A title", "A caption.", (Panel("one", (line,)),)), tmp_path, "plot").read_text("utf-8")
    rules = rules_of(page)
    assert rules["default-src"] == ["'none'"]
    scripts = [text for text in re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) if text]
    assert len(scripts) == 2
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert rules["script-src"] == [*hashes, "'self'", "file:"]
    assert re.findall(r'src="([^"]*)"', page) == ["plotly.min.js"]
    assert "alert(1)</script>" not in page


def test_a_table_runs_no_script(tmp_path: Path) -> None:
    page = write_page(Table("A title", "A caption.", ("one",), (("1",),)), tmp_path, "table").read_text("utf-8")
    assert rules_of(page)["script-src"] == ["'none'"]
    assert "<script" not in page

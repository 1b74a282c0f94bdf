"""The figures of the catalogue on the page: each where it belongs, under its finding, with its caption; what is lacking is told."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from rllc.analysis.comparisons import Turns
from rllc.figures.catalogue import CATALOGUE
from rllc.figures.drawing import Plot, Table
from rllc.figures.text import visible
from rllc.report.build import render
from rllc.report.data import LEFT_OUT, ReportData, cells
from rllc.report.diagnostics import diagnostics_told
from rllc.report.tables import escaped
from rllc.report.text import report_markdown
from rllc.report.walk import baseline_table, baselines_told

# of these the page has a figure of its own, which answers to its buttons
IN_FILES_ALONE = {"loss-and-stages", "heads", "every-head", "refined-by-data", "final-differences", "attention-maps"}
SECTIONS = {
    "stages": ("ngrams",),
    "heads": ("heads-part", "wrllc-on-multigrams", "multigrams-over-training", "multigram-table", "threshold-sensitivity"),
    "clusters": ("kmeans-clusters", "clusterings", "clusters", "number-of-clusters"),
    "specialisation": ("data-part",),
    "behaviour": ("ablation", "token-classes", "painted-effects", "painted-shares", "attention-scores", "most-affected", "ov-circuits"),
    "circuit": ("against-one-layer", "edges", "edges-over-training", "paths-to-logits", "composition", "affected-together"),
    "beside": ("orderings", "baselines", "controls", "sensitivity", "temperatures"),
    "seeds": ("types-by-seed", "matched-heads"),
}


@pytest.fixture(scope="module")
def page(whole: ReportData) -> str:
    return render(whole)


def section(page: str, anchor: str) -> str:
    start = page.index(f'<section id="{anchor}"')
    return page[start : page.index("</section>", start)]


def test_every_figure_of_the_catalogue_is_on_the_page_under_its_finding(page: str, whole: ReportData) -> None:
    assert set(whole.drawn.drawings) == {entry.name for entry in CATALOGUE}
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    for name, drawing in whole.drawn.drawings.items():
        if name in IN_FILES_ALONE:
            assert f'id="figure-{name}"' not in page or name == "heads", name
            continue
        assert f'id="figure-{name}"' in page, name
        title, caption = (html.escape(visible(text)) for text in (drawing.title, drawing.caption))
        assert f">{title}<" in page, name
        assert caption in page, name
        assert (name in figures) == isinstance(drawing, Plot), name
    assert "Figures that this run does not have" not in page
    assert len(page.encode()) < 15e6


@pytest.mark.parametrize("anchor", SECTIONS)
def test_figures_stand_in_their_sections(page: str, anchor: str) -> None:
    found = section(page, anchor)
    for name in SECTIONS[anchor]:
        assert f'id="figure-{name}"' in found, name


def test_one_table_tells_which_baseline_orders_heads_and_which_sees_the_stages(whole: ReportData) -> None:
    (order,) = [row for row in whole.findings.orderings if row.name == "weight_norm"]
    turns = (
        Turns("weight_norm", np.array([400.0, 1234.0]), np.array([0.1, 0.3]), 0.2, 1.5, 0.04),
        Turns("entropy", np.array([]), np.array([]), float("nan"), float("nan"), 1.0),
    )
    table = baseline_table(replace(whole.findings, orderings=(order,), turns=turns))
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in table.split("<tr>")[2:]]
    rho, low, high = (f"{v:.2f}".replace("-", "−") for v in (order.correlation, *order.over_heads))
    assert rows[0] == ["weight norm", rho, f"{low} to {high}", f"{order.p_holm:.2g}", "400, 1,234", "0.20", "1.50", "0.04"]
    assert rows[1] == ["entropy", "", "", "", "none", "", "", ""]
    assert baseline_table(replace(whole.findings, orderings=(), turns=())) == ""
    assert baseline_table(whole.findings) in section(render(whole), "beside")


def test_text_of_the_corpus_is_text(page: str, whole: ReportData) -> None:
    table = whole.drawn.drawings["most-affected"]
    assert isinstance(table, Table)
    odd = "<img src=x onerror=alert(1)>\u202e"
    rows = ((*table.rows[0][:3], odd, *table.rows[0][4:]), *table.rows[1:])
    again = render(replace(whole, drawn=replace(whole.drawn, drawings={"most-affected": replace(table, rows=rows)})))
    assert "<img" not in again
    assert "&lt;img src=x onerror=alert(1)&gt;⟨202E⟩" in section(again, "behaviour")
    assert "color:#" not in section(page, "behaviour")  # words follow the theme


def test_what_was_not_measured_is_told_where_it_would_stand(data: ReportData, whole: ReportData) -> None:
    lacking = {"edges": "It needs path ablation.", "types-by-seed": "It needs <several> seeds."}
    bare = render(replace(data, drawn=replace(whole.drawn, drawings={}, lacking=lacking)))
    assert "Not measured in this run." in section(bare, "circuit")
    assert "It needs path ablation." in section(bare, "circuit")
    assert "It needs &lt;several&gt; seeds." in section(bare, "seeds")
    assert "it needs path ablation." in section(bare, "notes")


def test_figures_that_are_left_out_name_their_files(whole: ReportData) -> None:
    lean = render(replace(whole, without=LEFT_OUT[:3]))
    assert "figures/edges.html, beside it" in section(lean, "circuit")
    assert html.escape(whole.drawn.drawings["edges"].title) in section(lean, "circuit")
    assert 'data-figure="edges"' not in lean


def test_the_words_of_the_page_as_markdown(whole: ReportData) -> None:
    odd = replace(whole, title="A *run* <b>", notes=("One | note.",))
    text = report_markdown(odd)
    assert text.startswith("# A \\*run\\* &lt;b>\n")
    assert "25 % of the training text was planted" in text
    for drawing in whole.drawn.drawings.values():
        assert escaped(drawing.title) in text
        assert escaped(drawing.caption) in text
    assert "- One \\| note." in text
    assert "<b>" not in text
    baselines, diagnostics = baselines_told(whole.findings), diagnostics_told(cells(whole))
    for told in (baselines, diagnostics):
        for row in (told.head, *told.rows):
            assert f"| {' | '.join(map(escaped, row))} |" in text
    assert "| baseline | ρ with wrLLC |" in text
    assert "| split R-hat | at most 1.1 |" in text
    assert "- **Stages.** The full model's LLC turns" in text
    bare = report_markdown(replace(odd, drawn=replace(whole.drawn, drawings={}, lacking={"edges": "It needs path ablation."})))
    assert "- `edges`: It needs path ablation." in bare
    assert "## Figures" not in bare

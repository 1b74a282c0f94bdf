"""Every figure of the catalogue on planted data: what is drawn is what was given, titles are computed, gaps stay gaps, text stays text."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from rllc.analysis.measured import Measured
from rllc.core.errors import RllcError
from rllc.figures import logit_paths, painting
from rllc.figures.catalogue import CATALOGUE
from rllc.figures.drawing import Cells, Line, Painted, Plot, Points, Rule, Table
from rllc.figures.head_lines import REACH
from rllc.figures.interactive import interactive
from rllc.figures.material import Material
from rllc.figures.palette import DARK, TYPES
from rllc.figures.printed import printed
from rllc.figures.printing import STYLE
from rllc.figures.sheets import sheet_html
from rllc.figures.told import Told
from rllc.figures.whole_set import Drawn, draw_all, write_all


@pytest.fixture(scope="module")
def shown(drawn: Drawn) -> dict[str, go.Figure]:
    return {name: interactive(d) for name, d in drawn.drawings.items() if isinstance(d, Plot)}


def plot(drawn: Drawn, name: str) -> Plot:
    found = drawn.drawings[name]
    assert isinstance(found, Plot)
    return found


def layers(found: Plot, kind: type, panel: int | None = None) -> list[Any]:
    panels = found.panels if panel is None else found.panels[panel : panel + 1]
    return [layer for p in panels for layer in p.layers if isinstance(layer, kind)]


def line(found: Plot, name: str, panel: int = 0) -> Line:
    (only,) = [layer for layer in layers(found, Line, panel) if layer.name == name]
    return only


def test_every_figure_is_drawn_where_its_data_is_there(drawn: Drawn) -> None:
    assert drawn.lacking == {}
    assert list(drawn.drawings) == [entry.name for entry in CATALOGUE]
    assert len({d.title for d in drawn.drawings.values()}) == len(CATALOGUE)
    for name, d in drawn.drawings.items():
        assert d.caption, name
        assert "nan" not in (d.title + d.caption).lower().split(), name


def test_a_bare_run_says_of_each_figure_what_it_lacks(material: Material) -> None:
    bare = replace(material.findings, curves={}, full={}, clusterings=(), agreements=(), specialisation=(), patterns=None)
    bare = replace(bare, partings=(), orderings=(), regression=None, seeds=None, circuit=None, twins=None, numbers=None, ablation_clusterings=())
    behaviour = replace(bare.behaviour, scores={}, steps=np.array([], dtype=np.int64), icl=np.array([]))
    found = draw_all(Material(Told(), replace(bare, behaviour=behaviour, stages=None)))
    assert found.drawings == {}
    assert found.lacking["edges"] == "It needs path ablation."
    assert found.lacking["loss-and-stages"] == "The full model was not sampled."
    assert all(why.endswith(".") for why in found.lacking.values())


LOST = {
    "ablation": {"ablation", "ablated-loss"},
    "ngrams": {"ngrams"},
    "composition": {"composition"},
    "paths": {"edges", "edges-over-training", "paths-to-logits"},
    "tables": {"ov-circuits", "qk-circuits", "logit-attribution"},
    "shares": {"token-classes", "class-effects", "nested-closers"},
    "tokens": {"affected-together", "most-affected", "painted-effects"},
    "memorised": {"wrllc-on-multigrams", "threshold-sensitivity", "multigrams-over-training", "multigram-table"},
    "baselines": {"baselines"},
}


@pytest.mark.parametrize("kind", [f.name for f in fields(Measured)])
def test_one_kind_of_measurement_less_costs_its_own_figures_alone(material: Material, drawn: Drawn, kind: str) -> None:
    found = draw_all(replace(material, measured=replace(material.measured, **{kind: None})))
    assert set(found.lacking) == LOST[kind]
    assert set(found.drawings) == set(drawn.drawings) - LOST[kind]


def test_heads_carry_their_own_numbers_and_a_refused_cell_is_a_gap(material: Material, drawn: Drawn) -> None:
    found, curves = plot(drawn, "heads"), material.findings.curves["train"]
    by_name = {layer.end: layer for layer in layers(found, Line)}
    assert set(by_name) == set(curves.parts)
    for row, head in enumerate(curves.parts):
        np.testing.assert_array_equal(by_name[head].y, curves.llc[row])
        np.testing.assert_array_equal(by_name[head].low, curves.ci_low[row])
    assert np.isnan(by_name["1:3"].y[6])
    assert by_name["1:3"].refused.tolist() == [i == 6 for i in range(12)]


def test_the_title_of_heads_keeps_layers_apart_and_orders_types_by_their_means(material: Material, drawn: Drawn) -> None:
    title = drawn.drawings["heads"].title
    assert re.search(r"layer 0 previous-token 8.\d \(2 heads\), .* and other [\d.]+ \(5 heads\); layer 1 induction 8.7 \(2 heads\) and other", title)
    curves = material.findings.curves["train"]
    turned = {"train": replace(curves, llc=30 - curves.llc)}
    again = draw_all(replace(material, findings=replace(material.findings, curves=turned)))
    assert "layer 1 other" in again.drawings["heads"].title


def test_stages_show_both_methods_with_their_intervals(material: Material, drawn: Drawn) -> None:
    f, found = material.findings, plot(drawn, "loss-and-stages")
    rules = layers(found, Rule, 1)
    assert f.stages is not None
    assert f.bends is not None
    assert [r.at for r in rules] == [*f.stages.boundaries, *f.bends.steps]
    assert [r.interval for r in rules] == [tuple(i) for i in (*f.stages.intervals, *f.bends.intervals)]
    assert "2 of 2 found by both" in found.title
    np.testing.assert_array_equal(line(found, "code").y, f.behaviour.losses[list(f.behaviour.data).index("code")])


def test_temperatures_stand_in_their_order_each_with_its_own_boundaries(material: Material, drawn: Drawn) -> None:
    f, found = material.findings, plot(drawn, "temperatures")
    (other,) = f.temperatures
    assert f.stages is not None
    assert other.stages is not None
    assert [panel.title for panel in found.panels] == ["nβ 23", f"nβ {material.told.nbeta:g}"]
    for panel, stages in enumerate((other.stages, f.stages)):
        assert [r.at for r in layers(found, Rule, panel)] == list(stages.boundaries)
        np.testing.assert_array_equal(layers(found, Points, panel)[0].y, stages.curve.llc[0])
    assert found.title == "The LLC of the full model turns at nβ 23 at step 1,062, at nβ 30 at step 330 and step 850"
    none = replace(f, temperatures=(replace(other, stages=None),))
    assert "turns at nβ 23 nowhere beyond its errors, at nβ 30" in draw_all(replace(material, findings=none)).drawings["temperatures"].title


def test_ablation_that_was_not_measured_is_a_gap(material: Material, drawn: Drawn) -> None:
    effects = material.measured.ablation
    assert effects is not None
    found = line(plot(drawn, "ablation"), "0:2")
    np.testing.assert_array_equal(found.y, effects.normalised["zero"][2, :, 0])
    assert np.flatnonzero(np.isnan(found.y)).tolist() == [1]
    np.testing.assert_allclose(found.high - found.y, REACH * effects.normalised_stderr["zero"][2, :, 0])


def test_edges_stand_in_their_cells_and_only_clear_ones_are_numbered(material: Material, drawn: Drawn) -> None:
    edges = material.measured.paths
    assert edges is not None
    through_k = layers(plot(drawn, "edges"), Cells)[1]
    row, column = through_k.rows.index("0:4"), through_k.columns.index("1:6")
    effect = edges.effect[1, edges.pairs.index(("0:4", "1:6")), -1, 0]
    assert through_k.values[row, column] == pytest.approx(1000 * effect)
    numbered = {(through_k.rows[r], through_k.columns[c]) for r, texts in enumerate(through_k.texts) for c, text in enumerate(texts) if text}
    assert {("0:1", "1:6"), ("0:1", "1:7"), ("0:4", "1:6"), ("0:4", "1:7")} <= numbered
    assert len(numbered) < 10
    assert re.search(r"most is 0:[14] → 1:[67] \(2\d\.\d ± 0\.5 × 10⁻³ nats, most of it through K\)", drawn.drawings["edges"].title)


def test_paths_to_the_logits_carry_their_numbers_and_noise_is_not_counted(material: Material, drawn: Drawn) -> None:
    edges, found = material.measured.paths, plot(drawn, "paths-to-logits")
    assert edges is not None
    (dot,) = [p for p in layers(found, Points, 1) if p.name == "induction: 1:6, 1:7"]
    rows = [edges.heads.index(h) for h in ("1:6", "1:7")]
    np.testing.assert_allclose(dot.x, 1000 * edges.direct[rows, -1, 1])
    np.testing.assert_allclose(dot.x_high - dot.x, 1000 * REACH * edges.direct_stderr[rows, -1, 1])
    np.testing.assert_allclose(line(found, "1:6", 4).y, 1000 * edges.direct[rows[0], :, 1])
    rng, told = np.random.default_rng(0), 0
    for _ in range(40):
        noise = replace(edges, direct=0.01 * rng.standard_normal(edges.direct.shape), direct_stderr=np.full(edges.direct.shape, 0.01))
        level = logit_paths.to_logits(noise, material.findings, material.told)
        assert isinstance(level, Plot)
        told += "0 of 16 heads on train, 0 of 16 heads on code and 0 of 16 heads on prose" not in level.title
    assert told <= 6


def test_kmeans_clusters_have_colours_and_types_have_marks(material: Material, drawn: Drawn) -> None:
    f, found = material.findings, plot(drawn, "kmeans-clusters")
    curves, kinds = f.curves["train"], dict(zip(f.types.heads, f.types.types, strict=True))
    (one,) = [c for c in f.clusterings if (c.method, c.scope, c.preprocessing) == ("kmeans", "layer 1", "raw")]
    drawn_lines = {layer.end: layer for layer in layers(found, Line, 0)}
    assert set(drawn_lines) == set(one.heads)
    for head, shown in drawn_lines.items():
        np.testing.assert_array_equal(shown.y, curves.llc[curves.parts.index(head)])
        np.testing.assert_array_equal(shown.high, curves.ci_high[curves.parts.index(head)])
        assert shown.style.marker == TYPES[kinds[head]].marker
    by_cluster = {label: {drawn_lines[h].style.color for h, own in zip(one.heads, one.labels, strict=True) if own == label} for label in one.labels}
    assert all(len(colours) == 1 for colours in by_cluster.values())
    assert len(set.union(*by_cluster.values())) == len(by_cluster) == 2
    assert found.title.startswith("K-means on raw curves groups the 7 heads of layer 1 into A (1:6 and 1:7) and C (1:0,")
    assert [panel.title.split(" ")[0] for panel in found.panels] == ["raw", "standardised", "minmax"]
    own = replace(f, clusterings=tuple(replace(c, scope="all") for c in f.clusterings))
    assert draw_all(replace(material, findings=own)).lacking["kmeans-clusters"] == "It needs a K-means clustering of the last layer's heads."


def test_a_head_whose_ablation_raises_nothing_has_no_dot(drawn: Drawn) -> None:
    points = [p for p in layers(plot(drawn, "token-classes"), Points, 0) if "0:3" in p.name]
    at = points[0].y.tolist().index(3)
    assert np.isnan(points[0].x[at])
    assert "induction 1:6 and 1:7" in drawn.drawings["token-classes"].title


def test_the_multigram_circuit_tells_a_peak_from_a_rise(drawn: Drawn) -> None:
    title = drawn.drawings["against-one-layer"].title
    assert re.search(r"layer 0 is largest at step 400 and falls from there by 6\.\d \(p < 0.001\); of layer 1 ends 10.0 ± 0.4 above its start", title)


def test_the_regression_shows_heads_their_line_and_what_the_others_foretell(material: Material, drawn: Drawn) -> None:
    fit, found = material.findings.regression, plot(drawn, "wrllc-on-multigrams")
    assert fit is not None
    ramp = line(found, "least squares")
    np.testing.assert_allclose(ramp.y, fit.intercept + fit.slope * ramp.x)
    foretold = {label: x for p in layers(found, Points, 1) for label, x in zip(p.labels, p.x, strict=True)}
    assert foretold == dict(zip(fit.heads, fit.foretold.tolist(), strict=True))
    assert found.title.startswith("Final wrLLC rises with the number of memorised multigrams")
    flat = draw_all(replace(material, findings=replace(material.findings, regression=replace(fit, slope_interval=(-0.1, 0.1)))))
    assert "does not clearly go with" in flat.drawings["wrllc-on-multigrams"].title


def test_heads_that_never_part_have_a_dash(material: Material, drawn: Drawn) -> None:
    (cells,) = layers(plot(drawn, "heads-part"), Cells)
    found = material.head_partings
    assert found is not None
    at = dict(zip(found.names, found.steps.tolist(), strict=True))
    assert at["0:1 - 1:7"] == -1
    row, column = cells.rows.index("0:1"), cells.columns.index("1:7")
    assert cells.texts[row][column] == cells.texts[column][row] == "–"
    assert np.isnan(cells.values[row, column])


def test_clusterings_that_chance_explains_have_no_star(material: Material, drawn: Drawn) -> None:
    found = plot(drawn, "clusterings")
    stars = sum("*" in text for cells in layers(found, Cells) for row in cells.texts for text in row)
    alone = sum(a.adjusted_rand > a.chance_interval[1] for a in material.findings.agreements)
    beyond = sum(a.p < 0.001 for a in material.findings.agreements)
    assert 0 < stars == beyond < alone < len(material.findings.agreements)
    assert found.title.startswith(f"{beyond} of 36 clusterings of wrLLC curves agree")


def test_text_of_the_corpus_is_escaped_wherever_it_is_html(drawn: Drawn, shown: dict[str, go.Figure]) -> None:
    for name in ("painted-effects", "painted-shares", "most-affected", "multigram-table", "ov-circuits", "qk-circuits"):
        sheet = drawn.drawings[name]
        assert isinstance(sheet, Table | Painted)
        page = sheet_html(sheet)
        assert "<b>" not in page
        assert "</script>" not in page
        assert "\u202e" not in page
        assert "\x07" not in page
        assert "&amp;amp;" in page or "&lt;" in page
    for name, figure in shown.items():
        assert not re.search(r"<(script|img|b>bold)", str(figure.to_json())), name


def test_painted_text_tells_its_scale_and_leaves_the_first_token_bare(material: Material) -> None:
    tokens = material.measured.tokens
    assert tokens is not None
    found = painting.painted_effects(tokens, material.findings, material.told, heads=("1:6",))
    assert isinstance(found, Painted)
    (passage,) = found.passages
    np.testing.assert_array_equal(passage.values[1:], tokens.effects[0][tokens.heads.index("1:6"), -1, 1:])
    assert np.isnan(passage.values[0])
    page = sheet_html(found)
    assert page.count('title="') == len(passage.tokens) - 1
    assert f"{found.limit:.2g}" in page
    assert "nats" in page


def test_plots_in_plotly_show_the_same_numbers(drawn: Drawn, shown: dict[str, go.Figure]) -> None:
    for name, figure in shown.items():
        d = plot(drawn, name)
        assert figure.layout.meta["title"] == d.title
        expected = [layer.y for layer in layers(d, Line) if layer.name] + [layer.y for layer in layers(d, Points)]
        rows = [np.asarray(t.y, dtype=float) for t in figure.data if t.type == "scatter" and t.y is not None]
        for values in expected:
            assert any(len(values) == len(y) and np.array_equal(values, y, equal_nan=True) for y in rows), name
        for cells, trace in zip(layers(d, Cells), [t for t in figure.data if t.type == "heatmap"], strict=True):
            np.testing.assert_array_equal(cells.values, trace.z)


def test_plots_use_only_colours_that_have_a_dark_twin(drawn: Drawn, shown: dict[str, go.Figure]) -> None:
    triples = {",".join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5)) for c in DARK}
    for name, d in drawn.drawings.items():
        text = str(shown[name].to_json()) if isinstance(d, Plot) else sheet_html(d)
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= set(DARK), name
        assert set(re.findall(r"rgba\((\d+,\d+,\d+)", text)) <= triples | {"0,0,0"}, name


def test_what_is_written_is_three_forms_and_the_captions(drawn: Drawn, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    few = Drawn({n: drawn.drawings[n] for n in ("wrllc-on-multigrams", "painted-effects")}, {"ablation": "It needs x."})
    paths = write_all(few, tmp_path)
    assert {p.name for p in paths} == {f"{n}.{e}" for n in few.drawings for e in ("png", "svg", "html")} | {"captions.json"}
    told = json.loads((tmp_path / "captions.json").read_text("utf-8"))
    assert told["lacking"] == {"ablation": "It needs x."}
    assert told["drawn"]["painted-effects"]["title"] == drawn.drawings["painted-effects"].title
    for name in few.drawings:
        page = (tmp_path / f"{name}.html").read_text("utf-8")
        assert not re.search(r'(src|href)="https?:', page)
    assert (tmp_path / "plotly.min.js").stat().st_size > 1e6


def test_printed_figures_hold_title_caption_and_text_as_it_is(drawn: Drawn) -> None:
    mpl = pytest.importorskip("matplotlib")
    with mpl.rc_context(STYLE):
        for name in ("clusters", "multigram-table"):
            d = drawn.drawings[name]
            figure = printed(d)
            words = [t.get_text().replace("\n", " ") for t in figure.texts]
            assert d.title in words
            assert d.caption in " ".join(words) or d.caption.split()[0] in words[1]
            figure.draw_without_rendering()
    texts = {t.get_text() for ax in figure.axes for t in ax.texts}
    assert any("$x^2$" in t for t in texts), "a dollar is no mathematics"
    assert any("⟨202E⟩" in t for t in texts)


def test_without_matplotlib_a_sentence_says_so(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RllcError, match=r"rllc\[paper\]"):
        write_all(drawn, tmp_path)


def test_a_run_of_one_layer_draws_what_it_can(paper: ModuleType, material: Material) -> None:
    measures, synthetic = paper.load("planted_measures"), paper.load("synthetic")
    f = synthetic.findings(layers=1)
    found = draw_all(Material(material.told, f, measures.measured(f.behaviour.heads, f.types.types, f.behaviour.steps[::3], ("train",))))
    for name in ("edges", "edges-over-training", "composition"):
        assert found.lacking[name] == "The model has no pair of an earlier and a later head."
    assert {"heads", "ablation", "token-classes", "affected-together", "baselines", "paths-to-logits"} <= set(found.drawings)


def test_the_documentation_lists_every_figure_with_what_it_needs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{entry.name}` | {entry.stands_for} | {entry.needs} |" for entry in CATALOGUE]


def test_files_have_no_date_and_the_same_bytes_for_the_same_findings(drawn: Drawn, tmp_path: Path) -> None:
    few = Drawn({name: drawn.drawings[name] for name in ("heads", "most-affected")})
    first, second = ({path.name: path.read_bytes() for path in write_all(few, tmp_path / name)} for name in "ab")
    assert first == second
    for name in few.drawings:
        assert first[f"{name}.png"].startswith(b"\x89PNG")
        assert b"<svg" in first[f"{name}.svg"]
        assert b"<dc:date>" not in first[f"{name}.svg"]

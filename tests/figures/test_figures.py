from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from rllc.analysis.findings import Findings, Stages
from rllc.figures import clusters, curves, domains, health, training
from rllc.figures.axis import StepAxis
from rllc.figures.layout import curve_span
from rllc.figures.palette import MIXTURE, PAPER, TYPES, data_styles

STYLES = data_styles(("train", "code", "prose", "echo"), "train")


def head_lines(figure: go.Figure, head: str) -> list[Any]:
    return [t for t in figure.data if t.meta and t.meta.get("head") == head and t.mode == "lines+markers"]


def notes(figure: go.Figure) -> list[str]:
    return [a.text for a in figure.layout.annotations]


def test_every_head_is_a_line_in_its_layers_panel_with_its_own_numbers(findings: Findings) -> None:
    c = findings.curves["train"]
    figure = curves.head_curves(c, findings.types)
    axis = StepAxis.of(c.steps)
    for row, head in enumerate(c.parts):
        (line,) = head_lines(figure, head)
        np.testing.assert_array_equal(line.y, c.llc[row])
        np.testing.assert_allclose(line.x, axis(c.steps))
        assert line.xaxis == ("x" if head.startswith("0") else "x2")
        assert line.line.color == TYPES[findings.types.types[row]].color
        assert [a.text for a in figure.layout.annotations if a.name == f"head {head}"] == [head]
    assert {t.name for t in figure.data if t.showlegend} == {"previous-token", "current-token", "induction", "other"}


def test_bands_span_the_intervals_and_break_at_a_refused_cell(findings: Findings) -> None:
    c = findings.curves["train"]
    figure = curves.head_curves(c, findings.types)
    (shade,) = [t for t in figure.data if t.meta and t.meta.get("head") == "1:3" and t.fill == "toself"]
    finite = np.isfinite(shade.y)
    row = c.parts.index("1:3")
    assert set(np.asarray(shade.y)[finite]) == {v for v in (*c.ci_low[row], *c.ci_high[row]) if np.isfinite(v)}
    assert (~finite).sum() == 1, "a gap between the two stretches"


def test_a_refused_cell_is_a_cross_on_the_floor_and_a_marked_one_is_hollow(findings: Findings) -> None:
    c = findings.curves["train"]
    figure = curves.head_curves(c, findings.types)
    crosses = [t for t in figure.data if t.marker.symbol == "x-thin" and t.mode == "markers"]
    assert [(t.meta["head"], list(t.customdata[0])) for t in crosses] == [("1:3", [1000, "unstable"])]
    assert crosses[0].y[0] == figure.layout.yaxis.range[0]
    (line,) = head_lines(figure, "0:2")
    hollow = [step for step, color in zip(c.steps, line.marker.color, strict=True) if color == PAPER]
    assert hollow == [30]


def test_a_curve_that_is_refused_throughout_is_still_named(synthetic: ModuleType, findings: Findings) -> None:
    f = synthetic.all_refused(findings, "train", "0:1")
    figure = curves.head_curves(f.curves["train"], f.types)
    assert "0:1 ×" in notes(figure)
    assert np.isnan(head_lines(figure, "0:1")[0].y).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_panels_follow_the_layers(synthetic: ModuleType, layers: int) -> None:
    f = synthetic.findings(layers=layers)
    figure = curves.head_curves(f.curves["train"], f.types)
    assert [t for t in notes(figure) if t.startswith("Layer")] == [f"Layer {k}" for k in range(layers)]
    assert figure.layout.meta["grid"]["panels"] == layers


def test_two_checkpoints_are_enough_for_every_figure(synthetic: ModuleType) -> None:
    f = synthetic.findings(steps=np.array([0, 1000]))
    for figure in every_figure(f, synthetic):
        assert figure.to_json()


def every_figure(f: Findings, synthetic: ModuleType) -> list[go.Figure]:
    c = f.curves["train"]
    return [
        training.losses(f.behaviour, f.stages, STYLES),
        training.scores(f.behaviour, f.types),
        curves.full_llc(f.full, f.stages, STYLES),
        curves.head_curves(c, f.types),
        clusters.cluster_curves(f.clusterings[0], c, f.types),
        clusters.confusion(f.agreements[0]),
        clusters.tree(f.clusterings[1], f.types),
        domains.domain_curves(f.curves, f.types, STYLES),
        domains.specialisation(f.specialisation, f.types, STYLES),
        health.chain_health(synthetic.table(f), f.types.heads),
    ]


def test_figures_use_only_colours_that_have_a_dark_twin(findings: Findings, synthetic: ModuleType) -> None:
    import re

    from rllc.figures.palette import DARK

    triples = {",".join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5)) for c in DARK}
    for figure in every_figure(findings, synthetic):
        text = str(figure.to_json())
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= set(DARK)
        assert set(re.findall(r"rgba\((\d+,\d+,\d+)", text)) <= triples | {"0,0,0"}


def test_the_full_model_shows_estimates_errors_and_stages(findings: Findings) -> None:
    figure = curves.full_llc(findings.full, findings.stages, STYLES)
    points = next(t for t in figure.data if t.meta)
    np.testing.assert_array_equal(points.y, findings.full["train"].llc[0])
    np.testing.assert_array_equal(points.error_y.array, findings.full["train"].stderr[0])
    assert points.mode == "markers"
    stages: Stages | None = findings.stages
    assert stages is not None
    axis = StepAxis.of(findings.full["train"].steps)
    lines = [s.x0 for s in figure.layout.shapes if s.type == "line"]
    np.testing.assert_allclose(lines, axis(stages.boundaries))
    stripes = [(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"]
    np.testing.assert_allclose(stripes, axis(stages.intervals))
    assert [t for t in notes(figure) if t.startswith("stage")] == ["stage 1", "stage 2", "stage 3"]


def test_without_stages_the_full_model_is_a_plain_curve(findings: Findings) -> None:
    figure = curves.full_llc(findings.full, None, STYLES)
    assert [(t.mode, t.showlegend) for t in figure.data] == [("lines+markers", True), ("lines+markers", False)]
    assert not figure.layout.shapes
    only_stages = curves.full_llc({}, findings.stages, STYLES)
    assert {t.name for t in only_stages.data if t.name} == {"train", "smoothed"}


def test_a_boundary_without_an_interval_has_no_stripe(findings: Findings) -> None:
    assert findings.stages is not None
    intervals = findings.stages.intervals.copy()
    intervals[0] = np.nan
    figure = curves.full_llc(findings.full, replace(findings.stages, intervals=intervals), STYLES)
    assert [s.type for s in figure.layout.shapes] == ["line", "rect", "line"]


def test_losses_are_named_at_their_ends(findings: Findings) -> None:
    figure = training.losses(findings.behaviour, findings.stages, STYLES)
    for row, name in enumerate(findings.behaviour.data):
        (line,) = [t for t in figure.data if t.name == name]
        np.testing.assert_array_equal(line.y, findings.behaviour.losses[row])
        assert name in notes(figure)


def test_scores_have_a_panel_each_with_the_threshold_and_the_deciding_heads_named(findings: Findings) -> None:
    figure = training.scores(findings.behaviour, findings.types)
    titles = [a.text for a in figure.layout.annotations if a.name == "panel title"]
    assert titles == ["Previous-token score", "Current-token score", "Prefix-matching score (induction)", "In-context-learning score (nats)"]
    thresholds = [(t.yaxis, t.y[0]) for t in figure.data if t.line.dash == "dash" and t.mode == "lines"]
    assert thresholds == [("y", 0.3), ("y2", 0.3), ("y3", 0.3)]
    named = {(a.yref, a.text) for a in figure.layout.annotations if a.name and a.name.startswith("head ")}
    assert named == {("y", "0:1"), ("y", "0:4"), ("y2", "0:5"), ("y3", "1:6"), ("y3", "1:7")}


def test_an_unknown_score_is_drawn_without_a_threshold(findings: Findings) -> None:
    b = replace(findings.behaviour, scores={"duplicate <token>": findings.behaviour.scores["previous_token"]}, icl=np.full(12, np.nan))
    figure = training.scores(b, findings.types)
    assert [a.text for a in figure.layout.annotations] == ["duplicate &lt;token&gt;"]


def test_thresholds_may_be_filed_under_the_type(findings: Findings) -> None:
    assert training.threshold_of(replace(findings.types, thresholds={"induction": 0.4}), "prefix_matching") == 0.4
    assert training.threshold_of(replace(findings.types, thresholds={}), "prefix_matching") is None


def test_clusters_are_panels_whose_lines_keep_the_colour_of_the_type(findings: Findings) -> None:
    clustering = findings.clusterings[0]
    figure = clusters.cluster_curves(clustering, findings.curves["train"], findings.types)
    assert [a.text for a in figure.layout.annotations if a.name == "panel title"] == [
        "Cluster A: 4 heads",
        "Cluster B: 1 head",
        "Cluster C: 10 heads",
    ]
    for head, cluster in zip(clustering.heads, clustering.labels, strict=True):
        (line,) = head_lines(figure, head)
        assert line.xaxis == ("x", "x2", "x3")[cluster]
    assert not head_lines(figure, "1:3"), "left out of the clustering"


def test_the_confusion_matrix_shows_counts(findings: Findings) -> None:
    figure = clusters.confusion(findings.agreements[0])
    np.testing.assert_array_equal(figure.data[0].customdata, findings.agreements[0].confusion)
    assert sum(int(t.strip("</b>")) for t in notes(figure)) == 16


def test_the_tree_has_a_leaf_for_every_head(findings: Findings) -> None:
    clustering = findings.clusterings[1]
    assert clustering.linkage is not None
    figure = clusters.tree(clustering, findings.types)
    assert {a.name for a in figure.layout.annotations} == {f"head {h}" for h in clustering.heads}
    assert len(figure.data) == len(clustering.heads) - 1
    np.testing.assert_allclose(max(np.max(t.x) for t in figure.data), clustering.linkage[:, 2].max())


def test_every_head_has_a_panel_with_a_line_for_each_kind_of_data(findings: Findings) -> None:
    figure = domains.domain_curves(findings.curves, findings.types, STYLES)
    assert figure.layout.meta["grid"]["panels"] == 16
    for name, c in findings.curves.items():
        (line,) = [t for t in head_lines(figure, "1:6") if t.meta["data"] == name]
        np.testing.assert_array_equal(line.y, c.llc[14])
        assert line.xaxis == "x15"
    assert [t.meta["data"] for t in figure.data if t.marker.symbol == "x-thin" and t.mode == "markers"] == ["train"]


def test_specialisation_shows_differences_with_their_errors(findings: Findings) -> None:
    figure = domains.specialisation(findings.specialisation, findings.types, STYLES)
    for trace, s in zip(figure.data, findings.specialisation, strict=True):
        np.testing.assert_array_equal(trace.x, s.difference)
        np.testing.assert_array_equal(trace.error_x.array, s.stderr)
    assert figure.layout.yaxis.ticktext[14] == "induction  <b>1:6</b>"


def test_health_shows_every_cell_and_the_worst_of_several_rows(findings: Findings, synthetic: ModuleType) -> None:
    rows = synthetic.table(findings)
    twin = {**next(r for r in rows if r["part"] == "0:0" and r["step"] == 0 and r["data"] == "train"), "outcome": "nonfinite", "llc": None}
    figure = health.chain_health([*rows, twin], findings.types.heads, ("train", "echo"))
    assert [a.text for a in figure.layout.annotations] == ["train", "echo", "code", "prose"]
    train = figure.data[0]
    assert list(train.y) == [*findings.types.heads, "full"]
    codes = np.array(train.z)
    assert health.ORDER[codes[11][6]] == "unstable"
    assert "×" in train.text[11][6]
    assert "no number" in train.customdata[11][6]
    assert health.ORDER[codes[0][0]] == "nonfinite"
    assert train.text[2][1].startswith("<b>~1."), "R-hat above 1.1 is bold"
    code = figure.data[2]
    assert code.text[0][1] == ""
    assert "not planned" in code.customdata[0][1]
    assert code.text[0][0].startswith("/1.")
    assert "Stein ratio" in train.customdata[3][3]


def test_health_takes_cells_from_curves_where_there_is_no_table(findings: Findings) -> None:
    rows = health.rows_of_curves(findings.curves, findings.full)
    assert len(rows) == 16 * 12 + 3 * 16 * 6 + 12
    assert health.chain_health(rows).data[0].text[0][0] == ""
    assert health.data_of({"data": "train", "evaluated_on": "code"}) == "train@code"
    assert health.data_of({"data": "train", "evaluated_on": "train"}) == "train"


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), ("2", 2.0), (None, None), (float("nan"), None), ("x", None), (True, None)])
def test_numbers_of_cells(value: Any, expected: float | None) -> None:
    assert health.number(value) == expected


def test_what_is_missing_is_said(findings: Findings) -> None:
    empty = replace(findings.curves["train"], parts=("full",), llc=np.ones((1, 12)), outcome=np.full((1, 12), "ok"))
    nobody = replace(findings.clusterings[0], heads=(), labels=np.array([], dtype=np.int64))
    gone = tuple(replace(s, difference=np.full(16, np.nan)) for s in findings.specialisation)
    said = {
        "No head was sampled on this data": curves.head_curves(empty, findings.types),
        "The full model was not sampled": curves.full_llc({}, None, STYLES),
        "No head was sampled on any data": domains.domain_curves({}, findings.types, STYLES),
        "No head has a final estimate": domains.specialisation(gone, findings.types, STYLES),
        "No loss was measured": training.losses(replace(findings.behaviour, data=(), losses=np.empty((0, 12)), losses_stderr=None), None, STYLES),
        "No behaviour was measured": training.scores(replace(findings.behaviour, scores={}), findings.types),
        "No head has a complete curve": clusters.cluster_curves(nobody, findings.curves["train"], findings.types),
        "nothing to compare": clusters.confusion(replace(findings.agreements[0], confusion=np.empty((0, 0), dtype=np.int64))),
        "no tree": clusters.tree(findings.clusterings[0], findings.types),
        "No cell was sampled": health.chain_health([]),
    }
    for words, figure in said.items():
        assert words in notes(figure)[0]
        assert figure.layout.meta["empty"] == notes(figure)[0]


def test_names_from_outside_cannot_bring_markup_into_a_figure(findings: Findings, synthetic: ModuleType) -> None:
    evil = '<a href="https://example.org">x</a>'
    renamed = {evil: replace(findings.curves["code"], data=evil), "train": findings.curves["train"]}
    behaviour = replace(findings.behaviour, data=("train", evil, "prose", "echo"))
    rows = [{**r, "data": evil, "part": evil} for r in synthetic.table(findings)[:3]]
    for figure in (
        domains.domain_curves(renamed, findings.types, STYLES),
        training.losses(behaviour, None, STYLES),
        health.chain_health(rows),
        domains.specialisation([replace(s, data=evil) for s in findings.specialisation], findings.types, STYLES),
    ):
        shown = [str(v) for t in figure.data for v in (t.name, t.hovertemplate)] + notes(figure)
        shown += [str(t.customdata) + str(t.y) for t in figure.data if t.type == "heatmap"]
        assert any("&lt;a href=" in s for s in shown)
        assert not any("<a href=" in s for s in shown)


def test_one_wide_interval_does_not_flatten_the_curves(findings: Findings) -> None:
    c = findings.curves["train"]
    wild = c.ci_high.copy()
    wild[0, 0] = 1e6
    low, high = curve_span(replace(c, ci_high=wild))
    assert high < 2 * np.nanmax(c.llc)
    assert low < 0 < high


def test_the_mixture_is_what_comparisons_refer_to(findings: Findings) -> None:
    assert curves.training_mixture(findings) == "train"
    assert curves.training_mixture(replace(findings, specialisation=())) == "train"
    assert curves.training_mixture(replace(findings, specialisation=(), stages=None, curves={"code": findings.curves["code"]}, full={})) == "code"
    assert curves.training_mixture(replace(findings, specialisation=(), stages=None, curves={}, full={})) == ""


def test_a_kind_of_data_looks_the_same_in_every_figure(findings: Findings) -> None:
    shuffled = replace(findings.behaviour, data=("echo", "brackets", "train", "code"))
    styles = curves.styles_of(replace(findings, behaviour=shuffled), "train")
    assert list(styles) == ["train", "code", "prose", "echo", "brackets"]
    assert styles["train"] is MIXTURE
    drawn = [training.losses(shuffled, None, styles), domains.domain_curves(dict(reversed(findings.curves.items())), findings.types, styles)]
    for figure in drawn:
        legend = {t.name: t.line.color for t in figure.data if t.name}
        assert all(styles[name].color == color for name, color in legend.items())
        assert list(legend) == [name for name in styles if name in legend]


def test_one_axis_for_all_figures_is_scaled_by_the_sampled_checkpoints(findings: Findings) -> None:
    dense = replace(findings.behaviour, steps=np.array([0, 1, 2, 4000]))
    axis = curves.steps_axis(replace(findings, behaviour=dense))
    assert axis.scale == StepAxis.of(findings.curves["train"].steps).scale
    assert axis.last == 4000
    assert curves.steps_axis(replace(findings, behaviour=dense, curves={}, full={})).scale == 1

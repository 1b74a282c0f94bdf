"""LLC curves: every head of every layer, and the full model with its stages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from rllc.analysis.curves import at
from rllc.analysis.findings import Curves, Findings, Floats, HeadTypes, Stages
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.outcome import Outcome
from rllc.figures.axis import StepAxis
from rllc.figures.layout import SMALL, Grid, band, bounds, curve_span, end_labels, inside, label_gap, legend_entry, nothing, on, panels, spread
from rllc.figures.palette import INK, MIXTURE, MUTED, PAPER, TYPES, Style, alpha, data_styles, in_order, type_color, type_style
from rllc.figures.text import label


def head_curves(curves: Curves, types: HeadTypes, axis: StepAxis | None = None) -> go.Figure:
    """The wrLLC of every head, a panel a layer, coloured by type, with the interval of each estimate as a band.

    Hollow marks are numbers that carry a warning (drifting, tilted); a cross on the floor of the panel is a refused cell. Lines end in the
    name of their head.
    """
    layers = layers_of(curves.parts)
    if not layers:
        return nothing("No head was sampled on this data.")
    axis = axis or StepAxis.of(curves.steps)
    grid = Grid(len(layers), min(2, len(layers)), 1, 400, gap=(92, 78), margin=(58, 48, 66, 52), share_y=True, y_title="wrLLC")
    span = curve_span(curves)
    figure = panels(grid, [f"Layer {layer}" for layer in layers], axis, y={"range": span})
    by_head = dict(zip(types.heads, types.types, strict=True))
    for panel, (_, rows) in enumerate(layers.items()):
        draw_heads(figure, panel, curves, rows, by_head, axis, span)
    legend_of_types(figure, (by_head.get(p, "other") for p in curves.parts))
    return figure


def steps_axis(findings: Findings) -> StepAxis:
    """One axis for every figure of some findings: its scale is that of the sampled checkpoints, or of the measured ones where none was sampled."""
    sampled = [c.steps for c in (*findings.curves.values(), *findings.full.values())]
    scale = StepAxis.of(*sampled).scale if sampled else None
    every = StepAxis.of(*sampled, findings.behaviour.steps)
    return every if scale is None else StepAxis(scale, every.first, every.last)


def training_mixture(findings: Findings) -> str:
    """Name of the training mixture among the data: what comparisons refer to, else what stages were found on, else the first; "" without data."""
    references = [s.reference for s in findings.specialisation] + ([findings.stages.curve.data] if findings.stages else [])
    known = [name for name in references if name in findings.curves or name in findings.full]
    return next(iter([*known, *findings.curves, *findings.full]), "")


def styles_of(findings: Findings, mixture: str) -> dict[str, Style]:
    """One style for each kind of data, the same in every figure: the mixture, what was sampled, then what was only measured."""
    return data_styles([mixture, *findings.curves, *findings.full, *findings.behaviour.data], mixture)


def layers_of(parts: Iterable[str]) -> dict[int, list[int]]:
    """Rows of the heads of each layer, in order; parts that are no heads are left out."""
    layers: dict[int, list[int]] = {}
    for row, part in enumerate(parts):
        try:
            head = Part.parse(part).head
        except RllcError:
            head = None
        if head is not None:
            layers.setdefault(head.layer, []).append(row)
    return dict(sorted(layers.items()))


def picked(curves: Curves, rows: list[int]) -> Curves:
    """The curves of some rows."""
    return at(curves, rows, slice(None))


def draw_heads(
    figure: go.Figure, panel: int, curves: Curves, rows: Iterable[int], by_head: Mapping[str, str], axis: StepAxis, span: tuple[float, float]
) -> None:
    """Bands, lines, refused cells and end labels of some heads in one panel. Types with a name are drawn over "other"."""
    rows = sorted(rows, key=lambda r: by_head.get(curves.parts[r], "other") != "other")
    x = axis(curves.steps)
    ends: list[tuple[str, str, float]] = []
    traces: list[go.Scatter] = []  # given to plotly at once, which checks the whole figure with every change
    for row in rows:
        part = curves.parts[row]
        head_type = by_head.get(part, "other")
        style = type_style(head_type)
        who = {"legendgroup": head_type, "meta": {"head": part, "type": head_type}, **on(panel)}
        opacity = 0.07 if style is TYPES["other"] else 0.14
        if (shade := band(x, curves.ci_low[row], curves.ci_high[row], style.color, opacity, **who)) is not None:
            traces.append(shade)
        traces.append(line(curves, row, x, style, f"<b>{label(part)}</b> {label(head_type)}", **who))
        if (crosses := refused_cells(curves, row, x, span[0], style, **who)) is not None:
            traces.append(crosses)
        finite = np.flatnonzero(np.isfinite(curves.llc[row]))
        if finite.size:
            ends.append((part, label(part), float(curves.llc[row][finite[-1]])))
        elif crosses is not None:
            ends.append((part, f"{label(part)} ×", span[0]))
    places = spread([y for *_, y in ends], *span, gap=label_gap(figure, span))
    figure.add_traces(traces)
    end_labels(figure, panel, [(name, y, type_color(by_head.get(part, "other")), part) for (part, name, _), y in zip(ends, places, strict=True)])


_REFUSED = tuple(o.value for o in Outcome if o.refused)


def line(curves: Curves, row: int, x: Floats, style: Style, title: str, **trace: Any) -> go.Scatter:
    """One curve with marks; marks are hollow where the number carries a warning. Hovering gives step, number, error and outcome."""
    outcome = curves.outcome[row]
    marked = np.array([o not in ("", Outcome.OK) for o in outcome])
    fill = [PAPER if m else style.color for m in marked]
    custom = np.stack([curves.steps.astype(object), curves.stderr[row].astype(object), outcome.astype(object)], axis=-1)
    # a thin cross cannot be hollow, so a marked cell of that style becomes an open circle
    symbol = [("circle" if style.symbol == "x-thin" else style.symbol) if m else style.symbol for m in marked]
    return go.Scatter(
        x=x,
        y=curves.llc[row],
        mode="lines+markers",
        connectgaps=False,
        showlegend=False,
        customdata=custom,
        line=style.stroke(),
        marker={"symbol": symbol, "size": 6, "color": fill, "line": {"color": style.color, "width": 1.4}},
        hovertemplate=f"{title}<br>step %{{customdata[0]:,}}<br>%{{y:.3f}} ± %{{customdata[1]:.3f}}<br>%{{customdata[2]}}<extra></extra>",
        **trace,
    )


def refused_cells(curves: Curves, row: int, x: Floats, floor: float, style: Style, **trace: Any) -> go.Scatter | None:
    """Crosses at the floor of the panel for the refused cells of a curve; None where there is none."""
    refused = np.array([o in _REFUSED for o in curves.outcome[row]])
    if not refused.any():
        return None
    return go.Scatter(
        x=x[refused],
        y=np.full(int(refused.sum()), floor),
        mode="markers",
        showlegend=False,
        cliponaxis=False,
        marker={"symbol": "x-thin", "size": 9, "line": {"color": style.color, "width": 2.2}},
        customdata=np.stack([curves.steps[refused].astype(object), curves.outcome[row][refused].astype(object)], axis=-1),
        hovertemplate=f"<b>{label(curves.parts[row])}</b> refused<br>step %{{customdata[0]:,}}<br>%{{customdata[1]}}: no number<extra></extra>",
        **trace,
    )


def legend_of_types(figure: go.Figure, present: Iterable[str]) -> None:
    """One entry a head type that occurs; clicking it hides or shows its heads."""
    found = set(present)
    for name in [*(t for t in TYPES if t in found), *sorted(found - set(TYPES))]:
        legend_entry(figure, name, type_style(name))


def full_llc(full: Mapping[str, Curves], stages: Stages | None, styles: Mapping[str, Style], axis: StepAxis | None = None) -> go.Figure:
    """LLC of the full model over training: estimates with errors, the smoothed curve, and stage boundaries with their intervals."""
    shown = {name: curves for name, curves in full.items() if "full" in curves.parts}
    if not shown and stages is None:
        return nothing("The full model was not sampled.")
    if not shown and stages is not None:
        shown = {stages.curve.data: stages.curve}
    axis = axis or StepAxis.of(*(c.steps for c in shown.values()))
    figure = panels(Grid(1, 1, 1, 340, margin=(64, 30, 46, 52), y_title="LLC of the full model"), [""], axis)
    for name in in_order(shown, styles):
        curves = shown[name]
        row = curves.parts.index("full") if "full" in curves.parts else 0
        style, x = styles.get(name, MIXTURE), axis(curves.steps)
        legend_entry(figure, name, style)
        trace = line(curves, row, x, style, f"<b>{label(name)}</b>, full model", legendgroup=name)
        trace.update(
            meta={"data": name},
            error_y={"type": "data", "array": curves.stderr[row], "thickness": 1.2, "width": 3, "color": style.color},
        )
        if stages is not None and name == stages.curve.data:
            trace.update(mode="markers")
        figure.add_trace(trace)
    low, high = bounds(*(a for c in shown.values() for a in (c.llc - c.stderr, c.llc + c.stderr)), zero=True)
    if stages is not None:
        figure.add_trace(
            go.Scatter(
                x=axis(stages.smooth_steps), y=stages.smooth_llc, mode="lines", name="smoothed", line={"color": INK, "width": 2}, hoverinfo="skip"
            )
        )
        low, high = min(low, bounds(stages.smooth_llc)[0]), max(high, bounds(stages.smooth_llc)[1])
        mark_stages(figure, stages, axis)
    figure.update_yaxes(range=[low, high])
    return figure


def mark_stages(figure: go.Figure, stages: Stages, axis: StepAxis, panel: int = 0, numbers: bool = True) -> None:
    """Boundaries as dashed lines, their intervals as grey stripes, and the stages between them numbered from 1."""
    ref = {**inside(panel, y="domain"), "layer": "below"}
    for boundary, interval in zip(stages.boundaries, stages.intervals, strict=True):
        at = float(axis(boundary))
        if np.isfinite(interval).all():
            a, b = (float(v) for v in axis(interval))
            figure.add_shape(type="rect", x0=a, x1=b, y0=0, y1=1, line={"width": 0}, fillcolor=alpha(MUTED, 0.13), **ref)
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line={"color": MUTED, "width": 1.3, "dash": "dash"}, **ref)
    if not numbers:
        return
    low, high = axis.range
    edges = [low, *(float(v) for v in axis(stages.boundaries)), high]
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        figure.add_annotation(
            text=f"stage {i + 1}" if (b - a) > 0.09 * (high - low) else f"{i + 1}",
            x=(a + b) / 2,
            y=1,
            yanchor="top",
            showarrow=False,
            font=SMALL,
            name="stage",
            bgcolor=alpha(PAPER, 0.75),
            **inside(panel, y="domain"),
        )

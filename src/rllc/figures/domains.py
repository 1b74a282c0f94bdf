"""One head on several kinds of data: specialisation (METHOD 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from rllc.analysis.findings import Curves, HeadTypes, Specialisation
from rllc.figures.axis import StepAxis
from rllc.figures.curves import layers_of, line, refused_cells
from rllc.figures.layout import SMALL, Grid, band, curve_span, legend_entry, nothing, on, panels
from rllc.figures.palette import MIXTURE, MUTED, Style, in_order, type_color
from rllc.figures.text import label


def domain_curves(curves: Mapping[str, Curves], types: HeadTypes, styles: Mapping[str, Style], axis: StepAxis | None = None) -> go.Figure:
    """A small panel a head: its refined LLC on each kind of data, with bands. All panels share one scale."""
    heads = [part for c in curves.values() for part in c.parts]
    heads = [heads[row] for rows in layers_of(heads).values() for row in rows]
    heads = list(dict.fromkeys(heads))
    if not heads:
        return nothing("No head was sampled on any data.")
    axis = axis or StepAxis.of(*(c.steps for c in curves.values()))
    span = curve_span(*curves.values())
    values, names = axis.ticks(0.3)
    by_head = dict(zip(types.heads, types.types, strict=True))
    grid = Grid(len(heads), 4, 2, 150, gap=(20, 40), margin=(50, 14, 62, 52), share_y=True, y_title="LLC")
    titles: list[str | dict[str, Any]] = [_head_title(head, by_head.get(head, "other")) for head in heads]
    figure = panels(grid, titles, axis, {"tickvals": values, "ticktext": names}, {"range": span, "nticks": 4})
    traces: list[go.Scatter] = []  # given to plotly at once, which checks the whole figure with every change
    for name in in_order(curves, styles):
        c, style = curves[name], styles.get(name, MIXTURE)
        legend_entry(figure, name, style)
        for row, head in enumerate(c.parts):
            if head not in heads:
                continue
            panel, x = heads.index(head), axis(c.steps)
            who = {"legendgroup": name, "meta": {"head": head, "data": name}, **on(panel)}
            if (shade := band(x, c.ci_low[row], c.ci_high[row], style.color, 0.16, **who)) is not None:
                traces.append(shade)
            trace = line(c, row, x, style, f"<b>{label(head)}</b> on {label(name)}", **who)
            trace.update(marker={"size": 4.5}, line={"width": 1.7})
            traces.append(trace)
            if (crosses := refused_cells(c, row, x, span[0], style, **who)) is not None:
                traces.append(crosses)
    figure.add_traces(traces)
    return figure


def _head_title(head: str, head_type: str) -> dict[str, Any]:
    font = {"size": 12.5, "color": type_color(head_type)}
    return {"text": f"<b>{label(head)}</b> {label(head_type)}", "yshift": 2, "font": font, "name": f"head {head}"}


def specialisation(found: Sequence[Specialisation], types: HeadTypes, styles: Mapping[str, Style]) -> go.Figure:
    """How far each head's final refined LLC on one kind of data departs from the reference, with one standard error either way."""
    by_data = {s.data: s for s in found if np.isfinite(s.difference).any()}
    found = [by_data[name] for name in in_order(by_data, styles)]
    if not found:
        return nothing("No head has a final estimate both on the reference and on another kind of data.")
    heads = list(dict.fromkeys(h for s in found for h in s.heads))
    by_head = dict(zip(types.heads, types.types, strict=True))
    reference = " or ".join(dict.fromkeys(s.reference for s in found))
    labels = [f"{label(by_head.get(h, 'other'))}  <b>{label(h)}</b>" for h in heads]
    y = {"tickmode": "array", "tickvals": list(range(len(heads))), "ticktext": labels, "range": [len(heads) - 0.4, -0.6]}
    x = {"title": {"text": f"final LLC on this data minus on {label(reference)}", "font": SMALL}}
    figure = panels(Grid(1, 1, 1, 26 * len(heads) + 20, margin=(150, 24, 44, 56)), [""], None, x, y)
    shift = np.linspace(0.22, -0.22, len(found)) if len(found) > 1 else np.zeros(1)
    for s, offset in zip(found, shift, strict=True):
        style = styles.get(s.data, MIXTURE)
        versus = f"{label(s.data)} − {label(s.reference)}"
        rows = np.array([heads.index(h) for h in s.heads], dtype=np.float64)
        figure.add_trace(
            go.Scatter(
                x=s.difference,
                y=rows - offset,
                mode="markers",
                name=label(s.data),
                marker=style.mark(8),
                error_x={"type": "data", "array": s.stderr, "thickness": 1.4, "width": 0, "color": style.color},
                customdata=np.stack([np.array(s.heads, dtype=object), s.stderr.astype(object)], axis=-1),
                hovertemplate=f"<b>%{{customdata[0]}}</b><br>{versus}: %{{x:+.3f}} ± %{{customdata[1]:.3f}}<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": MUTED, "width": 1.2}, layer="below")
    return figure

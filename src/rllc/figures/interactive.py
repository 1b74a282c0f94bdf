"""A drawing as a plotly figure, or as HTML where it is text. Title and caption stand in `layout.meta`: a page sets them as text of its own."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from rllc.core.files import write_atomic
from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Cells, Drawing, Line, Panel, Plot, Points, Rule, colorscale
from rllc.figures.layout import SMALL, TITLE_FONT, WIDTH, Grid, band, inside, legend_entry, on, panels, spread
from rllc.figures.palette import INK, MUTED, PAPER, TYPES, alpha
from rllc.figures.policy import policy
from rllc.figures.sheets import sheet_html
from rllc.figures.text import label, visible

_LONGEST = 24  # characters of a name that room is kept for; longer ones run into what is beside them
_PIXELS = 112  # of an inch of a printed row

_INLINE = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;color:#1f2630;max-width:1040px;margin:24px auto;padding:0 16px}}h1{{font-size:18px}}
.caption{{color:#5b6672;font-size:13px}}</style>
<h1>{title}</h1>
{body}
<p class="caption">{caption}</p>
</html>
"""


def interactive(plot: Plot) -> go.Figure:
    """The panels of a plot in plotly: hovering gives names and numbers, a click in the legend hides a group."""
    columns = min(plot.columns, len(plot.panels))
    first = plot.panels[0]
    widest = max((len(layer.end) for p in plot.panels for layer in p.layers if isinstance(layer, Line)), default=0)
    ends = max(44, 10 + 7 * min(widest, _LONGEST)) if widest else 0  # pixels for the labels to the right of a panel
    heat = any(isinstance(layer, Cells) for p in plot.panels for layer in p.layers)
    names = [min(_LONGEST, max((len(text) for text in _row_names(p)), default=4)) for p in plot.panels]  # characters beside each panel
    longest = min(_LONGEST, max((len(text) for p in plot.panels for text in _column_names(p)), default=0))
    first_column, others = (max((n for k, n in enumerate(names) if (k % columns == 0) == first), default=0) for first in (True, False))
    side, foot = 58 + max(0, first_column - 4) * 7 + (16 if heat else 0), 52 + (max(0, longest - 2) * 5 if heat else 0)
    gap = (34 + max(0, others) * 7 + max(0, ends - 10) + (12 if heat else 0), 78 if heat else 62)
    if columns > 1:  # room for every panel comes before room for names
        gap = (min(gap[0], (WIDTH - side - (ends or 24) - 78 - 60 * columns) // (columns - 1)), gap[1])
    margin = (side, (ends or 24) + (78 if plot.bar else 0), 66 if plot.legend else 40, foot)
    same_y = len({p.y.span for p in plot.panels}) == 1 and first.y.span is not None and not heat
    grid = Grid(
        len(plot.panels), columns, 2 if columns > 3 else 1, int(plot.height * _PIXELS), gap, margin, share_y=False, every_x=first.x.steps is None
    )
    titles: list[str | dict[str, Any]] = [{"text": label(p.title), "font": {**TITLE_FONT, "color": p.color}} if p.title else "" for p in plot.panels]
    axis = first.x.steps
    figure = panels(grid, titles, axis)
    # everything is gathered and given to plotly at once, for it checks a figure anew with every change
    updates: dict[str, Any] = {}
    traces: list[Any] = []
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    row = int(plot.height * _PIXELS)
    width = (WIDTH - margin[0] - margin[1] - (columns - 1) * gap[0]) / columns  # of a panel
    for i, panel in enumerate(plot.panels):
        key = str(i + 1) if i else ""
        lowest = i + columns >= len(plot.panels)
        updates[f"xaxis{key}"] = _axis(panel, True, lowest, width)
        updates[f"yaxis{key}"] = _axis(panel, False, i % columns == 0 or not same_y, width)
        traces += [trace for layer in panel.layers for trace in _traces(layer, panel, i, plot)]
        for layer in panel.layers:
            if isinstance(layer, Rule):
                marks, words = _rule(layer, i, panel.x.steps)
                shapes += marks
                notes += words
        notes += _ends(panel, i, row)
    figure.add_traces(traces)
    layout: Any = figure["layout"]
    figure.update_layout(updates)
    layout["shapes"], layout["annotations"] = shapes, [*layout["annotations"], *notes]
    for name, style in plot.legend:
        legend_entry(figure, name, style)
    layout["meta"] = {**layout["meta"], "title": plot.title, "caption": plot.caption}
    return figure


def write_page(drawing: Drawing, folder: Path, name: str) -> Path:
    """The drawing as a page that needs no network: `name`.html in `folder`, and beside it, once for all pages, the script of plotly.

    Raises RllcError where the folder cannot be written.
    """
    if isinstance(drawing, Plot):
        from plotly.offline import get_plotlyjs

        script = folder / "plotly.min.js"
        if not script.exists():
            write_atomic(script, get_plotlyjs().encode())
        config = {"responsive": True, "displayModeBar": False}
        body = interactive(drawing).to_html(full_html=False, include_plotlyjs="directory", div_id=f"figure-{name}", config=config)
    else:
        body = sheet_html(drawing)
    # What plotly writes into its scripts holds no "<", so that each ends where its element does.
    rules = policy(*(script for script in _INLINE.findall(body) if script), beside=isinstance(drawing, Plot))
    words = {"title": html.escape(visible(drawing.title)), "caption": html.escape(visible(drawing.caption))}
    page = _PAGE.format(policy=html.escape(rules, quote=False), body=body, **words)
    path = folder / f"{name}.html"
    write_atomic(path, page.encode())
    return path


def _row_names(panel: Panel) -> list[str]:
    names = [name for layer in panel.layers if isinstance(layer, Cells) for name in layer.rows]
    return names or [text for _, text in panel.y.ticks or ()]


def _column_names(panel: Panel) -> list[str]:
    return [name for layer in panel.layers if isinstance(layer, Cells) for name in layer.columns]


def _axis(panel: Panel, along_x: bool, shown: bool, width: float) -> dict[str, Any]:
    cells = next((layer for layer in panel.layers if isinstance(layer, Cells)), None)
    if cells is not None:
        names = cells.columns if along_x else cells.rows
        colors = cells.column_colors if along_x else cells.row_colors
        texts = _coloured([label(n) for n in names], colors)
        text = label(cells.column_title if along_x else cells.row_title)
        found: dict[str, Any] = {
            "tickmode": "array", "tickvals": list(range(len(names))), "ticktext": texts, "showgrid": False, "showline": False,
            "ticks": "", "showticklabels": True, "title": {"text": text, "font": SMALL}, "matches": None, "zeroline": False,
        }  # fmt: skip
        if along_x:
            most = max(map(len, names), default=0)
            return found | {"range": [-0.5, len(names) - 0.5], "tickangle": 0 if most * 7.5 < width / len(names) else 90 if most < 6 else 45}
        return found | {"range": [len(names) - 0.5, -0.5]}
    scale = panel.x if along_x else panel.y
    found = {}
    if scale.steps is not None and along_x:
        return {"title": {"text": label(scale.title), "font": SMALL}} if scale.title and shown else {}
    if along_x:
        found |= {"tickangle": 0, "nticks": max(3, int(width / 60))}
    if scale.log:
        found["type"] = "log"
    if scale.span is not None:
        found["range"] = [float(np.log10(v)) if scale.log else float(v) for v in scale.span]
    if scale.ticks is not None:
        texts = [label(text) for _, text in scale.ticks]
        texts = _coloured(texts, scale.colors)
        found |= {"tickmode": "array", "tickvals": [at for at, _ in scale.ticks], "ticktext": texts}
    if scale.title and shown:
        found["title"] = {"text": label(scale.title), "font": SMALL, "standoff": 8}
    return found


def _coloured(texts: list[str], colors: tuple[str, ...]) -> list[str]:
    return [f'<span style="color:{c}">{t}</span>' for t, c in zip(texts, colors, strict=True)] if colors else texts


def _traces(layer: object, panel: Panel, i: int, plot: Plot) -> list[Any]:
    if isinstance(layer, Line):
        return _line(layer, panel, i)
    if isinstance(layer, Points):
        return [_points(layer, panel.x.steps, i)]
    if isinstance(layer, Cells):
        return [_cells(layer, i, plot)]
    return []


def _line(line: Line, panel: Panel, i: int) -> list[go.Scatter]:
    x = panel.x.steps(line.x) if panel.x.steps is not None else np.asarray(line.x, dtype=np.float64)
    y, style = np.asarray(line.y, dtype=np.float64), line.style
    who: dict[str, Any] = {"legendgroup": line.group or line.name, "meta": {"name": line.name}, **on(i)}
    found: list[go.Scatter] = []
    if line.low is not None and line.high is not None and (shade := band(x, line.low, line.high, style.color, line.shade, **who)) is not None:
        found.append(shade)
    hollow = line.hollow if line.hollow is not None else np.zeros(len(y), dtype=bool)
    marks = {**style.mark(5), "color": [PAPER if h else style.color for h in hollow]} if line.marks else None
    where = "step %{customdata:,}" if panel.x.steps is not None else "%{customdata}"
    trace = go.Scatter(
        x=x,
        y=y,
        mode="lines+markers" if line.marks else "lines",
        connectgaps=False,
        showlegend=False,
        line=style.stroke(),
        marker=marks,
        customdata=np.asarray(line.x),
        hovertemplate=f"<b>{label(line.name)}</b><br>{where}<br>%{{y:.4g}}<extra></extra>",
        **who,
    )
    if not line.name:
        trace.update(hoverinfo="skip", hovertemplate=None)
    found.append(trace)
    if line.refused is not None and line.refused.any():
        floor = panel.y.span[0] if panel.y.span is not None else 0.0
        cross = {"symbol": "x-thin", "size": 9, "line": {"color": style.color, "width": 2.2}}
        told = f"<b>{label(line.name)}</b> refused<extra></extra>"
        at = np.full(int(line.refused.sum()), floor)
        found.append(go.Scatter(x=x[line.refused], y=at, mode="markers", marker=cross, showlegend=False, cliponaxis=False, hovertemplate=told, **who))
    return found


def _points(points: Points, axis: StepAxis | None, i: int) -> go.Scatter:
    x = axis(points.x) if axis is not None else np.asarray(points.x, dtype=np.float64)
    place = axis if axis is not None else np.asarray
    bar = {"type": "data", "symmetric": False, "thickness": 1.3, "width": 0, "color": points.style.color}
    errors: dict[str, Any] = {}
    if points.x_low is not None and points.x_high is not None:
        errors["error_x"] = {**bar, "array": place(points.x_high) - x, "arrayminus": x - place(points.x_low)}
    if points.y_low is not None and points.y_high is not None:
        errors["error_y"] = {**bar, "array": points.y_high - points.y, "arrayminus": points.y - points.y_low}
    mark = points.style.mark(8 * points.size)
    if points.hollow:
        mark["color"] = PAPER
    names = [label(text) for text in points.labels] or [""] * len(x)
    return go.Scatter(
        x=x,
        y=points.y,
        mode="markers+text" if points.labels else "markers",
        text=names,
        textposition="top right",
        textfont={"size": 11, "color": points.style.color},
        marker=mark,
        showlegend=False,
        legendgroup=points.group or points.name,
        meta={"name": points.name},
        customdata=np.asarray(points.x),
        hovertemplate=f"<b>{label(points.name)} %{{text}}</b><br>%{{customdata:.4g}}, %{{y:.4g}}<extra></extra>",
        **errors,
        **on(i),
    )


def _cells(cells: Cells, i: int, plot: Plot) -> go.Heatmap:
    rows, columns = [label(n) for n in cells.rows], [label(n) for n in cells.columns]
    names = [[f"<b>{label(cells.name)}</b> {r} · {c}" for c in columns] for r in rows]
    bar: dict[str, Any] = {"title": {"text": label(plot.bar), "side": "right", "font": SMALL}, "thickness": 12, "tickfont": SMALL, "outlinewidth": 0}
    texts: dict[str, Any] = {}
    if cells.texts:
        texts = {"text": [[label(t) for t in row] for row in cells.texts], "texttemplate": "%{text}", "textfont": {"size": 10, "color": INK}}
    border = 1.5 if max(np.shape(cells.values)) <= 40 else 0
    return go.Heatmap(
        z=np.asarray(cells.values, dtype=np.float64),
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        zmin=cells.low,
        zmax=cells.high,
        colorscale=colorscale(cells.scale),
        showscale=bool(plot.bar) and i == 0,
        colorbar=bar,
        hoverongaps=False,
        xgap=border,
        ygap=border,
        customdata=names,
        meta={"name": cells.name},
        hovertemplate=f"%{{customdata}}<br>%{{z:.4g}} {label(cells.unit)}<extra></extra>",
        **texts,
        **on(i),
    )


def _rule(rule: Rule, i: int, axis: StepAxis | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes and annotations of a rule."""
    place = (lambda v: float(axis(v))) if axis is not None and rule.upright else float
    at, ref = place(rule.at), inside(i, y="domain") if rule.upright else inside(i, "domain")
    ends = ("x0", "x1", "y0", "y1") if rule.upright else ("y0", "y1", "x0", "x1")
    shapes: list[dict[str, Any]] = []
    if rule.interval is not None and np.isfinite(rule.interval).all():
        stripe = dict(zip(ends, (*(place(v) for v in rule.interval), 0, 1), strict=True))
        shapes.append({"type": "rect", "fillcolor": alpha(rule.style.color, 0.12), "line": {"width": 0}, "layer": "below", **stripe, **ref})
    line = {"color": rule.style.color, "width": rule.style.width, "dash": rule.style.dash}
    shapes.append({"type": "line", "line": line, "layer": "below", **dict(zip(ends, (at, at, 0, 1), strict=True)), **ref})
    if not rule.label:
        return shapes, []
    where = (at, 1, "left", "top") if rule.upright else (1, at, "right", "bottom")
    spot = dict(zip(("x", "y", "xanchor", "yanchor"), where, strict=True))
    return shapes, [{"text": label(rule.label), "showarrow": False, "font": {"size": 11, "color": rule.style.color}, **spot, **ref}]


def _ends(panel: Panel, i: int, row: int) -> list[dict[str, Any]]:
    """Names at the ends of lines, as annotations; `row` is the panel's height in pixels."""
    lines = [line for line in panel.layers if isinstance(line, Line) and line.end and np.isfinite(line.y).any()]
    if not lines:
        return []
    ends = [float(np.asarray(line.y)[np.isfinite(line.y)][-1]) for line in lines]
    low, high = sorted(panel.y.span) if panel.y.span is not None else (min(ends), max(ends) + 1e-9)
    if panel.y.log:
        low, high, ends = float(np.log10(low)), float(np.log10(high)), [float(np.log10(max(y, 1e-300))) for y in ends]
    found: list[dict[str, Any]] = []
    for line, y in zip(lines, spread(ends, low, high, 14 / row * (high - low)), strict=True):
        color = MUTED if line.style is TYPES["other"] else line.style.color
        place = {"x": 1, "y": y, "xanchor": "left", "yanchor": "middle", "xshift": 6, **inside(i, "domain")}
        found.append({"text": label(line.end), "showarrow": False, "font": {"size": 12, "color": color}, **place})
    return found

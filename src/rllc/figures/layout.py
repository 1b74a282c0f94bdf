"""What all plotly figures share: panels in a grid, the step axis, bands, labels at the ends of lines.

A figure carries its grid in `layout.meta["grid"]`, so that a narrow page can lay the same panels out in fewer columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from rllc.analysis.findings import Curves
from rllc.figures.axis import TITLE, StepAxis
from rllc.figures.palette import INK, MUTED, PAPER, RULE, Style, alpha
from rllc.figures.text import label

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif'
SMALL, TITLE_FONT = {"size": 12, "color": MUTED}, {"size": 14, "color": INK}
LEGEND: dict[str, Any] = {
    "orientation": "h",
    "x": 0,
    "xref": "container",
    "xanchor": "left",
    "y": 1,
    "yref": "container",
    "yanchor": "top",
    "font": {"size": 13, "color": INK},
    "bgcolor": "rgba(0,0,0,0)",
}
WIDTH = 1040  # pixels: what the grid is first laid out for


@dataclass(frozen=True)
class Grid:
    """Panels in rows: how many columns on a wide and on a narrow page, and sizes in pixels."""

    panels: int
    columns: int
    narrow: int
    row: int
    gap: tuple[int, int] = (64, 58)  # between columns, between rows
    margin: tuple[int, int, int, int] = (58, 50, 44, 50)  # left, right, top, bottom
    share_y: bool = False
    y_title: str = ""
    x_title: str = ""
    every_x: bool = False  # step labels under every panel, not under the last row alone

    def domains(self, width: float, columns: int) -> tuple[list[tuple[float, float, float, float]], int]:
        """x0, x1, y0, y1 of each panel as shares of the plot area `width` pixels wide, and the figure's height in pixels."""
        left, right, top, bottom = self.margin
        rows = math.ceil(self.panels / columns)
        inner_w, inner_h = width - left - right, rows * self.row + (rows - 1) * self.gap[1]
        panel_w = (inner_w - (columns - 1) * self.gap[0]) / columns
        places = []
        for i in range(self.panels):
            r, c = divmod(i, columns)
            x0, y1 = c * (panel_w + self.gap[0]), inner_h - r * (self.row + self.gap[1])
            places.append((x0 / inner_w, min(1.0, (x0 + panel_w) / inner_w), max(0.0, (y1 - self.row) / inner_h), y1 / inner_h))
        return places, inner_h + top + bottom


def panels(
    grid: Grid, titles: Sequence[str | dict[str, Any]], axis: StepAxis | None, x: dict[str, Any] | None = None, y: dict[str, Any] | None = None
) -> go.Figure:
    """An empty figure with the axes of `grid`; panel i draws on x{i+1}, y{i+1}.

    Args:
        grid: the panels.
        titles: of the panels: a text, or what plotly calls an annotation where it differs from the usual title; "" for none.
        axis: of the steps; without it the x axes are left alone.
        x: what every x axis has beside.
        y: what every y axis has beside.
    """
    if axis is not None:
        grid = replace(grid, x_title=TITLE if grid.columns < 3 else "training step")
    places, height = grid.domains(WIDTH, grid.columns)
    left, right, top, bottom = grid.margin
    layout: dict[str, Any] = {
        "template": "none",
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"family": FONT, "size": 13, "color": INK},
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": RULE, "font": {"family": FONT, "size": 13, "color": INK}, "align": "left"},
        "legend": LEGEND,
        "meta": {"grid": asdict(grid)},
        "uirevision": "keep",
        "annotations": [_title(i, title) for i, title in enumerate(titles) if title],
    }
    for i, place in enumerate(places):  # the whole layout at once: plotly checks it anew with every change
        k = i + 1 if i else ""
        layout[f"xaxis{k}"] = _x_axis(grid, i, place, axis) | (x or {})
        layout[f"yaxis{k}"] = _y_axis(grid, i, place) | (y or {})
    return go.Figure(layout=layout)


def _x_axis(grid: Grid, i: int, place: tuple[float, float, float, float], axis: StepAxis | None) -> dict[str, Any]:
    last_row = i + grid.columns >= grid.panels
    found: dict[str, Any] = {"domain": place[:2], "anchor": f"y{i + 1}", "showticklabels": last_row or grid.every_x, **_line_of_axis()}
    if axis is not None:
        found |= _steps(axis) | ({"matches": "x"} if i else {})
    if grid.x_title and last_row:
        found["title"] = {"text": grid.x_title, "font": SMALL, "standoff": 10}
    return found


def _y_axis(grid: Grid, i: int, place: tuple[float, float, float, float]) -> dict[str, Any]:
    first_column = i % grid.columns == 0
    found: dict[str, Any] = {"domain": place[2:], "anchor": f"x{i + 1}", "showticklabels": first_column or not grid.share_y, **_line_of_axis()}
    found |= {"showgrid": True, "gridcolor": RULE, "nticks": 6, "showline": False, "ticks": ""}
    if grid.share_y and i:
        found["matches"] = "y"
    if grid.y_title and first_column:
        found["title"] = {"text": grid.y_title, "font": SMALL, "standoff": 8}
    return found


def _title(i: int, title: str | dict[str, Any]) -> dict[str, Any]:
    place: dict[str, Any] = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 7, "showarrow": False, "font": TITLE_FONT}
    own = {"text": title, "name": "panel title"} if isinstance(title, str) else title
    return place | inside(i, "domain", "domain") | own


def _line_of_axis() -> dict[str, Any]:
    return {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": RULE,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": RULE,
        "tickfont": SMALL,
        "automargin": False,
        "fixedrange": False,
    }


def _steps(axis: StepAxis) -> dict[str, Any]:
    values, labels = axis.ticks()
    low, high = axis.range
    pad = 0.03 * (high - low)
    return {"tickmode": "array", "tickvals": values, "ticktext": labels, "tickangle": 0, "range": [low - pad, high + pad]}


def inside(panel: int, x: str = "", y: str = "") -> dict[str, str]:
    """The axes of a panel, as a shape or annotation names them; "domain" counts from 0 to 1 along the panel instead of in its values."""
    k = panel + 1 if panel else ""
    return {"xref": f"x{k} {x}".strip(), "yref": f"y{k} {y}".strip()}


def on(panel: int) -> dict[str, str]:
    """The axes of a panel, as a trace names them."""
    return {"xaxis": f"x{panel + 1 if panel else ''}", "yaxis": f"y{panel + 1 if panel else ''}"}


def runs(*arrays: ArrayLike) -> list[slice]:
    """Stretches where every array is finite, so that bands and lines leave a gap where there is no number.

    >>> runs([1.0, float("nan"), 2.0, 3.0])
    [slice(0, 1, None), slice(2, 4, None)]
    """
    fine = np.all([np.isfinite(np.asarray(a, dtype=np.float64)) for a in arrays], axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], fine, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, color: str, opacity: float = 0.15, **trace: Any) -> go.Scatter | None:
    """A filled band between `low` and `high`, with gaps where either is NaN; None where nothing is finite."""
    xs, lows, highs = (np.asarray(a, dtype=np.float64) for a in (x, low, high))
    outline: list[NDArray[np.float64]] = []
    for piece in runs(lows, highs):
        if outline:
            outline.append(np.full((2, 1), np.nan))
        there = np.stack([xs[piece], highs[piece]])
        back = np.stack([xs[piece], lows[piece]])[:, ::-1]
        outline.append(np.concatenate([there, back, there[:, :1]], axis=1))
    if not outline:
        return None
    points = np.concatenate(outline, axis=1)
    return go.Scatter(
        x=points[0],
        y=points[1],
        mode="lines",
        line={"width": 0, "color": alpha(color, 0)},
        fill="toself",
        fillcolor=alpha(color, opacity),
        hoverinfo="skip",
        showlegend=False,
        **trace,
    )


def spread(values: Sequence[float], low: float, high: float, gap: float) -> list[float]:
    """Places for labels near `values`, within low..high and at least `gap` apart where there is the room, in the order of the values.

    >>> spread([1.0, 1.0, 5.0], 0, 10, 1)
    [0.5, 1.5, 5.0]
    >>> spread([9.9, 9.9], 0, 10, 1)
    [8.5, 9.5]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    gap = min(gap, (high - low) / max(1, len(values)))
    groups: list[tuple[float, list[int]]] = []  # centre and members of stretches of labels that touch
    for i in order:
        groups.append((min(max(values[i], low + gap / 2), high - gap / 2), [i]))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (len(groups[-1][1]) + len(groups[-2][1])) / 2:
            (a, first), (b, second) = groups[-2:]
            merged = first + second
            half = gap * len(merged) / 2
            groups[-2:] = [(min(max((a * len(first) + b * len(second)) / len(merged), low + half), high - half), merged)]
    places = [0.0] * len(values)
    for centre, members in groups:
        for k, i in enumerate(members):
            places[i] = centre + gap * (k - (len(members) - 1) / 2)
    return places


def label_gap(figure: go.Figure, span: tuple[float, float], pixels: float = 14) -> float:
    """How far apart, on an axis that shows `span`, labels of 12 pixels must lie to be read."""
    grid: Any = figure["layout"]["meta"]["grid"]
    return pixels / grid["row"] * (span[1] - span[0])


def end_labels(figure: go.Figure, panel: int, labels: Iterable[tuple[str, float, str, str]]) -> None:
    """Labels to the right of a panel, each a text, its height on the panel's axis, its colour, and the head that it names or ""."""
    place: dict[str, Any] = {"x": 1, "xanchor": "left", "yanchor": "middle", "xshift": 6, "showarrow": False} | inside(panel, "domain")
    notes = [
        place | {"text": text, "y": y, "font": {"size": 12, "color": color}} | ({"name": f"head {head}"} if head else {})
        for text, y, color, head in labels
    ]
    layout: Any = figure["layout"]
    layout["annotations"] = [*layout["annotations"], *notes]  # assigned, for an update compares every one of them with itself first


def legend_entry(figure: go.Figure, name: str, style: Style, group: str | None = None) -> None:
    """An entry of the legend without data of its own; clicking it hides or shows its group."""
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="lines+markers",
            name=label(name),
            legendgroup=group or name,
            showlegend=True,
            hoverinfo="skip",
            line=style.stroke(),
            marker=style.mark(7),
        )
    )


def bounds(*arrays: ArrayLike, pad: float = 0.05, zero: bool = False) -> tuple[float, float]:
    """The range that holds all finite values with a little air; 0..1 where there is none."""
    every = np.concatenate([np.asarray(a, dtype=np.float64).ravel() for a in arrays]) if arrays else np.array([])
    every = every[np.isfinite(every)]
    if zero:
        every = np.append(every, 0.0)
    if not every.size:
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    air = pad * ((high - low) or abs(high) or 1.0)
    return low - air, high + air


def curve_span(*curves: Curves) -> tuple[float, float]:
    """The range of an axis for these curves: all estimates and 0; of their intervals as much as leaves the estimates most of the room."""
    low, high = bounds(*(c.llc for c in curves), pad=0, zero=True)
    room = 0.6 * ((high - low) or 1.0)
    ends = bounds(*(a for c in curves for a in (c.ci_low, c.ci_high)), pad=0, zero=True)
    low, high = max(min(low, ends[0]), low - room), min(max(high, ends[1]), high + room)
    air = 0.05 * ((high - low) or 1.0)
    return low - air, high + air


def nothing(message: str) -> go.Figure:
    """A figure that says why there is nothing to draw."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        height=150,
        font={"family": FONT, "size": 14, "color": MUTED},
        xaxis={"visible": False},
        yaxis={"visible": False},
        margin={"l": 20, "r": 20, "t": 20, "b": 20},
        meta={"empty": message},
    )
    figure.add_annotation(text=message, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14, "color": MUTED})
    return figure

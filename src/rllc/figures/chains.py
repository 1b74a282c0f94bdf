"""One estimate at work: what its chains did, how λ̂ settles; and several estimates side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from rllc.core.outcome import Outcome
from rllc.figures.axis import StepAxis
from rllc.figures.layout import Grid, band, inside, nothing, on, panels
from rllc.figures.palette import DATA, FAINT, INK, MUTED, OUTCOMES, PAPER, TYPES, Style, data_styles
from rllc.figures.text import label

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Row = tuple[int, str, str, float, float, float, str]  # step, data, part, llc, low end, high end, outcome
_CHAINS = tuple(style for name, style in TYPES.items() if name != "other") + DATA
_LINE = 44  # characters of a sentence before it is broken


def chain_traces(
    above: Float[Floats, "chains S"],
    kept: Int[NDArray[np.int64], " draws"],
    draws: Float[Floats, "chains draws"],
    llc: float,
    interval: tuple[float, float],
    *,
    title: str = "",
    refused: str = "",
) -> go.Figure:
    """The loss of every chain above the baseline on the same minibatch, and the running mean of λ̂ with the final interval.

    Args:
        above: l_B(w_t) - l_B(w*) of every evaluation from w* on, in nats per token; what is not finite leaves a gap.
        kept: the evaluations that are draws; the others, w* and the burn-in, have a grey ground.
        draws: nβ times the same of every draw.
        llc: their mean.
        interval: its two ends.
        title: of the figure, any text.
        refused: why there is no number; "" where there is one. Then nothing is drawn that could be taken for one.
    """
    grid = Grid(2, 2, 1, 300, gap=(76, 84), margin=(62, 20, 64, 50), x_title="evaluation", every_x=True)
    names = ["Loss above the checkpoint's, nats per token", "λ̂ as the draws add up"]
    figure = panels(grid, [f"{label(title)}: loss above the baseline, nats per token" if title else names[0], names[1]], None, y={"zeroline": True})
    x = np.arange(above.shape[1])
    first = int(kept[0]) if len(kept) else above.shape[1]
    figure.add_shape(type="rect", x0=-0.5, x1=first - 0.5, y0=0, y1=1, fillcolor=FAINT, line={"width": 0}, layer="below", **inside(0, y="domain"))
    for chain, values in enumerate(above):
        style = _CHAINS[chain % len(_CHAINS)]
        figure.add_trace(_line(x, values, style, f"chain {chain}", "%{y:.4g} nats", 1.2, **on(0)))
    if refused:
        figure.add_trace(go.Scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip", **on(1)))  # without a trace there is no panel
        figure.add_annotation(
            text="<br>".join(label(line) for line in ["No number:", *textwrap.wrap(refused, _LINE)]),
            x=0.5,
            y=0.5,
            showarrow=False,
            align="left",
            font={"size": 13, "color": OUTCOMES["unstable"]},
            **inside(1, "domain", "domain"),
        )
        figure.update_layout(xaxis2_showticklabels=False, yaxis2_showticklabels=False, yaxis2_zeroline=False)
        return figure
    running = draws.cumsum(axis=1) / np.arange(1, draws.shape[1] + 1)
    for chain, values in enumerate(running):
        style = _CHAINS[chain % len(_CHAINS)]
        figure.add_trace(_line(kept, values, style, f"chain {chain}", "%{y:.4g}", 0.8, showlegend=False, opacity=0.6, **on(1)))
    low, high = interval
    ends = kept[[0, -1]]
    if (shaded := band(ends, [low, low], [high, high], INK, 0.10, **on(1))) is not None:
        figure.add_trace(shaded)
    mean = Style(INK, "solid", "circle", "o", 2.2)
    figure.add_trace(_line(kept, running.mean(axis=0), mean, "all chains", "%{y:.4g}", 2.2, **on(1)))
    figure.add_annotation(
        text=f"λ̂ = {llc:.3g}, {low:.3g} to {high:.3g}".replace("-", "−"),
        x=1,
        y=1,
        xanchor="right",
        yanchor="bottom",
        yshift=7,
        showarrow=False,
        font={"size": 13, "color": MUTED},
        **inside(1, "domain", "domain"),
    )
    return figure


def intervals(rows: Sequence[Row]) -> go.Figure:
    """λ̂ of several cells with their intervals: over the steps where there are several, else part by part.

    A hollow mark carries a warning; a cell without a number has none, and its place stays empty.
    """
    if not rows:
        return nothing("There are no results yet.")
    steps = sorted({row[0] for row in rows})
    data = list(dict.fromkeys(row[1] for row in rows))
    grid = Grid(1, 1, 1, 380, margin=(62, 24, 48, 60), y_title="λ̂", x_title="" if len(steps) > 1 else "part")
    axis = StepAxis.of(np.array(steps)) if len(steps) > 1 else None
    figure = panels(grid, [""], axis, None if axis is not None else {"type": "category", "tickangle": 0}, {"zeroline": True})
    lines: dict[str, list[Row]] = {}
    for row in rows:
        name = row[1] if axis is None else f"{row[2]}" if len(data) == 1 else f"{row[2]}, {row[1]}"
        lines.setdefault(name, []).append(row)
    styles = data_styles(lines, "")
    for name, members in lines.items():
        ordered = sorted(members, key=lambda row: row[0])
        figure.add_trace(_estimates(name, ordered, styles[name], axis, len(lines) > 1))
    return figure


def _estimates(name: str, rows: Sequence[Row], style: Style, axis: StepAxis | None, legend: bool) -> go.Scatter:
    warned = [row[6] not in (Outcome.OK, "") for row in rows]
    values = np.array([row[3] for row in rows])
    return go.Scatter(
        x=[label(row[2]) for row in rows] if axis is None else axis(np.array([row[0] for row in rows])),
        y=values,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.array([row[5] for row in rows]) - values,
            "arrayminus": values - np.array([row[4] for row in rows]),
            "color": style.color,
            "thickness": 1.4,
            "width": 3,
        },
        mode="markers" if axis is None else "lines+markers",
        name=label(name),
        line=style.stroke(1.5),
        marker={**style.mark(7), "color": [PAPER if mark else style.color for mark in warned]},
        text=[f"{label(row[2])} on {label(row[1])}, step {row[0]:,}: {label(row[6])}" for row in rows],
        hovertemplate="%{text}<br>λ̂ %{y:.4g}<extra></extra>",
        showlegend=legend,
        **on(0),
    )


def _line(x: Any, y: Floats, style: Style, name: str, hover: str, width: float, **trace: Any) -> go.Scatter:
    shown = np.where(np.isfinite(y), y, np.nan)
    return go.Scatter(
        x=x,
        y=shown,
        mode="lines",
        name=name,
        line=style.stroke(width),
        hovertemplate=f"{name}, evaluation %{{x}}: {hover}<extra></extra>",
        legendgroup=name,
        connectgaps=False,
        **trace,
    )

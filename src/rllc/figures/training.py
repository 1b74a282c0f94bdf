"""What training shows from outside: losses per domain, behavioural scores of heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from rllc.analysis.findings import Behaviour, Floats, HeadTypes, Stages
from rllc.figures.axis import StepAxis
from rllc.figures.curves import legend_of_types, mark_stages
from rllc.figures.head_lines import REACH
from rllc.figures.layout import Grid, bounds, end_labels, label_gap, nothing, on, panels, spread
from rllc.figures.palette import INK, MIXTURE, MUTED, Style, in_order, type_style
from rllc.figures.text import label

SCORES: Mapping[str, tuple[str, str]] = {
    "previous_token": ("Previous-token score", "previous-token"),
    "current_token": ("Current-token score", "current-token"),
    "prefix_matching": ("Prefix-matching score (induction)", "induction"),
}
ICL = "In-context-learning score (nats)"


def losses(behaviour: Behaviour, stages: Stages | None, styles: Mapping[str, Style], axis: StepAxis | None = None) -> go.Figure:
    """Held-out loss of the model on each kind of data, in nats per token, with the boundaries of the stages."""
    if not behaviour.data or not behaviour.steps.size:
        return nothing("No loss was measured.")
    axis = axis or StepAxis.of(behaviour.steps)
    figure = panels(Grid(1, 1, 1, 320, margin=(64, 96, 44, 52), y_title="held-out loss (nats per token)"), [""], axis)
    x, rows = axis(behaviour.steps), dict(zip(behaviour.data, behaviour.losses, strict=True))
    span = bounds(behaviour.losses)
    last = [float(row[np.isfinite(row)][-1]) if np.isfinite(row).any() else np.nan for row in behaviour.losses]
    errors = dict(zip(behaviour.data, behaviour.errors[0], strict=True))
    for name in in_order(rows, styles):
        row, style = rows[name], styles.get(name, MIXTURE)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=row,
                mode="lines+markers",
                name=label(name),
                customdata=behaviour.steps,
                error_y=_bars(errors[name]),
                line=style.stroke(),
                marker=style.mark(6),
                hovertemplate=f"<b>{label(name)}</b><br>step %{{customdata:,}}<br>%{{y:.3f}} nats per token<extra></extra>",
            )
        )
    named = [(name, y) for name, y in zip(behaviour.data, last, strict=True) if np.isfinite(y)]
    places = spread([y for _, y in named], *span, gap=label_gap(figure, span))
    end_labels(figure, 0, [(label(name), y, styles.get(name, MIXTURE).color, "") for (name, _), y in zip(named, places, strict=True)])
    figure.update_yaxes(range=list(span))
    if stages is not None:
        mark_stages(figure, stages, axis)
    return figure


def scores(behaviour: Behaviour, types: HeadTypes, axis: StepAxis | None = None) -> go.Figure:
    """Attention scores of every head over training, a panel a score, with the threshold of the type; then the in-context-learning score.

    Heads of the type that a panel decides are named at the end of their line.
    """
    known = [name for name in SCORES if name in behaviour.scores]
    others = [name for name in behaviour.scores if name not in SCORES]
    if not (known or others) or not behaviour.steps.size:
        return nothing("No behaviour was measured.")
    axis = axis or StepAxis.of(behaviour.steps)
    names = known + others
    icl = [ICL] if np.isfinite(behaviour.icl).any() else []
    titles = [SCORES[n][0] if n in SCORES else label(n) for n in names]
    grid = Grid(len(names) + len(icl), 2, 1, 270, gap=(86, 76), margin=(58, 48, 66, 52))
    figure = panels(grid, titles + icl, axis)
    by_head = dict(zip(types.heads, types.types, strict=True))
    x = axis(behaviour.steps)
    for panel, name in enumerate(names):
        table = behaviour.scores[name]
        span = (min(0.0, bounds(table)[0]), max(0.5, bounds(table)[1]))
        decides = SCORES.get(name, ("", ""))[1]
        if (threshold := threshold_of(types, name)) is not None:
            ends = [axis.range[0] - 1, axis.range[1] + 1]  # beyond the panel, which clips it
            dashed = {"color": MUTED, "width": 1.2, "dash": "dash"}
            figure.add_trace(go.Scatter(x=ends, y=[threshold] * 2, mode="lines", line=dashed, hoverinfo="skip", showlegend=False, **on(panel)))
        for row in sorted(range(len(behaviour.heads)), key=lambda r: by_head.get(behaviour.heads[r], "other") != "other"):
            head = behaviour.heads[row]
            head_type = by_head.get(head, "other")
            style = type_style(head_type)
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=table[row],
                    mode="lines+markers",
                    showlegend=False,
                    legendgroup=head_type,
                    meta={"head": head, "type": head_type},
                    line=style.stroke(),
                    marker=style.mark(4.5),
                    customdata=behaviour.steps,
                    hovertemplate=f"<b>{label(head)}</b> {label(head_type)}<br>step %{{customdata:,}}<br>%{{y:.3f}}<extra></extra>",
                    **on(panel),
                )
            )
        named = [(h, float(table[r, -1])) for r, h in enumerate(behaviour.heads) if by_head.get(h) == decides and np.isfinite(table[r, -1])]
        places = spread([y for _, y in named], *span, gap=label_gap(figure, span))
        end_labels(figure, panel, [(label(head), y, type_style(decides).color, head) for (head, _), y in zip(named, places, strict=True)])
        figure.update_layout({f"yaxis{panel + 1 if panel else ''}": {"range": list(span)}})
    if icl:
        panel = len(names)
        figure.add_trace(
            go.Scatter(
                x=x,
                y=behaviour.icl,
                mode="lines+markers",
                showlegend=False,
                error_y=_bars(behaviour.errors[1]),
                line={"color": INK, "width": 2},
                marker={"size": 6, "color": INK},
                customdata=behaviour.steps,
                hovertemplate="step %{customdata:,}<br>%{y:.3f} nats<extra></extra>",
                **on(panel),
            )
        )
        figure.update_layout({f"yaxis{panel + 1}": {"range": list(bounds(behaviour.icl, zero=True))}})
    legend_of_types(figure, (by_head.get(h, "other") for h in behaviour.heads))
    return figure


def _bars(stderr: Floats) -> dict[str, Any]:
    """Bars of 95 % either way; none where an error was not recorded."""
    return {"array": REACH * stderr, "thickness": 1.0, "width": 2} if np.isfinite(stderr).any() else {}


def threshold_of(types: HeadTypes, score: str) -> float | None:
    """The threshold that made a type of this score, whichever of the two names it is filed under."""
    for key in (score, SCORES.get(score, ("", score))[1]):
        if key in types.thresholds:
            return types.thresholds[key]
    return None

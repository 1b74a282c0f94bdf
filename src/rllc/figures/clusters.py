"""Clusters of head curves beside what the heads do."""

from __future__ import annotations

import string
from typing import Any

import plotly.graph_objects as go
from scipy.cluster.hierarchy import dendrogram

from rllc.analysis.findings import Agreement, Clustering, Curves, HeadTypes
from rllc.figures.axis import StepAxis
from rllc.figures.curves import draw_heads, legend_of_types, picked
from rllc.figures.layout import SMALL, Grid, curve_span, nothing, panels
from rllc.figures.palette import INK, MUTED, PAPER, RULE, TYPES, alpha, type_color
from rllc.figures.text import label


def cluster_name(label: int) -> str:
    """Clusters are lettered in order of their final value.

    >>> cluster_name(0), cluster_name(27)
    ('A', 'AB')
    """
    letters = string.ascii_uppercase
    return letters[label] if label < len(letters) else cluster_name(label // len(letters) - 1) + letters[label % len(letters)]


def cluster_curves(clustering: Clustering, curves: Curves, types: HeadTypes, axis: StepAxis | None = None) -> go.Figure:
    """The curves of the heads in each cluster, a panel a cluster; colours stay those of the head types, so that agreement can be seen."""
    rows = {curves.parts.index(h): int(label) for h, label in zip(clustering.heads, clustering.labels, strict=True) if h in curves.parts}
    if not rows:
        return nothing("No head has a complete curve to be clustered.")
    axis = axis or StepAxis.of(curves.steps)
    found = sorted(set(rows.values()))
    by_head = dict(zip(types.heads, types.types, strict=True))
    count = [sum(label == m for label in rows.values()) for m in found]
    titles = [f"Cluster {cluster_name(m)}: {n} head{'s' if n > 1 else ''}" for m, n in zip(found, count, strict=True)]
    grid = Grid(len(found), min(3, len(found)), 1, 260, gap=(60, 72), margin=(54, 46, 66, 52), share_y=True, y_title="wrLLC")
    span = curve_span(picked(curves, list(rows)))
    values, names = axis.ticks(0.16)
    figure = panels(grid, titles, axis, {"tickvals": values, "ticktext": names}, {"range": span})
    for panel, m in enumerate(found):
        draw_heads(figure, panel, curves, [r for r, label in rows.items() if label == m], by_head, axis, span)
    legend_of_types(figure, (by_head.get(h, "other") for h in clustering.heads))
    return figure


def confusion(agreement: Agreement) -> go.Figure:
    """How many heads of each type fall into each cluster."""
    table = agreement.confusion
    if not table.size:
        return nothing("There is nothing to compare: no cluster or no type.")
    grid = Grid(1, 1, 1, 44 * len(agreement.types), margin=(122, 16, 44, 16))
    top = {"side": "top", "title": {"text": "cluster", "font": SMALL, "standoff": 4}, "showline": False, "ticks": ""}
    left = {"autorange": "reversed", "showgrid": False, "tickfont": {"size": 13, "color": INK}}
    figure = panels(grid, [""], None, top, left)
    peak = max(1, int(table.max()))
    share = table / peak
    figure.add_trace(
        go.Heatmap(
            z=share,
            x=[cluster_name(m) for m in range(table.shape[1])],
            y=[label(t) for t in agreement.types],
            zmin=0,
            zmax=1,
            showscale=False,
            colorscale=[[0, alpha(TYPES["previous-token"].color, 0.03)], [1, alpha(TYPES["previous-token"].color, 0.75)]],
            xgap=2,
            ygap=2,
            customdata=table,
            hovertemplate="%{customdata} heads of type %{y} in cluster %{x}<extra></extra>",
        )
    )
    for i, name in enumerate(agreement.types):
        for m in range(table.shape[1]):
            strong = share[i, m] > 0.55
            figure.add_annotation(
                x=cluster_name(m),
                y=label(name),
                text=f"<b>{table[i, m]}</b>" if table[i, m] else "0",
                showarrow=False,
                font={"size": 14, "color": PAPER if strong else INK if table[i, m] else MUTED},
            )
    return figure


def tree(clustering: Clustering, types: HeadTypes) -> go.Figure:
    """The dendrogram of a hierarchical clustering; leaves are heads in the colours of their types."""
    if clustering.linkage is None or not len(clustering.linkage):
        return nothing("This clustering has no tree.")
    drawn: dict[str, Any] = dendrogram(clustering.linkage, no_plot=True, color_threshold=0)
    by_head = dict(zip(types.heads, types.types, strict=True))
    label_of = dict(zip(clustering.heads, clustering.labels, strict=True))
    figure = panels(Grid(1, 1, 1, 22 * len(clustering.heads) + 16, margin=(16, 150, 16, 50)), [""], None)
    for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        figure.add_trace(go.Scatter(x=heights, y=places, mode="lines", line={"color": INK, "width": 1.4}, hoverinfo="skip", showlegend=False))
    # scipy puts leaf i at 10 i + 5
    for i, leaf in enumerate(drawn["leaves"]):
        head = clustering.heads[leaf]
        head_type = by_head.get(head, "other")
        figure.add_annotation(
            x=0,
            y=10 * i + 5,
            text=f"<b>{label(head)}</b> {label(head_type)} · {cluster_name(int(label_of[head]))}",
            showarrow=False,
            xanchor="left",
            xshift=8,
            font={"size": 12, "color": type_color(head_type)},
            name=f"head {head}",
        )
    top = float(clustering.linkage[:, 2].max()) or 1.0
    figure.update_xaxes(range=[top * 1.05, 0], title={"text": "distance between merged clusters", "font": SMALL}, linecolor=RULE)
    figure.update_yaxes(visible=False, range=[0, 10 * len(clustering.heads)])
    return figure

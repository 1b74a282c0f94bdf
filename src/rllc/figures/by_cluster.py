"""Curves of the last layer's heads in the colours of their K-means clusters (METHOD 5, differentiation)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rllc.analysis.curves import layer_of, select
from rllc.analysis.findings import Agreement, Clustering, Findings
from rllc.analysis.ordering import holm
from rllc.figures.clusters import cluster_name
from rllc.figures.curves import steps_axis
from rllc.figures.drawing import Layer, Missing, Panel, Plot, Scale
from rllc.figures.grouping import paired
from rllc.figures.head_lines import KEY, curve_line
from rllc.figures.layout import curve_span
from rllc.figures.palette import DATA, MIXTURE, MUTED, TYPES, Style, type_style
from rllc.figures.told import TEST_LEVEL, Told, listed, number, plural, type_of

CLUSTERS = (*DATA, MIXTURE)  # colours and dashes; marks are those of the types


def kmeans_clusters(f: Findings, told: Told) -> Plot | Missing | None:
    """WrLLC curves of the last layer's heads over training, coloured by K-means cluster and marked by type; a panel a preprocessing of the curves.

    Of several kinds of time it is the first; None where K-means grouped no layer by itself.
    """
    curves = f.curves.get(told.mixture)
    found = _of_last_layer(f)
    if curves is None or not found:
        return None
    kinds, axis = type_of(f.types), steps_axis(f)
    pairs = {id(c): a for c, a in paired(f.clusterings, f.agreements)}
    agreements = [pairs.get(id(c)) for c in found]
    held = holm(np.array([a.p if a is not None else np.nan for a in agreements], dtype=np.float64))
    span = curve_span(select(curves, [h for h in curves.parts if any(h in c.heads for c in found)]))
    panels: list[Panel] = []
    for clustering, agreement in zip(found, agreements, strict=True):
        layers: list[Layer] = []
        for head, label in zip(clustering.heads, clustering.labels.tolist(), strict=True):
            if head in curves.parts:
                kind = kinds.get(head, "other")
                style = replace(_colour(label), symbol=type_style(kind).symbol, marker=type_style(kind).marker)
                name = f"{head} {kind}, cluster {cluster_name(label)}"
                layers.append(curve_line(curves, curves.parts.index(head), style, name, end=head, group=cluster_name(label), shade=0.08))
        y = Scale("wrLLC" if not panels else "", span)
        panels.append(Panel(_index(clustering, agreement), tuple(layers), Scale(steps=axis), y))
    if not any(panel.layers for panel in panels):
        return Missing("No clustered head has a curve.")
    labels = sorted({int(label) for c in found for label in c.labels})
    used = {kinds.get(h, "other") for c in found for h in c.heads}
    legend = [(f"cluster {cluster_name(label)}", replace(_colour(label), symbol="line-ew", marker="")) for label in labels]
    legend += [(name, Style(MUTED, "solid", style.symbol, style.marker, 0.0)) for name, style in TYPES.items() if name in used]
    one = found[0]
    caption = (
        f"Refined LLC of the heads of {one.scope} on {curves.data} with its interval as a band, {one.time} time; colours: clusters, lowest final "
        f"wrLLC first; marks: types. Above each panel what was clustered, the adjusted Rand index of its clusters with the types, and in brackets "
        f"the 95 % point where types are dealt to the heads at random; the title holds 5 % for all panels together (Holm). {_left(found)}{KEY} "
    )
    columns = min(3, len(panels))
    return Plot(_title(found, held), caption + told.sampling(told.mixture), tuple(panels), columns, 3.0, tuple(legend))


def _of_last_layer(f: Findings) -> list[Clustering]:
    """K-means clusterings of the last layer that was clustered by itself, on the first kind of time."""
    single = [c for c in f.clusterings if c.method == "kmeans" and c.scope != "all"]
    last = max((layer_of(c.heads[0]) for c in single if c.heads), default=-1)
    own = [c for c in single if c.heads and layer_of(c.heads[0]) == last]
    return [c for c in own if c.time == own[0].time]


def _colour(label: int) -> Style:
    return CLUSTERS[label % len(CLUSTERS)]


def _index(clustering: Clustering, agreement: Agreement | None) -> str:
    if agreement is None or not np.isfinite(agreement.adjusted_rand):
        return f"{clustering.preprocessing} curves"
    return f"{clustering.preprocessing} curves: {number(agreement.adjusted_rand)} (≤ {number(agreement.chance_interval[1])})"


def _left(found: list[Clustering]) -> str:
    left = dict.fromkeys(head for c in found for head in c.left_out)
    return f"Left out for want of a complete curve: {listed(list(left))}. " if left else ""


def _title(found: list[Clustering], held: np.ndarray) -> str:
    """The groups of the first preprocessing, and how many panels' groups agree with the types beyond chance, all panels held together (Holm)."""
    one = found[0]
    groups = [
        f"{cluster_name(m)} ({listed([h for h, label in zip(one.heads, one.labels, strict=True) if label == m], 8)})"
        for m in sorted({int(label) for label in one.labels})
    ]
    said = f"K-means on {one.preprocessing} curves groups the {plural(len(one.heads), 'head')} of {one.scope} into {listed(groups)}"
    if not np.isfinite(held).any():
        return said
    clear = int((held <= TEST_LEVEL).sum())
    if len(found) == 1:
        return f"{said}, which agree{'' if clear else ' no more'} with the head types {'beyond' if clear else 'than by'} chance"
    return f"{said}; on {clear} of {len(found)} kinds of curves the groups agree with the head types beyond chance"

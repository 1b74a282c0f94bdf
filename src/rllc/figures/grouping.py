"""Clusters of curves (METHOD 5, appendix): the tree, how far noise made the groups, every method against what heads do, how many groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import dendrogram, leaves_list

from rllc.analysis.findings import Agreement, Clustering, Findings, Numbers
from rllc.analysis.ordering import holm
from rllc.analysis.settings import METHODS
from rllc.figures.clusters import cluster_name
from rllc.figures.drawing import Cells, Layer, Line, Missing, Panel, Plot, Rule, Scale
from rllc.figures.head_lines import type_colors, type_legend
from rllc.figures.layout import bounds
from rllc.figures.palette import DATA, INK, MUTED, Style
from rllc.figures.told import TEST_LEVEL, Told, listed, number, plural, type_of

BRANCH = Style(INK, "solid", "line-ew", "", 1.6)


def tree_and_stability(clustering: Clustering, f: Findings, told: Told) -> Plot | Missing:
    """The dendrogram of a hierarchical clustering, and beside it, in its order, the share of redrawn curves that put two heads together."""
    if clustering.linkage is None or not len(clustering.linkage):
        return Missing("No hierarchical clustering was made.")
    drawn: dict[str, Any] = dendrogram(clustering.linkage, no_plot=True, color_threshold=0)
    order = [int(i) for i in leaves_list(clustering.linkage)]
    heads, kinds = [clustering.heads[i] for i in order], type_of(f.types)
    label_of = [cluster_name(int(clustering.labels[i])) for i in order]
    branches: list[Layer] = []
    for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        rows = (np.asarray(places) - 5) / 10  # scipy puts leaf i at 10 i + 5
        branches.append(Line(np.asarray(heights), rows, BRANCH, "", marks=False))
    ticks = tuple((float(r), f"{kinds.get(h, 'other')}  {h} · {c}") for r, (h, c) in enumerate(zip(heads, label_of, strict=True)))
    top = float(clustering.linkage[:, 2].max()) or 1.0
    x = Scale("distance between merged clusters", (top * 1.04, 0.0))
    colors = type_colors(f.types, heads)
    panels = [Panel("", tuple(branches), x, Scale("", (len(heads) - 0.5, -0.5), ticks=ticks, colors=colors))]
    if clustering.together is not None:
        table = clustering.together[np.ix_(order, order)]
        texts = tuple(tuple(f"{v:.1f}".removeprefix("0") if 0.05 <= v < 0.95 else "" for v in row) for row in table) if len(heads) <= 20 else ()
        cells = Cells(
            table,
            tuple(heads),
            tuple(heads),
            0.0,
            1.0,
            texts=texts,
            name="together in",
            unit="of redrawn curves",
            row_colors=colors,
            column_colors=colors,
        )
        panels.append(Panel("share of redrawn curves that join them", (cells,)))
    low, high = clustering.stability_interval
    title = (
        f"{plural(clustering.n_clusters, 'cluster')} of {plural(len(heads), 'head')} by Ward's criterion; redrawn within their errors the curves "
        f"give the "
        f"same groups to an adjusted Rand index of {number(clustering.stability)} ({number(low)} to {number(high)})"
    )
    caption = (
        f"{clustering.preprocessing.capitalize()} wrLLC curves of {_scope(clustering.scope)}, {clustering.time} time; letters: clusters, lowest "
        f"final "
        f"wrLLC first; silhouette {number(clustering.silhouette)}.{_left(clustering)} "
    )
    return Plot(title, caption + told.sampling(told.mixture), tuple(panels), 2, 0.8 + 0.19 * len(heads), type_legend(f.types, heads))


def methods_against_types(
    clusterings: Sequence[Clustering], agreements: Sequence[Agreement], told: Told, what: str = "wrLLC", source: str = ""
) -> Plot | Missing:
    """Every method, preprocessing, time and scope against the behavioural types: the adjusted Rand index, and what chance gives.

    `agreements` stand in the order of `clusterings`, or are found by method, scope, preprocessing and time. `what` names the curves, and
    `source` says how they were come by: as λ̂ on the training mixture is, unless told.
    """
    pairs = paired(clusterings, agreements)
    if not pairs:
        return Missing("No clustering was compared with the head types.")
    scopes = list(dict.fromkeys(c.scope for c, _ in pairs))
    columns = list(dict.fromkeys((c.preprocessing, c.time) for c, _ in pairs))
    methods = list(dict.fromkeys(c.method for c, _ in pairs))
    names = tuple(p if len({t for _, t in columns}) == 1 else f"{p}, {t}" for p, t in columns)
    panels: list[Panel] = []
    held = holm(np.array([a.p for _, a in pairs], dtype=np.float64))
    clear = {id(a) for (_, a), p in zip(pairs, held, strict=True) if p <= TEST_LEVEL}
    for scope in scopes:
        index = np.full((len(methods), len(columns)), np.nan)
        texts = [["" for _ in columns] for _ in methods]
        for c, a in pairs:
            if c.scope != scope:
                continue
            row, column = methods.index(c.method), columns.index((c.preprocessing, c.time))
            index[row, column] = a.adjusted_rand
            passed = id(a) in clear
            texts[row][column] = (
                f"{number(a.adjusted_rand)}{'*' if passed else ''} (≤ {number(a.chance_interval[1])})" if np.isfinite(a.adjusted_rand) else "–"
            )
        rows = tuple(method_name(m) for m in methods)
        cells = Cells(index, rows, names, -1.0, 1.0, "diverging", tuple(map(tuple, texts)), name="adjusted Rand index")
        panels.append(Panel(_scope(scope), (cells,)))
    best, top = max(pairs, key=lambda pair: pair[1].adjusted_rand if np.isfinite(pair[1].adjusted_rand) else -2.0)
    title = (
        f"{len(clear)} of {plural(len(pairs), 'clustering')} of {what} curves agree with the head types beyond chance, all tried together; "
        f"the highest index is that of {method_name(best.method)} on {best.preprocessing} curves of "
        f"{_scope(best.scope)} ({number(top.adjusted_rand)})"
    )
    caption = (
        "Adjusted Rand index of clusters with behavioural types; in brackets the 95 % point of each index by itself where types are dealt to the "
        "heads of a layer at random; a star where such dealings pass the index in 5 % at most, all clusterings held together (Holm). "
    )
    caption += "A dash: undefined; blank: no clustering. "
    width = 6.8 if len(panels) > 1 or len(columns) > 2 else 5.0
    per_row = 1 if len(columns) > 3 else min(2, len(panels))
    return Plot(
        title,
        caption + (source or told.sampling(told.mixture)),
        tuple(panels),
        per_row,
        0.95 + 0.3 * len(methods),
        bar="adjusted Rand index",
        width=width,
    )


def of_ablation(f: Findings, told: Told) -> Plot | Missing | None:
    """`methods_against_types` of the curves of ablation effects; None where these were not clustered."""
    source = told.measuring("ablation", told.mixture)
    return methods_against_types(f.ablation_clusterings, f.ablation_agreements, told, "mean ablation", source) if f.ablation_clusterings else None


def paired(clusterings: Sequence[Clustering], agreements: Sequence[Agreement]) -> list[tuple[Clustering, Agreement]]:
    """Clusterings with their agreements: as they stand, where they fit one by one, else those that fit alone."""
    fits = [
        c.method == a.method and c.scope == a.scope and a.preprocessing in ("", c.preprocessing) and a.time == c.time
        for c, a in zip(clusterings, agreements, strict=False)
    ]
    if len(clusterings) == len(agreements) and all(fits):
        return list(zip(clusterings, agreements, strict=True))
    found: list[tuple[Clustering, Agreement]] = []
    for c in clusterings:
        own = [a for a in agreements if a.method == c.method and a.scope == c.scope and a.preprocessing in ("", c.preprocessing) and a.time == c.time]
        if len(own) == 1:
            found.append((c, own[0]))
    return found


def how_many_clusters(numbers: Numbers, name: str, told: Told) -> Plot | Missing:
    """Three criteria for the number of clusters: silhouette, gap statistic, stability; the number that each chooses is marked."""
    kinds: tuple[tuple[str, np.ndarray, np.ndarray | None], ...] = (
        ("silhouette", numbers.silhouette, None),
        ("gap", numbers.gap, numbers.gap_stderr),
        ("stability", numbers.stability, numbers.stability_sd),
    )
    panels: list[Panel] = []
    for i, (kind, values, error) in enumerate(kinds):
        if not np.isfinite(values).any():
            continue
        style = DATA[i]
        band: dict[str, Any] = {} if error is None else {"low": values - error, "high": values + error}
        layers: list[Layer] = []
        if kind in numbers.chosen:
            layers.append(Rule(float(numbers.chosen[kind]), style=Style(MUTED, "dash", "line-ew", "", 1.2), label="chosen"))
        layers.append(Line(numbers.sizes, values, style, kind, **band))
        ticks = tuple((float(k), str(k)) for k in numbers.sizes)
        x = Scale("number of clusters", (float(numbers.sizes[0]) - 0.4, float(numbers.sizes[-1]) + 0.6), ticks=ticks)
        edges = (values,) if error is None else (values - error, values + error)
        panels.append(Panel(kind, tuple(layers), x, Scale("", bounds(*edges))))
    if not panels:
        return Missing("No criterion for the number of clusters was computed.")
    said = [f"{kind} {'none' if k == 1 else k}" for kind, k in numbers.chosen.items()]
    agree = len(set(numbers.chosen.values())) == 1 and len(numbers.chosen) > 1
    title = f"The criteria {'agree on' if agree else 'choose'} the number of clusters: {listed(said)}"
    caption = f"{name}. Bands: gap ± its standard error; stability (mean adjusted Rand index over redrawn curves) ± its standard deviation. "
    return Plot(title, caption + told.sampling(told.mixture), tuple(panels), len(panels), 2.2)


def method_name(method: str) -> str:
    """A method of clustering in words.

    >>> method_name("kshape")
    'k-shape'
    """
    return {str(name): words for name, words in METHODS.items()}.get(method, method)


def _scope(scope: str) -> str:
    return "all heads" if scope == "all" else scope


def _left(clustering: Clustering) -> str:
    return f" Left out for want of a complete curve: {listed(clustering.left_out)}." if clustering.left_out else ""

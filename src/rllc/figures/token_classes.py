"""Which tokens a head's ablation hurts: shares of classes (induction, bracket, skip n-gram, n-gram) among its most affected ones (METHOD 6)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Findings
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import ClassShares
from rllc.figures.drawing import Cells, Layer, Missing, Panel, Plot, Rule, Scale, in_words, limits
from rllc.figures.head_lines import dots, type_colors, type_legend
from rllc.figures.layout import bounds
from rllc.figures.palette import MUTED, Style
from rllc.figures.told import TEST_LEVEL, Told, last_column, listed, step, type_of

BASE = Style(MUTED, "dash", "line-ew", "", 1.3)


def class_shares(found: ClassShares, f: Findings, told: Told, data: str = "", fraction: float = 0.0) -> Plot | Missing:
    """A panel a class: its share among each head's most affected predictions, with 95 % intervals, against its share among all (dashed).

    `data` and `fraction` choose the kind of data and how many count as most affected; the mixture and the fraction nearest to 1 % unless told.
    The title names heads by the claims' test: beyond the error, all heads and classes tried together.
    """
    n = found.data.index(data or told.mixture) if (data or told.mixture) in found.data else 0
    k = found.fractions.index(fraction) if fraction else found.usual
    place = last_column(found.shares[:, :, n, k, 0]) if len(found.steps) else -1
    if place < 0:
        return Missing("No head's ablation raises a loss, so there is no most affected token.")
    kinds, passed = type_of(f.types), found.own(place, n, k, TEST_LEVEL)
    panels: list[Panel] = []
    own: list[str] = []
    for c, name in enumerate(found.classes):
        share, low, high = (table[:, place, n, k, c] for table in (found.shares, found.low, found.high))
        layers: tuple[Layer, ...] = (Rule(float(found.base[n, c]), style=BASE), *dots(found.heads, share, low, high, f.types))
        first = not panels
        ticks = tuple((float(r), f"{kinds.get(h, 'other')}  {h}" if first else "") for r, h in enumerate(found.heads))
        y = Scale("", (len(found.heads) - 0.4, -0.6), ticks=ticks, colors=type_colors(f.types, found.heads))
        span = bounds(low, high, [0.0, float(found.base[n, c])], pad=0.06)
        panels.append(Panel(class_name(name), layers, Scale("share", (max(span[0], -0.02), span[1])), y))
        heads = [h for h, beyond in zip(found.heads, passed[:, c], strict=True) if beyond]
        if heads:
            own.append(f"{class_name(name)} {listed(heads, 3)}")
    at, share_of = step(float(found.steps[place])), f"{found.fractions[k]:.1%}".replace(".0%", "%")
    title = (
        f"Classes over-represented among a head's most affected tokens: {'; '.join(own)}"
        if own
        else "No class stands out among any head's most affected tokens"
    )
    caption = (
        f"The {share_of} of predictions on {found.data[n]} whose loss rises most under {found.ablation} ablation at {at}; dashed: share among all "
        "predictions; bars: 95 % over contexts, each by itself; the title holds 5 % for all heads and classes together. Classes overlap. "
    )
    return Plot(
        title,
        caption + told.measuring("ablation", found.data[n]),
        tuple(panels),
        len(panels),
        0.8 + 0.17 * len(found.heads),
        type_legend(f.types, found.heads),
    )


def class_effects(found: ClassShares, f: Findings, told: Told) -> Plot | Missing:
    """Mean rise of the loss over each class's predictions when a head is ablated; heads by classes, a panel a kind of data."""
    place = last_column(np.moveaxis(found.effect, 1, -1).reshape(-1, len(found.steps))) if len(found.steps) else -1
    if place < 0:
        return Missing("No effect on a class of tokens was measured.")
    tables = [found.effect[:, place, n, :] for n in range(len(found.data))]
    low, high = limits(tables, "diverging")
    names = tuple(class_name(c) for c in found.classes)
    colors = type_colors(f.types, found.heads)
    panels: list[Panel] = []
    for data, table in zip(found.data, tables, strict=True):
        cells = Cells(table, found.heads, names, low, high, "diverging", in_words(table), "nats", "rise on", row_colors=colors)
        panels.append(Panel(data, (cells,)))
    said: list[str] = []
    for c, name in enumerate(names):
        column = tables[0][:, c]
        if np.isfinite(column).any() and found.classes[c] != "other":
            said.append(f"{name} {found.heads[int(np.nanargmax(column))]}")
    title = f"The head whose ablation hurts a class most on {found.data[0]}: {listed(said)}"
    caption = f"Mean rise of the loss under {found.ablation} ablation at {step(float(found.steps[place]))}; a dash: no such token. "
    columns = min(3, len(panels))
    legend = type_legend(f.types, found.heads)
    return Plot(
        title, caption + told.measuring("ablation", *found.data), tuple(panels), columns, 1.0 + 0.16 * len(found.heads), legend, bar="nats per token"
    )


def nested_closers(found: ClassShares, f: Findings, told: Told) -> Plot | Missing:
    """Mean rise of the loss over closing brackets and quotes when a head is ablated, by how many are open before: heads by depths.

    Of the kind of data that has the most inside others. The title names heads beyond the error, all heads and depths tried together.
    """
    if found.closers is None or found.closer_effect is None or found.closer_stderr is None or not found.closers[:, 1:].any():
        return Missing("No text that was measured closes a bracket inside another.")
    n = int(found.closers[:, 1:].sum(1).argmax())
    place = last_column(found.closer_effect[:, :, n, 0]) if len(found.steps) else -1
    if place < 0:
        return Missing("No effect on closing brackets was measured.")
    effect, error = found.closer_effect[:, place, n], found.closer_stderr[:, place, n]
    # One closer, or some of one context alone, have no error that could be known.
    reach = normal_quantile(1 - TEST_LEVEL / max(int(np.isfinite(effect).sum()), 1))
    beyond = np.asarray((np.isfinite(error) & (error > 0) & (effect > reach * error))[:, 1:].any(1))
    heads = [h for h, hurts in zip(found.heads, beyond.tolist(), strict=True) if hurts]
    names = tuple(f"{d + 1}{' or more' * (d == effect.shape[1] - 1)} ({count:,.0f})" for d, count in enumerate(found.closers[n]))
    low, high = limits([effect], "diverging")
    cells = Cells(
        effect, found.heads, names, low, high, "diverging", in_words(effect), "nats", "open before", row_colors=type_colors(f.types, found.heads)
    )
    title = (
        f"Ablating {listed(heads, 4)} hurts closing brackets and quotes inside others"
        if heads
        else "No head's ablation hurts closing brackets and quotes inside others beyond its errors"
    )
    caption = (
        f"Mean rise of the loss under {found.ablation} ablation at {step(float(found.steps[place]))}, over tokens of {found.data[n]} that close a "
        "bracket or quotation, by how many are open before them (in brackets: how many such tokens); the title holds 5 % for all heads and depths "
        "together. "
    )
    return Plot(
        title,
        caption + told.measuring("ablation", found.data[n]),
        (Panel("", (cells,), Scale("brackets and quotations open before the token")),),
        1,
        1.2 + 0.16 * len(found.heads),
        type_legend(f.types, found.heads),
        bar="nats per token",
    )


def class_name(name: str) -> str:
    """A class of tokens in words.

    >>> class_name("skip_ngram"), class_name("bracket")
    ('skip n-gram', 'bracket')
    """
    return name.replace("_", " ").replace("ngram", "n-gram")

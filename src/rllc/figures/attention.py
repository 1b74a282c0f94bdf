"""Attention patterns of every head on one snippet, as small maps (the page has them on every snippet and checkpoint, to be walked through)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Findings
from rllc.figures.drawing import Cells, Missing, Panel, Plot
from rllc.figures.head_lines import type_legend
from rllc.figures.palette import type_color
from rllc.figures.told import Told, number, plural, step, type_of

_LARGEST = 48  # tokens on a side: more cannot be told apart in a small panel


def attention_maps(f: Findings, told: Told, snippet: int = -1) -> Plot | Missing:
    """Attention of each head at the last checkpoint on one snippet (the last, unless told), rows the queries, columns the tokens looked at."""
    p = f.patterns
    if p is None or not p.snippets or not len(p.steps):
        return Missing("No attention pattern was recorded.")
    size = min(_LARGEST, p.weights[snippet].shape[-1])
    weights = p.weights[snippet][-1][:, :size, :size].astype(np.float64) / 255
    kinds = type_of(f.types)
    seen = np.tri(size, dtype=bool)
    panels: list[Panel] = []
    for head, table in zip(p.heads, weights, strict=True):
        kind = kinds.get(head, "other")
        empty = ("",) * size
        cells = Cells(np.where(seen, table, np.nan), empty, empty, 0.0, 1.0, name=head, unit="attention")
        panels.append(Panel(f"{head} {kind}", (cells,), color=type_color(kind)))
    back = [float(np.diagonal(table, -1)[1:].mean()) for table in weights]
    top = int(np.argmax(back))
    title = f"Attention of {plural(len(p.heads), 'head')}: {p.heads[top]} looks most at the token before ({number(back[top])} on this snippet)"
    caption = f"{p.snippets[snippet]}, its first {size} tokens, at {step(float(p.steps[-1]))}; rows: the token that looks, columns: those looked at. "
    return Plot(title, caption + told.planted.strip(), tuple(panels), min(4, len(panels)), 1.6, type_legend(f.types, p.heads), bar="attention")

"""OV and QK circuits of heads as tables of tokens, and what heads add to the logit of the right token (METHOD 6; Elhage et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from rllc.analysis.findings import Findings
from rllc.analysis.measured import Entry, TokenTables
from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Cells, Missing, Panel, Plot, Scale, Table, in_words, limits
from rllc.figures.head_lines import type_colors, type_legend, type_lines
from rllc.figures.layout import bounds
from rllc.figures.told import Told, last_column, listed, number, step, type_of, with_error


def circuit_table(tables: TokenTables, f: Findings, circuit: Literal["ov", "qk"], most: int = 3, heads: Sequence[str] = ()) -> Table | Missing:
    """The strongest entries of each head's OV or QK circuit at the last checkpoint, as text; all heads unless some are named."""
    every = tables.ov if circuit == "ov" else tables.qk
    if not len(tables.steps) or not any(every[-1]):
        return Missing(f"No {circuit.upper()} table is one head's alone.")
    kinds, colors = type_of(f.types), dict(zip(tables.heads, type_colors(f.types, tables.heads), strict=True))
    rows: list[tuple[str, ...]] = []
    shades: list[str] = []
    for i, head in enumerate(tables.heads):
        if (heads and head not in heads) or not every[-1][i]:
            continue
        copying = f"{tables.copying[i, -1]:.0%}" if circuit == "ov" and np.isfinite(tables.copying[i, -1]) else "–"
        entries = tuple(_entry(e) for e in every[-1][i][:most])
        own = (head, kinds.get(head, "other"), *((copying,) if circuit == "ov" else ()))
        rows.append((*own, *entries, *([""] * (most - len(entries)))))
        shades.append(colors[head])
    first = 3 if circuit == "ov" else 2
    columns = ("head", "type", *(("copies",) if circuit == "ov" else ()), *(f"{i + 1}" for i in range(most)))
    at = step(float(tables.steps[-1]))
    if circuit == "ov":
        caption = (
            f"Strongest entries of each head's OV circuit at {at}: reading the token on the left it raises the logit of that on the right by so much "
        )
        caption += "over the row's mean. Copies: share of tokens that it answers with themselves among the largest entries."
        title = _copying_title(tables)
    else:
        caption = (
            f"Strongest entries of each head's QK circuit at {at}: standing on the token on the left it looks at that on the right, by so much "
            "attention score over the row's mean; positions play no part."
        )
        title = _asking_title(tables)
    return Table(title, caption, columns, tuple(rows), tuple(range(first, first + most)), tuple(shades))


def _entry(entry: Entry) -> str:
    return f"{entry.token} → {entry.other} {number(entry.value, 1)}"


def _copying_title(tables: TokenTables) -> str:
    end = tables.copying[:, -1]
    copying = [(float(v), h) for h, v in zip(tables.heads, end, strict=True) if np.isfinite(v)]
    if not copying:
        return "OV circuits of the heads"
    top = sorted(copying, reverse=True)[:3]
    return f"The heads that copy most by their OV circuit: {listed([f'{h} ({v:.0%} of tokens)' for v, h in top])}"


def _asking_title(tables: TokenTables) -> str:
    """Which heads' strongest QK entries look at the token itself."""
    same = [h for h, found in zip(tables.heads, tables.qk[-1], strict=True) if found and np.mean([e.token == e.other for e in found]) > 0.5]
    most = "Heads most of whose strongest QK entries look for the same token"
    return f"{most}: {listed(same)}" if same else "No head's strongest QK entries look mostly for the same token"


def logit_attribution(tables: TokenTables, f: Findings, told: Told) -> Plot | Missing:
    """Direct logit attribution of the right token: every head over training on the first kind of data, and at the end on every kind."""
    if not len(tables.steps) or not np.isfinite(tables.attribution).any():
        return Missing("No direct logit attribution was measured.")
    data = told.mixture if told.mixture in tables.data else tables.data[0]
    n = tables.data.index(data)
    values, errors = tables.attribution[:, :, n], tables.attribution_stderr[:, :, n]
    end = last_column(values)
    top = [tables.heads[i] for i in np.argsort(-np.abs(np.nan_to_num(values[:, end])))[:6]]
    lines = type_lines(tables.heads, tables.steps, values, f.types, errors, named=top)
    over = Panel(f"on {data}, over training", lines, Scale(steps=StepAxis.of(tables.steps)), Scale("logits", bounds(values, zero=True)))
    table = tables.attribution[:, end, :]
    low, high = limits([table], "diverging")
    colors = type_colors(f.types, tables.heads)
    cells = Cells(table, tables.heads, tables.data, low, high, "diverging", in_words(table), "logits", "adds", row_colors=colors)
    panels = (over, Panel(f"at {step(float(tables.steps[end]))}", (cells,)))
    best = int(np.nanargmax(values[:, end]))
    amount = with_error(float(values[best, end]), float(errors[best, end]))
    title = f"{tables.heads[best]} adds most to the logit of the right token on {data}: {amount}"
    caption = (
        "Mean of what a head writes straight to the logit of the token that comes next, less the mean over the vocabulary; bands: 95 % over "
        "contexts. "
    )
    return Plot(
        title, caption + told.measuring("attribution", *tables.data), panels, 2, 0.8 + 0.17 * len(tables.heads), type_legend(f.types, tables.heads)
    )

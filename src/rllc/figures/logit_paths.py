"""Path ablation from heads straight to the logits: what a head does without any later head (METHOD 5)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Findings
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import Edges
from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Layer, Missing, Panel, Plot, Rule, Scale
from rllc.figures.head_lines import REACH, dots, type_colors, type_legend, type_lines
from rllc.figures.layout import bounds
from rllc.figures.palette import MUTED, Style
from rllc.figures.told import TEST_LEVEL, Told, last_column, listed, plural, step, type_of

LEVEL = Style(MUTED, "dash", "line-ew", "", 1.2)


def to_logits(edges: Edges, f: Findings, told: Told, most: int = 3) -> Plot | Missing:
    """Rise of the loss when the direct path from a head to the logits is ablated, at the last checkpoint, a panel a kind of data; and below it over
    training, where more than one checkpoint was measured.

    The title counts heads whose path helps beyond its error, all heads and kinds of data held together (Bonferroni).
    """
    if not len(edges.steps) or not np.isfinite(edges.direct).any():
        return Missing("No path from a head to the logits was measured.")
    place = last_column(np.moveaxis(edges.direct, 1, -1).reshape(-1, len(edges.steps)))
    kinds, shown = type_of(f.types), range(min(most, len(edges.data)))
    values, errors = 1000 * edges.direct[:, place], 1000 * edges.direct_stderr[:, place]
    low, high = values - REACH * errors, values + REACH * errors
    over = len(edges.steps) > 1
    span = bounds(low[:, list(shown)], high[:, list(shown)], zero=True)
    panels: list[Panel] = []
    for n in shown:
        ticks = tuple((float(r), f"{kinds.get(h, 'other')}  {h}" if n == 0 else "") for r, h in enumerate(edges.heads))
        y = Scale("", (len(edges.heads) - 0.4, -0.6), ticks=ticks, colors=type_colors(f.types, edges.heads))
        layers: tuple[Layer, ...] = (Rule(0.0, style=LEVEL), *dots(edges.heads, values[:, n], low[:, n], high[:, n], f.types))
        panels.append(Panel(f"{edges.data[n]}, rise (10⁻³ nats)", layers, Scale("", span), y))
    if over:
        drawn, reach = 1000 * edges.direct[:, :, list(shown)], REACH * 1000 * edges.direct_stderr[:, :, list(shown)]
        course = bounds(drawn - reach, drawn + reach, zero=True)
        for n in shown:
            named = [edges.heads[i] for i in np.argsort(-np.nan_to_num(values[:, n], nan=-np.inf))[:4]]
            lines = type_lines(edges.heads, edges.steps, 1000 * edges.direct[:, :, n], f.types, 1000 * edges.direct_stderr[:, :, n], named=named)
            y = Scale("rise (10⁻³ nats)" if n == 0 else "", course)
            panels.append(Panel("", (Rule(0.0, upright=False, style=LEVEL), *lines), Scale(steps=StepAxis.of(edges.steps)), y))
    left = f" Not drawn: {listed(edges.data[most:])}." if len(edges.data) > most else ""
    caption = (
        "Rise of the loss, in thousandths of a nat per token, "
        f"under {edges.ablation} ablation of the path from each head straight to the logits, past all "
        "later heads, at "
        f"{step(float(edges.steps[place]))}{', and below over training, the four largest named' if over else ''}; bars and bands: 95 % over "
        f"contexts, each by itself.{left} "
    )
    height = max(2.3, 0.8 + 0.15 * len(edges.heads))
    return Plot(
        _title(edges, place),
        caption + told.measuring("paths", *edges.data[:most]),
        tuple(panels),
        len(shown),
        height,
        type_legend(f.types, edges.heads),
    )


def _title(edges: Edges, place: int) -> str:
    effect, error = edges.direct[:, place], edges.direct_stderr[:, place]
    known = np.isfinite(effect) & np.isfinite(error)
    reach = normal_quantile(1 - TEST_LEVEL / max(int(known.sum()), 1))
    helps = known & (effect > reach * np.where(known, error, 0.0))
    said = [f"{int(helps[:, n].sum())} of {plural(int(known[:, n].sum()), 'head')} on {data}" for n, data in enumerate(edges.data)]
    return f"The path straight to the logits helps beyond its error, all tried together, for {listed(said)}"

"""Final wrLLC of heads against how many multigrams they hold (METHOD 5): the line, what rests on single heads, what on the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from rllc.analysis.errors import reach
from rllc.analysis.findings import Curves, Findings
from rllc.analysis.measured import Memorised
from rllc.analysis.regression import Regression, layers_of, spearman
from rllc.figures.drawing import Cells, Layer, Line, Missing, Panel, Plot, Points, Scale, Table, in_words
from rllc.figures.head_lines import type_colors, type_legend
from rllc.figures.layout import bounds
from rllc.figures.palette import INK, MUTED, Style, type_style
from rllc.figures.told import Told, chance, last_column, listed, number, plural, step, type_of

LINE = Style(INK, "solid", "line-ew", "", 1.6)
EQUAL = Style(MUTED, "dash", "line-ew", "", 1.2)


def wrllc_on_multigrams(fit: Regression, held: Memorised, f: Findings, told: Told) -> Plot | Missing:
    """Left: heads with the least-squares line. Right: each head's wrLLC as the line of all other heads foretells it."""
    ends = _final(f, told, held, fit.heads)
    if ends is None:
        return Missing("The heads of the regression have no wrLLC at its checkpoint.")
    counts, llc, half, at = ends
    kinds = type_of(f.types)
    x_span, y_span = bounds(counts, pad=0.12), bounds(llc - half, llc + half, fit.foretold)
    ramp = np.array(x_span)
    left: list[Layer] = [Line(ramp, fit.intercept + fit.slope * ramp, LINE, "least squares", marks=False)]
    right: list[Layer] = [Line(np.array(y_span), np.array(y_span), EQUAL, "equal", marks=False)]
    for kind in dict.fromkeys(kinds.get(h, "other") for h in fit.heads):
        rows = np.array([i for i, h in enumerate(fit.heads) if kinds.get(h, "other") == kind])
        names = tuple(fit.heads[i] for i in rows)
        style = Style(MUTED, "dot", "circle-open", "o", 1.5) if kind == "other" else type_style(kind)
        low, high = llc[rows] - half[rows], llc[rows] + half[rows]
        left.append(Points(counts[rows], llc[rows], style, kind, y_low=low, y_high=high, labels=names, group=kind))
        right.append(Points(fit.foretold[rows], llc[rows], style, kind, y_low=low, y_high=high, labels=names, group=kind))
    panels = (
        Panel("", tuple(left), Scale("memorised multigrams of the head", x_span), Scale(f"wrLLC at {step(at)}", y_span)),
        Panel("", tuple(right), Scale("wrLLC as the other heads' line foretells it", y_span), Scale("", y_span)),
    )
    heavy = [h for h, d in zip(fit.heads, fit.influence, strict=True) if d > 1]
    caption = (
        f"{plural(len(fit.heads), 'head')}; slope {number(fit.slope, 3)} (95 % {number(fit.slope_interval[0], 3)} to "
        f"{number(fit.slope_interval[1], 3)}) "
        f"by multigram, {number(float(fit.slope_without.min()), 3)} to {number(float(fit.slope_without.max()), 3)} without any one head; R² "
        f"{number(fit.r2)}, and {number(fit.r2_left_out)} with each head left out; heads that move the line by themselves: {listed(heavy)}. A "
        f"multigram "
        f"is held where ablation raises its loss by {held.threshold:g} nats over at least {held.contexts} contexts. Bars: 95 %. "
    )
    return Plot(_fit_title(fit), caption + told.sampling(told.mixture, beside=("multigrams",)), panels, 2, 3.0, type_legend(f.types, fit.heads))


def _fit_title(fit: Regression) -> str:
    low, high = fit.slope_interval
    said = "rises with" if low > 0 else "falls with" if high < 0 else "does not clearly go with"
    ranks = f"Spearman ρ within layers {number(fit.rank_correlation, signed=True)}, {chance(fit.rank_p)}"
    return f"Final wrLLC {said} the number of memorised multigrams ({ranks}; R² of heads left out {number(fit.r2_left_out)})"


def _final(f: Findings, told: Told, held: Memorised, heads: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int] | None:
    """Multigrams, wrLLC and half the width of its 95 % interval, of these heads at the last checkpoint that has both; and the step."""
    curves: Curves | None = f.curves.get(told.mixture)
    common = np.intersect1d(curves.steps, held.steps) if curves is not None else np.array([])
    if curves is None or not len(common) or not set(heads) <= set(curves.parts) & set(held.heads):
        return None
    at = int(common[-1])
    rows, column = [curves.parts.index(h) for h in heads], int(np.searchsorted(curves.steps, at))
    theirs, place = [held.heads.index(h) for h in heads], int(np.searchsorted(held.steps, at))
    counts = held.multigrams()[theirs, place].astype(np.float64)
    return counts, curves.llc[rows, column], reach(curves.stderr[rows, column], curves.freedom[rows, column]), at


def threshold_sensitivity(held: Memorised, f: Findings, told: Told) -> Plot | Missing:
    """For every threshold tried and every least number of contexts: multigrams of all heads, and Spearman's ρ of their number with final wrLLC.

    Within layers, as the regression and the claim have it: layers that differ in both numbers make no correlation of heads.
    """
    ends = _final(f, told, held, tuple(h for h in held.heads if h in f.curves[told.mixture].parts)) if told.mixture in f.curves else None
    if ends is None:
        return Missing("No checkpoint has both memorised multigrams and wrLLC.")
    _, llc, _, at = ends
    rows = np.array([held.heads.index(h) for h in held.heads if h in f.curves[told.mixture].parts])
    known, place = np.isfinite(llc), int(np.searchsorted(held.steps, at))
    counts = held.own_by.sum(-1)[rows, place].astype(np.float64)  # [H, X, M]
    total = counts.sum(axis=0)
    layers = layers_of([held.heads[row] for row in rows[known]])
    rho = spearman(llc[known], np.moveaxis(counts[known], 0, -1), layers) if known.sum() > 2 else np.full(total.shape, np.nan)
    names = tuple(f"{t:g}" for t in held.thresholds), tuple(str(m) for m in held.least)
    shared: dict[str, Any] = {"row_title": "threshold (nats)", "column_title": "least number of contexts"}
    whole = tuple(tuple(f"{int(v):,}" for v in row) for row in total)
    number_of = Cells(
        np.log10(total + 1), *names, 0.0, float(np.log10(total.max() + 1)) or 1.0, texts=whole, name="log10 of multigrams + 1", **shared
    )
    order = Cells(rho, *names, -1.0, 1.0, "diverging", in_words(rho, signed=True), name="Spearman ρ", **{**shared, "row_title": ""})
    panels = (Panel("multigrams held, all heads", (number_of,)), Panel("Spearman ρ of their number with final wrLLC, within layers", (order,)))
    fine = rho[np.isfinite(rho)]
    span = f"from {number(float(fine.min()), signed=True)} to {number(float(fine.max()), signed=True)}" if fine.size else "undefined"
    sign = "keeps its sign" if fine.size and (fine.min() > 0 or fine.max() < 0) else "changes its sign"
    title = (
        f"Over {fine.size} thresholds the correlation of multigrams with wrLLC within layers {sign}: ρ {span}"
        if fine.size
        else f"ρ is {span} at every threshold"
    )
    caption = (
        f"{plural(int(known.sum()), 'head')} at {step(at)}, {held.tried:,} patterns tried for each; knowledge that a shorter pattern holds is "
        f"counted "
        f"once. The figure of the regression uses {held.threshold:g} nats and {held.contexts} contexts. "
    )
    return Plot(title, caption + told.sampling(told.mixture, beside=("multigrams",)), panels, 2, 2.5)


def multigrams_over_training(held: Memorised, f: Findings, told: Told) -> Plot | Missing:
    """How many multigrams each head holds at every checkpoint, a panel a kind of pattern."""
    from rllc.figures.axis import StepAxis
    from rllc.figures.head_lines import type_lines

    if not len(held.steps):
        return Missing("No memorised pattern was counted.")
    axis = StepAxis.of(held.steps)
    panels: list[Panel] = []
    for k, kind in enumerate(held.kinds):
        counts = held.own[:, :, k].astype(np.float64)
        lines = type_lines(held.heads, held.steps, counts, f.types, named=_largest(held.heads, counts[:, -1]))
        panels.append(Panel(kind, lines, Scale(steps=axis), Scale("patterns held" if not panels else "", bounds(counts, zero=True))))
    total = held.multigrams().sum(axis=0)
    title = f"The heads hold {int(total[-1]):,} multigrams at {step(float(held.steps[-1]))}"
    title += f", and {int(total[0]):,} at {step(float(held.steps[0]))}" if len(total) > 1 else ""
    caption = (
        f"Patterns whose loss a head's ablation raises by {held.threshold:g} nats over at least {held.contexts} contexts; {held.tried:,} were tried. "
        "Counts have no errors, so that none of their peaks is told from chance. "
    )
    columns = min(3, len(panels))
    return Plot(title, caption + told.measuring("multigrams", told.mixture), tuple(panels), columns, 2.3, type_legend(f.types, held.heads))


def _largest(heads: tuple[str, ...], values: np.ndarray, most: int = 5) -> list[str]:
    return [heads[i] for i in np.argsort(-np.nan_to_num(values, nan=-np.inf))[:most]]


def multigram_table(held: Memorised, f: Findings, told: Told, most: int = 3) -> Table | Missing:
    """The strongest multigrams of each head at the last checkpoint, as text."""
    kinds = type_of(f.types)
    rows: list[tuple[str, ...]] = []
    colors: list[str] = []
    place = last_column(held.multigrams().astype(np.float64))
    for head, color, found in zip(held.heads, type_colors(f.types, held.heads), held.examples, strict=True):
        for example in found[:most]:
            rise = f"{number(example.mean)} ± {number(example.stderr)}"
            rows.append((head, kinds.get(head, "other"), example.text, example.kind, rise, str(example.contexts)))
            colors.append(color)
    if not rows:
        return Missing("No head holds a pattern at the last checkpoint.")
    counts = held.multigrams()[:, place]
    top = int(np.argmax(counts))
    title = f"{held.heads[top]} holds the most multigrams, {int(counts[top]):,}; the strongest of each head"
    caption = f"Rise of the loss, in nats ± standard error over contexts, when the head is ablated, at {step(float(held.steps[place]))}. "
    columns = ("head", "type", "pattern", "kind", "rise (nats)", "contexts")
    return Table(title, caption + told.measuring("multigrams", told.mixture), columns, tuple(rows), (2,), tuple(colors))

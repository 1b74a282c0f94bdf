"""wrLLC of every head over training, and beside the controls (METHOD 5, differentiation)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rllc.analysis.comparisons import Falls
from rllc.analysis.findings import Curves, Findings
from rllc.figures.curves import layers_of, steps_axis
from rllc.figures.drawing import Layer, Line, Missing, Panel, Plot, Rule, Scale
from rllc.figures.head_lines import FAINT_LINE, KEY, by_type, curve_line, type_legend, typed_last
from rllc.figures.layout import bounds, curve_span
from rllc.figures.palette import DATA, MUTED, RULE, TYPES, Style, type_color, type_style
from rllc.figures.told import TEST_LEVEL, Told, last_column, listed, number, plural, step, type_of, with_error

BEHIND = Style(RULE, "solid", "circle", "o", 1.3)
OTHER = Style(MUTED, "solid", "circle", "o", 1.8)  # alone in its panel it need not stand back
BOUNDARY = Style(MUTED, "dash", "line-ew", "", 0.9)


def heads_by_layer(f: Findings, told: Told) -> Plot | Missing:
    """The wrLLC of all heads, a panel a layer, coloured by type, with intervals as bands and the boundaries of the stages."""
    curves = _mixture(f, told)
    layers = layers_of(curves.parts) if curves is not None else {}
    if curves is None or not layers:
        return Missing(f"No head was sampled on {told.mixture or 'the training mixture'}.")
    axis, span, kinds = steps_axis(f), curve_span(curves), type_of(f.types)
    rules = tuple(Rule(float(b), style=BOUNDARY) for b in f.stages.boundaries) if f.stages is not None else ()
    panels: list[Panel] = []
    for layer, rows in layers.items():
        names = [curves.parts[r] for r in rows]
        ordered = [rows[i] for i in typed_last(names, kinds)]
        lines = tuple(_head(curves, r, kinds, end=curves.parts[r]) for r in ordered)
        panels.append(Panel(f"Layer {layer}", (*rules, *lines), Scale(steps=axis), Scale("wrLLC" if not panels else "", span)))
    caption = f"Refined LLC of each head on {curves.data} with its interval as a band; dashed: boundaries of the full model's stages. {KEY} "
    columns = min(2, len(panels))
    return Plot(_by_type_title(f, curves), caption + told.sampling(curves.data), tuple(panels), columns, 3.2, type_legend(f.types, curves.parts))


def every_head(f: Findings, told: Told) -> Plot | Missing:
    """A small panel a head: its own wrLLC over those of all others, which are grey."""
    curves = _mixture(f, told)
    rows = [r for own in layers_of(curves.parts).values() for r in own] if curves is not None else []
    if curves is None or not rows:
        return Missing(f"No head was sampled on {told.mixture or 'the training mixture'}.")
    axis, span, kinds = steps_axis(f), curve_span(curves), type_of(f.types)
    panels: list[Panel] = []
    for row in rows:
        head, kind = curves.parts[row], kinds.get(curves.parts[row], "other")
        others = tuple(Line(curves.steps, curves.llc[r], BEHIND, "", marks=False) for r in rows if r != row)
        own = _head(curves, row, kinds) if kind != "other" else curve_line(curves, row, OTHER, f"{head} {kind}", group=kind)
        y = Scale("wrLLC" if len(panels) % 4 == 0 else "", span)
        panels.append(Panel(f"{head} {kind}", (*others, own), Scale(steps=axis), y, type_color(kind)))
    caption = f"Refined LLC of each head on {curves.data} with its interval as a band, over those of all other heads in grey. {KEY} "
    return Plot(
        _rise_title(f.falls, len(rows)),
        caption + told.sampling(curves.data),
        tuple(panels),
        min(4, len(panels)),
        1.45,
        type_legend(f.types, curves.parts),
    )


def controls(f: Findings, others: Mapping[str, Curves], told: Told) -> Plot | Missing:
    """Heads beside the controls: a random part of the same size, the untrained model, shuffled tokens; each control's parts are lines of one style.

    `others` are curves by the name of the control, over the run's steps; a control of one checkpoint (an untrained model) is a level.
    """
    curves = _mixture(f, told)
    if curves is None or not others:
        return Missing("No control was sampled." if curves is not None else "No head was sampled.")
    axis = steps_axis(f)
    styles = {name: DATA[i % len(DATA)] for i, name in enumerate(others)}
    layers: list[Layer] = [Line(curves.steps, row, FAINT_LINE, head, group="heads") for head, row in zip(curves.parts, curves.llc, strict=True)]
    for name, c in others.items():
        for row, part in enumerate(c.parts):
            if len(c.steps) == 1:
                low, high = float(c.ci_low[row, 0]), float(c.ci_high[row, 0])
                interval = (low, high) if np.isfinite([low, high]).all() else None
                if np.isfinite(c.llc[row, 0]):
                    layers.append(Rule(float(c.llc[row, 0]), upright=False, interval=interval, style=styles[name]))
            else:
                layers.append(curve_line(c, row, styles[name], f"{name}, {part}", group=name))
    span = curve_span(curves, *others.values())
    entries = (("heads", FAINT_LINE), *styles.items())
    panel = Panel("", tuple(layers), Scale(steps=axis), Scale("refined LLC", span))
    caption = (
        f"Refined LLC of the heads on {curves.data} in grey, of each control with its interval as a band; a control of one checkpoint is a "
        f"level. {KEY} "
    )
    return Plot(_controls_title(curves, others), caption + told.sampling(curves.data), (panel,), 1, 3.0, entries)


def _mixture(f: Findings, told: Told) -> Curves | None:
    return f.curves.get(told.mixture) if told.mixture else next(iter(f.curves.values()), None)


def _head(curves: Curves, row: int, kinds: Mapping[str, str], **more: str) -> Line:
    head = curves.parts[row]
    kind = kinds.get(head, "other")
    shade = 0.07 if type_style(kind) is TYPES["other"] else 0.15
    return curve_line(curves, row, type_style(kind), f"{head} {kind}", group=kind, shade=shade, **more)


def _by_type_title(f: Findings, curves: Curves) -> str:
    place = last_column(curves.llc)
    if place < 0:
        return "No head has an estimate"
    said: list[str] = []
    for layer, rows in layers_of(curves.parts).items():
        means = by_type([curves.parts[r] for r in rows], curves.llc[rows, place], f.types)
        told = [f"{kind} {number(mean, 1)} ({plural(count, 'head')})" for kind, mean, count in means]
        said += [f"layer {layer} {listed(told)}"] if told else []
    return f"Mean wrLLC of each type at {step(float(curves.steps[place]))}: {'; '.join(said)}"


def _rise_title(falls: Falls | None, drawn: int) -> str:
    """Which heads end below their largest estimate by more than the largest of so many noisy ones explains, all heads together."""
    if falls is None or not falls.heads:
        return f"The wrLLC of {plural(drawn, 'head')} over training; whether any has fallen could not be tested"
    fallen = [head for head, p in zip(falls.heads, falls.p_holm, strict=True) if p <= TEST_LEVEL]
    known, tested = plural(len(falls.heads), "head"), "(p below 0.05 for all heads together, Holm)"
    if not fallen:
        return f"None of {known} ends below its highest wrLLC beyond what errors make of a level curve {tested}"
    return f"{len(fallen)} of {known} end below their highest wrLLC beyond what errors make of a level curve {tested}: {listed(fallen, 8)}"


def _controls_title(curves: Curves, others: Mapping[str, Curves]) -> str:
    place = last_column(curves.llc)
    if place < 0:
        return "No head has an estimate to compare the controls with"
    low, high = bounds(curves.llc[:, place], pad=0)
    told = []
    for name, c in others.items():
        end = last_column(c.llc)
        if end >= 0:
            known = np.isfinite(c.llc[:, end])
            # The mean of the errors: what the error of a mean comes to where minibatches give all parts one noise.
            told.append(f"{name} {with_error(float(c.llc[known, end].mean()), float(c.stderr[known, end].mean()), 1)}")
    at = step(float(curves.steps[place]))
    return f"Heads end between {number(low, 1)} and {number(high, 1)} at {at}; the controls' last estimates: {listed(told)}"

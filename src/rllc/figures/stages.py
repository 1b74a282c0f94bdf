"""The full model over training: its LLC with the boundaries of stages by both methods, its loss beside it (METHOD 5, stages)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rllc.analysis.findings import Bends, Findings, Stages, Tempered
from rllc.figures.curves import steps_axis, styles_of
from rllc.figures.drawing import Layer, Line, Missing, Panel, Plot, Points, Rule, Scale
from rllc.figures.head_lines import REACH
from rllc.figures.layout import bounds
from rllc.figures.palette import INK, MUTED, TYPES, Style
from rllc.figures.told import Told, listed, step

SMOOTHED = Style(INK, "solid", "line-ew", "", 1.8)
ZERO = Style(MUTED, "dash", "line-ew", "", 1.5)
BEND = Style(TYPES["induction"].color, "dot", "line-ew", "", 1.8)


def loss_and_stages(f: Findings, told: Told) -> Plot | Missing:
    """Held-out losses, and below them the full model's LLC with its boundaries: zeros of the smoothed derivative, and bends of a fit by pieces."""
    full = {name: c for name, c in f.full.items() if "full" in c.parts}
    if not full:
        return Missing("The full model was not sampled.")
    axis, styles = steps_axis(f), styles_of(f, told.mixture)
    marks = (*_zeros(f.stages), *_bends(f.bends))
    reach = REACH * f.behaviour.errors[0]
    losses = tuple(
        Line(f.behaviour.steps, row, styles[name], name, row - own, row + own, group=name, end=name)
        for name, row, own in zip(f.behaviour.data, f.behaviour.losses, reach, strict=True)
    )
    layers: list[Layer] = [*marks]
    spans = []
    for name, c in full.items():
        row = c.parts.index("full")
        low, high = c.ci_low[row], c.ci_high[row]
        layers.append(Points(c.steps, c.llc[row], styles[name], name, y_low=low, y_high=high, group=name))
        spans += [low, high]
    if f.stages is not None:
        layers.append(Line(f.stages.smooth_steps, f.stages.smooth_llc, SMOOTHED, "smoothed", group="smoothed", marks=False))
    panels = [Panel("", tuple(layers), Scale(steps=axis), Scale("LLC of the full model", bounds(*spans, zero=True)))]
    if losses:
        loss = Panel("", (*marks, *losses), Scale(steps=axis), Scale("held-out loss (nats per token)", bounds(f.behaviour.losses)))
        panels.insert(0, loss)
    entries = [(name, styles[name]) for name in dict.fromkeys([*f.behaviour.data, *full])]
    entries += [("smoothed", SMOOTHED), ("zero of the derivative", ZERO)] if f.stages is not None else []
    entries += [("bend of the fit by pieces", BEND)] if f.bends is not None else []
    caption = (
        f"Losses on {told.held_out('losses')} of each kind of data, with 95 % bands over contexts; LLC of the full model with 95 % "
        "intervals, smoothed by a Gaussian process "
        "over log(step + 1). Dashed: zeros of the smoothed derivative; "
        "dotted: "
        "joints of a continuous fit by straight pieces; stripes: where 90 % of curves redrawn within the errors have them. "
    )
    return Plot(_stages_title(f), caption + told.sampling(*full), tuple(panels), height=2.3, legend=tuple(entries))


def temperatures(f: Findings, told: Told) -> Plot | Missing:
    """The full model's LLC at every inverse temperature it was sampled at, a panel each, with the zeros of its smoothed derivative."""
    own = f.full.get(told.mixture)
    if own is None or "full" not in own.parts:
        return Missing("The full model was not sampled on the training mixture.")
    axis, style = steps_axis(f), styles_of(f, told.mixture)[told.mixture]
    found = sorted([Tempered(told.nbeta, own, f.stages), *f.temperatures], key=lambda one: one.nbeta)
    panels: list[Panel] = []
    for one in found:
        row = one.curve.parts.index("full")
        llc, low, high = one.curve.llc[row], one.curve.ci_low[row], one.curve.ci_high[row]
        layers: list[Layer] = [*_zeros(one.stages), Points(one.curve.steps, llc, style, told.mixture, y_low=low, y_high=high)]
        if one.stages is not None:
            layers.append(Line(one.stages.smooth_steps, one.stages.smooth_llc, SMOOTHED, "smoothed", marks=False))
        span = bounds(low, high, zero=True)
        panels.append(Panel(f"nβ {one.nbeta:g}", tuple(layers), Scale(steps=axis), Scale("LLC of the full model", span)))
    caption = (
        "LLC of the full model with 95 % intervals on the same minibatches and noise, at nβ as above each panel, smoothed as in the figure of the "
        "stages. Dashed: zeros of the "
        "smoothed derivative; stripes: where 90 % of curves redrawn within the errors have them. "
    )
    told = replace(told, nbeta=math.nan)  # each panel says its own
    entries = ((told.mixture, style), ("smoothed", SMOOTHED), ("zero of the derivative", ZERO))
    return Plot(_temperatures_title(found), caption + told.sampling(told.mixture), tuple(panels), height=2.3, legend=entries)


def _temperatures_title(found: list[Tempered]) -> str:
    said: list[str] = []
    for one in found:
        zeros = one.stages.boundaries if one.stages is not None else np.array([])
        said.append(f"at nβ {one.nbeta:g} {f'at {listed([step(z) for z in zeros])}' if len(zeros) else 'nowhere beyond its errors'}")
    return f"The LLC of the full model turns {', '.join(said)}"


def _zeros(stages: Stages | None) -> tuple[Rule, ...]:
    if stages is None:
        return ()
    pairs = zip(stages.boundaries, stages.intervals, strict=True)
    return tuple(Rule(float(at), interval=(float(i[0]), float(i[1])), style=ZERO) for at, i in pairs)


def _bends(bends: Bends | None) -> tuple[Rule, ...]:
    if bends is None:
        return ()
    pairs = zip(bends.steps, bends.intervals, strict=True)
    return tuple(Rule(float(at), interval=(float(i[0]), float(i[1])), style=BEND) for at, i in pairs)


def _stages_title(f: Findings) -> str:
    zeros = f.stages.boundaries if f.stages is not None else np.array([])
    said = (
        f"The LLC of the full model turns at {listed([step(z) for z in zeros])}"
        if len(zeros)
        else "The smoothed LLC of the full model has no turning point beyond its errors"
    )
    if f.bends is None:
        return said
    said += f"; a fit by pieces bends at {listed([step(b) for b in f.bends.steps])}" if len(f.bends.steps) else "; a fit by pieces has no bend"
    if f.stage_agreement is not None and len(zeros):
        agree = int((np.isfinite(f.stage_agreement.by_derivative) & np.isfinite(f.stage_agreement.by_bends)).sum())
        said += f" ({agree} of {len(zeros)} found by both)"
    return said

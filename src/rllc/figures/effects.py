"""What heads do over training: attention scores (METHOD 6), and how far their ablation raises the loss on every kind of data."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Findings
from rllc.analysis.measured import HeadEffects
from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Layer, Line, Missing, Panel, Plot, Rule, Scale
from rllc.figures.head_lines import REACH, type_legend, type_lines
from rllc.figures.layout import bounds
from rllc.figures.palette import INK, Style
from rllc.figures.told import Told, last_column, listed, number, step, type_of, with_error
from rllc.figures.training import SCORES, threshold_of

KINDS = {"duplicate_token": "Duplicate-token score", "first_token": "First-token score"}
WHOLE = Style(INK, "solid", "circle", "o", 2.0)


def attention_scores(f: Findings, told: Told) -> Plot | Missing:
    """Attention scores of every head over training, a panel a score, with the threshold of the type that a score decides; the heads of that type
    are named, and the three highest where a score decides none.
    """
    b = f.behaviour
    names = [n for n in SCORES if n in b.scores] + [n for n in b.scores if n not in SCORES]
    if not names or not len(b.steps):
        return Missing("No attention score was measured.")
    axis, kinds = StepAxis.of(b.steps), type_of(f.types)
    panels: list[Panel] = []
    told_of: list[str] = []
    for name in names:
        table, (title, decides) = b.scores[name], SCORES.get(name, (KINDS.get(name, name.replace("_", " ").capitalize()), ""))
        end = last_column(table)
        own = [h for h in b.heads if decides and kinds.get(h) == decides]
        if end >= 0 and not decides:
            own = [b.heads[i] for i in np.argsort(-np.nan_to_num(table[:, end], nan=-1.0))[:3]]
        layers: list[Layer] = list(type_lines(b.heads, b.steps, table, f.types, b.score_stderr.get(name), named=own))
        if (threshold := threshold_of(f.types, name)) is not None and decides:
            layers.insert(0, Rule(threshold, upright=False, label="threshold"))
        span = (min(0.0, bounds(table)[0]), max(0.5, bounds(table)[1]))
        short = title.replace(" score", "").replace(" (induction)", "")
        panels.append(Panel(short, tuple(layers), Scale(steps=axis), Scale("attention" if len(panels) % 3 == 0 else "", span)))
        if decides:
            told_of.append(f"{decides} {listed(own)}" if own else f"no {decides} head")
    caption = "Mean attention: to the token before, to the token itself, to tokens behind earlier occurrences (repeated random tokens), and to "
    caption += "earlier occurrences and to the first token where these were measured. Lines in the colours of the types; bands: 95 % over contexts. "
    title = f"Heads whose score passes the threshold at {step(f.types.step)}: {'; '.join(told_of)}" if told_of else "Attention scores of every head"
    return Plot(title, caption + told.measuring("scores", told.mixture), tuple(panels), min(3, len(panels)), 2.1, type_legend(f.types, b.heads))


def ablation_curves(effects: HeadEffects, f: Findings, told: Told) -> Plot | Missing:
    """Rise of the loss when a head is ablated, over the loss; a row a kind of ablation, a column a kind of data, with 95 % bands."""
    kinds = [k for k in effects.normalised if np.isfinite(effects.normalised[k]).any()]
    if not kinds or not len(effects.steps):
        return Missing("No head was ablated.")
    axis = StepAxis.of(effects.steps)
    most = min(3, len(effects.data))
    panels: list[Panel] = []
    for kind in kinds:
        for n, data in enumerate(effects.data[:most]):
            values, errors = effects.normalised[kind][:, :, n], effects.normalised_stderr[kind][:, :, n]
            span = bounds(effects.normalised[kind][:, :, :most], zero=True)
            end = last_column(values)
            top = [effects.heads[i] for i in np.argsort(-np.nan_to_num(values[:, end], nan=-np.inf))[:4]]
            lines = type_lines(effects.heads, effects.steps, values, f.types, errors, named=top)
            y = Scale(f"{kind}: rise / loss" if n == 0 else "", span)
            panels.append(Panel(data if kind == kinds[0] else "", lines, Scale(steps=axis), y))
    left = f" Not drawn: {listed(effects.data[most:])}." if len(effects.data) > most else ""
    caption = (
        "Rise of the mean loss when a head's output is set to zero, to its mean, or to that of another context, over the loss; bands: 95 % over "
    )
    caption += f"contexts; the four largest are named.{left} "
    return Plot(
        _ablation_title(effects, kinds[0]),
        caption + told.measuring("ablation", *effects.data[:most]),
        tuple(panels),
        most,
        1.75,
        type_legend(f.types, effects.heads),
    )


def _ablation_title(effects: HeadEffects, kind: str) -> str:
    values, errors = effects.normalised[kind], effects.normalised_stderr[kind]
    said = []
    for n, data in enumerate(effects.data):
        end = last_column(values[:, :, n])
        if end < 0:
            continue
        top = int(np.nanargmax(values[:, end, n]))
        said.append(
            f"{effects.heads[top]} on {data} ({with_error(100 * float(values[top, end, n]), 100 * float(errors[top, end, n]), 1)} % of the loss)"
        )
    return f"The head whose {kind} ablation hurts most at the end: {listed(said)}"


def ablated_loss(effects: HeadEffects, told: Told) -> Plot | Missing:
    """The loss of the whole model on the contexts that ablation was measured on, a line a kind of data."""
    from rllc.figures.palette import data_styles

    if not len(effects.steps):
        return Missing("No head was ablated.")
    styles = data_styles(effects.data, told.mixture)
    low, high = effects.loss - REACH * effects.loss_stderr, effects.loss + REACH * effects.loss_stderr
    lines = tuple(
        Line(effects.steps, effects.loss[:, n], styles[d], d, low=low[:, n], high=high[:, n], end=d, group=d) for n, d in enumerate(effects.data)
    )
    end = last_column(effects.loss.T)
    said = listed([f"{d} {number(float(effects.loss[end, n]))}" for n, d in enumerate(effects.data)])
    panel = Panel("", lines, Scale(steps=StepAxis.of(effects.steps)), Scale("loss (nats per token)", bounds(low, high)))
    title = f"Loss in nats per token at {step(float(effects.steps[end]))}: {said}"
    return Plot(title, f"Bands: 95 % over contexts. {told.measuring('ablation', *effects.data)}", (panel,), 1, 2.4)

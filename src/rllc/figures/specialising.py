"""Heads on several kinds of data, and when curves part (METHOD 5, differentiation and specialisation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from rllc.analysis.errors import reach
from rllc.analysis.findings import Findings, Specialisation
from rllc.analysis.ordering import holm
from rllc.analysis.parting import NEVER, Partings
from rllc.figures.axis import StepAxis, short
from rllc.figures.curves import layers_of, steps_axis, styles_of
from rllc.figures.drawing import Cells, Layer, Missing, Panel, Plot, Points, Rule, Scale
from rllc.figures.head_lines import KEY, curve_line, dots, type_colors, type_legend
from rllc.figures.layout import bounds, curve_span
from rllc.figures.palette import MUTED, Style, type_color
from rllc.figures.told import TEST_LEVEL, Told, listed, plural, step, type_of

PARTED = Style(MUTED, "dash", "line-ew", "", 1.1)


def refined_by_data(f: Findings, partings: Mapping[str, Partings], told: Told) -> Plot | Missing:
    """A small panel a head: its refined LLC on each kind of data, and where the first of them parts from the training mixture for good."""
    heads = list(dict.fromkeys(c.parts[r] for c in f.texts.values() for rows in layers_of(c.parts).values() for r in rows))
    if not heads or len(f.texts) < 2:
        return Missing("Heads were sampled on fewer than two kinds of data.")
    axis, span, kinds, styles = steps_axis(f), curve_span(*f.texts.values()), type_of(f.types), styles_of(f, told.mixture)
    earliest: dict[str, tuple[int, str]] = {}
    for data, found in partings.items():
        for name, at in zip(found.names, found.steps.tolist(), strict=True):
            head = name.split(",")[0]
            if at != NEVER and (head not in earliest or at < earliest[head][0]):
                earliest[head] = (at, data)
    panels: list[Panel] = []
    for head in heads:
        layers: list[Layer] = [Rule(float(earliest[head][0]), style=PARTED)] if head in earliest else []
        for name, c in f.texts.items():
            if head in c.parts:
                layers.append(curve_line(c, c.parts.index(head), styles[name], f"{head} on {name}", group=name))
        kind = kinds.get(head, "other")
        y = Scale("refined LLC" if len(panels) % 4 == 0 else "", span)
        panels.append(Panel(f"{head} {kind}", tuple(layers), Scale(steps=axis), y, type_color(kind)))
    caption = f"Refined LLC of each head on each kind of data with its interval as a band. Dashed: from here on a curve differs for good. {KEY} "
    entries = tuple((name, styles[name]) for name in f.texts)
    return Plot(_data_title(f, partings), caption + told.sampling(*f.texts), tuple(panels), min(4, len(panels)), 1.45, entries)


def _data_title(f: Findings, partings: Mapping[str, Partings]) -> str:
    if not partings:
        return f"Refined LLC of {plural(len(next(iter(f.texts.values())).parts), 'head')} on {listed(list(f.texts))}"
    told = []
    for data, found in partings.items():
        parted = found.steps != NEVER
        told.append(f"on {data} {int(parted.sum())} of {plural(len(parted), 'head')} part for good")
    return f"Against the training mixture, {listed(told)}"


def when_data_part(partings: Mapping[str, Partings], f: Findings, told: Told) -> Plot | Missing:
    """From which step on each head's curve on one kind of data differs from that on the mixture for good; a panel a kind of data."""
    if not partings:
        return Missing("No curves on two kinds of data share heads and checkpoints.")
    axis = steps_axis(f)
    panels: list[Panel] = []
    firsts: list[str] = []
    every: list[str] = []
    for data, found in partings.items():
        heads = [name.split(",")[0] for name in found.names]
        every += heads
        at = np.where(found.steps == NEVER, np.nan, found.steps.astype(np.float64))
        points = dots(heads, at, found.intervals[:, 0], found.intervals[:, 1], f.types)
        rows = tuple((float(r), head) for r, head in enumerate(heads))
        y = Scale("", (len(heads) - 0.4, -0.6), ticks=rows, colors=type_colors(f.types, heads))
        panels.append(Panel(data, points, Scale(steps=axis), y))
        if np.isfinite(at).any():
            first = int(np.nanargmin(at))
            firsts.append(f"{heads[first]} on {data} from {step(at[first])}")
    one = next(iter(partings.values()))
    title = f"The first to part from the mixture for good: {listed(firsts)}" if firsts else "No head's curve parts from that on the mixture for good"
    caption = (
        f"The first checkpoint at which the difference exceeds about {one.threshold:.1f} errors (more where they are rough) and keeps its sign ("
        "chance "
        "of any false one at most "
        f"{one.level:.0%}); bars: where 90 % of redrawn differences that part do so. A head without a dot does not part. "
    )
    tallest = max(len(p.names) for p in partings.values())
    return Plot(title, caption + told.sampling(), tuple(panels), min(3, len(panels)), 0.75 + 0.15 * tallest, type_legend(f.types, every))


def when_heads_part(partings: Partings, f: Findings, told: Told) -> Plot | Missing:
    """From which step on the curves of two heads differ for good, every pair a cell: early pairs dark, a dash where they do not part."""
    pairs = [tuple(name.split(" - ")) for name in partings.names]
    heads = tuple(dict.fromkeys(h for pair in pairs for h in pair))
    if not pairs:
        return Missing("No two heads were compared.")
    axis = StepAxis.of(partings.steps[partings.steps != NEVER]) if (partings.steps != NEVER).any() else steps_axis(f)
    values = np.full((len(heads), len(heads)), np.nan)
    texts = [["" for _ in heads] for _ in heads]
    for (one, other), at in zip(pairs, partings.steps.tolist(), strict=True):
        for a, b in ((heads.index(one), heads.index(other)), (heads.index(other), heads.index(one))):
            texts[a][b] = "–" if at == NEVER else short(at)
            values[a, b] = np.nan if at == NEVER else 1 - float((axis(at) - axis.range[0]) / (axis.range[1] - axis.range[0]))
    colors = type_colors(f.types, heads)
    cells = Cells(
        values, heads, heads, 0.0, 1.0, texts=tuple(tuple(row) for row in texts), name="part for good from", row_colors=colors, column_colors=colors
    )
    kinds = type_of(f.types)
    same = [at != NEVER for (a, b), at in zip(pairs, partings.steps.tolist(), strict=True) if kinds.get(a, "other") == kinds.get(b, "other")]
    apart = [at != NEVER for (a, b), at in zip(pairs, partings.steps.tolist(), strict=True) if kinds.get(a, "other") != kinds.get(b, "other")]
    title = f"{sum(apart)} of {len(apart)} pairs of heads of different types part for good, {sum(same)} of {len(same)} of one type"
    caption = (
        f"The first checkpoint at which the wrLLC of two heads differs by more than about {partings.threshold:.1f} errors (more where they are "
        "rough) and keeps its sign (chance of "
        f"any "
        f"false one at most {partings.level:.0%}); darker is earlier, a dash: they do not part. Names in the colours of the types. "
    )
    return Plot(title, caption + told.sampling(told.mixture), (Panel("", (cells,)),), 1, 4.6, type_legend(f.types, heads))


def final_differences(f: Findings, told: Told) -> Plot | Missing:
    """How far each head's final refined LLC on each kind of data lies from that on the reference, with 95 % intervals."""
    found = [s for s in f.specialisation if np.isfinite(s.difference).any()]
    if not found:
        return Missing("No head has a final estimate both on the mixture and on another kind of data.")
    heads = list(dict.fromkeys(h for s in found for h in s.heads))
    styles = styles_of(f, told.mixture)
    layers: list[Layer] = [Rule(0.0)]
    clear = clear_differences(found)
    counts = [f"{int(clear[s.data].sum())} of {plural(int(np.isfinite(s.difference).sum()), 'head')} on {s.data}" for s in found]
    for s, shift in zip(found, np.linspace(-0.24, 0.24, len(found)) if len(found) > 1 else [0.0], strict=True):
        rows = np.array([heads.index(h) for h in s.heads]) + shift
        half = reach(s.stderr, s.freedom)
        layers.append(Points(s.difference, rows, styles[s.data], s.data, s.difference - half, s.difference + half, group=s.data))
    kinds = type_of(f.types)
    ticks = tuple((float(r), f"{kinds.get(h, 'other')}  {h}") for r, h in enumerate(heads))
    span = bounds(*(s.difference + side * reach(s.stderr, s.freedom) for s in found for side in (-1, 1)), zero=True)
    y = Scale("", (len(heads) - 0.4, -0.6), ticks=ticks, colors=type_colors(f.types, heads))
    x = Scale(f"final refined LLC on this data minus on {found[0].reference}", span)
    at = listed(sorted({step(s.step) for s in found if s.step >= 0}) or ["the last common checkpoint"])
    caption = (
        f"Differences at {at} with 95 % intervals, each by itself; the title holds {TEST_LEVEL:.0%} for all heads and kinds of data together (Holm). "
    )
    entries = tuple((s.data, styles[s.data]) for s in found)
    title = f"The final refined LLC differs from that on {found[0].reference}, beyond the errors of all, for {listed(counts)}"
    return Plot(title, caption + told.sampling(), (Panel("", tuple(layers), x, y),), 1, 0.7 + 0.2 * len(heads), entries, width=5.6)


def clear_differences(found: Sequence[Specialisation]) -> dict[str, NDArray[np.bool_]]:
    """By kind of data, which heads' final differences from the reference exceed their errors: two-sided, all heads and kinds held together (Holm)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = [2 * stdtr(s.freedom, -np.abs(s.difference) / s.stderr) for s in found]
    held = np.split(holm(np.concatenate(p)), np.cumsum([len(row) for row in p])[:-1]) if p else []
    return {s.data: row <= TEST_LEVEL for s, row in zip(found, held, strict=True)}

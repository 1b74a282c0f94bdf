"""Several training seeds: how many heads of each type each grows, and how the curves of matched heads end (METHOD 5, appendix)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from rllc.analysis.across_seeds import SeedMatch, TypeCounts, type_counts
from rllc.analysis.findings import Curves, HeadTypes
from rllc.figures.axis import StepAxis
from rllc.figures.curves import layers_of
from rllc.figures.drawing import Cells, Layer, Line, Missing, Panel, Plot, Points, Scale, in_words
from rllc.figures.layout import bounds
from rllc.figures.palette import DATA, INK, MUTED, TYPES, Style, type_color, type_style
from rllc.figures.told import TEST_LEVEL, Told, chance, listed, number, plural, step, type_of


@dataclass(frozen=True)
class SeedRun:
    """One seed of a training run: wrLLC curves of its heads, perhaps at the last checkpoint alone, and their types."""

    curves: Curves
    types: HeadTypes


def types_by_seed(runs: Mapping[str, SeedRun], matches: Sequence[SeedMatch], told: Told) -> Plot | Missing:
    """Left: heads of each type by seed. Right: final wrLLC of every head, a column a seed, coloured by type."""
    if len(runs) < 2:
        return Missing(f"{plural(len(runs), 'seed')} was measured; a comparison needs two.")
    counts: TypeCounts = type_counts({name: run.types for name, run in runs.items()})
    names = tuple(t for t in TYPES if t in counts.types)
    table = counts.counts[:, [counts.types.index(t) for t in names]].T.astype(np.float64)
    cells = Cells(
        table, names, counts.seeds, 0.0, float(table.max()) or 1.0, texts=in_words(table, 0), unit="heads", row_colors=tuple(map(type_color, names))
    )
    layers: list[Layer] = []
    edges: list[np.ndarray] = []
    for place, run in enumerate(runs.values()):
        kinds = type_of(run.types)
        for t, kind in enumerate(names):
            rows = [r for r, part in enumerate(run.curves.parts) if kinds.get(part, "other") == kind]
            if not rows:
                continue
            llc = run.curves.llc[rows, -1]
            x = place + 0.16 * (t - (len(names) - 1) / 2) + np.linspace(-0.04, 0.04, len(rows)) * (len(rows) > 1)
            style = Style(MUTED, "dot", "circle-open", "o", 1.5) if kind == "other" else type_style(kind)
            edges += [run.curves.ci_low[rows, -1], run.curves.ci_high[rows, -1]]
            layers.append(
                Points(x, llc, style, f"{kind}: {', '.join(run.curves.parts[r] for r in rows)}", y_low=edges[-2], y_high=edges[-1], group=kind)
            )
    ticks = tuple((float(i), name) for i, name in enumerate(runs))
    x = Scale("", (-0.6, len(runs) - 0.4), ticks=ticks)
    panels = (Panel("heads of each type", (cells,)), Panel("final wrLLC of every head", tuple(layers), x, Scale("wrLLC", bounds(*edges, zero=True))))
    caption = "Types by the thresholds of the scores at each seed's last checkpoint; bars: 95 %. " + _match_words(matches, runs)
    return Plot(_types_title(table, names), caption + told.sampling(told.mixture), panels, 2, 2.6, tuple((t, TYPES[t]) for t in names))


def _types_title(table: np.ndarray, names: Sequence[str]) -> str:
    n = table.shape[1]
    said = [
        f"{name} in {int((row > 0).sum())} ({int(row.min())} to {int(row.max())} heads)"
        for name, row in zip(names, table, strict=True)
        if name != "other"
    ]
    return f"Of {n} seeds, heads of the types grow thus: {listed(said)}" if said else f"In none of {n} seeds has a head a type of its own"


def _match_words(matches: Sequence[SeedMatch], runs: Mapping[str, SeedRun]) -> str:
    if not matches:
        return ""
    clear = sum(m.held_out_p < 0.05 for m in matches)
    pairs = plural(len(matches), "pair")
    return f"Heads matched by behaviour alone have closer {compared(runs)} than random matchings (p < 0.05) in {clear} of {pairs} of seeds. "


def compared(runs: Mapping[str, SeedRun]) -> str:
    """What of two seeds' heads can be compared: curves, or the LLCs at the one checkpoint that all seeds have."""
    steps = reduce(np.intersect1d, [run.curves.steps for run in runs.values()])
    if len(steps) != 1:
        return "curves"
    last = max(int(run.curves.steps[-1]) for run in runs.values())
    return "final LLCs" if int(steps[0]) == last else f"LLCs at {step(float(steps[0]))}"


def matched_heads(runs: Mapping[str, SeedRun], matches: Sequence[SeedMatch], told: Told) -> Plot | Missing:
    """Curves of the first seed's heads with those of the heads that the other seeds match with them, a panel a head; one checkpoint is a dot."""
    if len(runs) < 2 or not matches:
        return Missing("Heads of no two seeds were matched.")
    first = next(iter(runs))
    own = runs[first]
    twins: dict[str, dict[str, str]] = {first: {h: h for h in own.curves.parts}}
    for m in matches:
        if m.one == first:
            twins[m.other] = dict(m.pairs)
        elif m.other == first:
            twins[m.one] = {b: a for a, b in m.pairs}
    heads = [own.curves.parts[r] for rows in layers_of(own.curves.parts).values() for r in rows]
    heads = [h for h in heads if any(h in pairs for name, pairs in twins.items() if name != first)]
    if not heads:
        return Missing(f"No head of {first} is matched with one of another seed.")
    axis, kinds = StepAxis.of(*(run.curves.steps for run in runs.values())), type_of(own.types)
    styles = {name: Style(INK, "solid", "circle", "o", 2.0) if name == first else DATA[i % len(DATA)] for i, name in enumerate(twins)}
    span = bounds(*(runs[name].curves.llc for name in twins), zero=True)
    panels: list[Panel] = []
    for head in heads:
        layers: list[Layer] = []
        for name, pairs in twins.items():
            if head in pairs and pairs[head] in runs[name].curves.parts:
                layers.append(_curve(runs[name].curves, pairs[head], styles[name], name))
        kind = kinds.get(head, "other")
        y = Scale("wrLLC" if len(panels) % 4 == 0 else "", span)
        panels.append(Panel(f"{head} {kind}", tuple(layers), Scale(steps=axis), y, type_color(kind)))
    caption = (
        f"wrLLC of the heads of {first} and of the heads matched with them, layer by layer, by scores and {compared(runs)} "
        "together; the scores are those that the types are decided by, so that matched heads would share types more often than chance whatever "
        "the LLCs said; bands: 95 %. " + _match_words(matches, runs)
    )
    return Plot(
        _matched_title([m for m in matches if first in (m.one, m.other)] or matches, compared(runs)),
        caption + told.sampling(told.mixture),
        tuple(panels),
        min(4, len(panels)),
        1.45,
        tuple(styles.items()),
    )


def _curve(curves: Curves, head: str, style: Style, seed: str) -> Layer:
    row = curves.parts.index(head)
    llc, low, high = curves.llc[row], curves.ci_low[row], curves.ci_high[row]
    if len(curves.steps) == 1:
        return Points(curves.steps, llc, style, f"{seed}, {head} at {step(float(curves.steps[0]))}", y_low=low, y_high=high, group=seed)
    return Line(curves.steps, llc, style, f"{seed}, {head}", low, high, group=seed)


def _matched_title(matches: Sequence[SeedMatch], what: str) -> str:
    """The pair of seeds that agrees worst stands for all, as in the claim: the best of several is close by chance."""
    worst = max(matches, key=lambda m: m.held_out_p)
    low, high = worst.held_out_interval
    same = np.array([m.same_type for m in matches])
    chances = np.array([m.same_type_by_chance for m in matches])
    types = f"; {np.nanmean(same):.0%} of heads matched by these and by scores share their type" if np.isfinite(same).any() else ""
    types += f" ({np.nanmean(chances):.0%} matched at random)" if types and np.isfinite(chances).any() else ""
    told = f"mean distance {number(worst.held_out)} against {number(low)} to {number(high)} at random, {chance(worst.held_out_p)}"
    pairs = f"in {worst.one} and {worst.other}" if len(matches) == 1 else f"in all {len(matches)} pairs of seeds"
    where = told if len(matches) == 1 else f"in the worst, {worst.one} and {worst.other}, {told}"
    if worst.held_out_p <= TEST_LEVEL:
        return f"Heads that behave alike have closer {what} than random heads {pairs} ({where}){types}"
    return f"Heads that behave alike do not have clearly closer {what} than random heads {pairs} ({where}){types}"

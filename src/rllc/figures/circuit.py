"""The multigram circuit (METHOD 5): rLLC against a one-layer model, path ablation of edges, composition, tokens that two heads both affect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rllc.analysis.comparisons import Circuit
from rllc.analysis.curves import layer_of
from rllc.analysis.endpoints import doubt
from rllc.analysis.errors import joined, quantile, reach
from rllc.analysis.findings import Curves, Findings, Floats, freedom_of
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import Composition, Edges, Pair, TokenEffects
from rllc.analysis.ordering import holm
from rllc.figures.axis import StepAxis
from rllc.figures.curves import layers_of, steps_axis
from rllc.figures.drawing import Cells, Layer, Line, Missing, Panel, Plot, Rule, Scale, in_words, limits
from rllc.figures.head_lines import FAINT_LINE, KEY, REACH, curve_line, type_colors, type_legend, typed_last
from rllc.figures.layout import bounds, curve_span
from rllc.figures.palette import DATA, INK, MUTED, Style, type_style
from rllc.figures.told import TEST_LEVEL, Told, chance, last_column, listed, number, step, type_of, with_error

MEAN = Style(INK, "solid", "circle", "o", 2.2)
LEVEL = Style(MUTED, "dash", "line-ew", "", 1.2)
NAMES = {"q": "Q-composition", "k": "K-composition", "v": "V-composition"}


def against_one_layer(curves: Curves, f: Findings, told: Told) -> Plot | Missing:
    """Refined LLC of heads against a one-layer model's predictions, a panel a layer, with each layer's mean; peaks and falls are in the title.

    `curves` are of heads on the reference's predictions (METHOD 1: targets are its output distribution).
    """
    layers = layers_of(curves.parts)
    if not layers:
        return Missing("No head was sampled against the one-layer reference.")
    axis, span, kinds = steps_axis(f), curve_span(curves), type_of(f.types)
    found = f.circuit if f.circuit is not None and f.circuit.data == curves.data else None
    panels: list[Panel] = []
    for layer, rows in layers.items():
        names = [curves.parts[r] for r in rows]
        lines: list[Layer] = []
        for r in (rows[i] for i in typed_last(names, kinds)):
            kind = kinds.get(curves.parts[r], "other")
            lines.append(curve_line(curves, r, type_style(kind), f"{curves.parts[r]} {kind}", group=kind, end=curves.parts[r], shade=0.07))
        if found is not None and layer in found.layers:
            place = found.layers.index(layer)
            mean, half = found.llc[place], reach(found.stderr[place], None if found.df is None else found.df[place])
            lines.append(Line(found.steps, mean, MEAN, f"mean of layer {layer}", mean - half, mean + half, group="mean of the layer"))
        y = Scale("refined LLC, loss = KL to the one-layer model" if not panels else "", span)
        panels.append(Panel(f"Layer {layer}", tuple(lines), Scale(steps=axis), y))
    caption = (
        f"Refined LLC of each head where the targets are the predictions of a one-layer model; black: mean of the layer's heads, band 95 % with the "
        f"mean of their errors, for minibatches give heads a common noise. {KEY} "
    )
    legend = (*type_legend(f.types, curves.parts), ("mean of the layer", MEAN))
    title = _course_title(found, curves, next((c.verdict for c in f.claims if c.id == "circuit-falls"), ""))
    return Plot(title, caption + told.sampling(curves.data), tuple(panels), min(2, len(panels)), 3.0, legend)


def _course_title(found: Circuit | None, curves: Curves, verdict: str) -> str:
    """Which layers' means fall from their largest value, by the analysis' test held for all layers together, and its verdict on the claim."""
    if found is None:
        return "Refined LLC against the one-layer model; too few heads and checkpoints to say where a layer's mean peaks or falls"
    held = holm(found.fall_p)
    said = [f"layer {layer} {_course(found, i, float(held[i]), curves)}" for i, layer in enumerate(found.layers)]
    told = f" (that layer 0 falls while the last rises: {verdict})" if verdict else ""
    return f"Against the one-layer model the mean refined LLC of {'; of '.join(said)}{told}"


def _course(found: Circuit, i: int, p: float, curves: Curves) -> str:
    parts = [part for part in curves.parts if layer_of(part) == found.layers[i]]
    # Away from a minimum of the loss an estimate may be of any size: such an end is no fall or rise.
    doubts = [doubt(curves, parts, int(np.searchsorted(curves.steps, at))) for at in (found.steps[0], found.peak[i], found.steps[-1])]
    if told := next((said for said in (doubts[1:] if p <= TEST_LEVEL else doubts) if said), ""):
        below = f"ends {number(float(found.fall[i]), 1)} below its largest, at {step(float(found.peak[i]))}" if found.fall[i] > 0 else "ends highest"
        return f"{below}, which is no sure {'fall' if found.fall[i] > 0 else 'rise'}, for {told}"
    if p <= TEST_LEVEL:
        return f"is largest at {step(float(found.peak[i]))} and falls from there by {number(float(found.fall[i]), 1)} ({chance(p)})"
    df = freedom_of(found.df, found.stderr)[i]
    change, (error, freedom) = float(found.llc[i, -1] - found.llc[i, 0]), joined(*[(found.stderr[i, end], df[end]) for end in (0, -1)])
    if change > quantile(1 - TEST_LEVEL / (2 * len(found.layers)), freedom) * error:
        return f"ends {with_error(change, float(error), 1)} above its start, with no fall beyond its errors ({chance(p)})"
    return f"shows neither a rise nor a fall beyond its errors ({chance(p)})"


def edge_map(edges: Edges, f: Findings, told: Told, data: str = "") -> Plot | Missing:
    """Rise of the loss when the direct path from a head to a later one's input is ablated, at the last checkpoint; a panel an input.

    An edge's number stands in its cell where it exceeds its error at a level that is held for all cells together.
    """
    if not edges.pairs or not len(edges.steps):
        return Missing("The model has no pair of an earlier and a later head.")
    data = data if data in edges.data else told.mixture if told.mixture in edges.data else edges.data[0]
    n, place = edges.data.index(data), len(edges.steps) - 1
    earlier = tuple(dict.fromkeys(a for a, _ in edges.pairs))
    later = tuple(dict.fromkeys(b for _, b in edges.pairs))
    rows, columns = [edges.heads.index(h) for h in earlier], [edges.heads.index(h) for h in later]
    tables = {name: edges.table(name, data, place)[np.ix_(rows, columns)] * 1000 for name in edges.inputs}
    low, high = limits(tables.values(), "diverging")
    panels: list[Panel] = []
    beyond = normal_quantile(1 - TEST_LEVEL / (2 * len(edges.pairs) * len(edges.inputs)))  # errors, of any cell whatever
    for i, (name, table) in enumerate(tables.items()):
        error = _edge_errors(edges, edges.inputs.index(name), place, n, earlier, later)
        clear = np.abs(table) > 1000 * beyond * error
        texts = tuple(
            tuple(t if c else "" for t, c in zip(ts, cs, strict=True)) for ts, cs in zip(in_words(table, _digits(high), ""), clear, strict=True)
        )
        title = "Q, K and V together" if name == "QKV" else f"through {name}"
        cells = Cells(
            table, earlier, later, low, high, "diverging", texts, "10⁻³ nats", f"{name}, path",
            type_colors(f.types, earlier), type_colors(f.types, later), "from" if i % 2 == 0 else "", "to",
        )  # fmt: skip
        panels.append(Panel(title, (cells,)))
    caption = (
        f"Rise of the loss under {edges.ablation} ablation of the direct path between two heads at {step(float(edges.steps[place]))} on {data}; "
        f"numbers where it exceeds {number(beyond, 1)} errors, which is 5 % for all cells together; names in the colours of the types. "
    )
    legend = type_legend(f.types, (*earlier, *later))
    height = 0.9 + 0.2 * len(earlier)
    return Plot(
        _edge_title(edges, place, n),
        caption + told.measuring("paths", data),
        tuple(panels),
        2,
        height,
        legend,
        bar="rise of the loss (10⁻³ nats per token)",
    )


def _digits(high: float) -> int:
    return 2 if high < 1 else 1 if high < 100 else 0


def _edge_errors(edges: Edges, i: int, place: int, n: int, earlier: tuple[str, ...], later: tuple[str, ...]) -> Floats:
    found = np.full((len(earlier), len(later)), np.nan)
    for (a, b), error in zip(edges.pairs, edges.stderr[i, :, place, n], strict=True):
        found[earlier.index(a), later.index(b)] = error
    return found


def _edge_title(edges: Edges, place: int, n: int) -> str:
    whole = edges.inputs.index("QKV") if "QKV" in edges.inputs else 0
    effect, error = edges.effect[whole, :, place, n], edges.stderr[whole, :, place, n]
    if not np.isfinite(effect).any():
        return "No edge between two heads could be measured"
    top = int(np.nanargmax(effect))
    a, b = edges.pairs[top]
    singles = [(name, edges.effect[i, top, place, n]) for i, name in enumerate(edges.inputs) if name != "QKV"]
    through = max(singles, key=lambda s: s[1] if np.isfinite(s[1]) else -np.inf)[0] if singles else ""
    clear, size = int(edges.helps(whole, place, n, TEST_LEVEL).sum()), with_error(1000 * float(effect[top]), 1000 * float(error[top]), 1)
    if not clear:
        return f"No edge helps beyond its error, all {len(effect)} tried together; the largest effect is {a} → {b} ({size} × 10⁻³ nats)"
    said = f"The edge that matters most is {a} → {b} ({size} × 10⁻³ nats"
    return f"{said}{f', most of it through {through}' if through else ''}); {clear} of {len(effect)} edges help, all tried together"


def edges_over_training(edges: Edges, told: Told, most: int = 6) -> Plot | Missing:
    """Path ablation over training on each kind of data: the edges that end strongest, named, over all others in grey."""
    if not edges.pairs or not len(edges.steps):
        return Missing("The model has no pair of an earlier and a later head.")
    whole, axis = edges.inputs.index("QKV") if "QKV" in edges.inputs else 0, StepAxis.of(edges.steps)
    strength = np.nan_to_num(edges.effect[whole, :, -1].max(axis=-1), nan=-np.inf)
    top = [int(i) for i in np.argsort(-strength)[:most]]
    panels: list[Panel] = []
    span = bounds(edges.effect[whole] * 1000, zero=True)
    for n, data in enumerate(edges.data):
        values, errors = 1000 * edges.effect[whole, :, :, n], 1000 * edges.stderr[whole, :, :, n]
        lines: list[Layer] = [Rule(0.0, upright=False, style=LEVEL)]
        lines += [Line(edges.steps, values[i], FAINT_LINE, "", marks=False) for i in range(len(edges.pairs)) if i not in top]
        for rank, i in enumerate(top):
            name = f"{edges.pairs[i][0]}→{edges.pairs[i][1]}"
            band = {"low": values[i] - REACH * errors[i], "high": values[i] + REACH * errors[i]}
            lines.append(Line(edges.steps, values[i], DATA[rank % len(DATA)], name, end=name, group=name, **band))
        panels.append(Panel(data, tuple(lines), Scale(steps=axis), Scale("rise (10⁻³ nats)" if n == 0 else "", span)))
    caption = (
        f"Rise of the loss under {edges.ablation} ablation of the direct path into Q, K and V together; bands: 95 % over contexts; grey: all other "
        "edges. "
    )
    helps = np.any([edges.helps(whole, -1, n, TEST_LEVEL / len(edges.data)) for n in range(len(edges.data))], axis=0)
    strong = [i for i in top if helps[i]]
    names = listed([f"{edges.pairs[i][0]} → {edges.pairs[i][1]}" for i in strong[:3]])
    title = f"No edge helps beyond its error at the end, all {len(edges.pairs)} tried together"
    if strong:
        title = f"The strongest edges at the end are {names}{_onset(edges, whole, strong[0])}"
    return Plot(title, caption + told.measuring("paths", *edges.data), tuple(panels), min(2, len(panels)), 2.3)


def _onset(edges: Edges, whole: int, edge: int) -> str:
    """From which checkpoint on an edge's effect on the first kind of data stays beyond its error, edges tried together, in words."""
    weak = np.flatnonzero([not edges.helps(whole, place, 0, TEST_LEVEL)[edge] for place in range(len(edges.steps))])
    start = int(weak[-1]) + 1 if weak.size else 0
    a, b = edges.pairs[edge]
    return f"; {a} → {b} helps beyond its error from {step(float(edges.steps[start]))} on" if start < len(edges.steps) else ""


def composition_scores(found: Composition, f: Findings, most: int = 4) -> Plot | Missing:
    """Composition of every pair of heads over training, less that of random matrices; the strongest pairs of each kind are named."""
    if not found.pairs or not len(found.steps):
        return Missing("The model has no pair of an earlier and a later head.")
    axis, kinds = StepAxis.of(found.steps), type_of(f.types)
    span = bounds(*(found.excess(k) for k in found.scores), zero=True)
    tries = len(found.pairs) * len(found.scores)
    panels: list[Panel] = []
    beyond: list[tuple[float, str, Pair]] = []
    types: list[str] = []
    for kind in found.scores:
        excess = found.excess(kind)
        end = last_column(excess)
        top = [int(i) for i in np.argsort(-np.nan_to_num(excess[:, end], nan=-np.inf))[:most]]
        level = found.reach(kind, TEST_LEVEL / tries)[:, end]
        usual = float(np.nanmedian(level)) if np.isfinite(level).any() else 0.0
        lines: list[Layer] = [Rule(0.0, upright=False, interval=(-usual, usual), style=LEVEL)]
        lines += [Line(found.steps, excess[i], FAINT_LINE, "", marks=False) for i in range(len(found.pairs)) if i not in top]
        for i in reversed(top):
            a, b = found.pairs[i]
            types.append(b)
            style = type_style(kinds.get(b, "other"))
            lines.append(Line(found.steps, excess[i], style, f"{a}→{b}", end=f"{a}→{b}", group=kinds.get(b, "other")))
        beyond += [(float(excess[i, end]), kind.upper(), found.pairs[i]) for i in np.flatnonzero(excess[:, end] > level)]
        y = Scale("score less baseline" if not panels else "", span)
        panels.append(Panel(NAMES.get(kind, kind), tuple(lines), Scale(steps=axis), y))
    caption = (
        f"‖AB‖/(‖A‖‖B‖) of every pair less that of its matrices turned against each other at random ({number(found.baseline, 3)}, root mean square); "
        "grey stripe: what such turns give any of all pairs in one of twenty models (Bonferroni; the median over pairs at the end, as each has its "
        "own). Named pairs in the colour of the later head's type; grey: all other pairs. "
    )
    tried = f"{len(found.pairs)} pairs in {len(found.scores)} kinds"
    if beyond:
        said = [f"{kind} {a} → {b} ({number(value, signed=True)})" for value, kind, (a, b) in sorted(beyond, reverse=True)]
        title = f"{len(beyond)} of {tried} compose more than random matrices would in any: {listed(said, 4)}"
    else:
        title = f"No composition at the end is above what random matrices would give any of {tried}"
    return Plot(title, caption.strip(), tuple(panels), len(panels), 2.5, type_legend(f.types, types))


def affected_together(tokens: TokenEffects, f: Findings, told: Told, data: str = "") -> Plot | Missing:
    """Which pairs of heads affect the same predictions: the overlap of their most affected ones, and the correlation of their effects."""
    if not len(tokens.steps) or not tokens.data:
        return Missing("No single prediction was measured under ablation.")
    data = data if data in tokens.data else told.mixture if told.mixture in tokens.data else tokens.data[0]
    n, place = tokens.data.index(data), len(tokens.steps) - 1
    colors = type_colors(f.types, tokens.heads)
    titles: Mapping[str, Floats] = {
        f"overlap of the most affected {tokens.overlap_fraction:.1%}".replace(".0%", "%"): tokens.overlap[:, :, place, n],
        "correlation of the effects": tokens.correlation[:, :, place, n],
    }
    panels: list[Panel] = []
    for title, table in titles.items():
        own = np.where(np.eye(len(tokens.heads), dtype=bool), np.nan, table)  # of a head with itself it is 1 and says nothing
        low, high = limits([own], "diverging")
        texts = in_words(own, 1, "")
        short = tuple(
            tuple(t.replace("0.", ".") if abs(v) >= 0.05 else "" for t, v in zip(ts, vs, strict=True)) for ts, vs in zip(texts, own, strict=True)
        )
        cells = Cells(own, tokens.heads, tokens.heads, low, high, "diverging", short, name=title, row_colors=colors, column_colors=colors)
        panels.append(Panel(title, (cells,)))
    caption = (
        f"Rise of single predictions' losses under {tokens.ablation} ablation at {step(float(tokens.steps[place]))} on {data}; a head's pair with "
        f"itself "
        "is left out; names in the colours of the types. "
    )
    legend = type_legend(f.types, tokens.heads)
    return Plot(
        _together_title(tokens, place, n), caption + told.measuring("ablation", data), tuple(panels), 2, 0.8 + 0.17 * len(tokens.heads), legend
    )


def _together_title(tokens: TokenEffects, place: int, n: int) -> str:
    """The pair of two layers whose effects go together most, where they do beyond the error, all pairs tried together."""
    value, error = tokens.correlation[:, :, place, n], tokens.correlation_stderr[:, :, place, n]
    pairs = [
        (float(value[a, b]), float(error[a, b]), one, other)
        for a, one in enumerate(tokens.heads)
        for b, other in enumerate(tokens.heads)
        if one.split(":")[0] < other.split(":")[0] and np.isfinite(value[a, b]) and np.isfinite(error[a, b])
    ]
    if not pairs:
        return "No two heads of different layers have effects on tokens that could be compared"
    beyond = normal_quantile(1 - TEST_LEVEL / len(pairs))
    clear = sorted((pair for pair in pairs if pair[0] > beyond * pair[1]), reverse=True)
    if not clear:
        return f"No two heads of different layers affect the same tokens beyond the error, all {len(pairs)} pairs tried together"
    best, many = clear[0], f"{len(clear)} of {len(pairs)} pairs of heads of two layers affect the same tokens beyond the error, all tried together"
    return f"{many}; most {best[2]} and {best[3]}: correlation {with_error(best[0], best[1])}"

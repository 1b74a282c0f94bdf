"""Baselines beside rLLC: curvature, Fisher information, norms and ablation over training, and which orders heads like rLLC (METHOD 5, appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rllc.analysis.comparisons import Twins
from rllc.analysis.errors import quantile, reach
from rllc.analysis.findings import Findings, Floats
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import Baselines, HeadEffects
from rllc.analysis.ordering import Ordering, Quantity
from rllc.figures.axis import StepAxis
from rllc.figures.curves import layers_of, steps_axis
from rllc.figures.drawing import Cells, Layer, Missing, Panel, Plot, Points, Rule, Scale, in_words
from rllc.figures.head_lines import curve_line, dots, type_colors, type_legend, type_lines
from rllc.figures.layout import bounds, curve_span
from rllc.figures.palette import INK, MUTED, TYPES, Style, type_style
from rllc.figures.told import TEST_LEVEL, Told, chance, last_column, listed, number, plural, step, type_of

TITLES = {
    "hessian_trace": "Hessian trace",
    "top_eigenvalue": "top Hessian eigenvalue",
    "second_eigenvalue": "second Hessian eigenvalue",
    "spectrum_participation": "participation ratio of the top eigenvalues",
    "curvature_twin": "curvature twin",
    "fisher_empirical": "empirical Fisher trace",
    "fisher_true": "true Fisher trace",
    "gradient_norm": "norm of the gradient",
    "weight_norm": "weight norm",
    "qk_participation": "participation ratio, QK",
    "ov_participation": "participation ratio, OV",
}
MARK = Style(INK, "solid", "circle", "o", 2.0)
TWIN = Style(MUTED, "dot", "circle-open", "o", 1.5)
BOUNDARY = Style(MUTED, "dash", "line-ew", "", 0.9)


def baselines_over_training(found: Baselines, effects: HeadEffects | None, f: Findings, told: Told) -> Plot | Missing:
    """WrLLC and every baseline of every head over training, a small panel each, with the boundaries of the stages of the full model's LLC."""
    curves = f.curves.get(told.mixture)
    quantities = {TITLES.get(name, name): (q, found.units.get(name, "")) for name, q in found.quantities().items()}
    if effects is not None and told.mixture in effects.data and "mean" in effects.normalised:
        quantities["mean ablation"] = (effects.quantity("mean", told.mixture), "rise / loss")
    quantities = {name: (q, unit) for name, (q, unit) in quantities.items() if np.isfinite(q.values).any()}
    if not quantities:
        return Missing("No baseline was measured.")
    rules = tuple(Rule(float(b), style=BOUNDARY) for b in f.stages.boundaries) if f.stages is not None else ()
    axis = steps_axis(f) if curves is not None else StepAxis.of(found.steps)
    panels: list[Panel] = []
    if curves is not None:
        kinds = type_of(f.types)
        rows = [r for own in layers_of(curves.parts).values() for r in own]
        rows.sort(key=lambda r: kinds.get(curves.parts[r], "other") != "other")
        lines = [curve_line(curves, r, type_style(kinds.get(curves.parts[r], "other")), curves.parts[r], shade=0.06) for r in rows]
        panels.append(Panel("wrLLC", (*rules, *lines), Scale(steps=axis), Scale("", curve_span(curves))))
    for name, (quantity, unit) in quantities.items():
        lines = type_lines(quantity.heads, np.array(quantity.steps), quantity.values, f.types, quantity.stderr, named=())
        title = f"{name} ({unit})" if unit and len(name) + len(unit) < 30 else name
        panels.append(Panel(title, (*rules, *lines), Scale(steps=axis), Scale("", bounds(quantity.values, zero=True))))
    caption = (
        "Numbers of every head in the colours of the types, bands 95 % where a number has an error; dashed: boundaries of the full model's stages. "
        "The title's "
        "falls exceed what errors make of level curves, all checkpoints and rows held together at 5 % (Bonferroni). "
    )
    beside = ("baselines", "ablation") if "mean ablation" in quantities else ("baselines",)
    legend = type_legend(f.types, found.heads)
    return Plot(_falls_title(quantities), caption + told.sampling(told.mixture, beside=beside), tuple(panels), 3, 1.55, legend)


def beyond_the_twin(found: Twins | None, f: Findings, told: Told) -> Plot | Missing | None:
    """Left: wrLLC and curvature twin of every head at the last checkpoint of both. Right: their difference over training."""
    if found is None:
        return None
    place = last_column(found.difference)
    if place < 0:
        return Missing("No head has both an estimate and a curvature twin.")
    kinds = type_of(f.types)
    values = ((found.llc[:, place], found.llc_stderr[:, place], -0.14), (found.twin[:, place], found.twin_stderr[:, place], 0.14))
    halves = reach(found.llc_stderr[:, place], None if found.llc_df is None else found.llc_df[:, place]), reach(found.twin_stderr[:, place])
    edges = [(value - half, value + half) for (value, _, _), half in zip(values, halves, strict=True)]
    points: list[Layer] = list(dots(found.heads, values[0][0], *edges[0], f.types, values[0][2]))
    rows = np.arange(len(found.heads), dtype=np.float64)
    points.append(Points(values[1][0], rows + values[1][2], TWIN, "curvature twin", x_low=edges[1][0], x_high=edges[1][1], hollow=True))
    ticks = tuple((float(r), f"{kinds.get(h, 'other')}  {h}") for r, h in enumerate(found.heads))
    y = Scale("", (len(found.heads) - 0.4, -0.6), ticks=ticks, colors=type_colors(f.types, found.heads))
    ends = Panel(f"at {step(float(found.steps[place]))}", tuple(points), Scale("wrLLC; hollow: its twin", bounds(*edges[0], *edges[1], zero=True)), y)
    lines = type_lines(found.heads, found.steps, found.difference, f.types, found.difference_stderr, df=found.difference_df)
    axis = Scale(steps=StepAxis.of(found.steps))
    over = Panel("wrLLC less its twin", (Rule(0.0, upright=False), *lines), axis, Scale("", bounds(found.difference, zero=True)))
    caption = (
        "Curvature twin: ½ tr[nβH(nβH + γ)⁻¹] of the head's Hessian on held-out text, what its LLC would be if the loss were quadratic; bars and "
        "bands: 95 %. "
    )
    height = 0.9 + 0.2 * len(found.heads)
    sampled = told.sampling(told.mixture, beside=("baselines",))
    return Plot(_twin_title(found, place), caption + sampled, (ends, over), 2, height, type_legend(f.types, found.heads))


def _twin_title(found: Twins, place: int) -> str:
    difference, error = found.difference[:, place], found.difference_stderr[:, place]
    known = np.flatnonzero(np.isfinite(difference) & np.isfinite(error))
    df = None if found.difference_df is None else found.difference_df[:, place]
    beyond = quantile(1 - TEST_LEVEL / (2 * max(len(known), 1)), df) * error
    above, below = (int((sign * difference[known] > beyond[known]).sum()) for sign in (1, -1))
    ends = f"at {step(float(found.steps[place]))}"
    if not len(known):
        return f"No difference of a wrLLC from its curvature twin has an error {ends}"
    return f"Of {plural(len(known), 'head')} {above} have a wrLLC above their curvature twin {ends}, {below} one below it, beyond the errors of all"


def _falls_title(quantities: dict[str, tuple[Quantity, str]]) -> str:
    """Whose mean over heads ends below its highest by more than the highest of so many noisy ones explains, all rows held together."""
    means = {name: mean for name, (quantity, _) in quantities.items() if (mean := _mean(quantity)) is not None}
    if not means:
        return "No baseline is known with its error for every head at two checkpoints"
    tries = sum(len(values) - 1 for _, values, _ in means.values())
    reach = normal_quantile(1 - TEST_LEVEL / tries)
    fallen = [
        f"{name} ({step(steps[int(np.argmax(values))])})"
        for name, (steps, values, errors) in means.items()
        if (values[:-1] - values[-1] > reach * np.hypot(errors[:-1], errors[-1])).any()
    ]
    if not fallen:
        return f"The mean over heads ends below its highest, beyond what errors make of a level curve, for none of {plural(len(means), 'baseline')}"
    return (
        f"For {len(fallen)} of {plural(len(means), 'baseline')} the mean over heads ends below its highest, beyond what errors make of a level "
        f"curve; highest estimate: {listed(fallen, len(fallen))}"
    )


def _mean(quantity: Quantity) -> tuple[list[int], Floats, Floats] | None:
    """Steps, means over heads and their errors at the checkpoints at which every head is known; None for fewer than two.

    Heads are measured on the same text, which may give them one noise: the error of their mean is taken as the mean of their errors.
    """
    error = np.zeros(quantity.values.shape) if quantity.stderr is None else quantity.stderr
    known = np.isfinite(quantity.values).all(axis=0) & np.isfinite(error).all(axis=0)
    steps = [quantity.steps[int(place)] for place in np.flatnonzero(known)]
    return (steps, quantity.values[:, known].mean(axis=0), error[:, known].mean(axis=0)) if len(steps) > 1 else None


def ordering_of_heads(rows: Sequence[Ordering], told: Told) -> Plot | Missing:
    """Left: Spearman's ρ of each baseline with wrLLC within layers at the end, with its interval over heads. Right: at every checkpoint."""
    known = [row for row in rows if np.isfinite(row.correlation)]
    if not known:
        return Missing("No baseline shares four heads with wrLLC.")
    names = [TITLES.get(row.name, row.name.replace("_", " ")) for row in known]
    places = np.arange(len(known), dtype=np.float64)
    rho = np.array([row.correlation for row in known])
    clear = np.array([row.p_holm < 0.05 for row in known])
    layers: list[Layer] = [Rule(0.0)]
    heads = [np.array([row.over_heads[side] for row in known]) for side in (0, 1)]
    for flag in (True, False):
        if (clear == flag).any():
            pick, style = clear == flag, TYPES["previous-token"] if flag else MARK
            name = "p < 0.05 (Holm)" if flag else "p ≥ 0.05 (Holm)"
            edges: dict[str, Any] = {"x_low": heads[0][pick], "x_high": heads[1][pick]}
            layers.append(Points(rho[pick], places[pick], style, name, group=name, hollow=not flag, **edges))
    ticks = tuple((float(i), name) for i, name in enumerate(names))
    left = Panel(
        f"at {step(known[0].step)}", tuple(layers), Scale("Spearman ρ with wrLLC", (-1.05, 1.05)), Scale("", (len(known) - 0.4, -0.6), ticks=ticks)
    )
    steps = sorted({s for row in known for s in row.steps})
    table = np.full((len(known), len(steps)), np.nan)
    for i, row in enumerate(known):
        table[i, [steps.index(s) for s in row.steps]] = row.by_step
    from rllc.figures.axis import short

    texts = in_words(table, 1, "") if len(steps) <= 12 else ()
    cells = Cells(
        table, tuple("" for _ in known), tuple(short(s) for s in steps), -1.0, 1.0, "diverging", texts, name="ρ", column_title="training step"
    )
    title = _ordering_title(known, names)
    caption = (
        f"Spearman's ρ within layers, over {plural(len(known[0].heads), 'head')}. Bars: 95 % where the heads of each layer are drawn anew, with the "
        "noise of their numbers; filled: p below 0.05 by permutation, held for all rows together (Holm). Right: the same at every checkpoint. "
    )
    height = 0.9 + 0.3 * len(known)
    beside = [what for what in ("baselines", "ablation", "multigrams") if any(_source(row.name) == what for row in known)]
    return Plot(title, caption + told.sampling(told.mixture, beside=beside), (left, Panel("over training", (cells,))), 2, height)


def _source(name: str) -> str:
    """The measurement that a row comes from."""
    return next((what for what in ("ablation", "multigrams") if name.endswith(what)), "baselines")


def _ordering_title(known: Sequence[Ordering], names: Sequence[str]) -> str:
    clear = [f"{name} (ρ {number(row.correlation, signed=True)})" for row, name in zip(known, names, strict=True) if row.p_holm < 0.05]
    if clear:
        return f"Baselines that order heads like wrLLC, or against it, beyond chance: {listed(clear)}"
    best = max(range(len(known)), key=lambda i: abs(known[i].correlation))
    told = f"ρ {number(known[best].correlation, signed=True)}, {chance(known[best].p_holm)} for all rows together"
    return f"No baseline orders heads like wrLLC beyond chance; the closest is {names[best]} ({told})"

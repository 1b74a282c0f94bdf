"""What a calibration found, as one figure for a paper: λ̂ and the order of the parts over the grid. Needs matplotlib (`pip install 'rllc[paper]'`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.analysis.calibrated import CalibrationMap, Floats, Point
from rllc.figures.palette import INK, MUTED, PAPER, TYPES
from rllc.figures.printing import STYLE, matplotlib_or_sentence, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#f3f8fc", "#c3dcee", "#7fb2d9")  # all pale enough for ink
# What is wrong with a setting: how its cell is hatched, and how the legend says it.
PROBLEMS: dict[str, tuple[str, str]] = {
    "refused": ("xxxx", "refused: no estimate"),
    "biased": ("////", "biased by the step size"),
    "far": ("....", "raises the loss more than removing the part does"),
    "drifting": ("----", "drifting after the burn-in"),
}


def write_calibration(found: CalibrationMap, folder: Path) -> list[Path]:
    """Draw the figure and write `calibration.png` and `calibration.svg` into `folder`; returns the paths.

    Raises RllcError where matplotlib is not installed or the folder cannot be written.
    """
    mpl = matplotlib_or_sentence()
    with mpl.rc_context({**STYLE, "axes.grid": False, "hatch.linewidth": 0.6}):
        return save(draw(found), folder, "calibration")


def draw(found: CalibrationMap) -> Figure:
    """One column a temperature; above the median λ̂, below Kendall τ of the parts' order against the recommended setting's."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
    from matplotlib.figure import Figure

    columns = len(found.nbeta)
    figure = Figure(figsize=(max(5.6, 1.5 + 2.3 * columns), 5.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False, sharex=True, sharey=True)
    positive = found.llc[np.isfinite(found.llc) & (found.llc > 0)]
    span = (float(positive.min()), float(positive.max())) if positive.size else (0.1, 1.0)
    norms = LogNorm(*(span if span[0] < span[1] else (span[0] / 2, span[0] * 2))), Normalize(0, 1)
    colors = LinearSegmentedColormap.from_list("pale to blue", COLORS)
    titles = "median λ̂ of the parts", "Kendall τ of their order\nagainst the recommended one"
    for row, (values, norm, title) in enumerate(zip((found.llc, found.tau), norms, titles, strict=True)):
        for column in range(columns):
            ax = axes[row][column]
            _cells(ax, found, values[column], found.problem[column], norm, colors, ".2f" if row else ".3g")
            for point, mark in ((found.own, "o"), (found.recommended, "*")):
                if point is not None and column == int(np.abs(np.log(found.nbeta / point.nbeta)).argmin()):
                    _mark(ax, found, point, mark)
            if row == 0:
                ax.set_title(f"nβ {found.nbeta[column]:g}")
            else:
                ax.set_xlabel("ε nβ/2")
        axes[row][0].set_ylabel("ε γ/2")
        bar = figure.colorbar(ScalarMappable(norm, colors), ax=list(axes[row]), label=title, pad=0.015, aspect=16)
        bar.ax.yaxis.set_major_formatter(lambda v, _: f"{v:.3g}")
        bar.ax.yaxis.set_minor_formatter("")
        if row == 0:
            bar.ax.set_yticks(_ticks(*span))
    _legend(figure, found)
    title = f"Settings of the sampler, {found.parts} parts at {found.where}: cells without hatching are healthy"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _edges(values: Floats) -> Floats:
    """Borders of cells around places on a logarithmic axis."""
    log = np.log(values)
    if len(log) == 1:
        return np.exp(log[0] + np.array([-0.35, 0.35]))
    middle = (log[1:] + log[:-1]) / 2
    return np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))


def _cells(ax: Axes, found: CalibrationMap, values: Floats, problem: Any, norm: Any, colors: Any, digits: str) -> None:
    from matplotlib.patches import Rectangle

    xs, ys = _edges(found.loss_products), _edges(found.prior_products)
    for j in range(len(found.prior_products)):
        for i in range(len(found.loss_products)):
            value, kind = float(values[j, i]), str(problem[j, i])
            shown = np.isfinite(value) and (value > 0 or norm.vmin == 0)
            color: Any = colors(norm(value)) if shown else PAPER
            box = (xs[i], ys[j]), xs[i + 1] - xs[i], ys[j + 1] - ys[j]
            ax.add_patch(Rectangle(*box, facecolor=color, edgecolor=PAPER, linewidth=0.8))
            if kind:
                hatch = PROBLEMS.get(kind, PROBLEMS["refused"])[0]
                ax.add_patch(Rectangle(*box, fill=False, hatch=hatch, edgecolor=MUTED, linewidth=0))
            if np.isfinite(value) and not kind:
                place = found.loss_products[i], found.prior_products[j]
                ax.annotate(
                    format(value, digits), place, xytext=(0, -8), textcoords="offset points", ha="center", va="center", fontsize=6.5,
                    color=INK,
                )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(xs[0], xs[-1])
    ax.set_ylim(ys[0], ys[-1])
    ax.set_xticks(found.loss_products, [f"{x:.3g}" for x in found.loss_products], rotation=40, fontsize=7)
    ax.set_yticks(found.prior_products, [f"{y:.3g}" for y in found.prior_products])
    ax.minorticks_off()


def _mark(ax: Axes, found: CalibrationMap, point: Point, mark: str) -> None:
    """A star for the recommendation, a ring for the experiment's settings, around the star where they are one; both above the number."""
    from matplotlib.transforms import ScaledTranslation

    x = float(np.clip(point.loss_product, found.loss_products[0] / 1.3, found.loss_products[-1] * 1.3))
    y = float(np.clip(point.prior_product, found.prior_products[0] / 1.3, found.prior_products[-1] * 1.3))
    above = ax.transData + ScaledTranslation(0, 4 / 72, ax.figure.dpi_scale_trans)  # pyright: ignore[reportAttributeAccessIssue]
    ax.plot(x, y, transform=above, linestyle="", **_style(mark))


def _style(mark: str) -> dict[str, Any]:
    ring = mark == "o"
    color = TYPES["induction"].color
    size = 11 if ring else 8
    return {
        "marker": mark, "markersize": size, "markerfacecolor": "none" if ring else color, "markeredgecolor": color,
        "markeredgewidth": 1.4 if ring else 0.4,
    }  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the two, few enough to be read."""
    round_numbers = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    inside = [v for v in round_numbers if low <= v <= high]
    return inside if len(inside) > 1 else [low, high]


def _legend(figure: Figure, found: CalibrationMap) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    names: list[str] = []
    if found.recommended is not None:
        handles.append(Line2D([], [], linestyle="", **_style("*")))
        names.append(f"recommended: {found.recommended.text}")
    handles.append(Line2D([], [], linestyle="", **_style("o")))
    names.append(f"the experiment's own: {found.own.text}")
    for kind in PROBLEMS:
        if (found.problem == kind).any():
            handles.append(Patch(facecolor=PAPER, edgecolor=MUTED, hatch=PROBLEMS[kind][0], linewidth=0.6))
            names.append(PROBLEMS[kind][1])
    figure.legend(handles, names, loc="outside lower left", ncols=2 if len(found.nbeta) > 1 else 1)

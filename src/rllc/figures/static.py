"""The main figures as files for a paper: PNG and SVG, the same bytes for the same findings. Needs matplotlib (`pip install 'rllc[paper]'`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.analysis.findings import Curves, Findings
from rllc.figures.axis import TITLE, StepAxis
from rllc.figures.clusters import cluster_name
from rllc.figures.curves import layers_of, picked, steps_axis, styles_of, training_mixture
from rllc.figures.layout import bounds, curve_span, runs
from rllc.figures.palette import INK, MUTED, TYPES, Style, type_color, type_style
from rllc.figures.printing import STYLE, end_labels, last, matplotlib_or_sentence, new, save, step_axis
from rllc.figures.training import SCORES, threshold_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_static(findings: Findings, folder: Path, mixture: str = "") -> list[Path]:
    """Draw the main figures and write each as PNG (200 dots an inch) and SVG into `folder`; returns the paths.

    Figures for which there is nothing to draw are left out. `mixture` names the training mixture; empty takes what `training_mixture` finds.
    Raises RllcError where matplotlib is not installed or the folder cannot be written.
    """
    mpl = matplotlib_or_sentence()
    mixture = mixture or training_mixture(findings)
    paths: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, figure in _drawn(findings, mixture):
            paths += save(figure, folder, name)
    return paths


def _drawn(findings: Findings, mixture: str) -> Iterator[tuple[str, Figure]]:
    axis = steps_axis(findings)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "loss_and_stages": lambda: _loss_and_stages(findings, mixture, axis),
        "heads": lambda: _heads(findings, mixture, axis),
        "clusters": lambda: _clusters(findings, mixture, axis),
        "domains": lambda: _domains(findings, mixture, axis),
        "specialisation": lambda: _specialisation(findings, mixture),
        "behaviour": lambda: _behaviour(findings, axis),
    }
    for name, draw in drawings.items():
        figure = draw()
        if figure is not None:
            yield name, figure


def _line(ax: Axes, curves: Curves, row: int, axis: StepAxis, style: Style, floor: float, label: str | None = None, shade: float = 0.15) -> None:
    x, y = axis(curves.steps), curves.llc[row]
    for piece in runs(curves.ci_low[row], curves.ci_high[row]):
        ax.fill_between(x[piece], curves.ci_low[row][piece], curves.ci_high[row][piece], color=style.color, alpha=shade, linewidth=0)
    ax.plot(x, y, color=style.color, linestyle=style.line, marker=style.marker, label=label)
    outcome = curves.outcome[row]
    marked = np.isin(outcome, ("tilted", "drifting"))
    ax.plot(x[marked], y[marked], linestyle="", marker="o", markersize=4.2, markerfacecolor="white", markeredgecolor=style.color)
    refused = np.isin(outcome, ("unstable", "nonfinite"))
    if refused.any():  # an empty line without clipping has no extent, which breaks the layout
        ax.plot(x[refused], np.full(int(refused.sum()), floor), linestyle="", marker="x", color=style.color, clip_on=False)


def _type_legend(figure: Figure, types: Any) -> None:
    from matplotlib.lines import Line2D

    found = [t for t in TYPES if t in set(types)]
    lines = [Line2D([], [], color=TYPES[t].color, linestyle=TYPES[t].line, marker=TYPES[t].marker) for t in found]
    if found:
        figure.legend(lines, found, loc="outside upper left", ncols=len(found))


def _loss_and_stages(f: Findings, mixture: str, axis: StepAxis) -> Figure | None:
    full = {name: c for name, c in f.full.items() if "full" in c.parts}
    if not f.behaviour.data and not full:
        return None
    figure, (top, bottom) = new(6.4, 5.0, 2, 1, sharex=True)
    for name, row in zip(f.behaviour.data, f.behaviour.losses, strict=True):
        style = styles_of(f, mixture)[name]
        top.plot(axis(f.behaviour.steps), row, color=style.color, linestyle=style.line, marker=style.marker, label=name)
    if f.behaviour.data:
        top.legend(ncols=4, loc="upper right")
    top.set_ylabel("held-out loss (nats per token)")
    styles = styles_of(f, mixture)
    for name, c in full.items():
        row = c.parts.index("full")
        x, style = axis(c.steps), styles[name]
        bottom.errorbar(x, c.llc[row], c.stderr[row], color=style.color, marker=style.marker, linestyle="", capsize=2, elinewidth=0.9, label=name)
    bottom.set_ylabel("LLC of the full model")
    if f.stages is not None:
        bottom.plot(axis(f.stages.smooth_steps), f.stages.smooth_llc, color=INK, label="smoothed")
        for ax in (top, bottom):
            for boundary, interval in zip(f.stages.boundaries, f.stages.intervals, strict=True):
                if np.isfinite(interval).all():
                    ax.axvspan(*(float(v) for v in axis(interval)), color=MUTED, alpha=0.13, linewidth=0)
                ax.axvline(float(axis(boundary)), color=MUTED, linestyle="--", linewidth=0.9)
    if bottom.get_legend_handles_labels()[0]:
        bottom.legend(loc="upper left")
    step_axis(bottom, axis)
    return figure


def _head_panels(f: Findings, curves: Curves, panels: list[tuple[str, list[int]]], axis: StepAxis, columns: int, height: float) -> Figure:
    rows = -(-len(panels) // columns)
    figure, axes = new(6.8, 0.35 + height * rows, rows, columns, labels=True, sharex=True, sharey=True)
    by_head = dict(zip(f.types.heads, f.types.types, strict=True))
    kept = [r for _, members in panels for r in members]
    span = curve_span(picked(curves, kept))
    for ax, (title, members) in zip(axes, panels, strict=False):
        for row in sorted(members, key=lambda r: by_head.get(curves.parts[r], "other") != "other"):
            style = type_style(by_head.get(curves.parts[row], "other"))
            _line(ax, curves, row, axis, style, span[0], shade=0.07 if style is TYPES["other"] else 0.15)
        ends = [(curves.parts[r], last(curves.llc[r]), type_color(by_head.get(curves.parts[r], "other"))) for r in members]
        end_labels(ax, [e for e in ends if np.isfinite(e[1])], span, 72 * (height - 0.55))
        ax.set_title(title)
        ax.set_ylim(*span)
        step_axis(ax, axis, 0.16, "training step" if columns > 2 else TITLE)
    for ax in axes[len(panels) :]:
        ax.remove()
    for ax in axes[: len(panels) : columns]:
        ax.set_ylabel("wrLLC")
    _type_legend(figure, [by_head.get(curves.parts[r], "other") for r in kept])
    return figure


def _heads(f: Findings, mixture: str, axis: StepAxis) -> Figure | None:
    curves = f.curves.get(mixture)
    layers = layers_of(curves.parts) if curves is not None else {}
    if curves is None or not layers:
        return None
    return _head_panels(f, curves, [(f"Layer {k}", rows) for k, rows in layers.items()], axis, min(2, len(layers)), 3.2)


def _clusters(f: Findings, mixture: str, axis: StepAxis) -> Figure | None:
    curves = f.curves.get(mixture)
    if curves is None or not f.clusterings or not f.clusterings[0].heads:
        return None
    clustering = f.clusterings[0]
    panels: list[tuple[str, list[int]]] = []
    for m in sorted({int(v) for v in clustering.labels}):
        members = [curves.parts.index(h) for h, v in zip(clustering.heads, clustering.labels, strict=True) if v == m and h in curves.parts]
        panels.append((f"Cluster {cluster_name(m)} ({clustering.method}, {clustering.scope})" if m == 0 else f"Cluster {cluster_name(m)}", members))
    return _head_panels(f, curves, panels, axis, min(3, len(panels)), 2.4)


def _domains(f: Findings, mixture: str, axis: StepAxis) -> Figure | None:
    heads = list(dict.fromkeys(c.parts[r] for c in f.curves.values() for rows in layers_of(c.parts).values() for r in rows))
    if not heads:
        return None
    rows = -(-len(heads) // 4)
    figure, axes = new(6.8, 0.4 + 1.35 * rows, rows, 4, sharex=True, sharey=True)
    by_head, styles = dict(zip(f.types.heads, f.types.types, strict=True)), {n: s for n, s in styles_of(f, mixture).items() if n in f.curves}
    span = curve_span(*f.curves.values())
    for ax, head in zip(axes, heads, strict=False):
        for name, c in f.curves.items():
            if head in c.parts:
                _line(ax, c, c.parts.index(head), axis, styles[name], span[0])
        ax.set_title(f"{head} {by_head.get(head, 'other')}", color=type_color(by_head.get(head, "other")), fontsize=7.5, pad=2)
        ax.set_ylim(*span)
        step_axis(ax, axis, 0.3, title="")
    for ax in axes[len(heads) :]:
        ax.remove()
    from matplotlib.lines import Line2D

    figure.legend(
        [Line2D([], [], color=s.color, linestyle=s.line, marker=s.marker) for s in styles.values()], list(styles), loc="outside upper left", ncols=6
    )
    figure.supylabel("refined LLC", fontsize=8)
    return figure


def _specialisation(f: Findings, mixture: str) -> Figure | None:
    found = [s for s in f.specialisation if np.isfinite(s.difference).any()]
    if not found:
        return None
    heads = list(dict.fromkeys(h for s in found for h in s.heads))
    figure, (ax,) = new(5.0, 0.6 + 0.2 * len(heads))
    styles, by_head = styles_of(f, mixture), dict(zip(f.types.heads, f.types.types, strict=True))
    for s, shift in zip(found, np.linspace(-0.2, 0.2, len(found)) if len(found) > 1 else [0.0], strict=True):
        style, y = styles[s.data], [heads.index(h) + shift for h in s.heads]
        ax.errorbar(s.difference, y, xerr=s.stderr, color=style.color, marker=style.marker, linestyle="", elinewidth=0.9, label=s.data)
    ax.axvline(0, color=MUTED, linewidth=0.9)
    ax.set_yticks(range(len(heads)), [f"{by_head.get(h, 'other')}  {h}" for h in heads])
    ax.set_ylim(len(heads) - 0.4, -0.6)
    ax.set_xlabel(f"final LLC on this data minus on {found[0].reference}")
    ax.legend(ncols=len(found), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _behaviour(f: Findings, axis: StepAxis) -> Figure | None:
    b = f.behaviour
    known = [n for n in SCORES if n in b.scores]
    if not known:
        return None
    figure, axes = new(6.8, 2.5, 1, len(known), labels=True, sharex=True)
    by_head = dict(zip(f.types.heads, f.types.types, strict=True))
    for ax, name in zip(axes, known, strict=True):
        table, decides = b.scores[name], SCORES[name][1]
        for row in sorted(range(len(b.heads)), key=lambda r: by_head.get(b.heads[r], "other") != "other"):
            style = type_style(by_head.get(b.heads[row], "other"))
            ax.plot(axis(b.steps), table[row], color=style.color, linestyle=style.line, marker=style.marker, markersize=2.4)
        span = (min(0.0, bounds(table)[0]), max(0.5, bounds(table)[1]))
        ends = [(h, last(table[r]), type_color(decides)) for r, h in enumerate(b.heads) if by_head.get(h) == decides]
        end_labels(ax, [e for e in ends if np.isfinite(e[1])], span, 125)
        if (threshold := threshold_of(f.types, name)) is not None:
            ax.axhline(threshold, color=MUTED, linestyle="--", linewidth=0.9)
        ax.set_title(SCORES[name][0].replace(" (induction)", ""))
        ax.set_ylim(*span)
        step_axis(ax, axis, 0.2, title="")
    axes[0].set_ylabel("attention")
    _type_legend(figure, f.types.types)
    return figure

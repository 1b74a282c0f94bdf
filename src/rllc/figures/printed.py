"""A drawing as a matplotlib figure: title above, legend below it, panels, caption at the foot. Needs matplotlib (`pip install 'rllc[paper]'`)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.figures.axis import TITLE, StepAxis
from rllc.figures.drawing import Cells, Line, Painted, Panel, Plot, Points, Rule, Scale, Table, tint
from rllc.figures.layout import runs
from rllc.figures.palette import FAINT, INK, MUTED, PAPER, RULE, Style
from rllc.figures.printing import end_labels, last, printable, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE, _SMALL = 9.0, 6.8  # points
_LEADING = 1.28
_EDGE = 0.08  # inches around everything


def printed(drawing: Plot | Table | Painted) -> Figure:
    """The figure as it is printed, title and caption included. Draw it under `printing.STYLE`."""
    if not isinstance(drawing, Plot):
        from rllc.figures.sheets import printed_sheet

        return printed_sheet(drawing)
    count, columns = len(drawing.panels), min(drawing.columns, len(drawing.panels))
    rows = -(-count // columns)
    figure, frame = framed(drawing.title, drawing.caption, drawing.width, rows * drawing.height, drawing.legend)
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ends = max((_room(layer.end) for p in drawing.panels for layer in p.layers if isinstance(layer, Line)), default=0.0)
    spare = (0.08 + ends) / drawing.width if ends else 0.0  # for names at the ends of lines, which the layout does not see
    left, bottom, width, height = frame
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(left, bottom, width - spare, height), wspace=spare * columns, w_pad=0.05, h_pad=0.05))
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for i, (ax, panel) in enumerate(zip(axes, drawing.panels, strict=False)):
        _draw(ax, panel, columns, i + columns >= count, _inside(drawing, columns))
    for ax in axes[count:]:
        ax.remove()
    if drawing.bar:
        _colour_bar(figure, axes[:count], drawing)
    return figure


def framed(
    title: str, caption: str, width: float, height: float, legend: tuple[tuple[str, Style], ...] = ()
) -> tuple[Figure, tuple[float, float, float, float]]:
    """A figure with title, legend and caption around `height` inches of content; and the content's left, bottom, width, height as shares."""
    from matplotlib.figure import Figure

    said = textwrap.wrap(printable(title), max(20, int(width * 72 / (_TITLE * 0.655))))
    told = textwrap.wrap(printable(caption), max(20, int(width * 72 / (_SMALL * 0.535))))
    key = _legend_rows(legend, width)
    head = len(said) * _TITLE * _LEADING / 72 + 0.05
    keys = 0.17 * len(key)
    foot = len(told) * _SMALL * _LEADING / 72 + 0.04 if told else 0.0
    whole = head + keys + height + foot + 2 * _EDGE
    figure = Figure(figsize=(width, whole))
    look: dict[str, Any] = {"ha": "left", "linespacing": _LEADING * 0.93, "in_layout": False}
    figure.text(_EDGE / width, 1 - _EDGE / whole, "\n".join(said), va="top", fontsize=_TITLE, fontweight="bold", color=INK, **look)
    figure.text(_EDGE / width, _EDGE / whole, "\n".join(told), va="bottom", fontsize=_SMALL, color=MUTED, **look)
    top = 1 - (_EDGE + head) / whole
    for i, entries in enumerate(key):
        _legend_row(figure, entries, _EDGE / width, top - i * 0.17 / whole)
    return figure, (0.03 / width, (_EDGE + foot) / whole, 1 - 0.06 / width, height / whole)


def _legend_rows(entries: tuple[tuple[str, Style], ...], width: float) -> list[list[tuple[str, Style]]]:
    rows: list[list[tuple[str, Style]]] = []
    left = 0.0
    for entry in entries:
        needs = 0.45 + len(entry[0]) * 0.066
        if not rows or left < needs:
            rows.append([])
            left = width - 0.2
        rows[-1].append(entry)
        left -= needs
    return rows


def _legend_row(figure: Figure, entries: list[tuple[str, Style]], x: float, y: float) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=s.color, linestyle=s.line, marker=s.marker, linewidth=min(s.width, 2) * 0.65) for _, s in entries]
    names = [short(name) for name, _ in entries]
    box: dict[str, Any] = {"borderpad": 0, "borderaxespad": 0, "columnspacing": 1.4, "handlelength": 2.2, "handletextpad": 0.5, "fontsize": 7.5}
    found = figure.legend(lines, names, loc="upper left", bbox_to_anchor=(x, y), ncols=len(entries), **box)
    found.set_in_layout(False)


def _draw(ax: Axes, panel: Panel, columns: int, lowest: bool, size: tuple[float, float]) -> None:
    cells = [layer for layer in panel.layers if isinstance(layer, Cells)]
    if panel.x.log:
        ax.set_xscale("log")
    if panel.y.log:
        ax.set_yscale("log")
    for layer in panel.layers:
        if isinstance(layer, Cells):
            _cells(ax, layer, size)
        elif isinstance(layer, Line):
            _line(ax, layer, panel)
        elif isinstance(layer, Points):
            _points(ax, layer, panel.x.steps)
        else:
            _rule(ax, layer, panel.x.steps)
    if panel.title:
        ax.set_title(short(panel.title), color=panel.color, fontsize=8.5 if columns < 3 else 7.8, pad=4)
    if cells:
        ax.set_xlabel(short(cells[0].column_title), fontsize=7.5)
        ax.set_ylabel(short(cells[0].row_title), fontsize=7.5)
        return
    _scale(ax, panel.x, True, columns, lowest)
    _scale(ax, panel.y, False, columns, lowest)
    _names(ax, panel, size)
    ends = [(short(line.end), last(line.y), line.style.color) for line in panel.layers if isinstance(line, Line) and line.end]
    named = [e for e in ends if np.isfinite(e[1])]
    if named:
        low, high = sorted(ax.get_ylim())
        if panel.y.log:
            named = _on_log(named, low, high)
            low, high = 0.0, 1.0
            _log_ends(ax, named, size[1])
        else:
            end_labels(ax, named, (low, high), size[1])


def _scale(ax: Axes, scale: Scale, along_x: bool, columns: int, lowest: bool) -> None:
    which = ax.xaxis if along_x else ax.yaxis
    if scale.steps is not None and along_x:
        values, labels = scale.steps.ticks(0.12 * max(1.0, columns / 1.5))
        low, high = scale.steps.range
        ax.set_xticks(values, labels)
        ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        title = scale.title or ("training step" if columns > 1 else TITLE)
        ax.set_xlabel(title if lowest else "")
        if not lowest:
            ax.tick_params(labelbottom=False)
        return
    if scale.ticks is not None:
        which.set_ticks([at for at, _ in scale.ticks], [short(text) for _, text in scale.ticks])
        which.set_minor_locator(_null())
        for label, color in zip(which.get_ticklabels(), scale.colors, strict=False):
            label.set_color(color)
    if scale.span is not None:
        (ax.set_xlim if along_x else ax.set_ylim)(*scale.span)
    (ax.set_xlabel if along_x else ax.set_ylabel)(short(scale.title) if lowest or not along_x else "")


def _line(ax: Axes, line: Line, panel: Panel) -> None:
    x = panel.x.steps(line.x) if panel.x.steps is not None else np.asarray(line.x, dtype=np.float64)
    y, style = np.asarray(line.y, dtype=np.float64), line.style
    if line.low is not None and line.high is not None:
        for piece in runs(line.low, line.high):
            ax.fill_between(x[piece], line.low[piece], line.high[piece], color=style.color, alpha=line.shade, linewidth=0)
    marker = style.marker if line.marks else ""
    ax.plot(x, y, color=style.color, linestyle=style.line, marker=marker, markersize=2.6, linewidth=style.width * 0.6)
    if line.hollow is not None and line.hollow.any():
        at = line.hollow
        ax.plot(x[at], y[at], linestyle="", marker="o", markersize=3.8, markerfacecolor=PAPER, markeredgecolor=style.color, markeredgewidth=0.8)
    if line.refused is not None and line.refused.any():
        floor = panel.y.span[0] if panel.y.span is not None else float(np.nanmin(y, initial=0.0))
        ax.plot(x[line.refused], np.full(int(line.refused.sum()), floor), linestyle="", marker="x", color=style.color, clip_on=False)


def _points(ax: Axes, points: Points, axis: StepAxis | None) -> None:
    x, y = np.asarray(points.x, dtype=np.float64), np.asarray(points.y, dtype=np.float64)
    place = (lambda v: np.asarray(axis(v))) if axis is not None else (lambda v: np.asarray(v, dtype=np.float64))
    look: dict[str, Any] = {"color": points.style.color, "linewidth": 0.9, "alpha": 0.75}
    if points.x_low is not None and points.x_high is not None:
        ax.hlines(y, place(points.x_low), place(points.x_high), **look)
    if points.y_low is not None and points.y_high is not None:
        ax.vlines(place(x), points.y_low, points.y_high, **look)
    fill = PAPER if points.hollow else points.style.color
    mark = points.style.marker
    ax.plot(place(x), y, linestyle="", marker=mark, markersize=4 * points.size, color=points.style.color, markerfacecolor=fill, markeredgewidth=0.9)


_AROUND = ((4, 4), (4, -9), (-19, 4), (-19, -9), (6, -3), (-21, -3), (4, 11), (4, -16))  # from a point, in points


def _names(ax: Axes, panel: Panel, size: tuple[float, float]) -> None:
    """Names beside points, each where it covers the fewest points and names set before."""
    found = [layer for layer in panel.layers if isinstance(layer, Points) and layer.labels]
    if not found:
        return
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    place = panel.x.steps if panel.x.steps is not None else np.asarray
    at = [np.stack([(place(p.x) - x_low) / (x_high - x_low) * size[0], (np.asarray(p.y) - y_low) / (y_high - y_low) * size[1]], -1) for p in found]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in np.concatenate(at)]
    for points, places in zip(found, at, strict=True):
        for text, (x, y), value, height in zip(points.labels, places, place(points.x), points.y, strict=True):
            if not (text and np.isfinite([x, y]).all()):
                continue
            boxes = [(x + dx, y + dy, x + dx + 4.2 * len(text), y + dy + 6.5) for dx, dy in _AROUND]
            crossed = [sum(a < r and left < c and b < t and low < d for left, low, r, t in taken) for a, b, c, d in boxes]
            best = int(np.argmin(crossed))
            taken.append(boxes[best])
            ax.annotate(short(text), (value, height), xytext=_AROUND[best], textcoords="offset points", fontsize=6.3, color=points.style.color)


def _rule(ax: Axes, rule: Rule, axis: StepAxis | None) -> None:
    place = (lambda v: float(axis(v))) if axis is not None and rule.upright else float
    look: dict[str, Any] = {"color": rule.style.color, "linestyle": rule.style.line, "linewidth": rule.style.width * 0.65, "zorder": 1}
    if rule.interval is not None and np.isfinite(rule.interval).all():
        (ax.axvspan if rule.upright else ax.axhspan)(*(place(v) for v in rule.interval), color=rule.style.color, alpha=0.12, linewidth=0)
    (ax.axvline if rule.upright else ax.axhline)(place(rule.at), **look)
    if rule.label:
        where: Any = (place(rule.at), 1.0) if rule.upright else (1.0, place(rule.at))
        coords: Any = ("data", "axes fraction") if rule.upright else ("axes fraction", "data")
        shift = (3, -7) if rule.upright else (-2, 3)
        ax.annotate(
            short(rule.label), where, xycoords=coords, xytext=shift, textcoords="offset points", fontsize=6.5, color=rule.style.color,
            ha="left" if rule.upright else "right",
        )  # fmt: skip


def _cells(ax: Axes, cells: Cells, size: tuple[float, float]) -> None:
    from matplotlib.colors import to_rgba

    values = np.asarray(cells.values, dtype=np.float64)
    picture = np.ones((*values.shape, 4))
    for (r, c), value in np.ndenumerate(values):
        color, opacity = tint(float(value), cells.low, cells.high, cells.scale)
        picture[r, c] = to_rgba(color, opacity)
    n_rows, n_columns = values.shape
    ax.imshow(picture, aspect="auto", interpolation="nearest", extent=(-0.5, n_columns - 0.5, n_rows - 0.5, -0.5))
    if max(n_rows, n_columns) <= 40:  # borders of more cells would hide them
        for edge in np.arange(n_columns + 1) - 0.5:
            ax.axvline(edge, color=PAPER, linewidth=0.8)
        for edge in np.arange(n_rows + 1) - 0.5:
            ax.axhline(edge, color=PAPER, linewidth=0.8)
    wide, high = size[0] / n_columns, size[1] / n_rows  # of a cell, in points
    small = _cell_size(cells, wide, high)
    for r, row in enumerate(cells.texts):
        for c, text in enumerate(row):
            if text:
                missing = not np.isfinite(values[r, c])
                ax.text(c, r, short(text), ha="center", va="center", fontsize=small, color=MUTED if missing else INK)
    most = max((len(name) for name in cells.columns), default=0)
    long = most * 7 * 0.62 > wide
    turned = (90 if wide < 13 or most <= 4 else 40) if long else 0
    ax.set_xticks(range(len(cells.columns)), [short(n) for n in cells.columns], rotation=turned, fontsize=7)
    if long:
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
            label.set_verticalalignment("center" if turned == 90 else "top")
    ax.set_yticks(range(len(cells.rows)), [short(n) for n in cells.rows], fontsize=7)
    for labels, colors in ((ax.get_yticklabels(), cells.row_colors), (ax.get_xticklabels(), cells.column_colors)):
        for label, color in zip(labels, colors, strict=False):
            label.set_color(color)
    ax.grid(False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_color(RULE if max(n_rows, n_columns) > 40 else FAINT)


def _cell_size(cells: Cells, wide: float, high: float) -> float:
    """Points of the text in cells that are `wide` by `high` points: as large as fits, 7.5 at most."""
    longest = max((len(text) for row in cells.texts for text in row), default=1)
    return float(np.clip(min(0.86 * wide / (0.62 * max(1, longest)), 0.62 * high), 3.5, 7.5))


def _inside(drawing: Plot, columns: int) -> tuple[float, float]:
    """About how many points a panel is wide and high, its labels left out."""
    names = [_longest_row(p) for p in drawing.panels[:columns]]  # the first row stands for all
    bar = 0.75 if drawing.bar else 0.1
    room = drawing.width - bar - sum(0.15 + 0.065 * max(n, 3) for n in names)
    return 72 * room / columns, 72 * (drawing.height - 0.6)


def _longest_row(panel: Panel) -> int:
    cells = [n for layer in panel.layers if isinstance(layer, Cells) for n in layer.rows]
    return max((len(n) for n in cells or [text for _, text in panel.y.ticks or ()]), default=4)


def _colour_bar(figure: Figure, axes: list[Axes], drawing: Plot) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba

    cells = next(layer for p in drawing.panels for layer in p.layers if isinstance(layer, Cells))
    stops = [cells.low + (cells.high - cells.low) * i / 200 for i in range(201)]
    colors = [to_rgba(*tint(value, cells.low, cells.high, cells.scale)) for value in stops]
    scale = ScalarMappable(Normalize(cells.low, cells.high), LinearSegmentedColormap.from_list("cells", colors, N=256))
    bar = figure.colorbar(scale, ax=axes, pad=0.015, aspect=26, fraction=0.035)
    bar.set_label(short(drawing.bar), fontsize=7.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7)


def _room(text: str) -> float:
    """Inches that a name at the end of a line takes."""
    return 0.075 * len(text)


def _on_log(named: list[tuple[str, float, str]], low: float, high: float) -> list[tuple[str, float, str]]:
    span = np.log(high / low)
    return [(text, float(np.log(max(y, low) / low) / span), color) for text, y, color in named]


def _log_ends(ax: Axes, named: list[tuple[str, float, str]], points: float) -> None:
    from rllc.figures.layout import spread

    places = spread([y for _, y, _ in named], 0.0, 1.0, gap=8.5 / points)
    for (text, _, color), y in zip(named, places, strict=True):
        name = ax.annotate(text, (1.0, y), xycoords="axes fraction", xytext=(4, 0), textcoords="offset points", va="center", color=color, fontsize=7)
        name.set_in_layout(False)


def _null() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()

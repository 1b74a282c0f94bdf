"""What all matplotlib figures share: the style, panels, the step axis, names at the ends of lines, PNG and SVG files. Needs `rllc[paper]`."""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.core.errors import RllcError
from rllc.core.files import write_atomic
from rllc.figures.axis import TITLE, StepAxis
from rllc.figures.layout import spread
from rllc.figures.palette import INK, MUTED, RULE
from rllc.figures.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 60  # characters of a label
DPI = 200
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8, "axes.titlesize": 9, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.linewidth": 0.7, "text.color": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.grid": True, "axes.grid.axis": "y", "grid.color": RULE, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.3, "lines.markersize": 3.2,
    "svg.hashsalt": "rllc", "svg.fonttype": "path", "figure.facecolor": "white", "savefig.facecolor": "white", "text.parse_math": False,
    "text.hinting": "none",
}  # fmt: skip
FORMATS: tuple[tuple[str, dict[str, None]], ...] = (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None}))


def matplotlib_or_sentence() -> Any:
    """The module `matplotlib`. Raises RllcError where it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise RllcError(
            "Figures for a paper are drawn by matplotlib, which is not installed.", "Install it with: pip install 'rllc[paper]'."
        ) from error
    return mpl


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG (200 dots an inch) and SVG into `folder`, the same bytes for the same figure; returns the paths.

    Raises RllcError where the folder cannot be written.
    """
    paths: list[Path] = []
    for ending, metadata in FORMATS:
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=DPI, metadata=metadata)
        figure.set_layout_engine("none")  # places were found; finding them again costs as much as drawing
        paths.append(folder / f"{name}.{ending}")
        write_atomic(paths[-1], numbered(content.getvalue()) if ending == "svg" else content.getvalue())
    return paths


def numbered(svg: bytes) -> bytes:
    """An SVG of matplotlib with its ids numbered: they are digests of places that the layout finds only to the last bit.

    >>> numbered(b'<g clip-path="url(#p1c77a8cb99)"/><clipPath id="p1c77a8cb99"/><use fill="#dfe3e8"/>')
    b'<g clip-path="url(#p1)"/><clipPath id="p1"/><use fill="#dfe3e8"/>'
    """
    ids = dict.fromkeys(re.findall(rb' id="([A-Za-z][0-9a-f]{10})"', svg))
    names = {name: name[:1] + str(n).encode() for n, name in enumerate(ids, 1)}
    return re.sub(rb'( id="|#)([A-Za-z][0-9a-f]{10})\b', lambda found: found[1] + names.get(found[2], found[2]), svg)


def new(width: float, height: float, rows: int = 1, columns: int = 1, labels: bool = False, **kw: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches and its panels; `labels` keeps room for names at the ends of lines."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    room = {"rect": (0, 0, 1 - 0.3 / width, 1), "wspace": 0.3 * columns / width} if labels else {}
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**room))
    axes = figure.subplots(rows, columns, squeeze=False, **kw)
    return figure, list(axes.ravel())


def step_axis(ax: Axes, axis: StepAxis, closest: float = 0.12, title: str = TITLE) -> None:
    """Ticks and limits of an axis of training steps."""
    values, labels = axis.ticks(closest)
    low, high = axis.range
    ax.set_xticks(values, labels)
    ax.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    ax.set_xlabel(title)


def end_labels(ax: Axes, ends: list[tuple[str, float, str]], span: tuple[float, float], points: float) -> None:
    """Names (text, height, colour) at the ends of lines; `points` is the panel's height."""
    gap = 8.5 / points * (span[1] - span[0])
    for (text, _, color), y in zip(ends, spread([y for _, y, _ in ends], *span, gap=gap), strict=True):
        name = ax.annotate(
            text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points", va="center", color=color, fontsize=7
        )
        name.set_in_layout(False)  # the figure keeps room for names


def last(values: Any) -> float:
    """The last finite number, or NaN."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def printable(text: object) -> str:
    """Text as matplotlib can print it: hidden characters, and those that the font lacks, shown by a sign of their own."""
    shown = visible(str(text))
    return shown if shown.isascii() else "".join(c if c.isascii() or _has_glyph(ord(c)) else f"⟨{ord(c):X}⟩" for c in shown)


def short(text: object) -> str:
    """A name or label as matplotlib can print it, with its end left out where it would leave no room for what it names."""
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


@lru_cache(maxsize=4096)
def _has_glyph(code: int) -> bool:
    return all(code in glyphs for glyphs in _glyphs())


@lru_cache(maxsize=1)
def _glyphs() -> tuple[frozenset[int], ...]:
    from matplotlib.font_manager import findfont, get_font

    return tuple(frozenset(get_font(findfont(name)).get_charmap()) for name in ("DejaVu Sans", "DejaVu Sans Mono"))

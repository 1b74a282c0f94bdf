"""A figure as a value: what it says, what is drawn, in words of the field. `interactive` turns it into plotly, `printed` into matplotlib.

Every number that is drawn stands here as it was given (steps as steps, not as places on an axis), so that both forms show the same and a test can
compare them with the analysis. NaN is a gap. Text may be a corpus's: the forms escape it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.findings import Floats
from rllc.figures.axis import StepAxis
from rllc.figures.palette import INK, TYPES, Style, alpha

if TYPE_CHECKING:
    from jaxtyping import Bool, Num

Flags = NDArray[np.bool_]
POSITIVE, NEGATIVE = TYPES["previous-token"].color, TYPES["induction"].color
DEEPEST = 0.6  # opacity of the strongest colour of a heat map: ink on it can still be read, on a light page and on a dark one


@dataclass(frozen=True)
class Scale:
    """One axis of a panel: linear unless `log` or `steps`; ticks where they are told, else by itself."""

    title: str = ""
    span: tuple[float, float] | None = None  # in values; the first may be the larger
    log: bool = False
    steps: StepAxis | None = None  # values are training steps
    ticks: tuple[tuple[float, str], ...] | None = None
    colors: tuple[str, ...] = ()  # of the ticks' labels, where not all alike


@dataclass(frozen=True)
class Line:
    """Numbers joined by a line, with a band; gaps where a number is NaN."""

    x: Num[NDArray[Any], " S"]
    y: Num[NDArray[Any], " S"]
    style: Style
    name: str
    low: Num[NDArray[Any], " S"] | None = None
    high: Num[NDArray[Any], " S"] | None = None
    end: str = ""  # label to the right of the panel, at the last number's height
    group: str = ""  # entry of the legend it belongs to
    marks: bool = True
    shade: float = 0.14  # opacity of the band
    hollow: Bool[Flags, " S"] | None = None  # numbers that carry a warning
    refused: Bool[Flags, " S"] | None = None  # cells without a number, crossed at the floor of the panel


@dataclass(frozen=True)
class Points:
    """Separate numbers with intervals either way."""

    x: Num[NDArray[Any], " P"]
    y: Num[NDArray[Any], " P"]
    style: Style
    name: str
    x_low: Num[NDArray[Any], " P"] | None = None
    x_high: Num[NDArray[Any], " P"] | None = None
    y_low: Num[NDArray[Any], " P"] | None = None
    y_high: Num[NDArray[Any], " P"] | None = None
    labels: tuple[str, ...] = ()  # beside the points
    group: str = ""
    size: float = 1.0  # of the usual mark
    hollow: bool = False


@dataclass(frozen=True)
class Cells:
    """A heat map, first row on top. "sequential" runs from pale to blue; "diverging" from orange over nothing at 0 to blue."""

    values: Num[NDArray[Any], "R C"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    low: float
    high: float
    scale: Literal["sequential", "diverging"] = "sequential"
    texts: tuple[tuple[str, ...], ...] = ()  # in the cells; none, where empty
    unit: str = ""
    name: str = ""
    row_colors: tuple[str, ...] = ()
    column_colors: tuple[str, ...] = ()
    row_title: str = ""
    column_title: str = ""


@dataclass(frozen=True)
class Rule:
    """A straight line through the panel at a value, with its interval as a stripe."""

    at: float
    upright: bool = True  # at a value of x, not of y
    interval: tuple[float, float] | None = None
    style: Style = field(default_factory=lambda: Style("#5b6672", "dash", "circle", "o", 1.2))
    label: str = ""  # at its upper or right end


Layer = Line | Points | Cells | Rule


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    layers: tuple[Layer, ...]
    x: Scale = Scale()
    y: Scale = Scale()
    color: str = INK  # of the title


@dataclass(frozen=True)
class Plot:
    """A figure of panels."""

    title: str  # what it shows: the finding, computed from the numbers
    caption: str  # what is drawn, and the settings
    panels: tuple[Panel, ...]
    columns: int = 1
    height: float = 2.4  # inches of a row of panels
    legend: tuple[tuple[str, Style], ...] = ()
    bar: str = ""  # title of the colour bar of its heat maps; none where empty
    width: float = 6.8  # inches


@dataclass(frozen=True)
class Table:
    """A figure of words in rows and columns."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tokens: tuple[int, ...] = ()  # columns set in a fixed width, for text of the corpus
    colors: tuple[str, ...] = ()  # of the first cell of each row
    widths: tuple[float, ...] = ()  # of the columns, relative; by their longest text where empty
    width: float = 6.8


@dataclass(frozen=True)
class Passage:
    """Text whose tokens are painted by a number each; NaN is left unpainted."""

    title: str
    tokens: tuple[str, ...]
    values: Num[NDArray[Any], " T"]
    color: str = INK


@dataclass(frozen=True)
class Painted:
    """A figure of painted text: blue for positive numbers, orange for negative, the full colour at `limit` and beyond."""

    title: str
    caption: str
    passages: tuple[Passage, ...]
    limit: float
    unit: str
    width: float = 6.8


Drawing = Plot | Table | Painted


@dataclass(frozen=True)
class Missing:
    """Why a figure cannot be drawn, as a sentence."""

    why: str


def tint(value: float, low: float, high: float, scale: str) -> tuple[str, float]:
    """The colour of a cell and its opacity; values beyond low..high get the ends' colours.

    >>> tint(-1.0, -2.0, 2.0, "diverging") == (NEGATIVE, 0.3), tint(3.0, 0.0, 2.0, "sequential") == (POSITIVE, 0.6)
    (True, True)
    """
    if not np.isfinite(value):
        return POSITIVE, 0.0
    if scale == "diverging":
        reach = max(abs(low), abs(high)) or 1.0
        return (POSITIVE if value >= 0 else NEGATIVE), DEEPEST * min(abs(value) / reach, 1.0)
    share = (value - low) / (high - low) if high > low else 0.0
    return POSITIVE, 0.03 + (DEEPEST - 0.03) * float(np.clip(share, 0.0, 1.0))


def colorscale(scale: str) -> list[list[object]]:
    """The same colours as plotly writes them, from low to high."""
    if scale == "diverging":
        return [[0, alpha(NEGATIVE, DEEPEST)], [0.5, alpha(NEGATIVE, 0)], [0.5, alpha(POSITIVE, 0)], [1, alpha(POSITIVE, DEEPEST)]]
    return [[0, alpha(POSITIVE, 0.03)], [1, alpha(POSITIVE, DEEPEST)]]


def in_words(values: Floats, digits: int = 2, gap: str = "–", signed: bool = False) -> tuple[tuple[str, ...], ...]:
    """Numbers of a heat map as its cells show them, `gap` where there is none.

    >>> in_words(np.array([[0.123, float("nan")], [-2.0, 0.0]]))
    (('0.12', '–'), ('−2.00', '0.00'))
    """
    form = f"{'+' if signed else ''}.{digits}f"
    return tuple(tuple(format(float(v), form).replace("-", "−") if np.isfinite(v) else gap for v in row) for row in values)


def limits(values: Iterable[Floats], scale: str = "sequential") -> tuple[float, float]:
    """From where to where the colours of heat maps run, so that one scale serves them all: from 0, or as far either way.

    >>> limits([np.array([[1.0, -3.0]])], "diverging"), limits([np.array([[0.5, 2.0]])]), limits([np.array([[float("nan")]])])
    ((-3.0, 3.0), (0.0, 2.0), (0.0, 1.0))
    """
    every = np.concatenate([np.ravel(v) for v in values])
    every = every[np.isfinite(every)]
    if scale == "diverging":
        reach = float(np.abs(every).max()) if every.size else 1.0
        return -(reach or 1.0), reach or 1.0
    high = float(every.max()) if every.size else 1.0
    return min(0.0, float(every.min()) if every.size else 0.0), high if high > 0 else 1.0


def legend(styles: Sequence[tuple[str, Style]]) -> tuple[tuple[str, Style], ...]:
    """Entries of a legend, each name once, none where there is but one."""
    kept = tuple(dict(styles).items())
    return kept if len(kept) > 1 else ()

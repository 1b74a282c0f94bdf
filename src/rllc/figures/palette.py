"""One colour-blind-safe palette for every figure: Okabe and Ito's hues, deepened so that they read on white, each with a mark and a dash.

Figures are drawn in the light colours. `DARK` says what each becomes on a dark page, so that a page can restyle a figure without drawing it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

PAPER, PANEL, INK, MUTED, RULE, FAINT = "#ffffff", "#fafafa", "#1f2630", "#5b6672", "#dfe3e8", "#f1f3f5"


@dataclass(frozen=True)
class Style:
    """How one kind of line looks, in plotly's and in matplotlib's words."""

    color: str
    dash: str  # plotly: solid, dash, dot, dashdot
    symbol: str  # plotly's marker
    marker: str  # matplotlib's marker
    width: float = 2.0

    @property
    def line(self) -> Literal["-", "--", ":", "-."]:
        """The dash as matplotlib writes it."""
        lines: dict[str, Literal["-", "--", ":", "-."]] = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
        return lines[self.dash]

    def stroke(self, width: float | None = None) -> dict[str, Any]:
        """Plotly's line."""
        return {"color": self.color, "width": self.width if width is None else width, "dash": self.dash}

    def mark(self, size: float = 6) -> dict[str, Any]:
        """Plotly's marker."""
        return {"symbol": self.symbol, "size": size, "color": self.color, "line": {"color": self.color, "width": 1.4}}


TYPES: dict[str, Style] = {
    "previous-token": Style("#0a66b0", "solid", "circle", "o"),
    "current-token": Style("#007d5a", "dash", "square", "s"),
    "induction": Style("#c24a00", "solid", "diamond", "D", 2.4),
    "bracket": Style("#4d00cc", "dashdot", "triangle-up", "^"),
    "other": Style("#8791a0", "dot", "x-thin", "x", 1.5),
}
MIXTURE = Style(INK, "solid", "circle", "o")
DATA: tuple[Style, ...] = (
    Style("#b0307c", "dash", "square", "s"),
    Style("#b58300", "dot", "diamond", "D"),
    Style("#2493cf", "dashdot", "triangle-up", "^"),
    Style("#5a3fae", "dash", "cross", "P"),
    Style("#47650f", "dot", "star", "*"),
)
OUTCOMES: dict[str, str] = {"ok": "#d3e7e3", "tilted": "#dcd0f0", "drifting": "#f6dd9e", "unstable": "#c9302c", "nonfinite": "#7d1512", "": FAINT}
MARKS: dict[str, str] = {"ok": "", "tilted": "/", "drifting": "~", "unstable": "×", "nonfinite": "×", "": ""}

DARK: dict[str, str] = {
    PAPER: "#12151a",
    PANEL: "#191d24",
    INK: "#eef1f4",
    MUTED: "#a3adb9",
    RULE: "#2c333d",
    FAINT: "#1c2128",
    "#0a66b0": "#56b4e9",
    "#007d5a": "#3ddba9",
    "#c24a00": "#ff8a4c",
    "#4d00cc": "#9966ff",
    "#8791a0": "#8a93a1",
    "#b0307c": "#ee6fb5",
    "#b58300": "#f0c14b",
    "#2493cf": "#5bbcf0",
    "#5a3fae": "#8f7cf0",
    "#47650f": "#739f30",
    "#d3e7e3": "#1d3d3a",
    "#dcd0f0": "#40345f",
    "#f6dd9e": "#64501a",
    "#c9302c": "#e5564f",
    "#7d1512": "#ff9a91",
}


def alpha(color: str, opacity: float) -> str:
    """A hexadecimal colour with an opacity, as CSS writes it.

    >>> alpha("#0a66b0", 0.25)
    'rgba(10,102,176,0.25)'
    """
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{opacity:g})"


def type_style(head_type: str) -> Style:
    """The style of a head type; a type that is not known here looks like "other"."""
    return TYPES.get(head_type, TYPES["other"])


def type_color(head_type: str) -> str:
    """The colour of text about a head of this type: the line's, or plain grey for "other", whose line is too pale for text."""
    style = type_style(head_type)
    return MUTED if style is TYPES["other"] else style.color


def data_styles(names: Iterable[str], mixture: str) -> dict[str, Style]:
    """A style for each kind of data, the mixture first and in ink; beyond five others the styles repeat.

    >>> [(name, s.color == INK) for name, s in data_styles(["code", "train"], "train").items()]
    [('train', True), ('code', False)]
    """
    names = list(dict.fromkeys(names))
    others = [name for name in names if name != mixture]
    styles = {mixture: MIXTURE} if mixture in names else {}
    return styles | {name: DATA[i % len(DATA)] for i, name in enumerate(others)}


def in_order(names: Iterable[str], styles: Mapping[str, Style]) -> list[str]:
    """Names in the order of the styles; those without a style last."""
    known = list(styles)
    return sorted(names, key=lambda name: known.index(name) if name in styles else len(known))

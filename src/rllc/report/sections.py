"""What the sections of the page share: the figures they leave behind, and the sentence beside every claim about induction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from rllc.figures.axis import StepAxis
from rllc.figures.drawing import Drawing, Plot
from rllc.figures.interactive import interactive
from rllc.figures.palette import INK, MUTED, TYPES, Style
from rllc.figures.sheets import sheet_html
from rllc.report import summary
from rllc.report.data import LEFT_OUT, ReportData
from rllc.report.markup import Markup, join, paragraph, tag

KEY = "A hollow mark is a number with a warning (tilted or drifting); a cross on the floor of a panel is a refused cell, which has no number."


@dataclass
class Page:
    """The page as it is written: what it says, the axis and styles of its figures, and the figures so far."""

    data: ReportData
    axis: StepAxis
    styles: Mapping[str, Style]
    figures: dict[str, go.Figure] = field(default_factory=dict)

    def figure(self, name: str, figure: go.Figure, spoken: str, *caption: object, narrow: bool = False) -> Markup:
        """Place a figure here. `spoken` says to a screen reader what the picture shows."""
        self.figures[name] = figure
        layout: Any = figure["layout"]
        height = int(layout["height"] or 300)
        canvas = tag("div", class_="plot", data_figure=name, role="img", aria_label=spoken, style=f"min-height:{height}px")
        text = tag("figcaption", *caption) if caption else ""
        return tag("figure", canvas, text, id=f"figure-{name}", class_="narrow" if narrow else None)

    def drawings(self, *names: str, folded: Sequence[str] = ()) -> Markup:
        """Figures of the catalogue by name, each under the finding that is its title; those in `folded` open at a click. None that was not drawn."""
        pieces: list[Markup] = []
        for name in (*names, *folded):
            drawing = self.data.drawn.drawings.get(name)
            if drawing is None:
                continue
            body = self._drawn(name, drawing)
            if name in folded:
                pieces.append(tag("details", tag("summary", drawing.title), body, class_="folded"))
            else:
                pieces.append(join([tag("h3", drawing.title, class_="finding"), body]))
        return join(pieces)

    def _drawn(self, name: str, drawing: Drawing) -> Markup:
        if LEFT_OUT[2] in self.data.without:
            return paragraph(f"To keep this page small the figure is left out: figures/{name}.html, beside it.", class_="note")
        if isinstance(drawing, Plot):
            return self.figure(name, interactive(drawing), drawing.title, drawing.caption)
        sheet = tag("div", Markup(_in_theme(sheet_html(drawing))), class_="scroll sheet", tabindex="0", role="region", aria_label=drawing.title)
        return tag("figure", sheet, tag("figcaption", drawing.caption), id=f"figure-{name}")


def _in_theme(sheet: str) -> str:
    """Text in the colours of the page, which change with its theme."""
    names = {MUTED: "muted", INK: "ink"} | {style.color: name for name, style in TYPES.items()}
    return re.sub(r"color:(#[0-9a-f]{6})", lambda found: f"color:var(--{names[found[1]]})" if found[1] in names else found[0], sheet)


@dataclass(frozen=True)
class Section:
    """One section: the anchor, the name in the contents, and what it holds."""

    anchor: str
    title: str
    body: Markup

    @property
    def markup(self) -> Markup:
        """The section as HTML."""
        return tag("section", tag("h2", self.title), self.body, id=self.anchor, aria_label=self.title)


def planted_note(data: ReportData) -> Markup:
    """The sentence that stands beside every claim about induction."""
    return tag("p", summary.planted(data), class_="planted")


def chooser() -> Markup:
    """Buttons for choosing heads; the script fills them in."""
    return tag("div", class_="chooser needs-script no-print", role="group", aria_label="Choose heads; none chosen shows all")

"""What the sections of the page share: the figures they leave behind, and the sentence beside every claim about induction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from rllc.figures.axis import StepAxis
from rllc.figures.palette import Style
from rllc.report import summary
from rllc.report.data import ReportData
from rllc.report.markup import Markup, tag

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

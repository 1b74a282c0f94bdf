"""The page: one self-contained HTML file that asks nothing of any network."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

import rllc
from rllc.core.errors import RllcError
from rllc.core.files import parse_json, write_atomic
from rllc.figures.curves import steps_axis, styles_of
from rllc.figures.palette import DARK, FAINT, INK, MUTED, OUTCOMES, PANEL, PAPER, RULE, TYPES, type_color
from rllc.figures.policy import policy
from rllc.report import claims, development, inspection, overview, walk
from rllc.report.data import LEFT_OUT, ReportData, mixture_of, shown_rows
from rllc.report.markup import Markup, embed, esc, join, tag
from rllc.report.patterns import pack, thin
from rllc.report.sections import Page

SECTIONS = (
    overview.what_was_run,
    claims.claims,
    development.stages,
    development.heads,
    development.cluster_section,
    development.specialisation,
    development.behaviour,
    inspection.attention,
    walk.circuit,
    walk.beside,
    walk.seeds,
    inspection.chain_health,
    inspection.numbers,
    overview.notes,
)
LARGEST = 15_000_000  # bytes of a page
SCRIPTS = ("base.js", "figures.js", "heads.js", "patterns.js", "table.js")
_MAPS = (("#ffffff", "#6fa8dc", "#0b2545"), ("#191d24", "#2f7fc1", "#eaf4ff"))  # attention: low, middle, high; light and dark


def build_report(data: ReportData, path: Path) -> None:
    """Write the page of a run to `path`, whole or not at all, of at most `LARGEST` bytes. Raises RllcError where the disk refuses."""
    write_atomic(path, bounded(data, LARGEST))


def bounded(data: ReportData, largest: int) -> str:
    """The page as text of at most so many bytes: of `LEFT_OUT`, as much as has to be is left out, and said to be.

    Raises RllcError where a page without all of it is still too large.
    """
    for n in range(len(LEFT_OUT) + 1):
        text = render(replace(data, without=LEFT_OUT[:n]))
        if len(text.encode()) <= largest:
            return text
    raise RllcError(
        f"The page of this run would be larger than {largest / 1e6:.0f} MB, whatever is left out.",
        "Sample fewer parts, data or checkpoints into one run; `rllc table` has all numbers.",
    )


def render(data: ReportData) -> str:
    """The page as text. Everything from outside is escaped; scripts run only by their hashes, and nothing may be fetched."""
    page = Page(data, steps_axis(data.findings), styles_of(data.findings, mixture_of(data)))
    head = tag("section", overview.headline(page), id="summary", aria_label="Summary")
    found = [section(page) for section in SECTIONS]
    early = _static("early.js")
    script = f'"use strict";\n(function rllc() {{\n{"".join(_static(name) for name in SCRIPTS)}}})();\n'
    plotly = get_plotlyjs().replace("\r\n", "\n").replace("</script", "<\\/script")
    links = [("summary", "Summary"), *((s.anchor, s.title) for s in found)]
    return Template(_static("page.html")).substitute(
        policy=esc(policy(early, plotly, script)),
        version=esc(rllc.__version__),
        title=esc(f"{data.title}: rllc report"),
        colors=colors(),
        style=_static("page.css"),
        early=early,
        contents=tag("ol", *(tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title in links)),
        body=join([head, *(s.markup for s in found)]),
        footer=tag("p", f"Made by rllc {rllc.__version__}. This file holds all it shows and asks nothing of any network."),
        data=join(_embedded(data, page)),
        plotly=plotly,
        script=script,
    )


def colors() -> Markup:
    """The palette as CSS variables, light and dark; the dark ones also for a page whose scripts do not run."""
    names = {"paper": PAPER, "panel": PANEL, "ink": INK, "muted": MUTED, "rule": RULE, "faint": FAINT, "link": TYPES["previous-token"].color}
    names |= {name or "none": color for name, color in OUTCOMES.items()} | {_style(t): type_color(t) for t in TYPES} | {"bar": TYPES["other"].color}
    light = names | {f"map-{i}": color for i, color in enumerate(_MAPS[0])}
    dark = {n: DARK[c] for n, c in names.items()} | {f"map-{i}": color for i, color in enumerate(_MAPS[1])}

    def block(values: dict[str, str], scheme: str) -> str:
        return "{" + f"color-scheme:{scheme};" + "".join(f"--{n}:{c};" for n, c in values.items()) + "}"

    return Markup(
        f":root{block(light, 'light')}\n:root[data-theme=dark]{block(dark, 'dark')}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme]){block(dark, 'dark')}}}\n"
        f"@media print{{:root,:root[data-theme=dark]{block(light, 'light')}}}"
    )


def _style(head_type: str) -> str:
    return head_type if head_type in TYPES else "other"


def _static(name: str) -> str:
    return (files("rllc.report") / "static" / name).read_text(encoding="utf-8")


def _embedded(data: ReportData, page: Page) -> list[Markup]:
    f = data.findings
    kinds = dict(zip(f.types.heads, f.types.types, strict=True))
    names = list(dict.fromkeys([*f.types.heads, *(p for c in f.curves.values() for p in c.parts)]))
    heads = [{"name": h, "type": kinds.get(h, "other"), "style": _style(kinds.get(h, "other"))} for h in names]
    columns, rows = shown_rows(data)
    cells = {
        "columns": columns,
        "rows": [[row[c] for c in columns] for row in rows],
        "shown": [c for c in inspection.SHOWN if c in columns],
        "name": "cells",
    }
    pieces = [
        embed("setup", {"dark": DARK, "muted": MUTED, "heads": heads, "types": list(dict.fromkeys([*TYPES, *kinds.values()]))}),
        embed("figures", {name: parse_json(str(figure.to_json())) for name, figure in page.figures.items()}),
        embed("cells", cells) if rows else Markup(""),
    ]
    if f.patterns is not None and f.patterns.snippets and LEFT_OUT[0] not in data.without:
        pieces.append(embed("patterns", pack(thin(f.patterns), kinds, [d.name for d in data.domains if d.planted])))
    return pieces

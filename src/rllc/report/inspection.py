"""The sections to look closely: attention patterns, chain health, the table of cells."""

from __future__ import annotations

from collections.abc import Sequence

from rllc.core.outcome import Outcome
from rllc.figures import health
from rllc.report import summary
from rllc.report.data import LEFT_OUT, Row, cells, shown_rows
from rllc.report.diagnostics import diagnostics_table
from rllc.report.markup import Markup, join, paragraph, table, tag
from rllc.report.patterns import thin
from rllc.report.sections import Page, Section, planted_note

REFUSED = tuple(o.value for o in Outcome if o.refused)
SHOWN = ("data", "part", "step", "llc", "stderr", "ci_low", "ci_high", "rhat", "ess", "stein_ratio", "tilt", "outcome")


def attention(page: Page) -> Section:
    """Attention patterns, chosen by head, snippet and checkpoint."""
    anchor, title = "patterns-of-attention", "Attention patterns"
    p = page.data.findings.patterns
    if p is None or not p.snippets or not p.steps.size or not p.heads:
        return Section(anchor, title, paragraph("Attention patterns were not recorded in this run."))
    if LEFT_OUT[0] in page.data.without:
        return Section(anchor, title, paragraph("They are left out to keep this page small; the figure attention-maps lies in the folder figures."))
    slider = tag("input", type="range", min="0", max="1", step="1", data_part="slider", id="attention-step")
    controls = tag(
        "div",
        tag("label", "Text", for_="attention-snippet"),
        tag("select", data_part="snippet", id="attention-snippet"),
        tag(
            "div", tag("label", "Checkpoint", for_="attention-step"), slider, tag("output", data_part="step", for_="attention-step"), class_="slider"
        ),
        tag("button", "Play", type="button", data_part="play"),
        class_="controls no-print",
    )
    canvas = tag("canvas", class_="map", data_part="map", tabindex="0", role="img", aria_label="Attention map")
    thumbs = tag("div", class_="thumbs", data_part="thumbs", role="group", aria_label="Heads")
    key = tag(
        "div",
        tag("span", "0"),
        tag("div", data_part="ramp", class_="ramp", role="img", aria_label="Colours of attention from 0 to 1"),
        tag("span", "1, by the square root"),
        class_="key note",
    )
    reading = tag(
        "p", "Each row is a token that attends (downwards), each column a token attended to (rightwards); grey ones are yet to come.", class_="note"
    )
    text = [
        tag("p", class_="readout", data_part="readout", aria_live="polite"),
        tag("div", class_="tokens", data_part="tokens", aria_label="The text, coloured by the attention of the chosen token"),
    ]
    viewer = tag(
        "div", controls, tag("div", tag("div", canvas, key), thumbs, class_="attention"), *text, reading, id="attention", class_="needs-script"
    )
    shown = len(thin(p).steps)
    fewer = f" To keep the page small, {shown} of {len(p.steps)} checkpoints are here." if shown < len(p.steps) else ""
    intro = "Every head on pieces of held-out text and on planted text. Choose a head by its small map, and move through training by the slider."
    return Section(anchor, title, join([paragraph(intro, fewer), planted_note(page.data), viewer]))


def chain_health(page: Page) -> Section:
    """Every cell, and each refused one with its reason."""
    rows, found = cells(page.data), summary.outcomes(page.data)
    order = [Outcome(o) for o in health.ORDER if o and found[o]]
    legend = [tag("li", tag("span", o.value, class_=f"tag {o.value}"), tag("span", f"{found[o.value]:,}. {o.text}")) for o in order]
    refused = [r for r in rows if r.get("outcome") in REFUSED]
    drawn = health.chain_health(rows, page.data.findings.types.heads, list(page.styles))
    marks = "“/” is tilted, “~” drifting, “×” refused; an empty cell was not planned."
    told = f"Numbers are split R-hat, which is near 1 when chains agree; above {health.HIGH} it is bold. {marks}"
    body = [
        paragraph(summary.cells_sentence(page.data)),
        tag("ul", *legend, class_="outcomes"),
        page.figure("health", drawn, "Outcome and R-hat of every cell: parts by checkpoints.", told),
        tag("h3", "Diagnostics"),
        diagnostics_table(rows),
        tag("h3", "Refused cells"),
        refused_table(refused) if refused else paragraph("No cell was refused." if rows else "No cell was sampled."),
    ]
    return Section("health", "Chain health", join(body))


def refused_table(refused: Sequence[Row]) -> Markup:
    """Each refused cell with the reason and what to do."""

    def reason(row: Row) -> str:
        told = row.get("reason")
        return told if isinstance(told, str) and told else Outcome(str(row["outcome"])).text

    rows = [
        [r["part"], f"{int(r['step']):,}", health.data_of(r), tag("span", r["outcome"], class_=f"tag {r['outcome']}"), reason(r)]
        for r in sorted(refused, key=lambda r: (health.data_of(r), str(r["part"]), int(r["step"])))
    ]
    return table(["part", "step", "data", "outcome", "reason"], rows, numbers=(1,), long=(4,))


def numbers(page: Page) -> Section:
    """The table of all cells, to filter and to download."""
    columns, rows = shown_rows(page.data)
    if not rows:
        return Section("numbers", "All numbers", paragraph("There is no table of cells to download."))
    downloads = tag(
        "div",
        tag("button", "Download CSV", type="button", id="save-csv"),
        tag("button", "Download JSON", type="button", id="save-json"),
        tag("span", id="cells-count", class_="note", role="status"),
        class_="controls",
    )
    size = f"{summary.count(len(rows), 'row')} of {summary.count(len(columns), 'column')}"
    body = [
        paragraph(
            f"Every cell is a row: {size}, the same that ", tag("code", "rllc table"), " writes. Here are the main columns; a download holds all."
        )
        if LEFT_OUT[3] not in page.data.without
        else paragraph(f"Cells of the last checkpoint: {size}. To keep this page small the others are in table.csv, beside it."),
        tag("div", downloads, tag("div", id="cells-filters", class_="controls"), class_="needs-script no-print"),
        tag("div", id="cells-table", class_="scroll needs-script no-print", tabindex="0", role="region", aria_label="Cells"),
        tag("button", "Show more", type="button", id="cells-more", class_="needs-script no-print"),
    ]
    return Section("numbers", "All numbers", join(body))

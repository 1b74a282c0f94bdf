"""The outer sections: the findings in words, what was run, notes and method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllc.core.outcome import Outcome
from rllc.report import summary
from rllc.report.claims import claims_sentence
from rllc.report.data import ReportData, reference_curves
from rllc.report.markup import Markup, definitions, esc, join, minus, paragraph, table, tag, value_text
from rllc.report.sections import Page, Section, planted_note
from rllc.report.walk import lacking

LEDE = (
    "How the attention heads of a transformer developed over training, measured by refined local learning coefficients: "
    "how many effective degrees of freedom of each head the loss holds fixed, at every checkpoint, on each kind of text, with errors."
)
METHOD = (
    "The refined LLC of a head is nβ times the mean rise of the loss as Langevin dynamics moves that head's weights alone about the checkpoint, "
    "the rise taken against the checkpoint's own loss on the same minibatch (paired), which keeps the batch noise out. On the training mixture it is "
    "the wrLLC; on one kind of text, the wdrLLC. The standard error is the larger of that between chains and that along them, for chains share "
    "their minibatches."
)
PAPERS = (
    "Definitions: Wang, Hoogland, van Wingerden, Furman and Murfet 2024, arXiv 2410.02984; Lau et al., arXiv 2308.12108; "
    "stages as in Hoogland et al., arXiv 2402.02364."
)


def found(data: ReportData) -> list[tuple[str, list[str]]]:
    """The findings in sentences, by what they are about; those without a sentence are left out."""
    f = data.findings
    told: list[tuple[str, list[str]]] = [
        ("Head types", [summary.types_sentence(f)]),
        ("When they form", summary.formation_sentences(f)),
        ("Final wrLLC", summary.llc_sentences(data)),
        ("Stages", [summary.stage_sentence(f.stages)]),
        ("Clusters", [summary.cluster_sentence(led, f) if (led := summary.leading(f)) else "Heads were not clustered."]),
        ("Specialisation", summary.specialisation_sentences(data)),
        ("Claims of the paper", [claims_sentence(f.claims)] if f.claims else []),
        ("Chains", [summary.cells_sentence(data)]),
    ]
    return [(name, sentences) for name, sentences in told if sentences]


def headline(page: Page) -> Markup:
    """Title, key numbers and the findings in sentences."""
    data = page.data
    said = (tag("div", tag("dt", name), tag("dd", *(tag("p", s) for s in sentences))) for name, sentences in found(data))
    return join(
        [
            paragraph(data.created, class_="kicker"),
            tag("h1", data.title),
            paragraph(LEDE, class_="lede"),
            tag("div", *_cards(data), class_="cards"),
            tag("h2", "What was found"),
            planted_note(data),
            tag("dl", *said, class_="said"),
        ]
    )


def _cards(data: ReportData) -> list[Markup]:
    f, found, reference = data.findings, summary.outcomes(data), reference_curves(data)
    types = [f"{len(h)} {t}" for t, h in summary.by_type(f).items() if t != "other"]
    refused = sum(found[o.value] for o in Outcome if o.refused)
    marked = sum(found.values()) - found[Outcome.OK.value] - refused
    heads = len(f.types.heads) or (len(reference.parts) if reference else 0)
    cards = [
        ("Heads", str(heads), f"{summary.listed(types)}; the rest of no named type" if types else "none of a named type"),
        ("Cells sampled", f"{sum(found.values()):,}", f"{found[Outcome.OK.value]:,} ok, {marked:,} marked, {refused:,} refused"),
    ]
    ends = {} if reference is None else {h: v for h, (v, _, _) in summary.final(reference).items() if np.isfinite(v)}
    if ends:
        low, high = min(ends, key=lambda h: ends[h]), max(ends, key=lambda h: ends[h])
        cards.append(("Final wrLLC", minus(f"{ends[low]:.1f} to {ends[high]:.1f}"), f"head {low} lowest, head {high} highest"))
    if data.seconds:
        cores = data.machine.get("cores")
        cards.append(("Wall time", duration(sum(data.seconds.values())), f"{len(data.seconds)} stages" + (f" on {cores} cores" if cores else "")))
    return [tag("div", tag("p", a, class_="small"), tag("p", b, class_="big"), tag("p", c, class_="small"), class_="card") for a, b, c in cards]


def what_was_run(page: Page) -> Section:
    """Model, corpus, sampler, machine, wall time, settings."""
    data = page.data
    pieces: list[Markup] = []
    pieces += [tag("h3", "Model"), definitions(data.model)] if data.model else [paragraph("The shape of the model was not recorded.")]
    if data.domains:
        head = ["domain", "documents", "tokens", "share of the mixture", "origin", "what it is"]
        rows: list[list[object]] = []
        for d in data.domains:
            origin = tag("span", "planted", class_="tag drifting") if d.planted else "found"
            rows.append([d.name, f"{d.documents:,}", f"{d.tokens:,}", f"{100 * d.share:.3g} %", origin, d.description])
        pieces += [tag("h3", "Corpus"), table(head, rows, numbers=(1, 2, 3), long=(5,))]
    if data.sampler:
        pieces += [tag("h3", "Sampler"), definitions(data.sampler)]
    if data.seconds:
        most = max(data.seconds.values()) or 1.0
        bars = (
            tag("div", tag("span", stage), tag("i", style=f"width:{100 * s / most:.1f}%"), tag("b", duration(s))) for stage, s in data.seconds.items()
        )
        pieces += [tag("h3", "Wall time by stage"), tag("div", *bars, class_="bars")]
    if data.machine or data.versions:
        pieces += [tag("h3", "Machine and software"), definitions({**data.machine, **data.versions})]
    if data.settings:
        lines = Markup("\n".join(esc(line) for line in flat(data.settings)))
        pieces.append(tag("details", tag("summary", "Every setting of the experiment"), tag("pre", lines, tabindex="0")))
    return Section("run", "What was run", join(pieces))


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Nested settings as lines `table.key = value`.

    >>> flat({"training": {"steps": 3000}, "seed": 0, "sources": [{"kind": "echo"}]})
    ['training.steps = 3000', 'seed = 0', "sources[0].kind = 'echo'"]
    """
    lines: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
            for i, v in enumerate(value):
                lines += flat(v, f"{prefix}{key}[{i}].")
        else:
            lines.append(f"{prefix}{key} = {value!r}" if isinstance(value, str) else f"{prefix}{key} = {value}")
    return lines


def duration(seconds: float) -> str:
    """Wall time as people say it.

    >>> duration(8.25), duration(75), duration(3725)
    ('8.2 s', '1 min 15 s', '1 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes} min {s:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def notes(page: Page) -> Section:
    """Notes of the analysis and of the run, and how to read the page."""
    data = page.data
    every = [*data.findings.notes, *data.notes]
    thresholds = ", ".join(f"{k.replace('_', ' ')} {value_text(v)}" for k, v in data.findings.types.thresholds.items())
    body = [
        tag("ul", *(tag("li", n) for n in every), class_="notes") if every else paragraph("The analysis left no further notes."),
        lacking(page),
        tag("h3", "How the numbers are made"),
        paragraph(METHOD),
        paragraph(f"Thresholds of the head types, in mean attention: {thresholds}. A head below all of them is “other”.") if thresholds else "",
        paragraph(PAPERS),
    ]
    return Section("notes", "Notes and method", join(body))

"""The page's words as Markdown, to keep with a paper's code or in a repository: findings, claims, figures with their captions, notes."""

from __future__ import annotations

from rllc.report import summary
from rllc.report.claims import claims_markdown
from rllc.report.data import ReportData, cells
from rllc.report.diagnostics import diagnostics_told
from rllc.report.overview import found
from rllc.report.tables import escaped
from rllc.report.walk import baselines_told


def report_markdown(data: ReportData) -> str:
    """What the page says, without its pictures and its tables of single cells. Text from outside is escaped."""
    lines = [f"# {escaped(data.title)}", "", escaped(summary.planted(data)), "", "## What was found", ""]
    lines += [f"- **{name}.** {escaped(' '.join(sentences))}" for name, sentences in found(data)]
    lines += ["", "## The claims of the paper", "", claims_markdown(data.findings.claims).rstrip()]
    for title, told in (("Baselines", baselines_told(data.findings)), ("Diagnostics of the chains", diagnostics_told(cells(data)))):
        lines += ["", f"## {title}", "", told.markdown] if told.rows else []
    if data.drawn.drawings:
        lines += ["", "## Figures", ""]
        lines += [f"- **{escaped(d.title)}** (`{name}`)\\\n  {escaped(d.caption)}" for name, d in data.drawn.drawings.items()]
    if data.drawn.lacking:
        lines += ["", "Not drawn:", "", *(f"- `{name}`: {escaped(why)}" for name, why in data.drawn.lacking.items())]
    every = [*data.findings.notes, *data.notes]
    lines += ["", "## Notes", "", *(f"- {escaped(note)}" for note in every)] if every else []
    return "\n".join(lines) + "\n"

"""The page's words as Markdown, to keep with a paper's code or in a repository: findings, claims, figures with their captions, notes."""

from __future__ import annotations

from rllc.report import summary
from rllc.report.claims import claims_markdown, escaped
from rllc.report.data import ReportData
from rllc.report.overview import found


def report_markdown(data: ReportData) -> str:
    """What the page says, without its pictures and tables of cells. Text from outside is escaped."""
    lines = [f"# {escaped(data.title)}", "", escaped(summary.planted(data)), "", "## What was found", ""]
    lines += [f"- **{name}.** {escaped(' '.join(sentences))}" for name, sentences in found(data)]
    lines += ["", "## The claims of the paper", "", claims_markdown(data.findings.claims).rstrip()]
    if data.drawn.drawings:
        lines += ["", "## Figures", ""]
        lines += [f"- **{escaped(d.title)}** (`{name}`)\\\n  {escaped(d.caption)}" for name, d in data.drawn.drawings.items()]
    if data.drawn.lacking:
        lines += ["", "Not drawn:", "", *(f"- `{name}`: {escaped(why)}" for name, why in data.drawn.lacking.items())]
    every = [*data.findings.notes, *data.notes]
    lines += ["", "## Notes", "", *(f"- {escaped(note)}" for note in every)] if every else []
    return "\n".join(lines) + "\n"

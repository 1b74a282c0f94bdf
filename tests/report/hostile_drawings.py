"""Drawings and pages in which every text that a file or a corpus may bring is hostile."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

from rllc.figures.whole_set import Drawn
from rllc.report.data import ReportData

EVIL = (
    "</title></style></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><svg onload=window.hacked=1>"
    '<a href="javascript:window.hacked=1">a</a>" onmouseover="window.hacked=1" %{meta} $x^2$ \u202e\u200b\x1b]0;owned\x07'
)
BRIEF = "<img src=x onerror=window.hacked=1>\u202e\x1b"  # for the names in a figure
TEXTS = ("title", "caption", "name", "end", "label", "labels", "rows", "columns", "texts", "unit", "row_title", "column_title", "bar", "why")


def poisoned(value: Any, text: str = BRIEF, here: bool = False) -> Any:
    """A drawing with `text` before everything that it writes; colours, styles and numbers stay."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        changed = {n: poisoned(v, text, n in TEXTS) for n, v in fields.items() if n in TEXTS or n in ("panels", "layers", "x", "y", "passages")}
        if "ticks" in fields and fields["ticks"] is not None and hasattr(value, "span"):
            changed["ticks"] = tuple((at, text + told) for at, told in fields["ticks"])
        if hasattr(value, "tokens") and hasattr(value, "values"):  # a passage
            changed["tokens"] = tuple(text + token for token in value.tokens)
        if "legend" in fields:
            changed["legend"] = tuple((text + told, style) for told, style in fields["legend"])
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(poisoned(item, text, here) for item in value)
    return text + value if here and isinstance(value, str) and value else value


def hostile_drawn(drawn: Drawn) -> Drawn:
    return Drawn({name: poisoned(d) for name, d in drawn.drawings.items()}, {name: why + EVIL for name, why in drawn.lacking.items()})


def hostile_page(data: ReportData) -> ReportData:
    """A run whose title, settings, domains, tokens, claims, reasons and figures are hostile."""
    f = data.findings
    assert f.patterns is not None
    claims = tuple(replace(c, sentence=c.sentence + EVIL, why=c.why + EVIL, test=c.test + EVIL) for c in f.claims)
    claims = tuple(replace(c, numbers=tuple(replace(n, name=n.name + EVIL) for n in c.numbers)) for c in claims)
    tokens = tuple(tuple(t + EVIL for t in row) for row in f.patterns.tokens)
    patterns = replace(f.patterns, tokens=tokens, snippets=tuple(s + EVIL for s in f.patterns.snippets))
    rows = data.table.to_dict("records") if hasattr(data.table, "to_dict") else list(data.table)
    return replace(
        data,
        findings=replace(f, patterns=patterns, claims=claims, notes=(*f.notes, EVIL)),
        title=EVIL,
        notes=(EVIL,),
        settings={EVIL: {EVIL: [EVIL]}},
        sampler={EVIL: EVIL},
        versions={EVIL: EVIL},
        machine={EVIL: EVIL},
        domains=tuple(replace(d, description=EVIL) for d in data.domains),
        table=[{**r, "reason": EVIL} for r in rows],
        drawn=hostile_drawn(data.drawn),
    )

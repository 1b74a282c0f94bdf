"""What this run says to each claim of the paper: a section of the page, and the same as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rllc.analysis.comparisons import VERDICTS, Claim, Number
from rllc.report.markup import Markup, join, minus, paragraph, table, tag
from rllc.report.sections import Page, Section, planted_note
from rllc.report.summary import count, listed
from rllc.report.tables import escaped

SHOWN = 3  # numbers of a claim that are shown at once; the rest unfolds
HOW = (
    "Each claim is decided by a stated test. “Seen” is meant to be said in at most one of twenty runs in which there is nothing to see; “not seen” "
    "is said "
    "only where even the upper end of what the errors allow is less than the least that would count; all else, and whatever was not measured, is "
    "“cannot "
    "tell”. Claims are judged one by one, so of twenty that hold nothing one may be called seen."
)
_CLASSES = {"seen": "ok", "not seen": "drifting", "cannot tell": "none"}


def claims(page: Page) -> Section:
    """The table of claims: the verdict; the claim, the reason, the test; the numbers."""
    found = page.data.findings.claims
    if not found:
        return Section("claims", "The claims of the paper", paragraph("No claim was judged: these findings are of an earlier version."))
    rows: list[list[object]] = [[tag("span", c.verdict, class_=f"tag {_CLASSES[c.verdict]}"), _claim(c), _numbers(c.numbers)] for c in found]
    body = [
        paragraph(claims_sentence(found)),
        planted_note(page.data),
        paragraph(HOW),
        table(["here", "claim", "numbers"], rows, "The claims of Wang et al. (arXiv 2410.02984) and this run.", long=(1, 2)),
    ]
    return Section("claims", "The claims of the paper", join(body))


def claims_sentence(found: Sequence[Claim]) -> str:
    """How many claims came to which verdict.

    >>> one = Claim("a", "A.", "T.", "seen", (), "W.")
    >>> claims_sentence((one, one))
    'Of 2 claims of the paper, 2 are seen.'
    """
    said = {"seen": ("is seen", "are seen"), "not seen": ("is not seen", "are not seen"), "cannot tell": ("cannot be told", "cannot be told")}
    pieces = [f"{n} {said[name][n > 1]}" for name in VERDICTS if (n := sum(c.verdict == name for c in found))]
    return f"Of {count(len(found), 'claim')} of the paper, {listed(pieces)}."


def claims_markdown(found: Sequence[Claim]) -> str:
    """The same table as Markdown, then each test in words; whatever might be markup in it is escaped."""
    lines = [claims_sentence(found), "", "| claim | here | why | numbers |", "|---|---|---|---|"] if found else ["No claim was judged."]
    for c in found:
        numbers = "; ".join(_text(n) for n in c.numbers[:SHOWN])
        lines.append("| " + " | ".join(escaped(cell) for cell in (c.sentence, c.verdict, c.why, numbers)) + " |")
    if found:
        lines += ["", "How each is decided:", "", *(f"- **{escaped(c.id)}**: {escaped(c.test)}" for c in found)]
    return "\n".join(lines) + "\n"


def _claim(claim: Claim) -> Markup:
    test = tag("details", tag("summary", "How it is decided"), tag("p", claim.test))
    return join([tag("b", claim.sentence), tag("p", claim.why[:1].upper() + claim.why[1:], class_="small"), test])


def _numbers(numbers: Sequence[Number]) -> Markup:
    shown, rest = ([tag("li", _text(n)) for n in part] for part in (numbers[:SHOWN], numbers[SHOWN:]))
    more = tag("details", tag("summary", f"{len(rest)} more"), tag("ul", *rest)) if rest else ""
    return join([tag("ul", *shown) if shown else "", more])


def _text(number: Number) -> str:
    """A number as a reader writes it: name, value, interval, p.

    >>> _text(Number("lag", -0.5, -0.75, float("nan"), 0.031, "log steps")), _text(Number("boundary", 1234.6, 900.0, 1500.2, unit="step"))
    ('lag −0.5 log steps (from −0.75), p = 0.031', 'boundary step 1,235 (900 to 1,500)')
    """
    steps = number.unit == "step"

    def said(value: float) -> str:
        return minus(f"{value:,.0f}" if steps else f"{value:.3g}")

    if not math.isfinite(number.value):
        return f"{number.name}: none"
    value = f"step {said(number.value)}" if steps else f"{said(number.value)} {number.unit}".rstrip()
    low, high = (said(end) if math.isfinite(end) else "" for end in (number.low, number.high))
    ends = f" ({low} to {high})" if low and high else f" (from {low})" if low else f" (up to {high})" if high else ""
    return f"{number.name} {value}{ends}" + (f", p = {number.p:.2g}" if math.isfinite(number.p) else "")

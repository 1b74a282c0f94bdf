from __future__ import annotations

from dataclasses import replace

from rllc.analysis.comparisons import Claim, Number
from rllc.report.build import render
from rllc.report.claims import claims_markdown, claims_sentence
from rllc.report.data import ReportData

NUMBERS = tuple(Number(f"number {i}", float(i), i - 0.5, i + 0.5, 0.03 * i) for i in range(1, 6))
CLAIMS = (
    Claim("stages", "Stages come <in> order.", "By | onsets & errors.", "seen", NUMBERS, "Every condition is met."),
    Claim("seeds", "Seeds agree.", "By types.", "cannot tell", (Number("<b>seed</b>", float("nan")),), "<script>alert(1)</script> was not measured."),
    Claim("edge", "The edge *matters*.", "By ablation.", "not seen", (), "It is at most -0.2."),
)


def test_the_page_tells_every_claim_with_verdict_reason_test_and_numbers(small: ReportData) -> None:
    html = render(replace(small, findings=replace(small.findings, claims=CLAIMS)))
    section = html[html.index('<section id="claims"') : html.index('<section id="stages"')]
    assert "Of 3 claims of the paper, 1 is seen, 1 is not seen and 1 cannot be told." in section
    for piece in ("Stages come &lt;in&gt; order.", "By | onsets &amp; errors.", "number 1 1 (0.5 to 1.5), p = 0.03", "2 more", "number 5 5"):
        assert piece in section
    assert "<script>alert" not in html
    assert "&lt;b&gt;seed&lt;/b&gt;: none" in section
    assert section.index("Stages come") < section.index("Seeds agree") < section.index("The edge")
    assert [section.count(f'class="tag {name}"') for name in ("ok", "drifting", "none")] == [1, 1, 1]
    assert "1 is seen" in html[: html.index('<section id="run"')]  # and the summary says so


def test_findings_without_claims_say_so(small: ReportData) -> None:
    assert "No claim was judged" in render(small)
    assert claims_markdown(()) == "No claim was judged.\n"


def test_markdown_has_a_row_a_claim_and_nothing_in_it_is_markup() -> None:
    text = claims_markdown(CLAIMS)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(CLAIMS)
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert "<script" not in text
    assert "The edge \\*matters\\*." in text
    assert "By \\| onsets &amp; errors." in text
    assert text.startswith(claims_sentence(CLAIMS))

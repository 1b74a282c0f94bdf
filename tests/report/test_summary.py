from __future__ import annotations

from dataclasses import replace

import numpy as np

from rllc.report import overview, summary
from rllc.report.data import ReportData, Row
from rllc.report.markup import Markup, definitions, embed, esc, measure, paragraph, table, tag, value_text


def test_a_score_that_dips_below_its_threshold_forms_only_where_it_stays(data: ReportData) -> None:
    f = data.findings
    scores = {k: v.copy() for k, v in f.behaviour.scores.items()}
    row = f.behaviour.heads.index("1:6")
    scores["prefix_matching"][row] = [0, 0, 0.5, 0.1, 0, 0, 0, 0, 0, 0.2, 0.31, 0.5]
    scores["prefix_matching"][row + 1] = [0.5] * 11 + [0.1]
    f = replace(f, behaviour=replace(f.behaviour, scores=scores))
    assert summary.formation(f)["induction"] == [("1:6", 2600), ("1:7", None)]
    assert summary.formation_sentences(f)[-1].endswith("1:6 from step 2,600; 1:7 not lastingly.")


def test_nothing_is_said_of_types_that_do_not_occur(data: ReportData) -> None:
    f = data.findings
    plain = replace(f, types=replace(f.types, types=("other",) * 16))
    assert summary.formation_sentences(plain) == []
    assert summary.types_sentence(plain) == "Of 16 heads, by their attention at step 3,000: 16 of no named type."
    unscored = replace(f, behaviour=replace(f.behaviour, scores={}))
    assert summary.formation_sentences(unscored) == []


def test_stage_sentences(data: ReportData) -> None:
    stages = data.findings.stages
    assert stages is not None
    none = replace(stages, boundaries=np.array([]), intervals=np.empty((0, 2)), found_in=np.array([]))
    assert "no stage boundary was found" in summary.stage_sentence(none)
    three = replace(stages, boundaries=np.array([1.0, 2, 3]), intervals=np.full((3, 2), np.nan), found_in=np.ones(3))
    assert summary.stage_sentence(three) == (
        "The full model's LLC turns 3 times, which bounds its stages: step 1, in 100 % of resamples; "
        "step 2, in 100 % of resamples; step 3, in 100 % of resamples."
    )


def test_an_agreement_belongs_to_its_own_clustering(data: ReportData) -> None:
    f = data.findings
    clustering = f.clusterings[0]
    raw = replace(f.agreements[0], preprocessing="raw", adjusted_rand=0.11)
    own = replace(f.agreements[0], preprocessing="standardised", adjusted_rand=0.99)
    assert "0.99" in summary.cluster_sentence(clustering, replace(f, agreements=(raw, own)))
    undefined = replace(own, adjusted_rand=float("nan"))
    assert "not defined here" in summary.cluster_sentence(clustering, replace(f, agreements=(undefined,)))
    assert "Agreement" not in summary.cluster_sentence(clustering, replace(f, agreements=()))


def test_specialisation_counts_only_what_is_known(data: ReportData) -> None:
    s = data.findings.specialisation[0]
    difference, stderr = np.full(16, np.nan), np.full(16, 0.5)
    difference[[2, 5, 9]] = 1.05, -1.05, -4.0  # the first two are 2.1 errors
    told = summary.specialisation_sentences(
        replace(data, findings=replace(data.findings, specialisation=(replace(s, difference=difference, stderr=stderr),)))
    )
    assert told == [
        "On code, 1 of 3 heads differ from train beyond their errors, all heads and kinds of text held together (Holm); "
        "the largest difference, 1:1's, is −4.00 ± 0.50."
    ]
    gone = replace(s, difference=np.full(16, np.nan))
    assert "no head can be compared" in summary.specialisation_sentences(replace(data, findings=replace(data.findings, specialisation=(gone,))))[0]


def test_final_estimates(data: ReportData) -> None:
    c = data.findings.curves["train"]
    lost = replace(c, llc=np.full_like(c.llc, np.nan))
    only = replace(data.findings, curves={"train": lost})
    assert summary.llc_sentences(replace(data, findings=only)) == ["No head has an estimate at step 3,000 on train."]
    assert summary.final(replace(c, steps=c.steps[:0])) == {}


def test_cells_are_counted_by_outcome(data: ReportData) -> None:
    rows: list[Row] = [{"part": "0:0", "step": i, "data": "d", "outcome": o} for i, o in enumerate(["ok", "ok", "nonfinite", "drifting"])]
    assert summary.cells_sentence(replace(data, table=rows)).startswith(
        "Of 4 cells sampled, 2 ok, 1 marked (1 drifting) and 1 refused (1 nonfinite)."
    )


def test_markup_escapes_whatever_is_not_markup() -> None:
    assert tag("p", "<b>", Markup("<i>x</i>"), title='"a"', hidden=True, id=None) == '<p title="&quot;a&quot;" hidden>&lt;b&gt;<i>x</i></p>'
    assert esc("\u2028") == "⟨2028⟩"
    assert paragraph("") == ""
    assert "&lt;x&gt;" in table(["<x>"], [["<y>"]], "<z>")
    assert "<dd>none</dd>" in definitions({"a": None})


def test_embedded_values_cannot_end_their_element() -> None:
    text = embed("x", {"a": "</script><!--&\u2028"})
    assert text.count("</script>") == 1
    assert text.endswith('"\\u003c/script\\u003e\\u003c!--\\u0026\\u2028"}</script>')


def test_numbers_are_written_for_readers() -> None:
    assert measure(-0.5, 0.021) == "−0.500 ± 0.021"
    assert measure(1234.0, 120.0) == "1,234 ± 120"
    assert measure(1.0, 0.0) == "1.00"
    assert value_text((1, 2.5, "a")) == "1, 2.5, a"
    assert value_text(False) == "no"


def test_the_summary_leads_with_the_last_layers_clusters(data: ReportData) -> None:
    first = data.findings.clusterings[0]
    several = replace(data.findings, clusterings=tuple(replace(first, scope=scope) for scope in ("all", "layer 2", "layer 10", "layer 9")))
    led = summary.leading(several)
    assert led is not None
    assert led.scope == "layer 10"
    told = dict(overview.found(replace(data, findings=several)))["Clusters"]
    assert "(layer 10)" in told[0]
    assert summary.leading(replace(several, clusterings=(first,))) == first
    assert summary.leading(replace(several, clusterings=())) is None


def test_agreement_with_types_stands_beside_the_chance_of_it_in_all_clusterings(data: ReportData) -> None:
    f = data.findings
    held = replace(f, agreements=(replace(f.agreements[0], p=0.012, p_holm=0.31),))
    assert "(p = 0.31 for all clusterings together)." in summary.cluster_sentence(f.clusterings[0], held)


def test_what_was_planted_is_named_with_what_it_teaches(data: ReportData) -> None:
    echo, brackets = (replace(d, kind=d.name, share=0.125) for d in data.domains if d.planted)
    both = summary.planted(replace(data, domains=(echo, brackets)))
    assert both == (
        "25 % of the training text was planted (echo and brackets), which holds repetition for induction heads and brackets for bracket heads: "
        "read what is said of induction and brackets with that."
    )
    assert summary.planted(replace(data, domains=(echo, replace(brackets, share=0.0)))).endswith("read what is said of induction with that.")
    assert summary.planted(replace(data, domains=(brackets,))).endswith("brackets for bracket heads: read what is said of brackets with that.")


def test_the_types_sentence_says_what_decided_on_brackets(data: ReportData) -> None:
    f = data.findings
    assert "brackets by the predictions" not in summary.types_sentence(f)
    named = replace(
        f, types=replace(f.types, types=tuple("bracket" if head == "0:7" else kind for head, kind in zip(f.types.heads, f.types.types, strict=True)))
    )
    assert "brackets by the predictions that their ablation hurts" in summary.types_sentence(named)
    assert "1 bracket head (0:7)" in summary.types_sentence(named)

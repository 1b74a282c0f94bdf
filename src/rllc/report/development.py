"""The sections about development: loss and stages, every head, clusters, specialisation, behaviour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rllc.analysis.findings import Clustering
from rllc.core.outcome import Outcome
from rllc.figures import clusters, curves, domains, training
from rllc.report import summary
from rllc.report.data import LEFT_OUT, ReportData, reference_curves
from rllc.report.markup import Markup, decimals, join, measure, paragraph, table, tag
from rllc.report.sections import KEY, Page, Section, chooser, planted_note

PAPER_SAYS = (
    "In the paper that introduced the measure (Wang et al., arXiv 2410.02984), heads with a simple job such as induction end low and heads "
    "that memorise many patterns end high. Whether this run says the same is for the figure to show."
)
TILT = (
    "Away from the training mixture a checkpoint is rarely at a minimum, so an estimate there may hold a term of the gradient as well; such "
    "cells are marked tilted. Compare heads on the same text before texts with one another."
)
SCORES = (
    "Mean attention to the previous token, to the current token, and, on random segments repeated, to the token after its earlier occurrence. "
    "Dashed lines are the thresholds that name a type. In-context learning is the loss late in the context minus the loss early in it: "
    "below 0, later tokens are easier."
)

FOLDED = ("attention-scores", "ablated-loss", "class-effects", "nested-closers", "most-affected", "logit-attribution", "ov-circuits", "qk-circuits")


def stages(page: Page) -> Section:
    """Loss per domain and the LLC of the full model."""
    f = page.data.findings
    sentence = summary.stage_sentence(f.stages)
    lines = " Dashed lines are stage boundaries, grey stripes their 5 to 95 % range over resamples." if f.stages is not None else ""
    turns = " Boundaries are where the smoothed curve turns in log time." if f.stages is not None else ""
    loss, full = training.losses(f.behaviour, f.stages, page.styles, page.axis), curves.full_llc(f.full, f.stages, page.styles, page.axis)
    body = [
        paragraph(sentence),
        page.figure("losses", loss, "Held-out loss on each kind of text over training.", f"Held-out loss on each kind of text.{lines}"),
        page.figure("full", full, f"LLC of the full model over training. {sentence}", f"LLC of the full model with one standard error.{turns}"),
        page.drawings("ngrams"),
    ]
    return Section("stages", "Loss and stages", join(body))


def heads(page: Page) -> Section:
    """The wrLLC of every head, and where it ends."""
    data, f = page.data, page.data.findings
    reference = reference_curves(data)
    if reference is None:
        return Section("heads", "wrLLC of every head", paragraph("No head was sampled, so there is nothing to show here."))
    lost = [p for p, row in zip(reference.parts, reference.llc, strict=True) if not np.isfinite(row).any()]
    drawn = curves.head_curves(reference, f.types, page.axis)
    body = [
        *(paragraph(s) for s in summary.llc_sentences(data)),
        planted_note(data),
        paragraph(PAPER_SAYS),
        paragraph(f"No estimate at any checkpoint: {summary.listed(lost)}.", class_="note") if lost else "",
        chooser(),
        page.figure(
            "heads",
            drawn,
            "wrLLC of every head over training, a panel a layer, coloured by head type.",
            f"Refined LLC of each head on {reference.data}, with the confidence interval of each estimate as a band. {KEY}",
        ),
        final_table(data),
        page.drawings("heads-part", "wrllc-on-multigrams", folded=("multigrams-over-training", "multigram-table", "threshold-sensitivity")),
    ]
    return Section("heads", "wrLLC of every head", join(body))


def final_table(data: ReportData) -> Markup:
    """Heads by their last estimates on every kind of data."""
    f = data.findings
    reference = reference_curves(data)
    if reference is None:
        return Markup("")
    names = list(dict.fromkeys([reference.data, *f.curves]))
    errors = np.concatenate([f.curves[name].stderr[:, -1:] for name in names if f.curves[name].steps.size])
    digits = decimals(float(np.nanmedian(errors))) if np.isfinite(errors).any() else 2
    ends = {name: summary.final(f.curves[name]) for name in names}
    kinds = dict(zip(f.types.heads, f.types.types, strict=True))
    scores = dict(zip(f.types.heads, f.types.score.tolist(), strict=True))

    def cell(name: str, head: str) -> Markup:
        value, error, outcome = ends[name].get(head, (np.nan, np.nan, ""))
        warning = "" if outcome == Outcome.OK else tag("span", outcome or "not sampled", class_=f"tag {outcome or 'none'}")
        return join([warning, measure(value, error, digits) if np.isfinite(value) else ""], " ")

    rows = [[h, kinds.get(h, ""), measure(scores.get(h, np.nan)), *(cell(n, h) for n in names)] for h in reference.parts]
    step = f"{int(reference.steps[-1]):,}" if reference.steps.size else "none"
    head = ["head", "type", "score that decides", *names]
    caption = f"Refined LLC ± standard error at the last checkpoint of each kind of data ({reference.data}: step {step})."
    return table(head, rows, caption, numbers=range(2, len(head)))


def cluster_section(page: Page) -> Section:
    """Every clustering, one at a time."""
    f, reference = page.data.findings, reference_curves(page.data)
    if reference is None or not f.clusterings:
        return Section("clusters", "Clusters", paragraph("Heads were not clustered: too few of them have a complete curve."))
    body: list[object] = [
        paragraph("Heads grouped by the shape of their wrLLC curves alone, then compared with what they do. Colours are those of the head types."),
        planted_note(page.data) if "induction" in f.types.types else "",
    ]
    drawn = pictured(f.clusterings)
    if LEFT_OUT[1] in page.data.without:
        drawn = drawn[:1]
    names = [f"{summary.METHODS.get(c.method, c.method)}, {c.preprocessing}, {_scope(c.scope)}" for c in drawn]
    if len(names) > 1:
        options = [tag("option", name, value=str(i)) for i, name in enumerate(names)]
        select = tag("select", *options, id="which-clusters", data_shows="clusters")
        body.append(tag("div", tag("label", "Clustering", for_="which-clusters"), select, class_="controls needs-script"))
    for i, (clustering, name) in enumerate(zip(drawn, names, strict=True)):
        body.append(tag("div", *_clustering(page, i, clustering, name), data_block="clusters", data_value=str(i), hidden=i > 0))
    if len(f.clusterings) > 1:
        body.append(_all_clusterings(page.data))
    body.append(page.drawings("kmeans-clusters", folded=("clusterings", "ablation-clusterings", "clusters", "number-of-clusters")))
    return Section("clusters", "Clusters", join(body))


def pictured(found: Sequence[Clustering]) -> list[Clustering]:
    """The clusterings that the page draws, on the first kind of time: of all heads, and of single layers by the first method. The table tells all."""
    first = found[0] if found else None
    return [
        c
        for c in found
        if first is not None and c.time == first.time and (c.scope == "all" or (c.method, c.preprocessing) == (first.method, first.preprocessing))
    ]


def _scope(scope: str) -> str:
    return "all heads" if scope == "all" else scope


def _clustering(page: Page, i: int, clustering: Clustering, name: str) -> list[object]:
    f, reference = page.data.findings, reference_curves(page.data)
    if reference is None:
        return []
    agreement = next((a for a in f.agreements if summary.matches(clustering, a)), None)
    sentence = summary.cluster_sentence(clustering, f)
    left = f" Left out for want of a complete curve: {summary.listed(clustering.left_out)}." if clustering.left_out else ""
    drawn = clusters.cluster_curves(clustering, reference, f.types, page.axis)
    pair: list[object] = []
    if agreement is not None:
        matrix = clusters.confusion(agreement)
        pair.append(page.figure(f"confusion-{i}", matrix, "Head types against clusters.", "Heads of each type in each cluster.", narrow=True))
    if clustering.linkage is not None:
        tree = clusters.tree(clustering, f.types)
        pair.append(page.figure(f"tree-{i}", tree, "Dendrogram of the heads.", "The tree that was cut; leaves are heads, letters their clusters."))
    return [
        paragraph(sentence, left),
        page.figure(f"clusters-{i}", drawn, f"Curves of the heads in each cluster. {sentence}", f"{name}: the heads of each cluster. {KEY}"),
        tag("div", *pair, class_="pair") if len(pair) == 2 else join(pair),
    ]


def _all_clusterings(data: ReportData) -> Markup:
    rows: list[list[object]] = []
    for c in data.findings.clusterings:
        agreement = next((a for a in data.findings.agreements if summary.matches(c, a)), None)
        index, chance = ("none", "none") if agreement is None else (measure(agreement.adjusted_rand), summary.interval(*agreement.chance_interval))
        method = summary.METHODS.get(c.method, c.method)
        stability = f"{c.stability:.2f} ({summary.interval(*c.stability_interval)})"
        rows.append([method, f"{c.preprocessing}, {c.time} time", _scope(c.scope), c.n_clusters, f"{c.silhouette:.2f}", stability, index, chance])
    head = ["method", "curves", "heads", "clusters", "silhouette", "stability", "adjusted Rand index", "by chance"]
    title = "Every clustering: stability is the mean adjusted Rand index over resamples, with its 5 to 95 % range."
    return tag("details", tag("summary", "All clusterings side by side"), table(head, rows, title, numbers=range(3, 8)))


def specialisation(page: Page) -> Section:
    """The refined LLC of each head on each kind of text."""
    data, f = page.data, page.data.findings
    if not f.texts:
        return Section("specialisation", "Specialisation by kind of text", paragraph("No head was sampled on any data."))
    missing = [d.name for d in data.domains if d.name not in f.texts]
    drawn = domains.domain_curves(f.texts, f.types, page.styles, page.axis)
    spoken = "Refined LLC of every head on each kind of text over training."
    body = [
        *(paragraph(s) for s in summary.specialisation_sentences(data)),
        paragraph("Only one kind of data was sampled, so nothing can be compared.") if len(f.texts) == 1 else "",
        paragraph(f"Not sampled on its own: {summary.listed(missing)}.", class_="note") if missing else "",
        planted_note(data),
        paragraph(TILT),
        page.figure("domains", drawn, spoken, f"One panel a head, one scale for all. {KEY}"),
    ]
    if f.specialisation:
        ends = domains.specialisation(f.specialisation, f.types, page.styles)
        told = "How far the last estimate on each kind of text lies from that on the mixture, with one standard error of the difference either way."
        body.append(page.figure("specialisation", ends, "Difference of the final refined LLC from that on the mixture.", told))
    body.append(page.drawings("data-part"))
    return Section("specialisation", "Specialisation by kind of text", join(body))


def behaviour(page: Page) -> Section:
    """Attention scores over training."""
    f = page.data.findings
    drawn = training.scores(f.behaviour, f.types, page.axis)
    body = [
        *(paragraph(s) for s in summary.formation_sentences(f) or [summary.types_sentence(f)]),
        planted_note(page.data),
        chooser(),
        page.figure("scores", drawn, "Behavioural scores of every head over training.", SCORES),
        page.drawings("ablation", "token-classes", "painted-effects", "painted-shares", folded=FOLDED),
    ]
    return Section("behaviour", "What the heads do", join(body))

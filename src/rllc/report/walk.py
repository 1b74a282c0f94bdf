"""The sections that go on as the paper does: the circuit of two layers, what stands beside the coefficient, other seeds."""

from __future__ import annotations

import numpy as np

from rllc.analysis.findings import Findings
from rllc.figures.beside import TITLES
from rllc.report import summary
from rllc.report.markup import Markup, join, minus, paragraph, tag
from rllc.report.sections import Page, Section, planted_note
from rllc.report.tables import Words

CIRCUIT = (
    "Held against a model of fewer layers, a coefficient counts what that model does not know. In the paper the first layer's heads rise and fall "
    "while the second layer's go on rising: knowledge moves between layers. Composition is read off the weights; a path is ablated by giving "
    "one head's input, or the logits, another output of one earlier head alone."
)
BESIDE = (
    "Whether the refined LLC says more than what is cheaper to compute: norms, ablation effects, Fisher information, traces and eigenvalues of the "
    "Hessian. Controls are random weights of a head's size, shuffled tokens and the untrained model."
)
SEEDS = (
    "The same training from other random numbers. Head 1:6 of one seed is nobody's counterpart in another, so heads are matched within their layer "
    "by what they do and by their curves."
)


def circuit(page: Page) -> Section:
    """The multigram circuit: against one layer, edges, composition, tokens affected together."""
    return _section(
        page,
        "circuit",
        "The circuit between layers",
        CIRCUIT,
        "against-one-layer",
        "edges",
        "edges-over-training",
        "paths-to-logits",
        "composition",
        "affected-together",
    )


def beside(page: Page) -> Section:
    """Baselines, controls and settings."""
    names = ("orderings", "baselines", "curvature-twin", "controls", "sensitivity", "temperatures")
    return _section(page, "beside", "Baselines and controls", BESIDE, *names, before=baseline_table(page.data.findings))


def baseline_table(f: Findings) -> Markup:
    """`baselines_told` on the page; empty where no baseline was measured."""
    return baselines_told(f).html


def baselines_told(f: Findings) -> Words:
    """One table: which baseline orders heads as the refined LLC does at the last checkpoint, and which turns where the full model's LLC turns."""
    orders, turns = {row.name: row for row in f.orderings}, {row.name: row for row in f.turns}
    rows: list[list[str]] = []
    for name in dict.fromkeys((*orders, *turns)):
        order, turn = orders.get(name), turns.get(name)
        first = ["", "", ""]
        if order is not None and np.isfinite(order.correlation):
            first = [minus(f"{order.correlation:.2f}"), summary.interval(*order.over_heads), f"{order.p_holm:.2g}"]
        second = ["", "", "", ""]
        if turn is not None:
            at = ", ".join(f"{place:,.0f}" for place in turn.places) or "none"
            known = np.isfinite(turn.mean)
            second = [at, f"{turn.mean:.2f}" if known else "", f"{turn.by_chance:.2f}" if known else "", f"{turn.p:.2g}" if known else ""]
        rows.append([TITLES.get(name, name.replace("_", " ")), *first, *second])
    head = ("baseline", "ρ with wrLLC", "95 % over heads", "p, all rows", "turns at steps", "distance to the LLC's turns", "by chance", "p")
    caption = (
        "Which baseline orders heads as their refined LLC does at the last common checkpoint (Spearman's ρ), and whether its mean over heads turns "
        "where the LLC of the full model does (distance in log steps)."
    )
    return Words(head, rows, caption, numbers=(1, 2, 3, 5, 6, 7), long=(4,))


def seeds(page: Page) -> Section:
    """Several training seeds."""
    return _section(page, "seeds", "Other seeds", SEEDS, "types-by-seed", "matched-heads")


def lacking(page: Page) -> Markup:
    """Which figures of the paper's set this run does not have, and what each would need."""
    if not page.data.drawn.lacking:
        return Markup("")
    words = page.data.drawn.lacking.items()
    rows = [tag("li", tag("b", name.replace("-", " ")), f": {why[:1].lower()}{why[1:]}") for name, why in words]
    return join([tag("h3", "Figures that this run does not have"), tag("ul", *rows, class_="notes")])


def _section(page: Page, anchor: str, title: str, intro: str, *names: str, before: str = "") -> Section:
    drawn = join([Markup(before), page.drawings(*names)])
    if not drawn:
        reasons = dict.fromkeys(why for name, why in page.data.drawn.lacking.items() if name in names)
        return Section(anchor, title, join([paragraph("Not measured in this run."), *(paragraph(why, class_="note") for why in reasons)]))
    induction = "induction" in page.data.findings.types.types
    return Section(anchor, title, join([paragraph(intro), planted_note(page.data) if induction else "", drawn]))

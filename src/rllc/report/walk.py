"""The sections that go on as the paper does: the circuit of two layers, what stands beside the coefficient, other seeds."""

from __future__ import annotations

from rllc.report.markup import Markup, join, paragraph, tag
from rllc.report.sections import Page, Section, planted_note

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
        "composition",
        "affected-together",
    )


def beside(page: Page) -> Section:
    """Baselines, controls and settings."""
    return _section(page, "beside", "Baselines and controls", BESIDE, "orderings", "baselines", "controls", "sensitivity")


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


def _section(page: Page, anchor: str, title: str, intro: str, *names: str) -> Section:
    drawn = page.drawings(*names)
    if not drawn:
        reasons = dict.fromkeys(why for name, why in page.data.drawn.lacking.items() if name in names)
        return Section(anchor, title, join([paragraph("Not measured in this run."), *(paragraph(why, class_="note") for why in reasons)]))
    induction = "induction" in page.data.findings.types.types
    return Section(anchor, title, join([paragraph(intro), planted_note(page.data) if induction else "", drawn]))

"""Claims that types of heads exist: by attention, by the classes of the tokens that ablation hurts (METHOD 5)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import ClassShares
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, any_of, decide, effect, lacking

_SHARE = 0.1  # least share by which a class of tokens must exceed its base
_ATTENTION = (
    ("previous-token", "previous_token", "the token before"),
    ("current-token", "current_token", "the token itself"),
    ("induction", "prefix_matching", "the token behind its last occurrence, on repeated random tokens"),
)


def types(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> tuple[Claim, ...]:
    """That there are heads of each type."""
    claims: list[Claim] = []
    for name, score, where in _ATTENTION:
        threshold = float(getattr(settings, score))
        conditions: list[Condition] = []
        if score in evidence.behaviour.scores and evidence.behaviour.scores[score].size:
            values, errors = evidence.behaviour.scores[score][:, -1], evidence.behaviour.error(score)[:, -1]
            conditions = [
                effect(head, float(value) - threshold, float(error), 0.0, settings.level, tries=len(values))
                for head, value, error in zip(evidence.behaviour.heads, values, errors, strict=True)
            ]
        claims.append(
            decide(
                f"type-{name}",
                f"There are {name} heads.",
                f"At the last checkpoint some head's mean attention to {where} is above the threshold of {threshold:g} by more than its error, "
                "corrected for the number of heads (Bonferroni); not seen where every head is below it by more than its error."
                + exact(evidence, score),
                [any_of("score less threshold", conditions, "the score was not measured")],
            )
        )
    shares, said = evidence.measured.shares, "the classes of affected tokens were not measured"
    named = dict(zip(findings.types.heads, findings.types.types, strict=True))
    other = [head for head, name in named.items() if name == "other"]
    test = (
        "At the last checkpoint, of the {fraction} of predictions that a head's ablation hurts most, the share of {what} exceeds their share of "
        "all predictions, by its bootstrap error over contexts, corrected for the number of heads and classes; {least:.0%} is the least that counts."
    )
    fraction = f"{shares.fractions[_fraction(shares)]:.1%}" if shares is not None else "hundredth"
    claims.append(
        decide(
            "type-multigram",
            "The other heads are multigram heads: they memorise n-grams and skip n-grams.",
            test.format(fraction=fraction, what="n-grams or of skip n-grams", least=_SHARE)
            + " Heads of a type are left out. Seen where half of the others pass; not seen where more than half are below the least.",
            *_half(shares, other, said, settings),
        )
    )
    at, where = bracket_data(evidence, settings)
    claims.append(
        decide(
            "type-bracket",
            "Some heads match brackets.",
            test.format(fraction=fraction, what="closing brackets and quotes", least=_SHARE) + where,
            [any_of("excess share", _excess(shares, list(named), ("bracket",), settings, at), said)],
        )
    )
    return tuple(claims)


def _half(shares: ClassShares | None, heads: list[str], missing: str, settings: AnalysisSettings) -> tuple[list[Condition], list[Number]]:
    """That half of these heads memorise n-grams or skip n-grams; and, for the reader, which and the one that stands out most."""
    title, classes = "share of the other heads that pass", ("ngram", "skip_ngram")
    found = _excess(shares, heads, classes, settings)
    if not found:
        return [lacking(title, missing if shares is None else "no such head")], []
    by_head: dict[str, list[Condition]] = {}
    for condition in found:
        by_head.setdefault(condition.number.name.split(",")[0], []).append(condition)
    each = [any_of(head, several, "") for head, several in by_head.items()]
    # A head that holds may be refused in one of as many tries as there are heads: it may be the one that the half lacks.
    z = normal_quantile(1 - settings.level / len(each)), normal_quantile(1 - settings.level)
    may = [any(c.number.value + (c.number.high - c.number.value) * z[0] / z[1] >= _SHARE or not np.isfinite(c.number.value) for c in several)
           for several in by_head.values()]  # fmt: skip
    passed, possible = float(np.mean([c.met for c in each])), float(np.mean(may))
    condition = Condition(Number(title, passed, passed, possible), passed >= 0.5, possible < 0.5, 0.5)
    best = any_of("largest excess share", found, "")
    return [condition], [Number("other heads", float(len(each))), best.number]


def exact(evidence: Evidence, score: str) -> str:
    """What to say where the errors of a score were not recorded."""
    return "" if score in evidence.behaviour.score_stderr else " No errors of this score were recorded, so it counts as exact."


def bracket_data(evidence: Evidence, settings: AnalysisSettings) -> tuple[int, str]:
    """On which of the data of `ClassShares` heads are asked whether they match brackets, and what to say of it.

    On the training text, unless brackets were planted there: Dyck words are no code. Then on measured text without anything planted, program text
    first.
    """
    shares, planted = evidence.measured.shares, evidence.planted
    if shares is None:
        return 0, ""
    usual = shares.data.index(evidence.reference) if evidence.reference in shares.data else 0
    if "brackets" not in planted.get(shares.data[usual], ()):
        return usual, ""
    found = [name for name in (*settings.code, *shares.data) if name in shares.data and not planted.get(name)]
    if not found:
        return usual, f" Measured on {shares.data[usual]}, which holds planted brackets: no text without any was."
    return shares.data.index(found[0]), f" Measured on {found[0]}, for brackets were planted in {shares.data[usual]}."


def bracket_heads(evidence: Evidence, settings: AnalysisSettings) -> tuple[str, ...]:
    """Heads whose ablation hurts closing brackets beyond their share, all heads tried together."""
    shares = evidence.measured.shares
    at, _ = bracket_data(evidence, settings)
    found = _excess(shares, list(shares.heads), ("bracket",), settings, at) if shares is not None else []
    return tuple(condition.number.name.split(",")[0] for condition in found if condition.met)


def _fraction(shares: ClassShares) -> int:
    """The fraction nearest to a hundredth."""
    return int(np.abs(np.log(np.array(shares.fractions)) - np.log(0.01)).argmin())


def _excess(shares: ClassShares | None, heads: list[str], classes: tuple[str, ...], settings: AnalysisSettings, at: int = 0) -> list[Condition]:
    """Of heads and classes, by how much the share exceeds its base on the data in this place."""
    if shares is None or not len(shares.steps):
        return []
    f, wanted = _fraction(shares), [name for name in classes if name in shares.classes]
    places = [(head, shares.heads.index(head), name, shares.classes.index(name)) for head in heads if head in shares.heads for name in wanted]
    conditions: list[Condition] = []
    for head, h, name, k in places:
        value = float(shares.shares[h, -1, at, f, k] - shares.base[at, k])
        width = float(shares.excess_high[h, -1, at, f, k] - shares.excess_low[h, -1, at, f, k])
        error = width / (2 * normal_quantile(0.975))
        conditions.append(effect(f"{head}, {name}", value, error, _SHARE, settings.level, tries=len(places), missing="the loss of no token rises"))
    return conditions

"""Claims about the multigram circuit: pairs of multigram heads, the first in an earlier layer than the second (METHOD 5).

Heads of a type are no part of it: the path from a previous-token head to an induction head is the induction circuit, which stands beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from rllc.analysis.comparisons import Claim, Number
from rllc.analysis.curves import layer_of
from rllc.analysis.evidence import Evidence
from rllc.analysis.findings import Findings, HeadTypes
from rllc.analysis.learners import normal_quantile
from rllc.analysis.measured import Composition, Edges, TokenEffects
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.verdicts import Condition, any_of, decide, effect, lacking

_EDGE = 0.1  # least effect of an edge that counts, as a share of the receiving head's direct effect on the loss
_AFFECTED = 0.1  # least correlation of two heads' effects over tokens that counts
_PAIRS = "Pairs are those of two heads of no type, the first in an earlier layer; others, such as induction circuits, have no say. "

Pair = tuple[str, str]
Found = Mapping[Pair, Condition]
Kept = tuple[dict[Pair, Condition], dict[str, Condition]]  # of pairs of multigram heads; the largest of others


def circuit_pairs(evidence: Evidence, findings: Findings, settings: AnalysisSettings) -> tuple[Claim, ...]:
    """That pairs affect the same tokens, that the path between them matters, that they compose, and that one pair does all three."""
    of = ("effects on single tokens were not measured", "no path was ablated", "composition was not measured")
    found, strict = (
        [kind(evidence, findings.types, settings, among) for kind in (_tokens, _edges, _composition)] for among in (1, 3)
    )  # the second for the claim that joins the three, any of which refuses it
    missing = ["no pair of multigram heads in two layers" if known is not None else said for known, said in zip(found, of, strict=True)]
    (tokens, named_tokens), (edges, named_edges), (scores, named_scores) = (({}, {}) if known is None else known for known in found)
    overlap = _overlap(evidence.measured.tokens, tuple(tokens))
    return (
        decide(
            "circuit-tokens",
            "A multigram head of layer 0 and one of layer 1 come to affect the same tokens.",
            "Over the predictions of held-out text, the correlation of what ablating each of the two does to the loss: above zero at the last "
            "checkpoint for some pair, and for the same pair larger than at the first one measured, by errors that leave contexts out, corrected for "
            f"the number of pairs (Bonferroni). {_AFFECTED:g} is the least that counts of both. " + _PAIRS,
            [any_of("correlation of their effects", [*tokens.values()], missing[0])],
            [*overlap, *_beside(named_tokens)],
        ),
        decide(
            "circuit-edge",
            "The path from a multigram head of layer 0 to one of layer 1 matters: ablating that edge alone costs loss.",
            "At the last checkpoint the rise of the loss, when the path from one head to all inputs of another is ablated, is above zero for some "
            f"edge, and above {_EDGE:.0%} of what ablating the receiver's own path to the logits costs, by the errors of both over contexts, "
            "corrected for the number of edges (Bonferroni). Not seen where every edge is below that share by the errors of both. " + _PAIRS,
            [any_of(f"effect of the edge, less {_EDGE:.0%} of its receiver's direct effect", [*edges.values()], missing[1])],
            _beside(named_edges),
        ),
        decide(
            "circuit-composition",
            "Multigram heads of layer 0 and layer 1 compose: their composition scores are above those of random matrices.",
            "At the last checkpoint the Q-, K- or V-composition of some pair, less the root mean square of what its own matrices give when they are "
            "turned against each other at random, exceeds what such turns would give any of the pairs (Bonferroni, by a χ² of the same moments). "
            "Once more the baseline is the least that counts. " + _PAIRS,
            [any_of("composition above chance", [*scores.values()], missing[2])],
            _beside(named_scores),
        ),
        _together([{} if known is None else known[0] for known in strict], missing),
    )


def _together(found: Sequence[Found], missing: Sequence[str]) -> Claim:
    """That one pair carries all three."""
    title = "pair that meets all three"
    conditions: list[Condition] = []
    beside: list[Number] = []
    for pair in dict.fromkeys(pair for kind in found for pair in kind):
        three = [kind.get(pair) or lacking("", said) for kind, said in zip(found, missing, strict=True)]
        name, count = " to ".join(pair), sum(c.met for c in three)
        refused = any(c.refused for c in three)
        short = ", ".join(what for what, c in zip(("affected tokens", "the path", "composition"), three, strict=True) if not c.met)
        conditions.append(Condition(Number(name, float(count)), count == 3, refused, 3.0, f"{name} lacks {short}" if short else ""))
        if count:
            beside.append(Number(f"tests that {name} meets, of three", float(count)))
    lacks = [said for kind, said in zip(found, missing, strict=True) if not kind]
    best = max(conditions, key=lambda c: (c.met, not c.refused, c.number.value), default=None)
    if best is None or lacks:
        condition = lacking(title, "; ".join(dict.fromkeys(lacks or missing)))
    else:
        every = all(c.refused for c in conditions)
        told = "of every pair one test says that there is no such thing" if every else best.told
        condition = Condition(Number(f"{title} ({best.number.name})", best.number.value), best.met, every, 3.0, told)
    return decide(
        "circuit-pair",
        "One pair of multigram heads, in layer 0 and layer 1, is the circuit: it affects the same tokens, by a path that matters, and composes.",
        "One and the same pair meets the tests of circuit-tokens, circuit-edge and circuit-composition. Not seen where each pair is refused by one "
        "of them, at a third of the level.",
        [condition],
        sorted(beside, key=lambda number: -number.value)[:5],
    )


def _split(types: HeadTypes, found: Mapping[Pair, Sequence[Condition]]) -> Kept:
    """The conditions of pairs of multigram heads, one a pair; and of other pairs the largest, by the type of the receiver."""
    named = dict(zip(types.heads, types.types, strict=True))
    ours = {pair: _one(pair, several) for pair, several in found.items() if {named.get(head) for head in pair} == {"other"}}
    largest: dict[str, Condition] = {}
    for pair, several in found.items():
        kind = named.get(pair[1], "other")
        for condition in several:
            if pair not in ours and kind == "induction" and np.isfinite(condition.number.value):
                kept = largest.get(kind)
                largest[kind] = condition if kept is None or condition.number.value > kept.number.value else kept
    return ours, largest


def _one(pair: Pair, several: Sequence[Condition]) -> Condition:
    """Of one pair, by whichever input stands out."""
    if len(several) == 1:
        return several[0]
    found = any_of("", several, "it was not measured")
    return replace(found, number=replace(found.number, name=found.number.name.strip(" ()") or " to ".join(pair)))


def _beside(largest: Mapping[str, Condition]) -> list[Number]:
    return [Number(f"largest into an {kind} head: {c.number.name}", c.number.value, c.number.low, c.number.high) for kind, c in largest.items()]


def _count(types: HeadTypes, pairs: Sequence[Pair]) -> int:
    """How many pairs are of multigram heads, at least 1."""
    named = dict(zip(types.heads, types.types, strict=True))
    return max(sum({named.get(head) for head in pair} == {"other"} for pair in pairs), 1)


def _tokens(evidence: Evidence, types: HeadTypes, settings: AnalysisSettings, among: int) -> Kept | None:
    tokens = evidence.measured.tokens
    if tokens is None or not len(tokens.steps):
        return None
    pairs = [(a, b) for a in tokens.heads for b in tokens.heads if layer_of(a) < layer_of(b)]
    tries = _count(types, pairs)
    return _split(types, {pair: [_same(tokens, *pair, tries, among, settings)] for pair in pairs})


def _same(tokens: TokenEffects, one: str, other: str, tries: int, among: int, settings: AnalysisSettings) -> Condition:
    """Both of one pair: correlated at the end, and more than at the beginning."""
    name, i, j = f"{one} and {other}", tokens.heads.index(one), tokens.heads.index(other)
    (first, last), (before, after) = (values[i, j, [0, -1], 0] for values in (tokens.correlation, tokens.correlation_stderr))
    ends = effect(name, float(last), float(after), _AFFECTED, settings.level, tries=tries, among=2 * among)
    if len(tokens.steps) < 2:
        return Condition(ends.number, False, ends.refused, ends.least, "it was measured at one checkpoint, which shows no growth")
    error = float(np.hypot(before, after))
    grown = effect(f"{name}, growth", float(last - first), error, _AFFECTED, settings.level, tries=tries, among=2 * among)
    decisive = grown if grown.refused and not ends.refused else ends
    if ends.met and not grown.met and not grown.refused:
        decisive = grown
    return Condition(decisive.number, ends.met and grown.met, ends.refused or grown.refused, _AFFECTED, decisive.told)


def _overlap(tokens: TokenEffects | None, pairs: Sequence[Pair]) -> list[Number]:
    if tokens is None:
        return []
    found = [float(tokens.overlap[tokens.heads.index(a), tokens.heads.index(b), -1, 0]) for a, b in pairs]
    known = [value for value in found if np.isfinite(value)]
    return [Number(f"largest overlap of the most affected {tokens.overlap_fraction:.1%}", max(known))] if known else []


def _edges(evidence: Evidence, types: HeadTypes, settings: AnalysisSettings, among: int) -> Kept | None:
    paths = evidence.measured.paths
    if paths is None or not len(paths.steps) or not paths.inputs:
        return None
    joint = paths.inputs.index("QKV") if "QKV" in paths.inputs else len(paths.inputs) - 1
    tries = _count(types, paths.pairs)
    return _split(types, {pair: [_edge(paths, joint, i, pair, tries, among, settings)] for i, pair in enumerate(paths.pairs)})


def _edge(paths: Edges, joint: int, i: int, pair: Pair, tries: int, among: int, settings: AnalysisSettings) -> Condition:
    """Of one edge: above zero, and above a share of its receiver's direct effect, whose error counts as much as its own."""
    name, at = " to ".join(pair), paths.heads.index(pair[1])
    cost, error = float(paths.effect[joint, i, -1, 0]), float(paths.stderr[joint, i, -1, 0])
    whole, spread = float(paths.direct[at, -1, 0]), float(paths.direct_stderr[at, -1, 0])
    if whole + normal_quantile(1 - settings.level) * spread <= 0:
        return lacking(name, "the receiver has no direct effect of its own")
    beyond = effect(name, cost - _EDGE * whole, float(np.hypot(error, _EDGE * spread)), 0.0, settings.level, tries=tries, among=among, unit="nats")
    there = effect(name, cost, error, 0.0, settings.level, tries=tries, unit="nats")
    return Condition(beyond.number, beyond.met and there.met, beyond.refused, 0.0, beyond.told)


def _beyond_turns(name: str, excess: float, by_chance: float, allowed: float, least: float) -> Condition:
    """Met beyond what random turns give any of the pairs; refused where even what they may have taken away leaves it below the least."""
    high = excess + allowed
    return Condition(Number(name, excess, excess - by_chance, high), excess > by_chance and high >= least, high < least, least)


def _composition(evidence: Evidence, types: HeadTypes, settings: AnalysisSettings, among: int) -> Kept | None:
    scores: Composition | None = evidence.measured.composition
    if scores is None or not len(scores.steps):
        return None
    tries = _count(types, scores.pairs) * len(scores.scores)
    last = {
        kind: [values[:, -1].tolist() for values in (scores.excess(kind), *(scores.reach(kind, settings.level / n) for n in (tries, among)))]
        for kind in scores.scores
    }
    found = {
        (a, b): [
            _beyond_turns(f"{a} to {b} by {kind.upper()}", excess[i], by_chance[i], allowed[i], scores.baseline)
            for kind, (excess, by_chance, allowed) in last.items()
            if np.isfinite(excess[i] + by_chance[i])
        ]
        for i, (a, b) in enumerate(scores.pairs)
    }
    return _split(types, found)

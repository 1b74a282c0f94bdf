"""Memorised n-grams and skip n-grams of a head: patterns of the text whose prediction is lost when the head is (METHOD 6). Numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rllc.behaviour.patterns import Patterns
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MemorisedRules:
    """When a head counts as holding a pattern. [W] did not publish its thresholds: these are ours, `sensitivity` shows what hangs on them.

    The unit of evidence is a context: of a pattern's occurrences in one context the mean is taken, for they are not independent. A head holds a
    pattern where both of these are refused, over the contexts in which it stands:

    1. the mean rise in loss is at most `threshold` (one-sided t-test);
    2. the rise is above `threshold` in at most a share `consistency` of such contexts (exact binomial test). Without it B → C would be taken to
       be known where the head knows A … B → C, and rare patterns wherever they happened to stand with a known one.

    The larger of the two p-values counts, with Benjamini-Hochberg over all patterns tried for that head, so that the expected share of false ones
    among those found is at most `false_discoveries`. That supposes independent or positively dependent tests, as those of nested patterns are.
    It has its price: of thousands of patterns one needs about ten contexts, all of them above the threshold, to be found alone.

    Args:
        threshold: nats that the loss of the last token must rise by, more than.
        contexts: in how many contexts the pattern must stand, at least.
        consistency: share of contexts, 0 to below 1; 0 leaves the first test alone.
        false_discoveries: the level.
    """

    threshold: float = 0.1
    contexts: int = 5
    consistency: float = 0.5
    false_discoveries: float = 0.05

    def __post_init__(self) -> None:
        if self.contexts < 2 or not 0 <= self.consistency < 1 or not 0 < self.false_discoveries < 1 or not np.isfinite(self.threshold):
            raise RllcError(
                f"Memorised patterns by {self} were asked for.",
                "Use a finite threshold, 2 contexts or more, a consistency of 0 to below 1 and a level between 0 and 1.",
            )


@dataclass(frozen=True)
class Memorised:
    """What each of H heads holds of P patterns.

    Args:
        mean: [H, P] mean rise in nats of the loss of the pattern's last token, over contexts.
        stderr: [H, P] its standard error over contexts.
        consistency: [H, P] share of contexts in which the rise is above the threshold.
        adjusted: [H, P] the larger p-value, adjusted by Benjamini-Hochberg; NaN for patterns in too few contexts.
        found: [H, P] whether the head holds the pattern.
        own: [H, P] found, each piece of knowledge once. A head that holds B → C is found to hold all A, B → C with it: these are not its own.
            Turned about, where a head holds A … B → C, B → C may be found for its sake: it is own only if, over the occurrences that no found
            pattern within it explains, the mean rise is still above the threshold (or where no such occurrence is left to tell).
        tried: how many patterns were tried for each head.
    """

    rules: MemorisedRules
    mean: Float[Floats, "H P"]
    stderr: Float[Floats, "H P"]
    consistency: Float[Floats, "H P"]
    adjusted: Float[Floats, "H P"]
    found: Bool[Flags, "H P"]
    own: Bool[Flags, "H P"]
    tried: int


@dataclass(frozen=True)
class Example:
    """One pattern that a head holds, for a table; `mean` and `stderr` in nats."""

    text: str
    kind: str
    mean: float
    stderr: float
    contexts: int
    own: bool


def memorised(effects: Float[Floats, "H B S"], patterns: Patterns, rules: MemorisedRules | None = None) -> Memorised:
    """Which patterns each head holds, given the rise in nats of every prediction's loss when the head is ablated.

    Raises RllcError where effects are not finite or are of other contexts than the patterns.
    """
    rules = rules or MemorisedRules()
    rises = _rises(effects, patterns)
    results = [_judge(rise, patterns, rules) for rise in rises]
    mean, stderr, consistency, adjusted = (np.stack([result[i] for result in results]) for i in range(4))
    found = adjusted <= rules.false_discoveries
    own = np.stack([_own(row, rise, patterns, rules) for row, rise in zip(found, rises, strict=True)])
    return Memorised(rules, mean, stderr, consistency, adjusted, found, own, int(np.count_nonzero(patterns.contexts >= rules.contexts)))


def counts(flags: Bool[Flags, "H P"], patterns: Patterns) -> Int[Ints, "H K"]:
    """How many patterns of each of K kinds each head has: of `Memorised.found`, or `own`."""
    return np.stack([np.bincount(patterns.kind[row], minlength=len(patterns.kinds)) for row in flags])


def sensitivity(
    effects: Float[Floats, "H B S"], patterns: Patterns, thresholds: Sequence[float], contexts: Sequence[int], rules: MemorisedRules | None = None
) -> tuple[Int[Ints, "H E M K"], Int[Ints, "H E M K"]]:
    """Counts per head, found and own, at each of E thresholds (nats) and M least numbers of contexts, by kind; the other rules stay.

    Raises RllcError as `memorised` and the rules do, and where fewer contexts are asked for than the patterns were gathered with.
    """
    if len(patterns) and contexts and min(contexts) < patterns.contexts.min():
        held = int(patterns.contexts.min())
        raise RllcError(
            f"Patterns in {min(contexts)} contexts or more were asked for; all that were gathered stand in {held} or more.", "Gather rarer ones."
        )
    base = rules or MemorisedRules()
    found, own = (np.zeros((len(effects), len(thresholds), len(contexts), len(patterns.kinds)), np.int64) for _ in range(2))
    for h, rise in enumerate(_rises(effects, patterns)):
        for e, threshold in enumerate(thresholds):
            for m, least in enumerate(contexts):
                rule = replace(base, threshold=threshold, contexts=least)
                held = _judge(rise, patterns, rule)[3] <= rule.false_discoveries
                found[h, e, m], own[h, e, m] = counts(np.stack([held, _own(held, rise, patterns, rule)]), patterns)
    return found, own


def examples(held: Memorised, patterns: Patterns, head: int, names: Sequence[str], most: int = 10, own: bool = True) -> list[Example]:
    """The patterns that one head holds whose loss its ablation raises most, as text; `own` ones alone, or all. `names` has a string a token."""
    those = np.flatnonzero((held.own if own else held.found)[head])
    those = those[np.argsort(-held.mean[head, those], kind="stable")][:most].tolist()
    return [
        Example(
            patterns.text(p, names),
            patterns.kinds[patterns.kind[p]],
            float(held.mean[head, p]),
            float(held.stderr[head, p]),
            int(patterns.contexts[p]),
            bool(held.own[head, p]),
        )
        for p in those
    ]


def _rises(effects: Floats, patterns: Patterns) -> list[Floats]:
    """For each head the rise [O] at each occurrence."""
    _, context, place = patterns.occurrences.T
    if len(context) and (context.max() >= effects.shape[1] or place.max() >= effects.shape[2]):
        raise RllcError(
            f"The effects are of {effects.shape[1]} contexts with {effects.shape[2]} predictions, and patterns stand outside these.",
            "Gather the patterns of the contexts that the heads were ablated on.",
        )
    if not np.isfinite(effects).all():
        raise RllcError("The effects of ablation hold numbers that are not finite.", "Look at the weights of this checkpoint.")
    return [effect[context, place] for effect in effects]


def _over_contexts(values: Floats, patterns: Patterns) -> Floats:
    """Sums of values [O] over the occurrences of a pattern in a context [sum of `contexts`], by pattern."""
    return np.bincount(patterns.cells, values, int(patterns.contexts.sum())).astype(np.float64)


def _judge(rise: Floats, patterns: Patterns, rules: MemorisedRules) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, standard error, consistency and adjusted p-value [P] of every pattern for one head."""
    n = patterns.contexts
    which = np.repeat(np.arange(len(n)), n)
    unit = _over_contexts(rise, patterns) / _over_contexts(np.ones(len(rise)), patterns)
    mean = np.bincount(which, unit, len(n)) / n
    deviation = np.bincount(which, (unit - mean[which]) ** 2, len(n))
    stderr = np.sqrt(deviation / np.maximum(n - 1, 1) / n)
    above = np.bincount(which, unit > rules.threshold, len(n))
    enough = n >= rules.contexts
    adjusted = np.full(len(n), np.nan)
    if enough.any():
        margin = mean[enough] - rules.threshold
        sure = stderr[enough] == 0  # equal in every context, as in a model made by hand
        t = np.where(sure, np.inf * np.where(margin > 0, 1, -1), margin / np.where(sure, 1, stderr[enough]))
        p = np.maximum(stats.t.sf(t, n[enough] - 1), stats.binom.sf(above[enough] - 1, n[enough], rules.consistency))
        adjusted[enough] = stats.false_discovery_control(p)
    return mean, stderr, above / n, adjusted


def _own(found: Flags, rise: Floats, patterns: Patterns, rules: MemorisedRules) -> Flags:
    """Which found patterns [P] of one head are its own, as `Memorised` says."""
    if not found.any():
        return found
    pattern, context, place = patterns.occurrences.T
    keys = np.ravel_multi_index((pattern, context, place), (len(found), int(context.max()) + 1, int(place.max()) + 1))
    explained = np.zeros(len(rise), bool)  # occurrences at which a narrower found pattern stands as well
    chain = [patterns.within]  # the next wider pattern, that of it, …; -1 where there is none
    while (chain[-1] >= 0).any():
        chain.append(np.where(chain[-1] >= 0, patterns.within[chain[-1]], -1))
    for wider in chain[:-1]:
        take = np.flatnonzero((found & (wider >= 0) & found[wider])[pattern])
        there = np.ravel_multi_index((wider[pattern[take]], context[take], place[take]), (len(found), int(context.max()) + 1, int(place.max()) + 1))
        explained[np.searchsorted(keys, there)] = True
    number, total = _over_contexts(~explained * 1.0, patterns), _over_contexts(np.where(explained, 0, rise), patterns)
    left = number > 0
    which = np.repeat(np.arange(len(found)), patterns.contexts)[left]
    contexts = np.bincount(which, minlength=len(found))
    rest = np.bincount(which, total[left] / number[left], len(found)) / np.maximum(contexts, 1)
    alone = found & ((contexts == 0) | (rest > rules.threshold))
    for wider in chain[:-1]:
        found = found & ~((wider >= 0) & alone[wider])
    return found & alone

"""Heads of several training seeds matched by what they do and how they develop, and how many heads of each type every seed grows.

Heads of two seeds have no common numbering: head 1:6 of one may be head 1:2 of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import SeedMatch, TypeCounts
from rllc.analysis.curves import layer_of
from rllc.analysis.findings import Behaviour, Curves, Floats, HeadTypes
from rllc.analysis.learners import matched
from rllc.core import seeds as streams
from rllc.core.errors import RllcError


@dataclass(frozen=True)
class SeedFeatures:
    """What heads are matched by: one row a head, for one seed."""

    heads: tuple[str, ...]  # H
    behaviour: Floats  # [H, B] scores
    curve: Floats  # [H, S] λ̂ over the checkpoints that all seeds have


def type_counts(types: Mapping[str, HeadTypes]) -> TypeCounts:
    """Heads of each type by seed, types in the order of their first appearance.

    >>> one = HeadTypes(("0:0", "0:1"), ("induction", "other"), np.ones(2), 5, {})
    >>> type_counts({"seed 0": one, "seed 1": HeadTypes(("0:0",), ("other",), np.ones(1), 5, {})}).counts.tolist()
    [[1, 1], [0, 1]]
    """
    names = tuple(dict.fromkeys(name for found in types.values() for name in found.types))
    counts = np.array([[found.types.count(name) for name in names] for found in types.values()], dtype=np.int64).reshape(len(types), len(names))
    return TypeCounts(tuple(types), names, counts)


def seed_features(curves: Mapping[str, Curves], behaviour: Mapping[str, Behaviour]) -> dict[str, SeedFeatures]:
    """Features by seed: behaviour scores at each seed's last measured checkpoint, and λ̂ at the checkpoints that every seed has.

    Heads without a complete curve or without a score are left out. Raises RllcError where seeds share no checkpoint or no kind of score, or one
    has no head left.
    """
    if set(curves) != set(behaviour) or not curves:
        raise RllcError(
            f"Curves are of {', '.join(curves) or 'no seed'}, behaviour of {', '.join(behaviour) or 'no seed'}.", "Give both for every seed."
        )
    steps = [int(step) for step in reduce(np.intersect1d, [found.steps for found in curves.values()])]
    scores: list[str] = sorted(reduce(frozenset[str].intersection, [frozenset(found.scores) for found in behaviour.values()]))
    if not steps or not scores:
        raise RllcError(f"The seeds share {len(steps)} checkpoints and {len(scores)} kinds of scores.", "Measure every seed alike.")
    features: dict[str, SeedFeatures] = {}
    for seed, found in curves.items():
        told = behaviour[seed]
        both = [head for head in found.parts if head in told.heads]
        curve: Floats = found.llc[[found.parts.index(head) for head in both]][:, np.searchsorted(found.steps, steps)]
        score: Floats = np.stack([told.scores[name][[told.heads.index(head) for head in both], -1] for name in scores], axis=1)
        whole: list[bool] = [bool(np.isfinite(one).all() and np.isfinite(other).all()) for one, other in zip(curve, score, strict=True)]
        if not any(whole):
            raise RllcError(f"No head of {seed} has both a complete curve and every score.", "Sample and measure the same heads and checkpoints.")
        features[seed] = SeedFeatures(tuple(head for head, yes in zip(both, whole, strict=True) if yes), score[whole], curve[whole])
    return features


def match_seeds(
    features: Mapping[str, SeedFeatures], seed: int, *, types: Mapping[str, HeadTypes] | None = None, permutations: int = 1000
) -> tuple[SeedMatch, ...]:
    """Every pair of seeds, their heads matched with the smallest total distance (Hungarian method), a layer's heads with those of the same layer.

    Scores are divided by their common spread over all heads of all seeds, and so are curves, so that behaviour and curve weigh alike. The best
    matching is closer than a random one even where there is nothing to match, so the test is held out: heads are matched by behaviour alone, and
    `held_out_p` says how often a random matching within layers brings their curves as close. Where a layer has more heads in one seed, the worst
    stay alone. Raises RllcError for fewer than two seeds, or seeds that share no layer.
    """
    if len(features) < 2:
        raise RllcError(f"{len(features)} seed was given; matching needs two.", "Train and measure another seed.")
    scaled = _standardised(list(features.values()))
    found: list[SeedMatch] = []
    for (i, one), (j, other) in combinations(enumerate(features), 2):
        behaviour, curve = (_distances(scaled[i][block], scaled[j][block]) for block in (0, 1))
        groups = _layers(features[one].heads, features[other].heads)
        if not groups:
            raise RllcError(f"{one} and {other} share no layer with heads.", "Match models of the same shape.")
        combined = np.sqrt((behaviour**2 + curve**2) / 2)
        generator = streams.generator(seed, "match", one, other)
        shuffled = [_random(groups, generator) for _ in range(permutations)]
        rows, columns = _best(combined, groups)
        told_rows, told_columns = _best(behaviour, groups)
        random_means = np.array([combined[pairs].mean() for pairs in shuffled])
        random_curves = np.array([curve[pairs].mean() for pairs in shuffled])
        held_out = float(curve[told_rows, told_columns].mean())
        same: Floats = np.full(combined.shape, np.nan)
        if types is not None:
            same = np.equal.outer(_types(features[one].heads, types[one]), _types(features[other].heads, types[other])).astype(np.float64)
        heads, theirs = features[one].heads, features[other].heads
        found.append(
            SeedMatch(
                one,
                other,
                tuple((heads[int(rows[k])], theirs[int(columns[k])]) for k in range(len(rows))),
                combined[rows, columns],
                float(combined[rows, columns].mean()),
                _range(random_means),
                held_out,
                _range(random_curves),
                float((1 + (random_curves <= held_out + 1e-12).sum()) / (1 + permutations)),
                float(same[rows, columns].mean()),
                float(np.mean([same[pairs].mean() for pairs in shuffled])),
            )
        )
    return tuple(found)


_Groups = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _standardised(features: Sequence[SeedFeatures]) -> list[tuple[Floats, Floats]]:
    blocks: list[list[Floats]] = []
    for name in ("behaviour", "curve"):
        values = [np.asarray(getattr(found, name), dtype=np.float64) for found in features]
        every = np.concatenate(values)
        spread = float(
            np.sqrt(every.var(axis=0).mean())
        )  # one for the block: a checkpoint at which heads differ by noise alone must not count in full
        flat = spread <= 1e-12 * float(np.abs(every).max())
        blocks.append([np.zeros_like(value) if flat else (value - every.mean(axis=0)) / spread for value in values])
    return list(zip(blocks[0], blocks[1], strict=True))


def _distances(one: Floats, other: Floats) -> Floats:
    """Root mean square difference [A, B] of features [A, F] and [B, F]."""
    return np.sqrt(((one[:, None] - other[None, :]) ** 2).mean(axis=2))


def _layers(one: Sequence[str], other: Sequence[str]) -> _Groups:
    ours, theirs = (np.array([layer_of(head) for head in heads], dtype=np.int64) for heads in (one, other))
    return [(np.flatnonzero(ours == layer), np.flatnonzero(theirs == layer)) for layer in np.intersect1d(ours, theirs)]


def _best(distance: Floats, groups: _Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = [(rows, columns, *matched(-distance[np.ix_(rows, columns)])) for rows, columns in groups]
    return np.concatenate([rows[a] for rows, _, a, _ in pairs]), np.concatenate([columns[b] for _, columns, _, b in pairs])


def _random(groups: _Groups, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    sizes = [min(len(rows), len(columns)) for rows, columns in groups]
    one = [generator.permutation(rows)[:size] for (rows, _), size in zip(groups, sizes, strict=True)]
    other = [generator.permutation(columns)[:size] for (_, columns), size in zip(groups, sizes, strict=True)]
    return np.concatenate(one), np.concatenate(other)


def _types(heads: Sequence[str], types: HeadTypes) -> NDArray[np.str_]:
    by_head = dict(zip(types.heads, types.types, strict=True))
    return np.array([by_head.get(head, "other") for head in heads])


def _range(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)

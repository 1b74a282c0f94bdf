"""Whether clusters of curves are the head types of behaviour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.findings import Agreement, Clustering, Floats, HeadTypes
from rllc.analysis.regression import dealt, layers_of
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.types import TYPES
from rllc.core import seeds


def agreement(clustering: Clustering, types: HeadTypes, settings: AnalysisSettings, seed: int) -> tuple[Agreement | None, str]:
    """Adjusted Rand index and confusion of clusters with types, over the heads that have both; or None and the reason.

    `chance_interval` is the 5 to 95 % range of the index when the types are dealt to the heads of a layer at random: with few heads it is wide, and
    an index inside it says nothing. Layers differ in types and in curves for reasons of their own: clusters that are the layers recover no type.
    """
    by_head = dict(zip(types.heads, types.types, strict=True))
    both = [i for i, head in enumerate(clustering.heads) if head in by_head]
    if len(both) < 2:
        return None, f"There is no agreement to tell ({clustering.scope}): fewer than two clustered heads have a type."
    named = [by_head[clustering.heads[i]] for i in both]
    present = tuple(name for name in TYPES if name in named)
    type_ids = np.array([present.index(name) for name in named])
    labels = clustering.labels[both]
    confusion = np.zeros((len(present), clustering.n_clusters), dtype=np.int64)
    np.add.at(confusion, (type_ids, labels), 1)
    generator = seeds.generator(seed, "chance", clustering.method, clustering.preprocessing, clustering.scope)
    chance = adjusted_rand(dealt_types(type_ids, settings.permutations, generator, [clustering.heads[i] for i in both]), labels)
    low, high = (float(value) for value in np.quantile(chance, (0.05, 0.95)))
    found = float(adjusted_rand(type_ids[None], labels)[0])
    return Agreement(
        clustering.method,
        clustering.scope,
        found,
        confusion,
        present,
        (low, high),
        clustering.preprocessing,
        clustering.time,
        float((1 + (chance >= found - 1e-9).sum()) / (1 + len(chance))) if np.isfinite(found) else float("nan"),
    ), ""


def dealt_types(ids: NDArray[np.int64], count: int, generator: np.random.Generator, heads: Sequence[str]) -> NDArray[np.int64]:
    """Types [H] dealt to the heads of the same layer at random, `count` times [count, H]."""
    return dealt(ids.astype(np.float64), count, generator, layers_of(heads)).astype(np.int64)


def adjusted_rand(many: NDArray[np.int64], one: NDArray[np.int64]) -> Floats:
    """Adjusted Rand index of many labellings [R, H] with one [H]: 1 for the same groups, 0 on average for chance, NaN where nothing could disagree.

    All at once, because hundreds of resamples of sixteen heads take seconds one after another (Hubert and Arabie 1985, equation 5).

    >>> adjusted_rand(np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]]), np.array([0, 0, 1, 1])).round(9).tolist()
    [1.0, 1.0, -0.5]
    """
    joint = np.einsum("rha,hb->rab", _one_hot(many), _one_hot(one))  # [R, groups, groups]
    together, rows, columns = (_pairs(counts).sum(axis=-1) for counts in (joint.reshape(len(many), -1), joint.sum(axis=2), joint.sum(axis=1)))
    expected = rows * columns / _pairs(np.float64(len(one)))
    largest = (rows + columns) / 2
    defined = largest != expected
    return np.where(defined, (together - expected) / np.where(defined, largest - expected, 1.0), np.nan)


def _one_hot(labels: NDArray[np.int64]) -> Floats:
    return (labels[..., None] == np.unique(labels)).astype(np.float64)


def _pairs(counts: Floats | np.float64) -> Floats:
    return np.asarray(counts * (counts - 1) / 2)

"""Which baseline orders heads like rLLC: rank correlations within layers of any quantity of heads with λ̂, at the end and over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rllc.analysis.comparisons import Ordering
from rllc.analysis.errors import CONFIDENCE
from rllc.analysis.findings import Curves, Floats
from rllc.analysis.regression import layers_of, spearman, spearman_p
from rllc.core import seeds
from rllc.core.errors import RllcError

_LEAST = 4


@dataclass(frozen=True)
class Quantity:
    """A number of heads over checkpoints, such as a Hessian's trace, a norm of weights or the effect of an ablation, with its error."""

    heads: tuple[str, ...]  # H
    steps: tuple[int, ...]  # S; those of λ̂ that it was not measured at are left out
    values: Floats  # [H, S]
    stderr: Floats | None = None  # [H, S]; None means exact


def orderings(
    curves: Curves, quantities: Mapping[str, Quantity], seed: int, *, resamples: int = 500, permutations: int = 2000
) -> tuple[tuple[Ordering, ...], tuple[str, ...]]:
    """The table, one row a quantity, the strongest the size of ρ at the end first; then, as sentences, what was left out.

    Only heads with both numbers at the common checkpoints enter; a checkpoint that most heads lack is left out itself. With fewer than four
    such heads a quantity has no row.
    Raises RllcError where the shapes of a quantity do not fit.
    """
    rows: list[Ordering] = []
    said: list[str] = []
    for name, quantity in quantities.items():
        if quantity.values.shape != (len(quantity.heads), len(quantity.steps)):
            raise RllcError(
                f"{name} has values {quantity.values.shape} for {len(quantity.heads)} heads and {len(quantity.steps)} steps.",
                "Give one row a head and one column a checkpoint.",
            )
        pair = _pair(curves, quantity)
        if len(pair.heads) < _LEAST:
            said.append(f"{name} has no row: {len(pair.heads)} heads have it and λ̂ at every common checkpoint, and an order needs {_LEAST}.")
        else:
            rows.append(_row(name, pair, seed, resamples, permutations))
    held = holm(np.array([row.p for row in rows], dtype=np.float64))
    rows = [replace(row, p_holm=float(p)) for row, p in zip(rows, held, strict=True)]
    return tuple(sorted(rows, key=lambda row: -abs(row.correlation) if np.isfinite(row.correlation) else 1.0)), tuple(said)


@dataclass(frozen=True)
class _Pair:
    heads: tuple[str, ...]  # H
    steps: tuple[int, ...]  # S
    llc: Floats  # [H, S]
    other: Floats  # [H, S]


def _pair(curves: Curves, quantity: Quantity) -> _Pair:
    """λ̂ and the quantity at the same heads and checkpoints, complete in both: checkpoints that most heads lack go first, then heads that lack any."""
    heads = [head for head in curves.parts if head in quantity.heads]
    steps = [step for step in curves.steps.tolist() if step in quantity.steps]
    ours = np.ix_([curves.parts.index(head) for head in heads], [curves.steps.tolist().index(step) for step in steps])
    theirs = np.ix_([quantity.heads.index(head) for head in heads], [quantity.steps.index(step) for step in steps])
    error = np.zeros(quantity.values.shape) if quantity.stderr is None else quantity.stderr
    columns = (curves.llc[ours], curves.stderr[ours], quantity.values[theirs], error[theirs])
    present = np.logical_and.reduce([np.isfinite(values) for values in columns])
    kept = present.sum(axis=0) * 2 >= max(len(heads), 1)
    whole = present[:, kept].all(axis=1) & kept.any()
    llc, other = (values[np.ix_(whole, kept)] for values in columns[::2])
    names = tuple(head for head, yes in zip(heads, whole, strict=True) if yes)
    return _Pair(names, tuple(step for step, yes in zip(steps, kept, strict=True) if yes), llc, other)


def _row(name: str, pair: _Pair, seed: int, resamples: int, permutations: int) -> Ordering:
    llc, other = pair.llc, pair.other
    generator = seeds.generator(seed, "ordering", name)
    layers = layers_of(pair.heads)
    found, p = spearman_p(llc[:, -1], other[:, -1], permutations, generator, layers)
    picked = np.zeros((resamples, len(llc)), dtype=np.int64)
    for layer in np.unique(layers):  # heads of a layer for heads of that layer
        ours = np.flatnonzero(layers == layer)
        picked[:, ours] = generator.choice(ours, size=(resamples, len(ours)))
    drawn = spearman(llc[picked, -1], other[picked, -1], layers)
    ends = np.nanquantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)) if np.isfinite(drawn).any() else np.full(2, np.nan)
    return Ordering(
        name=name,
        heads=pair.heads,
        step=pair.steps[-1],
        correlation=found,
        over_heads=(float(ends[0]), float(ends[1])),
        p=p,
        p_holm=p,
        steps=pair.steps,
        by_step=spearman(llc.T, other.T, layers),
        along_training=spearman(llc, other) if len(pair.steps) >= _LEAST else np.full(len(llc), np.nan),
        pooled=float(spearman(llc[:, -1], other[:, -1])),
    )


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values [N]; NaN where p is, which counts as no test."""
    held = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    held[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return held

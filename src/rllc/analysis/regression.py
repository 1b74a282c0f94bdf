"""How final wrLLC goes with a covariate of heads, such as the number of memorised multigrams (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Regression
from rllc.analysis.curves import layer_of
from rllc.analysis.findings import Floats
from rllc.analysis.learners import ranks, t_quantile
from rllc.core import seeds
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float

_LEAST = 4


def regress(
    heads: Sequence[str],
    values: Float[np.ndarray, " H"],
    covariate: Float[np.ndarray, " H"],
    name: str,
    seed: int,
    *,
    stderr: Float[np.ndarray, " H"] | None = None,
    permutations: int = 2000,
) -> Regression:
    """Ordinary least squares of values [H] on a covariate [H] within layers: one slope, and a level of its own for each layer.

    Layers differ in both numbers for reasons of their own, and across layers that alone makes a correlation. Heads that lack either number, or
    are the only one of their layer, are left out. Heads count alike whatever their errors, for heads scatter about a line by far more than
    their estimates; `noise_share` says whether that holds.
    Raises RllcError where fewer than four heads have both, or the covariate is the same for all of them or for all but one.
    """
    layers = layers_of(heads)
    known = _in_company(np.isfinite(values) & np.isfinite(covariate), layers)
    n = int(known.sum())
    if n < _LEAST:
        raise RllcError(f"A regression on {name} needs {_LEAST} heads with both numbers; {n} have them.", "Measure more heads.")
    x, y, layers = covariate[known], values[known], layers[known]
    _, counts = np.unique(x, return_counts=True)
    if counts.max() >= n - 1:
        raise RllcError(f"{name} is the same for {counts.max()} of {n} heads, so that no line can be told.", "Choose another covariate or threshold.")
    centred, about = centred_in(x, layers), centred_in(y, layers)
    beside = _sizes(layers)
    spread = float(centred @ centred)
    leverage = 1 / beside + centred**2 / max(spread, np.finfo(np.float64).tiny)
    freedom = n - len(np.unique(layers)) - 1
    if freedom < 1 or leverage.max() > 1 - 1e-9:
        raise RllcError(
            f"Within layers {name} differs for too few of {n} heads, so that no line can be told.", "Choose another covariate or measure more heads."
        )
    slope = float(centred @ about) / spread
    residual = about - slope * centred
    variance = float(residual @ residual) / freedom
    half = t_quantile(0.975, freedom) * float(np.sqrt(variance / spread))
    apart = residual / (1 - leverage)  # each head against the line of the others
    total = about @ about
    total_left_out = ((about * beside / (beside - 1)) ** 2).sum()
    slope_without = slope - centred * apart / spread
    exact = variance <= 1e-24 * float(y @ y)
    cook = np.zeros(n) if exact else residual**2 * leverage / ((n - freedom) * variance * (1 - leverage) ** 2)
    rank, chance = spearman_p(x, y, permutations, seeds.generator(seed, "regression", name), layers)
    noise = float("nan")
    if stderr is not None and not exact:
        noise = float(np.mean(stderr[known] ** 2)) / variance
    return Regression(
        heads=tuple(head for head, yes in zip(heads, known, strict=True) if yes),
        covariate=name,
        slope=slope,
        intercept=float(y.mean() - slope * x.mean()),
        slope_interval=(slope - half, slope + half),
        r2=_share(float(residual @ residual), float(total)),
        r2_left_out=_share(float(apart @ apart), float(total_left_out)),
        rank_correlation=rank,
        rank_p=chance,
        left_out=tuple(head for head, yes in zip(heads, known, strict=True) if not yes),
        foretold=y - apart,
        slope_without=slope_without,
        influence=cook,
        noise_share=noise,
        pooled=float(spearman(x, y)),
        layers=len(np.unique(layers)),
    )


def layers_of(heads: Sequence[str]) -> NDArray[np.int64]:
    """Layer [H] of each head."""
    return np.array([layer_of(head) for head in heads], dtype=np.int64)


def centred_in(values: Floats, layers: NDArray[np.int64]) -> Floats:
    """Values [..., H] less their mean over the heads of the same layer [H]."""
    centred = np.zeros(values.shape)
    for layer in np.unique(layers):
        ours = values[..., layers == layer]
        centred[..., layers == layer] = ours - ours.mean(axis=-1, keepdims=True)
    return centred


def spearman(one: Floats, many: Floats, layers: NDArray[np.int64] | None = None) -> Floats:
    """Spearman's rank correlation [...] of values [H] with values [..., " H"], ties by mean ranks; NaN where either is constant.

    With layers [H], ranks are those among the heads of a layer, over their number and one, less their mean: what lies between layers has no say.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([[10.0, 20.0, 30.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])).tolist()
    [1.0, -1.0, nan]
    >>> spearman(np.array([1.0, 2.0, 8.0, 9.0]), np.array([2.0, 1.0, 9.0, 8.0]), np.array([0, 0, 1, 1])).tolist()
    -1.0
    """
    first, second = _ranked(one, layers), _ranked(many, layers)
    size: Floats = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), size, out=np.full(size.shape, np.nan), where=size > 0)


def spearman_p(
    one: Floats, other: Floats, permutations: int, generator: np.random.Generator, layers: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p-value by permutation, (1 + those as large) / (1 + permutations); NaN where undefined.

    With layers [H] both are within layers.
    """
    found = float(spearman(one, other, layers))
    if not np.isfinite(found):
        return found, float("nan")
    shuffled = spearman(one, dealt(other, permutations, generator, layers), layers)
    return found, float((1 + (np.abs(shuffled) >= abs(found) - 1e-12).sum()) / (1 + permutations))


def dealt(values: Floats, count: int, generator: np.random.Generator, layers: NDArray[np.int64] | None = None) -> Floats:
    """Values [H] dealt to the heads at random, `count` times [count, H]; with layers [H], to the heads of the same layer."""
    shuffled = np.array(np.broadcast_to(values, (count, len(values))))
    for layer in [None] if layers is None else np.unique(layers):
        at = slice(None) if layer is None else layers == layer
        shuffled[:, at] = generator.permuted(shuffled[:, at], axis=1)
    return shuffled


def _ranked(values: Floats, layers: NDArray[np.int64] | None) -> Floats:
    """Centred ranks [..., H] within layers, 0 for the only head of its layer."""
    if layers is None:
        return ranks(values) - (values.shape[-1] + 1) / 2
    found = np.zeros(values.shape)
    for layer in np.unique(layers):
        ours = values[..., layers == layer]
        n = ours.shape[-1]
        found[..., layers == layer] = (ranks(ours) - (n + 1) / 2) / (n + 1)  # a small layer's ranks weigh as much as a large one's
    return found


def _sizes(layers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many heads [H] the layer of each has."""
    return (layers[:, None] == layers[None]).sum(axis=1)


def _in_company(known: NDArray[np.bool_], layers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which heads are known, with another known head of their layer."""
    return known & (((layers[:, None] == layers[None]) & known[None]).sum(axis=1) > 1)


def _share(left: float, total: float) -> float:
    return 1 - left / total if total > 0 else float("nan")

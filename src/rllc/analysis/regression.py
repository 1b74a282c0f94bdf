"""How final wrLLC goes with a covariate of heads, such as the number of memorised multigrams (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rllc.analysis.comparisons import Regression
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
    """Ordinary least squares of values [H] on a covariate [H], heads that lack either left out.

    Heads count alike whatever their errors, for heads scatter about a line by far more than their estimates; `noise_share` says whether that holds.
    Raises RllcError where fewer than four heads have both, or the covariate is the same for all of them or for all but one.
    """
    known = np.isfinite(values) & np.isfinite(covariate)
    n = int(known.sum())
    if n < _LEAST:
        raise RllcError(f"A regression on {name} needs {_LEAST} heads with both numbers; {n} have them.", "Measure more heads.")
    x, y = covariate[known], values[known]
    _, counts = np.unique(x, return_counts=True)
    if counts.max() >= n - 1:
        raise RllcError(f"{name} is the same for {counts.max()} of {n} heads, so that no line can be told.", "Choose another covariate or threshold.")
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residual = y - y.mean() - slope * centred
    leverage = 1 / n + centred**2 / spread
    variance = float(residual @ residual) / (n - 2)
    half = t_quantile(0.975, n - 2) * float(np.sqrt(variance / spread))
    apart = residual / (1 - leverage)  # each head against the line of the others
    total = ((y - y.mean()) ** 2).sum()
    total_left_out = ((y - y.mean()) ** 2).sum() * (n / (n - 1)) ** 2
    slope_without = slope - centred * apart / spread
    exact = variance <= 1e-24 * float(y @ y)
    cook = np.zeros(n) if exact else residual**2 * leverage / (2 * variance * (1 - leverage) ** 2)
    rank, chance = spearman_p(x, y, permutations, seeds.generator(seed, "regression", name))
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
    )


def spearman(one: Floats, many: Floats) -> Floats:
    """Spearman's rank correlation [...] of values [H] with values [..., " H"], ties by mean ranks; NaN where either is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([[10.0, 20.0, 30.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])).tolist()
    [1.0, -1.0, nan]
    """
    first, second = ranks(one) - (one.shape[-1] + 1) / 2, ranks(many) - (one.shape[-1] + 1) / 2
    size: Floats = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), size, out=np.full(size.shape, np.nan), where=size > 0)


def spearman_p(one: Floats, other: Floats, permutations: int, generator: np.random.Generator) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p-value by permutation, (1 + those as large) / (1 + permutations); NaN where undefined."""
    found = float(spearman(one, other))
    if not np.isfinite(found):
        return found, float("nan")
    shuffled = generator.permuted(np.broadcast_to(other, (permutations, len(other))), axis=1)
    return found, float((1 + (np.abs(spearman(one, shuffled)) >= abs(found) - 1e-12).sum()) / (1 + permutations))


def _share(left: float, total: float) -> float:
    return 1 - left / total if total > 0 else float("nan")

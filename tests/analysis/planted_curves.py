"""Curves and behaviour with a known answer."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from rllc.analysis.findings import Behaviour, Curves, Floats, Patterns

STEPS = np.array([0, 10, 30, 100, 200, 400, 700, 1000, 1500, 2000, 3000])
HEADS = tuple(f"{layer}:{head}" for layer in range(2) for head in range(8))
TRUTH = np.arange(16) % 3  # in the order of final values: induction, previous-token, other


def curves_from(llc: Floats, stderr: Floats | float, parts: tuple[str, ...] = HEADS, steps: np.ndarray = STEPS, data: str = "mix") -> Curves:
    errors = np.broadcast_to(stderr, llc.shape).astype(np.float64)
    outcome = np.where(np.isfinite(llc), "ok", "nonfinite")
    return Curves(data, parts, np.asarray(steps, dtype=np.int64), llc, errors, llc - 2 * errors, llc + 2 * errors, outcome)


def head_curves(noise: float, seed: int = 0, data: str = "mix", shift: Floats | float = 0.0) -> Curves:
    """Sixteen heads of three kinds: a late fall, a plateau and a steady rise, with normal errors of standard deviation `noise`."""
    x = np.log1p(STEPS)
    rise = x / x[-1]
    shapes = np.stack([6 * np.sin(np.pi * rise**1.5) + 0.5 * rise, 5 * np.minimum(1, 2 * rise), 10 * rise])
    clean = shapes[TRUTH] + np.asarray(shift)[..., None] * np.eye(len(STEPS))[-1]
    return curves_from(clean + noise * np.random.default_rng(seed).standard_normal(clean.shape), noise, data=data)


def full_curve(noise: float, seed: int = 0, steps: np.ndarray | None = None) -> tuple[Curves, Floats]:
    """A full-model curve that rises, falls and rises over log(t+1), and the steps of its peak and its trough."""
    if steps is None:
        steps = np.r_[0, np.unique(np.round(np.geomspace(1, 3000, 14)).astype(int))]
    x = np.log1p(steps)
    clean = 20 + 30 * np.sin(x - 1)
    llc = clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)
    return curves_from(llc[None], noise, ("full",), steps), np.expm1([1 + np.pi / 2, 1 + 3 * np.pi / 2])


def behaviour() -> Behaviour:
    """Scores that make the types of TRUTH at the last checkpoint, and nothing at the first."""
    growth = np.linspace(0, 1, len(STEPS))
    previous = np.where(TRUTH == 1, 0.6, 0.05)[:, None] * growth
    prefix = np.where(TRUTH == 0, 0.5, 0.02)[:, None] * growth
    current = np.full((16, 1), 0.1) * growth
    scores = {"previous_token": previous, "current_token": current, "prefix_matching": prefix}
    return Behaviour(HEADS, STEPS, scores, ("code", "prose"), np.stack([6 - 3 * growth, 6 - 2 * growth]), -0.3 * growth)


def within(one: Floats, other: Floats, heads: tuple[str, ...] = HEADS) -> float:
    """Spearman's correlation within layers by hand: ranks of each layer, stretched to -1..1, correlated through the origin."""
    both = [[], []]
    for layer in sorted({head.split(":")[0] for head in heads}):
        rows = [i for i, head in enumerate(heads) if head.startswith(f"{layer}:")]
        for found, values in zip(both, (one, other), strict=True):
            found.extend(2 * rankdata(values[rows]) / (len(rows) + 1) - 1)
    x, y = map(np.array, both)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def patterns() -> Patterns:
    weights = np.random.default_rng(0).integers(0, 256, size=(2, 16, 3, 3)).astype(np.uint8)
    return Patterns(HEADS, STEPS[[0, -1]], ("code 1", "echo"), (("a", "<b>", "\n"), ("x", "y", "x")), (weights, 255 - weights))

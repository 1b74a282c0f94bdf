"""When the curves of two heads part, or those of one head on two kinds of data: differentiation and specialisation as numbers (METHOD 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Partings
from rllc.analysis.curves import select
from rllc.analysis.findings import Curves, Floats
from rllc.analysis.learners import normal_quantile, smoothed
from rllc.core import seeds
from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float

NEVER = -1


def partings(
    steps: NDArray[np.int64],
    difference: Float[np.ndarray, "N S"],
    stderr: Float[np.ndarray, "N S"],
    names: Sequence[str],
    seed: int,
    *,
    level: float = 0.05,
    resamples: int = 200,
) -> Partings:
    """The first checkpoint at which a difference exceeds `threshold` errors and from which on it keeps its sign.

    The threshold is Šidák's for every checkpoint of every comparison, so that the chance that *any* difference which is still zero is taken for a
    parting is at most `level`, were the errors independent and normal; positive dependence lowers it. The step is therefore late rather than early:
    by then they have parted. "For good" means that no later estimate has the other sign, which a difference gone back to zero passes
    with a chance of one half a checkpoint: look at `final` too.

    The intervals are of the step as this rule finds it: differences redrawn with their errors around a smoothing spline over log(step + 1)
    (generalised cross-validation; fewer than 5 checkpoints are taken as they are); none without `resamples`. Checkpoints that lack
    an estimate are left out.
    Raises RllcError where shapes do not fit, or an error is not above zero.
    """
    if difference.shape != stderr.shape or difference.shape != (len(names), len(steps)):
        raise RllcError(
            f"{len(names)} names and {len(steps)} steps were given with differences {difference.shape} and errors {stderr.shape}.",
            "Give one row a comparison and one column a checkpoint.",
        )
    known = np.isfinite(difference) & np.isfinite(stderr)
    if (stderr[known] <= 0).any():
        raise RllcError("A difference has an error that is not above zero.", "Give the standard error of each difference.")
    tests = max(int(known.sum()), 1)
    threshold = normal_quantile(1 - (1 - (1 - level) ** (1 / tests)) / 2)
    n = len(names)
    found, sign = np.full(n, NEVER, dtype=np.int64), np.zeros(n, dtype=np.int64)
    intervals, share = np.full((n, 2), np.nan), np.zeros(n)
    final, final_stderr = np.full(n, np.nan), np.full(n, np.nan)
    for i in range(n):
        at = steps[known[i]]
        if len(at) == 0:
            continue
        values, errors = difference[i, known[i]], stderr[i, known[i]]
        final[i], final_stderr[i] = values[-1], errors[-1]
        place = int(_first(values[None], errors, threshold)[0])
        if place < len(at):
            found[i], sign[i] = at[place], int(np.sign(values[place]))
        if resamples == 0:
            continue
        noise = seeds.generator(seed, "parting", names[i]).standard_normal((resamples, len(at)))
        places = _first(smoothed(np.log1p(at.astype(np.float64)), values, errors) + errors * noise, errors, threshold)
        parted = places < len(at)
        share[i] = parted.mean()
        if place < len(at) and parted.any():
            intervals[i] = np.quantile(at[places[parted]], (0.05, 0.95), method="closest_observation")
    return Partings(tuple(names), found, sign, intervals, share, final, final_stderr, threshold, level)


def heads_part(
    curves: Curves,
    seed: int,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    paired_stderr: Mapping[tuple[str, str], Floats] | None = None,
    level: float = 0.05,
    resamples: int = 200,
) -> Partings:
    """When the curves of two heads part, for these pairs or for all.

    Args:
        curves: of heads on one kind of data.
        seed: root of the redrawn differences.
        pairs: of parts; all that the curves hold, unless given. The fewer, the lower the threshold.
        paired_stderr: errors [S] of the difference from traces aligned by draw; without it those of both are taken as independent.
        level: see `Partings`.
        resamples: see `partings`.
    """
    chosen = list(pairs) if pairs is not None else list(combinations(curves.parts, 2))
    first, second = (select(curves, [pair[side] for pair in chosen]) for side in (0, 1))
    stderr = np.hypot(first.stderr, second.stderr)
    for i, pair in enumerate(chosen):
        if paired_stderr is not None and pair in paired_stderr:
            stderr[i] = paired_stderr[pair]
    names = [f"{a} - {b}" for a, b in chosen]
    return replace(partings(curves.steps, first.llc - second.llc, stderr, names, seed, level=level, resamples=resamples), data=curves.data)


def data_part(one: Curves, reference: Curves, seed: int, *, paired_stderr: Mapping[str, Floats] | None = None, level: float = 0.05) -> Partings:
    """When the curves of each head on two kinds of data part, over the heads and checkpoints that both have.

    A part of the loss differs between data from the first step on, so heads may part at once; a head that has specialised parts later.

    Args:
        one: curves of heads on one kind of data.
        reference: on the other, which is subtracted.
        seed: root of the redrawn differences.
        paired_stderr: by head, errors [common steps] of the difference from traces aligned by draw.
        level: see `Partings`.

    Raises RllcError where they share no head or no checkpoint.
    """
    heads = [part for part in one.parts if part in reference.parts]
    steps = np.intersect1d(one.steps, reference.steps)
    if not heads or not len(steps):
        raise RllcError(f"The curves on {one.data} and on {reference.data} share no head or no checkpoint.", "Sample both at the same checkpoints.")
    (value, error), (base, base_error) = (_common(select(curves, heads), steps) for curves in (one, reference))
    stderr = np.hypot(error, base_error)
    for i, head in enumerate(heads):
        if paired_stderr is not None and head in paired_stderr:
            stderr[i] = paired_stderr[head]
    names = [f"{head}, {one.data} - {reference.data}" for head in heads]
    return replace(partings(steps, value - base, stderr, names, seed, level=level), data=one.data, reference=reference.data)


def _common(curves: Curves, steps: NDArray[np.int64]) -> tuple[Floats, Floats]:
    columns = np.searchsorted(curves.steps, steps)
    return curves.llc[:, columns], curves.stderr[:, columns]


def _first(values: Floats, errors: Floats, threshold: float) -> NDArray[np.int64]:
    """By the rule of `partings`, the first place in each row of values [R, S]; S where there is none."""
    places = int(values.shape[1])
    same = np.sign(values) == np.sign(values[:, -1:])
    settled = np.logical_and.accumulate(same[:, ::-1], axis=1)[:, ::-1]  # the sign of the end from here on
    passed: NDArray[np.bool_] = settled & (np.abs(values) > threshold * errors)
    return np.asarray(np.where(passed.any(axis=1), passed.argmax(axis=1), places), dtype=np.int64)

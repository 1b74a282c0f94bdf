"""When the curves of two heads part, or those of one head on two kinds of data: differentiation and specialisation as numbers (METHOD 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.aligned import Aligned, cells, difference
from rllc.analysis.comparisons import Partings
from rllc.analysis.curves import select
from rllc.analysis.errors import noise, quantile
from rllc.analysis.findings import Curves, Floats, freedom_of
from rllc.analysis.learners import smoothed
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
    df: Float[np.ndarray, "N S"] | None = None,
    level: float = 0.05,
    resamples: int = 200,
) -> Partings:
    """The first checkpoint at which a difference exceeds so many errors that it is none by chance, and from which on it keeps its sign.

    How many is Šidák's for every checkpoint of every comparison, by t with the degrees of freedom of that error, so that the chance that *any*
    difference which is still zero is taken for a parting is at most `level`, were the noise independent and normal; positive dependence lowers it.
    The step is therefore late rather than early: by then they have parted. "For good" means that no later estimate has the other sign, which a
    difference gone back to zero passes with a chance of one half a checkpoint: look at `final` too.

    The intervals are of the step as this rule finds it: differences redrawn with their errors around a smoothing spline over log(step + 1)
    (generalised cross-validation; fewer than 5 checkpoints are taken as they are); none without `resamples`. Checkpoints that lack
    an estimate are left out; without `df` errors count as known.
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
    freedom = freedom_of(df, stderr)
    thresholds = quantile(1 - (1 - (1 - level) ** (1 / tests)) / 2, freedom)
    threshold = float(np.median(thresholds[known])) if known.any() else float("nan")
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
        beyond = thresholds[i, known[i]] * errors
        place = int(_first(values[None], beyond)[0])
        if place < len(at):
            found[i], sign[i] = at[place], int(np.sign(values[place]))
        if resamples == 0:
            continue
        drawn = noise(errors, freedom[i, known[i]], resamples, seeds.generator(seed, "parting", names[i]))
        places = _first(smoothed(np.log1p(at.astype(np.float64)), values, errors) + drawn, beyond)
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
    aligned: Mapping[str, Aligned] | None = None,
    level: float = 0.05,
    resamples: int = 200,
) -> Partings:
    """When the curves of two heads part, for these pairs or for all.

    Args:
        curves: of heads on one kind of data.
        seed: root of the redrawn differences.
        pairs: of parts; all that the curves hold, unless given. The fewer, the lower the threshold.
        aligned: by name of data; where the curves' are not among them, the errors of both are taken as independent.
        level: see `Partings`.
        resamples: see `partings`.
    """
    chosen = list(pairs) if pairs is not None else list(combinations(curves.parts, 2))
    first, second = (select(curves, [pair[side] for pair in chosen]) for side in (0, 1))
    both = [cells(curves, aligned or {}, [pair[side] for pair in chosen]) for side in (0, 1)]
    error = difference(*both, shared_noise=False)  # the noise of its chains is each part's own
    names = [f"{a} - {b}" for a, b in chosen]
    found = partings(curves.steps, first.llc - second.llc, error.stderr, names, seed, df=error.df, level=level, resamples=resamples)
    return replace(found, data=curves.data)


def data_part(one: Curves, reference: Curves, seed: int, *, aligned: Mapping[str, Aligned] | None = None, level: float = 0.05) -> Partings:
    """When the curves of each head on two kinds of data part, over the heads and checkpoints that both have.

    A part of the loss differs between data from the first step on, so heads may part at once; a head that has specialised parts later.

    Args:
        one: curves of heads on one kind of data.
        reference: on the other, which is subtracted.
        seed: root of the redrawn differences.
        aligned: by name of data; where one of both is not among them, their errors are taken as independent.
        level: see `Partings`.

    Raises RllcError where they share no head or no checkpoint.
    """
    heads = [part for part in one.parts if part in reference.parts]
    steps = np.intersect1d(one.steps, reference.steps)
    if not heads or not len(steps):
        raise RllcError(f"The curves on {one.data} and on {reference.data} share no head or no checkpoint.", "Sample both at the same checkpoints.")
    value, base = (select(curves, heads).llc[:, np.searchsorted(curves.steps, steps)] for curves in (one, reference))
    error = difference(*[cells(curves, aligned or {}, heads, steps) for curves in (one, reference)])
    names = [f"{head}, {one.data} - {reference.data}" for head in heads]
    found = partings(steps, value - base, error.stderr, names, seed, df=error.df, level=level)
    return replace(found, data=one.data, reference=reference.data)


def _first(values: Floats, beyond: Floats) -> NDArray[np.int64]:
    """By the rule of `partings`, the first place in each row of values [R, S] further from zero than `beyond` [S]; S where there is none."""
    places = int(values.shape[1])
    same = np.sign(values) == np.sign(values[:, -1:])
    settled = np.logical_and.accumulate(same[:, ::-1], axis=1)[:, ::-1]  # the sign of the end from here on
    passed: NDArray[np.bool_] = settled & (np.abs(values) > beyond)
    return np.asarray(np.where(passed.any(axis=1), passed.argmax(axis=1), places), dtype=np.int64)

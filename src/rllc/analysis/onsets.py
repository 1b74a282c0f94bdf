"""When something that is measured over training sets in, with an interval, and whether such times lie together by more than chance (METHOD 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Turns
from rllc.analysis.findings import Floats
from rllc.analysis.learners import normal_quantile


@dataclass(frozen=True)
class Onset:
    """When a mark has come half of its way: its largest change from the first checkpoint.

    A crossing lies between two checkpoints, and no more is known of it than that; `before` and `after` are these, redrawn R times within the errors.
    """

    name: str
    step: float  # by a straight line over log(step + 1); NaN where the mark does not change beyond its errors
    interval: tuple[float, float]  # steps: 5 % of `before` to 95 % of `after`
    change: float  # the largest change, in the direction asked for
    change_low: float  # one-sided 5 % ends of it, over all checkpoints together
    change_high: float
    before: Floats  # [R] in log(step + 1)
    after: Floats  # [R]


def onset(
    name: str,
    steps: NDArray[np.int64],
    values: Floats,
    stderr: Floats,
    generator: np.random.Generator,
    *,
    falls: bool = False,
    resamples: int = 400,
    level: float = 0.05,
) -> Onset:
    """The onset of a mark [S] with errors [S] (0 where exact); `falls` where it is a fall that is asked for. Checkpoints without a value
    are left out.

    The half-way point is crossed for the last time before the largest change, so that one estimate that strays early is no onset.
    """
    known = np.isfinite(values) & np.isfinite(stderr)
    x = np.log1p(steps[known].astype(np.float64))
    y = (-1.0 if falls else 1.0) * values[known]
    noise = stderr[known]
    nothing = Onset(name, np.nan, (np.nan, np.nan), np.nan, np.nan, np.nan, np.empty(0), np.empty(0))
    if len(x) < 3:
        return nothing
    best = int(y.argmax())
    change, error = float(y[best] - y[0]), float(np.hypot(noise[best], noise[0]))
    low, high = change - normal_quantile(1 - level / (len(x) - 1)) * error, change + normal_quantile(1 - level) * error
    if low <= 0:
        return Onset(name, np.nan, (np.nan, np.nan), change, low, high, np.empty(0), np.empty(0))
    drawn = y + noise * generator.standard_normal((resamples, len(x)))
    edges = np.array([_crossing(row, x)[1:] for row in drawn if row.max() > row[0]])
    before, after = edges[:, 0], edges[:, 1]
    interval = float(np.expm1(np.quantile(before, level))), float(np.expm1(np.quantile(after, 1 - level)))
    return Onset(name, float(np.expm1(_crossing(y, x)[0])), interval, change, low, high, before, after)


def _crossing(y: Floats, x: Floats) -> tuple[float, float, float]:
    """Where y last crosses half of its way to its maximum, and the checkpoints on either side, in x."""
    best = int(y.argmax())
    half = (y[0] + y[best]) / 2
    below = int(np.flatnonzero(y[: best + 1] < half)[-1])
    share = (half - y[below]) / (y[below + 1] - y[below])
    return float(x[below] + share * (x[below + 1] - x[below])), float(x[below]), float(x[below + 1])


def lag(earlier: Onset, later: Onset, level: float, among: int = 1) -> tuple[float, float, float]:
    """How much later one onset is than another, in log(step + 1), with its interval: what is surely between (low) and at most between (high).

    The gaps between checkpoints are taken in: `low` is above zero only where a checkpoint tells the two apart. `among` is Bonferroni's for the
    upper end. NaN where either has no onset.
    """
    if not (len(earlier.before) and len(later.before)):
        return np.nan, np.nan, np.nan
    n = min(len(earlier.before), len(later.before))
    sure, most = later.before[:n] - earlier.after[:n], later.after[:n] - earlier.before[:n]
    value = float(np.log1p(later.step) - np.log1p(earlier.step))
    return value, float(np.quantile(sure, level)), float(np.quantile(most, 1 - level / among))


def coincidence(name: str, places: Floats, events: Floats, generator: np.random.Generator, draws: int = 4000) -> Turns:
    """Whether places [N] lie nearer to events [M] than as many laid at random; all in steps, distances in log(step + 1).

    Chance lays places evenly in log(step + 1) over the part of training in which anything happens, from the first to the last of both. That is
    stricter than all of training: whatever happens in its middle is near to whatever else does.
    """
    ours, theirs = np.log1p(places), np.log1p(events[np.isfinite(events)])
    if len(ours) == 0 or len(theirs) == 0:
        return Turns(name, places, np.full(len(ours), np.nan), np.nan, np.nan, np.nan)
    distance = np.abs(ours[:, None] - theirs[None, :]).min(axis=1)
    both = np.concatenate([ours, theirs])
    laid = both.min() + np.ptp(both) * generator.random((draws, len(ours)))
    chance = np.abs(laid[:, :, None] - theirs).min(axis=2).mean(axis=1)
    p = float((1 + (chance <= distance.mean() + 1e-12).sum()) / (1 + draws))
    return Turns(name, places, distance, float(distance.mean()), float(chance.mean()), p)


def nearest_allowed(distance: Floats, intervals: Floats, places: Floats, events: Sequence[Onset]) -> Floats:
    """How near each place [N] may lie to the nearest event for all that both intervals allow, in log(step + 1); never more than `distance`."""
    edges = np.log1p(np.array([event.interval for event in events]))  # [M, 2]
    ours = np.log1p(np.where(np.isfinite(intervals), intervals, places[:, None]))  # [N, 2]
    gaps = np.maximum(np.maximum(edges[None, :, 0] - ours[:, None, 1], ours[:, None, 0] - edges[None, :, 1]), 0.0)
    return np.minimum(gaps.min(axis=1), distance)


def reversal(values: Floats, stderr: Floats, level: float) -> float:
    """The largest way back that values [S] with errors [S] may have made: the smaller of the largest rise and the largest fall, at its upper end.

    A curve that only rises or only falls makes none; one that turns makes one as large as the lower side of its turn.

    >>> reversal(np.array([0.0, 3.0, 2.0]), np.zeros(3), 0.05), reversal(np.array([0.0, 1.0, 2.0]), np.zeros(3), 0.05)
    (1.0, 0.0)
    """
    earlier, later = np.triu_indices(len(values), 1)
    if not len(earlier):
        return float("inf")
    change, error = values[later] - values[earlier], np.hypot(stderr[later], stderr[earlier])
    beyond = normal_quantile(1 - level / len(change)) * error
    return max(min(float((change + beyond).max()), float((beyond - change).max())), 0.0)

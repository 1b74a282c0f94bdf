"""Developmental stages from the full model's LLC (METHOD 5; Hoogland et al., arXiv 2402.02364)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.curves import select
from rllc.analysis.errors import as_normal, moderated
from rllc.analysis.findings import Curves, Floats, Stages
from rllc.analysis.learners import constant_p, smooth
from rllc.analysis.settings import AnalysisSettings
from rllc.core import seeds

_GRID = 160
_LEAST_NOISE = 1e-4  # of the curve's standard deviation, so that the smoother stays solvable where the stated error is zero
_LEVEL = 0.05


def stages(curves: Curves, settings: AnalysisSettings, seed: int, part: str = "full") -> tuple[Stages | None, str]:
    """Boundaries of stages: zeros of dλ̂/d log(t+1) of the smoothed curve of one part; or None; and what there is to say, as sentences.

    A Gaussian process with the estimates' own errors as its noise (widened where they are rough) smooths λ̂ over log(t+1). Curves are drawn from its
    posterior, which is every curve that the estimates allow within their errors; `found_in` is the share of draws with a boundary of the same
    direction (a peak or a trough) within `stage_window` and closer than half the way to the next boundary, `intervals` the 5 to 95 % range of those.
    Checkpoints without an estimate are left out, and so are boundaries that too few draws share (`stage_support`) or that are no more than a ripple
    (`prominent`). A turn sharper than the distance of checkpoints is rounded off, and its interval does not know it.
    """
    if part not in curves.parts:
        return None, f"There are no stages: {part} was not measured on {curves.data}."
    curve = select(curves, [part])
    present = (np.isfinite(curve.llc) & np.isfinite(curve.stderr))[0]
    if present.sum() < settings.min_checkpoints:
        return None, f"There are no stages: {part} has an estimate at {present.sum()} checkpoints, and stages need {settings.min_checkpoints}."
    x = np.log1p(curve.steps[present].astype(np.float64))
    llc, df = curve.llc[0, present], curve.freedom[0, present]
    stderr = as_normal(*moderated(curve.stderr[0, present], df))  # the smoother takes normal noise alone
    centre, scale = float(llc.mean()), float(llc.std())
    if scale <= 1e-12 * abs(centre) or constant_p((llc - centre) / scale, np.maximum(curve.stderr[0, present] / scale, _LEAST_NOISE), df) > _LEVEL:
        return None, f"There are no stages: the LLC of {part} does not vary by more than its errors allow."
    grid: Floats = x[0] + (x[-1] - x[0]) * np.arange(_GRID) / (_GRID - 1)
    noise: Floats = np.maximum(stderr / scale, _LEAST_NOISE)
    fitted = smooth(x, (llc - centre) / scale, noise, grid, settings.resamples, seeds.generator(seed, "stages"))
    places, directions = _zeros(grid, fitted.slopes)
    intervals, found_in = support(places, directions, [_zeros(grid, slopes) for slopes in fitted.slope_draws], settings.stage_window)
    # The estimates themselves, not the smoothed curve, must show the turn: a smooth curve swings where they only bend.
    told = prominent(_between(places, x, llc), _between(places, x, stderr), directions, (float(llc[0]), float(llc[-1])), settings.stage_prominence)
    told &= found_in >= settings.stage_support
    places, intervals, found_in = places[told], intervals[told], found_in[told]
    said: list[str] = []
    if faint := int((~told).sum()):
        said.append(
            f"The smoothed LLC of {part} has {faint} more turn{'s' if faint > 1 else ''}, smaller than its errors can tell or found in fewer than "
            f"{settings.stage_support:.0%} of the curves within them; no stage is drawn from those."
        )
    if left_out := [int(step) for step in curve.steps[~present]]:
        said.append(f"Stages leave out step {', '.join(map(str, left_out))}: {part} has no estimate there.")
    if fitted.complaint:
        said.append(
            "How much to smooth the full model's LLC is not settled by these checkpoints: the best length scale lies at the edge of what was tried. "
            "More checkpoints where the curve turns would settle it."
        )
    return Stages(curve, np.expm1(grid), centre + scale * fitted.values, np.expm1(places), np.expm1(intervals), found_in), " ".join(said)


def _between(places: Floats, x: Floats, y: Floats) -> Floats:
    return np.asarray(np.interp(places, x, y), dtype=np.float64)


def prominent(levels: Floats, errors: Floats, directions: NDArray[np.int64], ends: tuple[float, float], least: float) -> NDArray[np.bool_]:
    """Which turns of a curve are more than ripples: peaks and troughs that differ from their neighbours by `least` errors of the difference.

    The faintest ripple goes first, a peak with the trough beside it, so that what it interrupted becomes one rise or fall; a turn that the curve
    has hardly left again at its end goes alone.

    Args:
        levels: the curve at its turns, in order.
        errors: standard errors of the curve there, in the same units.
        directions: -1 for a peak, +1 for a trough.
        ends: the curve at its beginning and at its end.
        least: how many errors.

    >>> prominent(np.array([5.0, 1.0, 1.2, 1.0]), np.full(4, 0.3), np.array([-1, 1, -1, 1]), (0.0, 6.0), 2.0).tolist()
    [True, False, False, True]
    """
    kept = list(range(len(levels)))
    while kept:
        around: Floats = np.array([ends[0], *levels[kept], ends[1]])
        noise: Floats = np.array([errors[kept[0]], *errors[kept], errors[kept[-1]]])
        towards = np.array([*-directions[kept], directions[kept[-1]]])  # the way the curve must go to each turn, and after the last
        steps = np.diff(around) * towards - least * np.hypot(noise[1:], noise[:-1])
        smallest = int(np.argmin(steps))
        if steps[smallest] >= 0:
            break
        del kept[max(smallest - 1, 0) : smallest + 1]
    return np.isin(np.arange(len(levels)), kept)


def _zeros(grid: Floats, slope: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Where a slope on a grid changes its sign, by linear interpolation, and whether it falls (-1, a peak) or rises (+1, a trough)."""
    before = np.flatnonzero(np.sign(slope[:-1]) * np.sign(slope[1:]) < 0)
    share = slope[before] / (slope[before] - slope[before + 1])
    return grid[before] + share * (grid[before + 1] - grid[before]), np.sign(slope[before + 1]).astype(np.int64)


def support(places: Floats, directions: NDArray[np.int64], drawn: list[tuple[Floats, NDArray[np.int64]]], window: float) -> tuple[Floats, Floats]:
    """The 5 to 95 % range [N, 2] of the places nearest to each place [N] in redrawn curves, and the share [N] of those curves that hold one.

    One counts that has the same direction and lies within `window` and closer than half the way to the next place.
    """
    intervals = np.full((len(places), 2), np.nan)
    found_in = np.zeros(len(places))
    for i, (place, direction) in enumerate(zip(places, directions, strict=True)):
        others = np.delete(places, i)
        reach = min(window, 0.5 * float(np.abs(others - place).min())) if len(others) else window
        nearest: list[float] = []
        for zeros, signs in drawn:
            same = zeros[signs == direction]
            if len(same) and np.abs(same - place).min() <= reach:
                nearest.append(float(same[np.abs(same - place).argmin()]))
        found_in[i] = len(nearest) / len(drawn)
        if nearest:
            intervals[i] = np.quantile(nearest, (0.05, 0.95))
    return intervals, found_in

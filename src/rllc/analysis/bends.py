"""Stages by change points: a continuous piecewise-linear fit of λ̂ over log(step + 1), and its agreement with the derivative's zeros.

Why not a change-point package: its costs know neither the error of each checkpoint nor that pieces meet, and a cost of levels breaks a ramp
everywhere. The fit here is least squares with the stated errors; the number of bends is chosen by the Bayesian information criterion
`S log max(χ²/S, 1) + (2 + 2N) log S`: a bend costs a place and a slope, the errors may be too small by one common factor, and nothing is gained
by a fit that is closer than the stated errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.curves import select
from rllc.analysis.errors import as_normal, moderated
from rllc.analysis.findings import Bends, Curves, Floats, StageAgreement, Stages
from rllc.analysis.learners import constant_p, matched
from rllc.analysis.settings import AnalysisSettings
from rllc.analysis.stages import support
from rllc.core import seeds

_FINER = 20  # places tried for a bend between two checkpoints
_LEAST = 2  # checkpoints in a piece
_PASSES = 20  # of moving one bend after another; a few suffice
_LEAST_NOISE = 1e-4  # of the curve's standard deviation, where the stated error is zero
_LEVEL = 0.05


def bends(curves: Curves, settings: AnalysisSettings, seed: int, part: str = "full") -> tuple[Bends | None, str]:
    """Bends of the λ̂ of one part, or None; and what there is to say, as sentences.

    The intervals come from fits, the number of bends chosen anew, to curves redrawn from the fit with the stated errors times `inflation`; a bend
    that fewer than `stage_support` of them hold is not told. Checkpoints without an estimate are left out. A bend needs two checkpoints on either
    side; the search adds the best bend, then moves one at a time until none gets better, which is not certain to be the best of all.
    """
    if part not in curves.parts:
        return None, f"There are no bends: {part} was not measured on {curves.data}."
    curve = select(curves, [part])
    present = (np.isfinite(curve.llc) & np.isfinite(curve.stderr))[0]
    if present.sum() < settings.min_checkpoints:
        return None, f"There are no bends: {part} has an estimate at {present.sum()} checkpoints, and they need {settings.min_checkpoints}."
    x = np.log1p(curve.steps[present].astype(np.float64))
    y = curve.llc[0, present]
    scale = float(y.std())
    stderr, df = curve.stderr[0, present], curve.freedom[0, present]
    if scale <= 1e-12 * abs(float(y.mean())) or constant_p(y, np.maximum(stderr, _LEAST_NOISE * scale), df) > _LEVEL:
        return None, f"There are no bends: the LLC of {part} does not vary by more than its errors allow."
    noise = np.maximum(as_normal(*moderated(stderr, df)), _LEAST_NOISE * scale)  # the fit takes normal noise alone
    problem = _Problem(x, noise)
    places, criterion = problem.choose(y, settings.max_bends)
    fitted, slopes, misfit = problem.fit(y, places)
    inflation = float(np.sqrt(max(misfit / max(len(x) - 2 - 2 * len(places), 1), 1.0)))
    generator = seeds.generator(seed, "bends", part)
    drawn: list[tuple[Floats, NDArray[np.int64]]] = []
    for _ in range(settings.resamples):
        other = fitted + inflation * noise * generator.standard_normal(len(x))
        moved, _ = problem.choose(other, settings.max_bends)
        drawn.append((moved, _directions(problem.fit(other, moved)[1])))
    intervals, found_in = support(places, _directions(slopes), drawn, settings.stage_window)
    told = found_in >= settings.stage_support
    said = (
        ""
        if told.all()
        else f"The LLC of {part} has {int((~told).sum())} more bend(s) that fewer than {settings.stage_support:.0%} of redrawn curves share."
    )
    if not told.all():
        places, intervals, found_in = places[told], intervals[told], found_in[told]
        fitted, slopes, _ = problem.fit(y, places)
    turns = slopes[:-1] * slopes[1:] < 0
    return Bends(part, np.expm1(places), np.expm1(intervals), found_in, slopes, turns, fitted, inflation, criterion), said


def stage_agreement(by_derivative: Stages, by_bends: Bends, window: float) -> StageAgreement:
    """Boundaries of both kinds, matched one to one where the direction is the same and the distance in log(step + 1) at most `window`.

    The matching has the smallest total distance. Bends that are no turns have no counterpart among zeros of a derivative; they stand alone here
    unless a zero lies near, and `Bends.turns` tells them.
    """
    ours, theirs = np.log1p(by_derivative.boundaries), np.log1p(by_bends.steps)
    middle = np.interp(by_derivative.boundaries, by_derivative.smooth_steps, by_derivative.smooth_llc)
    sides = [np.interp(np.expm1(np.maximum(ours + way * 0.1, 0.0)), by_derivative.smooth_steps, by_derivative.smooth_llc) for way in (-1, 1)]
    kinds, directions = np.where(middle > (sides[0] + sides[1]) / 2, -1, 1), _directions(by_bends.slopes)
    distance = np.abs(ours[:, None] - theirs[None, :])
    fits = (distance <= window) & (kinds[:, None] == directions[None, :])
    rows, columns = matched(np.where(fits, 2 * window - distance, 0.0))
    pairs = [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if fits[a, b]]
    alone = [a for a in range(len(ours)) if a not in {a for a, _ in pairs}]
    others = [b for b in range(len(theirs)) if b not in {b for _, b in pairs}]
    nan = float("nan")
    one = [by_derivative.boundaries[a] for a, _ in pairs] + [by_derivative.boundaries[a] for a in alone] + [nan] * len(others)
    two = [by_bends.steps[b] for _, b in pairs] + [nan] * len(alone) + [by_bends.steps[b] for b in others]
    direction = [kinds[a] for a, _ in pairs] + [kinds[a] for a in alone] + [directions[b] for b in others]
    overlap = [_overlap(by_derivative.intervals[a], by_bends.intervals[b]) for a, b in pairs] + [False] * (len(alone) + len(others))
    first, second = np.array(one, dtype=np.float64), np.array(two, dtype=np.float64)
    order = np.argsort(np.where(np.isfinite(first), first, second), kind="stable")
    apart = np.abs(np.log1p(first) - np.log1p(second))
    return StageAgreement(
        first[order], second[order], np.array(direction, dtype=np.int64)[order], apart[order], np.array(overlap, dtype=np.bool_)[order]
    )


def _overlap(one: Floats, two: Floats) -> bool:
    return bool(max(one[0], two[0]) <= min(one[1], two[1]))


def _directions(slopes: Floats) -> NDArray[np.int64]:
    return np.sign(np.diff(slopes)).astype(np.int64)


class _Problem:
    """Weighted least squares with joints, for many curves [S] over the same x [S] with the same errors [S]."""

    def __init__(self, x: Floats, noise: Floats) -> None:
        self.x, self.weights = x, 1 / noise
        shares = np.arange(_FINER) / _FINER
        self.candidates: Floats = np.concatenate([(x[:-1, None] + np.diff(x)[:, None] * shares).ravel(), x[-1:]])
        self.before = np.searchsorted(x, self.candidates, side="right")  # checkpoints up to each candidate
        self.hinges = np.maximum(x[:, None] - self.candidates[None, :], 0.0) * self.weights[:, None]  # [S, C]
        self.lines = np.column_stack([np.ones_like(x), x - x.mean()]) * self.weights[:, None]

    def fit(self, y: Floats, places: Floats) -> tuple[Floats, Floats, float]:
        """Fitted values [S], slopes of the pieces [N+1] and χ²."""
        design = np.column_stack([self.lines, np.maximum(self.x[:, None] - places[None, :], 0.0) * self.weights[:, None]])
        solution = np.linalg.lstsq(design, y * self.weights, rcond=None)[0]
        fitted: Floats = design @ solution / self.weights
        slopes: Floats = np.asarray(np.cumsum(solution[1:]), dtype=np.float64)
        return fitted, slopes, float((((y - fitted) * self.weights) ** 2).sum())

    def choose(self, y: Floats, most: int) -> tuple[Floats, Floats]:
        """Places of the bends [N] under the criterion, and the criterion [K] of each number that was tried."""
        n = len(y)
        scaled = y * self.weights
        chosen: list[int] = []
        found: list[list[int]] = [[]]
        misfits = [self._left(scaled, [])[1]]
        for _ in range(most):
            if misfits[-1] <= n:
                break  # as close as the stated errors: more bends can only raise the criterion
            place, misfit = self._best(scaled, chosen)
            if place is None:
                break
            chosen, misfit = self._settle(scaled, [*chosen, place], misfit)
            found.append(chosen)
            misfits.append(misfit)
        scores = np.array([n * np.log(max(misfit / n, 1.0)) + (2 + 2 * k) * np.log(n) for k, misfit in enumerate(misfits)])
        return self.candidates[sorted(found[int(scores.argmin())])], scores

    def _settle(self, scaled: Floats, chosen: list[int], misfit: float) -> tuple[list[int], float]:
        """Each bend moved in its turn to where it is best, until none moves."""
        for _ in range(_PASSES):
            before = misfit
            for i in range(len(chosen)):
                others = chosen[:i] + chosen[i + 1 :]
                place, moved = self._best(scaled, others)
                if place is not None and moved < misfit - 1e-12 * before:
                    chosen, misfit = [*others, place], moved
            if misfit >= before:
                break
        return chosen, misfit

    def _left(self, scaled: Floats, chosen: list[int]) -> tuple[tuple[Floats, Floats], float]:
        """An orthonormal basis of the fit with these candidates and what the fit leaves of the values [S]; and χ²."""
        basis = np.linalg.qr(np.column_stack([self.lines, self.hinges[:, chosen]]))[0]
        rest = scaled - basis @ (basis.T @ scaled)
        return (basis, rest), float(rest @ rest)

    def _best(self, scaled: Floats, chosen: list[int]) -> tuple[int | None, float]:
        """The candidate that lowers χ² most beside those chosen, and the χ² that it leaves; None where no other has room."""
        (basis, rest), misfit = self._left(scaled, chosen)
        marks = np.array([0, *sorted(self.before[chosen]), len(scaled)])
        room = np.abs(self.before[:, None] - marks[None, :]).min(axis=1) >= _LEAST
        if not room.any():
            return None, misfit
        free = self.hinges - basis @ (basis.T @ self.hinges)
        size = (free**2).sum(axis=0)
        usable = room & (size > 1e-10 * (self.hinges**2).sum(axis=0))
        gains = np.where(usable, (rest @ free) ** 2 / np.where(usable, size, 1.0), -1.0)
        place = int(gains.argmax())
        return (place, misfit - float(gains[place])) if usable[place] else (None, misfit)

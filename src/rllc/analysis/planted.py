"""Curves with a known answer, and how often the analysis finds it under noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.agreement import adjusted_rand
from rllc.analysis.aligned import Aligned, error_of
from rllc.analysis.bends import bends
from rllc.analysis.clusters import cluster
from rllc.analysis.errors import reach
from rllc.analysis.findings import Curves, Floats
from rllc.analysis.learners import normal_quantile
from rllc.analysis.parting import heads_part
from rllc.analysis.settings import AnalysisSettings, Method
from rllc.analysis.stages import stages
from rllc.core import seeds

BENDS = (2.0, 6.0, 8.5)  # in log(step + 1): a bend, a peak, a trough
_SLOPES = (2.0, 6.0, -5.0, 4.0)
PARTING = 6.0  # in log(step + 1)
_CHAINS, _DRAWS, _BATCHES = 4, 45, 8
_FOLLOWS = 0.63  # autocorrelation of the draws of a chain
_WINDOW = 0.5  # in log(step + 1), within which a boundary counts as found


@dataclass(frozen=True)
class Planted:
    """Curves of heads in known groups, of a full model with known stages, and of two heads that part at a known checkpoint."""

    heads: Curves
    groups: NDArray[np.int64]  # [H], in the order of final values
    full: Curves
    bends: Floats  # steps
    turns: Floats  # steps, those bends at which the slope changes its sign
    parts_after: float  # step until which the two heads of `pair` are equal
    pair: Curves


@dataclass(frozen=True)
class Failures:
    """How often one analysis failed at one level of noise."""

    analysis: str
    noise: float  # standard error of an estimate over the range of its curve
    draws: int
    failed: int
    low: float  # 95 % interval of the rate (Wilson)
    high: float

    @property
    def rate(self) -> float:
        """Share of draws that failed."""
        return self.failed / self.draws


def planted(noise: float, seed: int, checkpoints: int = 24) -> Planted:
    """Curves whose estimates have errors of `noise` times the range of the curve, at steps spread evenly in log time up to 50,000.

    The errors are estimates themselves, as those of λ̂ are: see `estimated`.

    Sixteen heads of two layers in three groups: a late peak, a plateau and a steady rise; a full model with a bend, a peak and a trough at
    `BENDS`; and two heads that are equal until `PARTING` and then grow apart by the range of a curve.
    """
    steps = np.unique(np.r_[0, np.round(np.geomspace(1, 50_000, checkpoints - 1)).astype(np.int64)])
    x = np.log1p(steps.astype(np.float64))
    rise = x / x[-1]
    heads = tuple(f"{layer}:{head}" for layer in range(2) for head in range(8))
    groups = np.arange(16) % 3
    shapes = np.stack([6 * np.sin(np.pi * rise**1.5) + 0.5 * rise, 5 * np.minimum(1, 2 * rise), 10 * rise])
    full = 10 + _SLOPES[0] * x + sum(np.diff(_SLOPES)[i] * np.maximum(x - place, 0) for i, place in enumerate(BENDS))
    late = 10 * np.maximum(x - PARTING, 0) / (x[-1] - PARTING)
    turns = [place for place, before, after in zip(BENDS, _SLOPES[:-1], _SLOPES[1:], strict=True) if before * after < 0]
    generator = seeds.generator(seed, "planted")
    return Planted(
        _curves(heads, steps, shapes[groups], 10 * noise, generator),
        groups.astype(np.int64),
        _curves(("full",), steps, full[None], float(np.ptp(full)) * noise, generator),
        np.expm1(BENDS),
        np.expm1(turns),
        float(np.expm1(PARTING)),
        _curves(heads[:2], steps, np.stack([5 * rise + late, 5 * rise]), 10 * noise, generator),
    )


def failure_rates(
    noises: Sequence[float], draws: int, settings: AnalysisSettings, seed: int, methods: Sequence[Method] = ("kmeans", "hierarchical")
) -> tuple[Failures, ...]:
    """The table of failures: each analysis of `planted` curves at each level of noise, `draws` times.

    A failure is: of clusters, any head in another group than planted, the number chosen by the criterion of `settings` ("groups", by method); of
    stages, a planted turn that no boundary comes within 0.5 of in log(step + 1), or a boundary too many ("turns"); of bends the same ("bends");
    of a parting, a step before the heads part ("parting too early", at most 5 % by its promise), or none, or one more than three checkpoints late
    ("parting missed or late").
    """
    rows: list[Failures] = []
    for noise in noises:
        failed: dict[str, int] = {}
        for draw in range(draws):
            for name, wrong in _outcomes(planted(noise, seed * 1_000_003 + draw), settings, draw, methods).items():
                failed[name] = failed.get(name, 0) + int(wrong)
        rows.extend(Failures(name, noise, draws, count, *_wilson(count, draws)) for name, count in failed.items())
    return tuple(rows)


def _outcomes(truth: Planted, settings: AnalysisSettings, seed: int, methods: Sequence[Method]) -> dict[str, bool]:
    wrong: dict[str, bool] = {}
    for method in methods:
        found, _ = cluster(truth.heads, method, "raw", "all", settings, seed)
        wrong[f"groups ({method})"] = found is None or float(adjusted_rand(found.labels[None], truth.groups)[0]) < 1
    boundaries, _ = stages(truth.full, settings, seed)
    wrong["turns"] = boundaries is None or not _same(boundaries.boundaries, truth.turns)
    joints, _ = bends(truth.full, settings, seed)
    wrong["bends"] = joints is None or not _same(joints.steps, truth.bends)
    pair = truth.pair
    part = heads_part(pair, seed, resamples=0)
    step = int(part.steps[0])
    wrong["parting too early"] = 0 <= step <= truth.parts_after
    after = pair.steps[pair.steps > truth.parts_after]
    wrong["parting missed or late"] = step < 0 or step > after[3]
    return wrong


def _same(found: Floats, truth: Floats) -> bool:
    """Whether each planted place, and nothing else, is found within the window."""
    return len(found) == len(truth) and bool((np.abs(np.log1p(np.sort(found)) - np.log1p(np.sort(truth))) <= _WINDOW).all())


def _curves(parts: tuple[str, ...], steps: NDArray[np.int64], clean: Floats, noise: float, generator: np.random.Generator) -> Curves:
    return estimated("planted", parts, steps, clean, noise, generator)[0]


def estimated(
    data: str, parts: tuple[str, ...], steps: NDArray[np.int64], clean: Floats, noise: float, generator: np.random.Generator
) -> tuple[Curves, Aligned]:
    """Curves [P, S] of estimates with normal noise of this standard deviation around clean values, and what makes the errors of their differences.

    As of λ̂ (METHOD 2, Error) the standard error is the larger of that by the spread of four chains and that by eight batches of draws, with 3 or 7
    degrees of freedom; the draws of a chain follow one another as closely as those of a head do. A known error would hide whatever takes an
    estimated one for known.
    """
    series = generator.standard_normal((*clean.shape, _CHAINS, _DRAWS))
    for draw in range(1, _DRAWS):
        series[..., draw] = _FOLLOWS * series[..., draw - 1] + np.sqrt(1 - _FOLLOWS**2) * series[..., draw]
    apart = np.arange(1, _DRAWS)
    spread = (1 + 2 * ((1 - apart / _DRAWS) * _FOLLOWS**apart).sum()) / (_DRAWS * _CHAINS)  # the variance of the mean of all of them
    series = clean[..., None, None] + noise / np.sqrt(spread) * series
    batches = series.mean(axis=-2)[..., _DRAWS % _BATCHES :].reshape(*clean.shape, _BATCHES, -1).mean(axis=-1)
    aligned = Aligned(parts, steps, series.mean(axis=-1), batches)
    error, llc = error_of(aligned.chains, batches), series.mean(axis=(-2, -1))
    half = reach(error.stderr, error.df)
    outcome = np.full(clean.shape, "ok", dtype="<U16")
    return Curves(data, parts, steps, llc, error.stderr, llc - half, llc + half, outcome, error.df), aligned


def _wilson(failed: int, draws: int) -> tuple[float, float]:
    z = normal_quantile(0.975)
    centre = (failed + z**2 / 2) / (draws + z**2)
    half = z / (draws + z**2) * np.sqrt(failed * (draws - failed) / draws + z**2 / 4)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))

"""Sampling the cases and comparing them with their truths."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from statistics import median

from rllc.core import seeds
from rllc.posterior.estimate import series
from rllc.posterior.result import Result
from rllc.posterior.sampling import sample
from rllc.posterior.settings import ExtraChecks
from rllc.posterior.validation.cases import SAMPLERS, Case, Derived, Quantity, Trial, all_cases

RESOLVED = 0.5  # of the tolerance: a wider standard error shows nothing
LEAST_KENDALL, LARGEST_MEDIAN = 0.95, 0.05
APART = 0.10  # truths that differ by less have no order worth keeping
ORDERED = "linear network"  # the kind of case whose order is judged
_ORIGIN_BATCHES = 4
_TWIN_AT_MOST = 1000  # coordinates


@dataclass(frozen=True)
class Row:
    """One sampler on one case. All numbers are dimensionless, as λ is."""

    case: str
    kind: str
    section: str  # of METHOD
    source: str  # where the truth is from
    sampler: str
    dimension: int
    estimate: float  # NaN where the cell was refused
    stderr: float
    truth: float
    error: float  # relative to the truth, absolute where that is 0
    tolerance: float | None
    passed: bool | None  # None where nothing is judged
    outcome: str
    reason: str
    seconds: float


@dataclass(frozen=True)
class Ordering:
    """Whether a sampler keeps the order of linear networks, which is what curves of learning coefficients are read for."""

    sampler: str
    networks: int
    pairs: int  # whose truths differ by more than 10 %
    kendall: float  # over those pairs
    median_error: float  # of the relative errors' sizes
    passed: bool


@dataclass(frozen=True)
class Report:
    """All rows, and the orderings."""

    rows: tuple[Row, ...]
    orderings: tuple[Ordering, ...]

    @property
    def passed(self) -> bool:
        """Nothing that is judged has failed, and something was judged."""
        judged = [row.passed for row in self.rows if row.passed is not None] + [ordering.passed for ordering in self.orderings]
        return bool(judged) and all(judged)


def selected(samplers: Sequence[str] = SAMPLERS, *, quick: bool = False, cases: Sequence[Case] | None = None) -> list[tuple[Case, Trial]]:
    """The trials to run, case by case."""
    pairs = [(case, trial) for case in cases or all_cases() for trial in case.trials if trial.settings.sampler in samplers]
    return [(case, trial) for case, trial in pairs if not quick or trial.settings.sampler in case.quick]


def run_trial(case: Case, trial: Trial, on_step: Callable[[int, int], None] | None = None) -> Row:
    """Sample one case with one sampler. Chains' noise is seeded by (case, sampler, chain)."""
    started = time.perf_counter()
    settings = trial.settings
    objective = trial.build()
    noise = [seeds.derive(0, "validate", case.name, settings.sampler, chain) for chain in range(settings.chains)]
    checks = ExtraChecks(twin_dimension=_TWIN_AT_MOST if case.quantity == "twin" else 0)
    origin = range(10**9, 10**9 + _ORIGIN_BATCHES)
    sampled = sample(objective, count(), settings, noise_seeds=[noise], origin_batches=origin, checks=checks, on_step=on_step)
    result = sampled.results[0]
    value, stderr = _read(result, case.quantity)
    if not case.stationary:
        chains = series(sampled.traces[0])[0].mean(axis=-1)
        stderr = float(chains.std(ddof=1)) / math.sqrt(settings.chains)
    return _row(case, settings.sampler, sampled.traces[0].dimension, value, stderr, trial.truth(), str(result.outcome), result.reason, started)


def _read(result: Result, quantity: Quantity) -> tuple[float, float]:
    """What is compared, and its standard error; 0 for what has no chance in it. A refused cell has nothing to compare."""
    if result.estimate is None:
        return math.nan, math.nan
    if quantity == "llc":
        return result.estimate.llc, result.estimate.stderr
    return getattr(result.diagnostics, quantity), result.diagnostics.stein_stderr if quantity == "stein_ratio" else 0.0


def _row(
    case: Case | Derived, sampler: str, dimension: int, estimate: float, stderr: float, truth: float, outcome: str, reason: str, started: float
) -> Row:
    scale = abs(truth) or 1.0
    error = (estimate - truth) / scale
    passed = None if case.tolerance is None else abs(error) <= case.tolerance and stderr / scale <= RESOLVED * case.tolerance
    seconds = time.perf_counter() - started
    return Row(
        case.name,
        case.kind,
        case.section,
        case.source,
        sampler,
        dimension,
        estimate,
        stderr,
        truth,
        error,
        case.tolerance,
        passed,
        outcome,
        reason,
        seconds,
    )


def derived_rows(rows: Iterable[Row], derived: Sequence[Derived]) -> list[Row]:
    """What can be computed from the rows of each sampler, taken as independent."""
    found = {(row.case, row.sampler): row for row in rows}
    made: list[Row] = []
    for one in derived:
        for sampler in SAMPLERS:
            parts = [found[name, sampler] for name in one.needs if (name, sampler) in found]
            if len(parts) < len(one.needs):
                continue
            weights = one.estimate if one.against is None else [c - e for c, e in zip(one.estimate, one.against, strict=True)]
            estimate = sum(c * part.estimate for c, part in zip(one.estimate, parts, strict=True))
            truth = parts[0].truth if one.against is None else sum(e * part.estimate for e, part in zip(one.against, parts, strict=True))
            stderr = math.hypot(*(w * part.stderr for w, part in zip(weights, parts, strict=True)))
            outcome = next((part.outcome for part in parts if part.outcome != "ok"), "ok")
            made.append(_row(one, sampler, parts[0].dimension, estimate, stderr, truth, outcome, "Computed from other rows.", time.perf_counter()))
    return made


def orderings(rows: Iterable[Row]) -> list[Ordering]:
    """Of every sampler with two networks or more whose order can be told. A refused network is out of order with all others."""
    made: list[Ordering] = []
    networks = [row for row in rows if row.kind == ORDERED]
    for sampler in SAMPLERS:
        own = [row for row in networks if row.sampler == sampler]
        pairs = [(a, b) for a, b in combinations(own, 2) if abs(a.truth - b.truth) > APART * min(a.truth, b.truth)]
        if not pairs:
            continue
        kept = [(a.estimate - b.estimate) * (a.truth - b.truth) > 0 for a, b in pairs]
        kendall = (2 * sum(kept) - len(kept)) / len(kept)
        middle = median(math.inf if math.isnan(row.error) else abs(row.error) for row in own)
        made.append(Ordering(sampler, len(own), len(pairs), kendall, middle, kendall >= LEAST_KENDALL and middle <= LARGEST_MEDIAN))
    return made


def report(rows: Sequence[Row], derived: Sequence[Derived]) -> Report:
    """Everything from the sampled rows."""
    whole = [*rows, *derived_rows(rows, derived)]
    return Report(tuple(whole), tuple(orderings(whole)))

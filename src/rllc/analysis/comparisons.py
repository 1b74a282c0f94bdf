"""Comparisons that findings hold, and claims: partings, orders, a regression, seeds, the circuit. Frozen results; the modules named make them.

Axes: N comparisons or seeds, H heads, S checkpoints, L layers, Y head types, M matched heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["seen", "not seen", "cannot tell"]
VERDICTS: tuple[Verdict, ...] = ("seen", "not seen", "cannot tell")


@dataclass(frozen=True)
class Partings:
    """From which checkpoint on two curves differ for good, one entry a comparison (N); see `partings`."""

    names: tuple[str, ...]  # N, such as "1:6 - 1:7" or "1:6, code - mix"
    steps: NDArray[np.int64]  # [N]; -1 where they do not part
    sign: NDArray[np.int64]  # [N] of the difference from then on; 0 where they do not part
    intervals: Floats  # [N, 2] steps, 5..95 % of the steps found in redrawn differences that part; NaN where they do not
    found_in: Floats  # [N] share of redrawn differences that part for good
    final: Floats  # [N] the difference at the last common checkpoint
    final_stderr: Floats  # [N]
    threshold: float  # errors that a difference must exceed: the median over comparisons and checkpoints, for it grows where an error is rough
    level: float  # chance that any comparison whatever is said to part before it does
    data: str = ""  # of the curves compared
    reference: str = ""  # the other kind of data, where those of one head on two kinds are compared; "" for pairs of heads


@dataclass(frozen=True)
class Ordering:
    """One row of the table: how one quantity orders the heads of each layer beside λ̂ (Spearman's ρ within layers; NaN where either is constant).

    `over_heads` is of 95 %, heads of each layer drawn anew with replacement: how far so few heads can tell of a ρ of numbers as noisy as these. Noise
    takes from ρ, in the estimate and in the interval alike.
    """

    name: str
    heads: tuple[str, ...]  # H, those that have both
    step: int  # the last common checkpoint
    correlation: float  # at that checkpoint
    over_heads: tuple[float, float]
    p: float  # two-sided, by permutation of the heads of each layer
    p_holm: float  # the same, held for all rows of the table together (Holm)
    steps: tuple[int, ...]  # S
    by_step: Floats  # [S] ρ over heads at each checkpoint
    along_training: Floats  # [H] ρ over checkpoints for each head; NaN for fewer than four
    pooled: float = float("nan")  # ρ over the heads of all layers together, which a difference between layers makes by itself


@dataclass(frozen=True)
class Regression:
    """A straight line of a quantity of heads on a covariate within layers, and how much of it rests on single heads."""

    heads: tuple[str, ...]  # H, those that have both, and another such head in their layer
    covariate: str
    slope: float  # quantity by unit of the covariate
    intercept: float  # of the line through the mean of all heads
    slope_interval: tuple[float, float]  # 95 %, by t with H - 1 degrees of freedom less the number of layers
    r2: float  # share of the variance within layers that the line takes
    r2_left_out: float  # the same where every head is foretold by the others; below 0 the mean of the others of its layer does better
    rank_correlation: float  # Spearman's, within layers
    rank_p: float  # two-sided, by permutation of the heads of each layer
    left_out: tuple[str, ...]  # heads that lack one of the two, or are alone in their layer
    foretold: Floats  # [H] each head's value by the line of the others
    slope_without: Floats  # [H] the slope without that head
    influence: Floats  # [H] Cook's distance; above 1 a head moves the line by itself
    noise_share: float  # share of the residual variance that the errors of the quantity explain; NaN without errors
    pooled: float = float("nan")  # Spearman's over the heads of all layers together
    layers: int = 1


@dataclass(frozen=True)
class SeedMatch:
    """Heads of one seed matched one to one with those of another, within layers; see `match_seeds`."""

    one: str
    other: str
    pairs: tuple[tuple[str, str], ...]  # M, matched by behaviour and curve together
    distances: Floats  # [M] root mean square of standardised features; 1.41 for unrelated heads
    mean: float
    random_interval: tuple[float, float]  # 5..95 % of the mean distance of random matchings
    held_out: float  # mean distance of curves alone between heads matched by behaviour alone
    held_out_interval: tuple[float, float]  # 5..95 % of that under random matchings
    held_out_p: float  # share of random matchings whose curves are as close, (1 + such) / (1 + all)
    same_type: float  # share of matched heads of the same type; NaN without types
    same_type_by_chance: float  # its mean under random matchings


@dataclass(frozen=True)
class TypeCounts:
    """How many heads of each type each seed has."""

    seeds: tuple[str, ...]  # N
    types: tuple[str, ...]  # Y, those that occur
    counts: NDArray[np.int64]  # [N, Y]


@dataclass(frozen=True)
class Seeds:
    """Heads over training seeds: types by seed, and every pair of seeds with its heads matched."""

    counts: TypeCounts
    matches: tuple[SeedMatch, ...]


@dataclass(frozen=True)
class Circuit:
    """Refined LLC against a reference model, as the mean over the heads of each layer; see `circuit.circuit`.

    Errors of a layer are the mean of its heads' errors: what the error of their mean comes to where minibatches give the heads one noise, and more
    than it otherwise.
    """

    data: str
    layers: tuple[int, ...]  # L
    heads: NDArray[np.int64]  # [L] heads that every checkpoint kept has
    steps: NDArray[np.int64]  # [S]
    llc: Floats  # [L, S]
    stderr: Floats  # [L, S]
    peak: NDArray[np.int64]  # [L] step of the largest mean
    peak_interval: Floats  # [L, 2] steps: the first and the last checkpoint at which the true mean may be largest, with 95 %
    fall: Floats  # [L] from the peak to the last checkpoint; 0 where the last is the largest
    fall_stderr: Floats  # [L] of the difference of these two
    fall_p: Floats  # [L] chance that a curve that does not change falls as far from its largest estimate, by its errors alone
    later: Floats  # [L] last checkpoint minus the first layer's peak
    later_stderr: Floats  # [L]; 0 where the first layer's peak is the last checkpoint
    df: Floats | None = None  # [L, S] degrees of freedom of `stderr`; None where it is known
    later_df: Floats | None = None  # [L] of `later_stderr`
    rise: Floats = field(default_factory=lambda: np.empty(0))  # [L] from the first checkpoint to the peak; 0 where the first is the largest
    rise_p: Floats = field(default_factory=lambda: np.empty(0))  # [L] chance that a curve that does not change rises as far, by its errors alone


@dataclass(frozen=True)
class Twins:
    """Refined LLCs beside what they would be on a quadratic of the same curvature (METHOD 3.1c); see `twins.twins`."""

    heads: tuple[str, ...]  # H
    steps: NDArray[np.int64]  # [S] checkpoints that have both
    llc: Floats  # [H, S]
    llc_stderr: Floats  # [H, S]
    twin: Floats  # [H, S]; NaN where a quadratic has no posterior
    twin_stderr: Floats  # [H, S]
    difference: Floats  # [H, S] λ̂ less the twin: what the refined LLC adds to a Hessian
    difference_stderr: Floats  # [H, S]; the two are estimated on different text, so that their errors are independent
    llc_df: Floats | None = None  # [H, S] degrees of freedom of `llc_stderr`; None where it is known
    difference_df: Floats | None = None  # [H, S] of `difference_stderr`; None where it is known


@dataclass(frozen=True)
class Falls:
    """Of each head's curve, the fall from its largest estimate to its last; see `falls.falls`."""

    heads: tuple[str, ...]  # H, those with two estimates
    peak: NDArray[np.int64]  # [H] step of the largest estimate
    fall: Floats  # [H]; 0 where the last is the largest
    p: Floats  # [H] chance that a curve which does not change falls as far by its errors alone
    p_holm: Floats  # [H] the same, held for all heads together (Holm)


@dataclass(frozen=True)
class Turns:
    """Whether the turns of one curve lie at the turns of another, by chance or not; see `onsets.coincidence`."""

    name: str
    places: Floats  # [N] steps
    distance: Floats  # [N] in log(step + 1) to the nearest of the others; NaN where there is none
    mean: float
    by_chance: float  # mean of the mean distance of as many places laid at random
    p: float  # share of random places that lie as near
    straight: bool = False  # whether the curve surely has no turn near any of the others, see `onsets.reversal`
    inside: int = -1  # the least number of checkpoints near one of the others; -1 where it was not asked


@dataclass(frozen=True)
class Number:
    """A number that had a say in a verdict, with the interval and p-value that decided; NaN where there is none."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    p: float = float("nan")
    unit: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what this run says to it."""

    id: str
    sentence: str  # as the paper has it
    test: str  # what was computed, in words
    verdict: Verdict
    numbers: tuple[Number, ...]
    why: str  # which condition decided

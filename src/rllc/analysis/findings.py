"""What an analysis reads and what it finds: arrays with explicit axes and frozen results.

Axes: P parts, S checkpoints (steps), N data sets, H heads, M clusters, Y head types.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.comparisons import Circuit, Claim, Falls, Ordering, Partings, Regression, Seeds, Turns, Twins

Floats = NDArray[np.float64]


def freedom_of(df: Floats | None, stderr: Floats) -> Floats:
    """Degrees of freedom of errors, infinite where none are given."""
    return np.full(stderr.shape, np.inf) if df is None else df


@dataclass(frozen=True)
class Curves:
    """LLC estimates of parts over checkpoints on one kind of data (nats-free: λ̂ of METHOD 1).

    `llc` and `stderr` are NaN where no estimate exists; `outcome` says why: an Outcome's value, or "" where nothing was planned.
    """

    data: str
    parts: tuple[str, ...]  # P
    steps: NDArray[np.int64]  # [S]
    llc: Floats  # [P, S]
    stderr: Floats  # [P, S]
    ci_low: Floats  # [P, S] 95 %, by t
    ci_high: Floats  # [P, S]
    outcome: NDArray[np.str_]  # [P, S]
    df: Floats | None = None  # [P, S] degrees of freedom of `stderr`; None where errors are known, as infinite ones are

    @property
    def freedom(self) -> Floats:
        """Degrees of freedom [P, S] of the errors."""
        return freedom_of(self.df, self.stderr)


@dataclass(frozen=True)
class Behaviour:
    """Attention scores of heads over checkpoints and losses of the model (METHOD 6)."""

    heads: tuple[str, ...]  # H
    steps: NDArray[np.int64]  # [S]
    scores: dict[str, Floats]  # "previous_token", "current_token", "prefix_matching": each [H, S], attention in 0..1
    data: tuple[str, ...]  # N
    losses: Floats  # [N, S] nats per token, held-out
    icl: Floats  # [S] in-context-learning score, nats per token (negative = later positions are easier)
    score_stderr: dict[str, Floats] = field(default_factory=dict[str, Floats])  # [H, S] over contexts; a score without one counts as exact
    losses_stderr: Floats | None = None  # [N, S] over contexts
    icl_stderr: Floats | None = None  # [S] over contexts

    @property
    def errors(self) -> tuple[Floats, Floats]:
        """Errors of `losses` [N, S] and of `icl` [S]; NaN where they were not recorded."""
        losses, icl = np.full(self.losses.shape, np.nan), np.full(self.icl.shape, np.nan)
        return losses if self.losses_stderr is None else self.losses_stderr, icl if self.icl_stderr is None else self.icl_stderr

    def error(self, name: str) -> Floats:
        """Errors [H, S] of a score; 0 where they were not measured."""
        return self.score_stderr.get(name, np.zeros_like(self.scores[name]))


@dataclass(frozen=True)
class Patterns:
    """Attention patterns of every head on a few snippets at a few checkpoints, for looking at."""

    heads: tuple[str, ...]  # H
    steps: NDArray[np.int64]  # [S]
    snippets: tuple[str, ...]  # names, e.g. "code 1", "echo"
    tokens: tuple[tuple[str, ...], ...]  # per snippet, one printable string a token (untrusted text: escape it)
    weights: tuple[NDArray[np.uint8], ...]  # per snippet [S, H, T, T], attention × 255, row = query


@dataclass(frozen=True)
class HeadTypes:
    """Type of each head from its behaviour: "previous-token", "current-token", "induction", "bracket" or "other"."""

    heads: tuple[str, ...]
    types: tuple[str, ...]
    score: Floats  # [H] the deciding score, attention in 0..1; of heads that attention gives no name, the one nearest to its threshold
    step: int  # checkpoint that decided
    thresholds: dict[str, float]


@dataclass(frozen=True)
class Numbers:
    """How many clusters there are, by three criteria; NaN where a criterion was not computed or a number could not be fitted.

    `gap` is log W of curves without clusters minus log W of these, W = Σ over clusters of Σ d²/2n (Tibshirani, Walther and Hastie 2001); `stability`
    is the mean adjusted Rand index between the clusters of the curves and of curves redrawn within their errors.
    """

    sizes: NDArray[np.int64]  # [K] numbers tried, 1 first
    silhouette: Floats  # [K] -1..1
    gap: Floats  # [K] in units of log W
    gap_stderr: Floats  # [K] √(1 + 1/references) standard deviations over the references
    stability: Floats  # [K]
    stability_sd: Floats  # [K] over redrawn curves
    chosen: dict[str, int]  # by criterion; 1 means that there are no clusters
    method: str = ""  # of what was clustered, where it stands by itself; likewise the next two
    preprocessing: str = ""
    time: str = ""


@dataclass(frozen=True)
class Clustering:
    """Heads grouped by the shape of their curves.

    `stability` is the mean adjusted Rand index between this clustering and those of curves resampled within their errors.
    """

    method: str  # "kmeans", "hierarchical", "dtw" or "kshape"
    scope: str  # which heads: "all", "layer 0", "layer 1", …
    preprocessing: str  # "raw", "standardised", …
    heads: tuple[str, ...]  # H, those that had complete curves
    labels: NDArray[np.int64]  # [H], 0..M-1, ordered by final value
    n_clusters: int
    silhouette: float
    stability: float
    stability_interval: tuple[float, float]
    linkage: Floats | None = None  # [H-1, 4] scipy's convention, hierarchical only
    left_out: tuple[str, ...] = ()  # heads without a complete curve
    time: str = "recorded"  # or "log"
    together: Floats | None = None  # [H, H] share of redrawn curves that put both heads into one cluster
    confidence: Floats | None = None  # [H] share of redrawn curves in which the head keeps its cluster, clusters matched by their heads
    numbers: Numbers | None = None  # None where the number was given


@dataclass(frozen=True)
class Agreement:
    """Clusters against head types."""

    method: str
    scope: str
    adjusted_rand: float  # NaN where undefined (one type and one cluster)
    confusion: NDArray[np.int64]  # [Y, M]
    types: tuple[str, ...]  # Y
    chance_interval: tuple[float, float]  # 5..95 % of the index where types are dealt to the heads of a layer at random
    preprocessing: str = ""  # of the clustering
    time: str = "recorded"  # of the clustering
    p: float = float("nan")  # share of such dealings whose index is as high, (1 + such) / (1 + all)
    p_holm: float = float("nan")  # the same, held for all clusterings of these curves together (Holm)


@dataclass(frozen=True)
class Stages:
    """Boundaries of developmental stages: zeros of dλ̂/d log t of the smoothed full-model LLC (METHOD 5)."""

    curve: Curves
    smooth_steps: Floats  # fine grid of steps
    smooth_llc: Floats  # on that grid
    boundaries: Floats  # steps
    intervals: Floats  # [n, 2] steps: 5..95 % over curves that the estimates allow within their errors
    found_in: Floats  # [n] share of those curves that hold a boundary nearby


@dataclass(frozen=True)
class Tempered:
    """The full model on the reference data at another inverse temperature."""

    nbeta: float
    curve: Curves
    stages: Stages | None


@dataclass(frozen=True)
class Bends:
    """Where λ̂ of one part changes its slope over log(step + 1): the joints of a continuous piecewise-linear fit.

    A bend at which the slope changes its sign is a turn, as `Stages` finds them; the others are stages that a derivative's zeros do not show.
    """

    part: str
    steps: Floats  # [N]
    intervals: Floats  # [N, 2] steps: 5..95 % over fits to curves redrawn from this fit
    found_in: Floats  # [N] share of those fits that hold a bend of the same direction nearby
    slopes: Floats  # [N+1] λ̂ by unit of log(step + 1)
    turns: NDArray[np.bool_]  # [N]
    fitted: Floats  # [S] at the checkpoints that have an estimate
    inflation: float  # how many times the stated errors the fit misses by, at least 1
    criterion: Floats  # [K] of 0, 1, 2, … bends, up to a fit within the errors; the smallest decides


@dataclass(frozen=True)
class StageAgreement:
    """Boundaries by the derivative beside those by bends, one row each pair; NaN where one of them has none."""

    by_derivative: Floats  # [N] steps
    by_bends: Floats  # [N] steps
    direction: NDArray[np.int64]  # [N] -1 a peak or a slope that falls, +1 a trough or a slope that rises
    distance: Floats  # [N] in log(step + 1)
    overlap: NDArray[np.bool_]  # [N] whether the intervals do


@dataclass(frozen=True)
class Specialisation:
    """How far the final wdrLLC of a head on one kind of data departs from the reference data, with its error."""

    heads: tuple[str, ...]
    data: str
    reference: str
    difference: Floats  # [H]
    stderr: Floats  # [H]
    step: int = -1  # the checkpoint compared
    df: Floats | None = None  # [H] degrees of freedom of `stderr`; None where it is known

    @property
    def freedom(self) -> Floats:
        """Degrees of freedom [H] of the errors."""
        return freedom_of(self.df, self.stderr)


@dataclass(frozen=True)
class Findings:
    """Everything that the page shows beside the run's own description."""

    curves: dict[str, Curves]  # by data name; heads only
    full: dict[str, Curves]  # by data name; the full model (and other parts)
    behaviour: Behaviour
    patterns: Patterns | None
    types: HeadTypes
    clusterings: tuple[Clustering, ...]
    agreements: tuple[Agreement, ...]
    stages: Stages | None
    specialisation: tuple[Specialisation, ...]
    planted_share: float = 0.0  # share of planted text in the training mixture
    notes: tuple[str, ...] = field(default=())
    bends: Bends | None = None  # of the full model on the reference data
    stage_agreement: StageAgreement | None = None
    partings: tuple[
        Partings, ...
    ] = ()  # of pairs of heads of a layer on the reference data and on code, then of heads on each data and the reference
    orderings: tuple[Ordering, ...] = ()  # of what else was measured of heads, beside λ̂ on the reference data
    turns: tuple[Turns, ...] = ()  # of the full model's LLC, against those of what else was measured of heads
    regression: Regression | None = None  # of final λ̂ on memorised multigrams
    seeds: Seeds | None = None
    circuit: Circuit | None = None
    claims: tuple[Claim, ...] = ()
    numbers: Numbers | None = None  # of clusters of the heads' curves on the reference data, by every criterion
    ablation_clusterings: tuple[Clustering, ...] = ()  # of the curves of the heads' ablation effects there
    ablation_agreements: tuple[Agreement, ...] = ()
    twins: Twins | None = None  # of heads on the reference data
    falls: Falls | None = None  # of heads on the reference data
    temperatures: tuple[Tempered, ...] = ()  # of the full model on the reference data, at other inverse temperatures
    apart: tuple[str, ...] = ()  # data that are no kind of text: targets of a reference model, shuffled tokens

    @property
    def texts(self) -> dict[str, Curves]:
        """Curves of heads on kinds of text alone, which can be compared with one another."""
        return {name: curves for name, curves in self.curves.items() if name not in self.apart}

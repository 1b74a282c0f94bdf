"""Settings of the analysis. Thresholds were not published (METHOD 6): they are stated here and in every result that used them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rllc.core.errors import RllcError

Method = Literal["kmeans", "hierarchical", "dtw", "kshape"]
Preprocessing = Literal["raw", "standardised", "minmax"]
Time = Literal["recorded", "log"]
Criterion = Literal["silhouette", "gap", "stability"]

METHODS: dict[Method, str] = {"kmeans": "K-means", "hierarchical": "Ward", "dtw": "DTW K-means", "kshape": "k-shape"}


@dataclass(frozen=True)
class AnalysisSettings:
    """How curves and behaviour become findings."""

    previous_token: float = 0.3
    """Mean attention to the previous token from which on a head is called previous-token, 0..1."""
    current_token: float = 0.3
    """Mean attention to the token itself from which on a head is called current-token, 0..1."""
    prefix_matching: float = 0.3
    """Mean attention to the tokens after earlier occurrences from which on a head is called induction, 0..1."""
    methods: tuple[Method, ...] = ("kmeans", "hierarchical")
    """How heads are clustered: kmeans (Euclidean), hierarchical (Ward's criterion), dtw (K-means under dynamic time warping) and kshape (by shape,
    whatever the shift in time). The last two need `pip install 'rllc[cluster]'`."""
    preprocessing: tuple[Preprocessing, ...] = ("raw", "standardised")
    """What is clustered: raw, the curves as they are; standardised, each with its mean taken out and divided by its standard deviation over
    checkpoints; minmax, each stretched to 0..1."""
    time: tuple[Time, ...] = ("recorded",)
    """Times of the curves that are clustered: recorded, every checkpoint once; log, read off evenly in log(step + 1)."""
    n_clusters: int = 0
    """Number of clusters; 0 chooses, by the criterion, between 2 and max_clusters."""
    criterion: Criterion = "silhouette"
    """How the number is chosen: the largest mean silhouette; the gap statistic (the smallest number whose gap is within one standard error of the
    next one's, which may be one cluster, that is none); or stability (the largest number that redrawn curves keep as well as the best, within one
    standard deviation)."""
    gap_references: int = 20
    """Sets of curves without clusters, with which the gap statistic compares."""
    max_clusters: int = 6
    """Largest number of clusters that is tried."""
    resamples: int = 100
    """Curves drawn within their errors, for the stability of clusters and for the intervals of stages."""
    warped_resamples: int = 5
    """Curves drawn within their errors for the stability of dtw and kshape, whose every clustering takes about a hundred times as long."""
    permutations: int = 5000
    """Permutations of labels, for what agreement chance alone gives. Of N clusterings held together no p-value is below N by this number."""
    min_checkpoints: int = 5
    """Fewest checkpoints with an estimate of the full model from which stages are read."""
    stage_window: float = 0.5
    """How far, in log(step + 1), a boundary may move between draws and still count as the same."""

    max_bends: int = 6
    """Largest number of bends in the piecewise-linear fit of the full model's LLC."""
    stage_prominence: float = 1.0
    """Errors by which a peak must stand above the troughs beside it, and a trough below its peaks; else it is a ripple. These are the errors
    of the difference of two single checkpoints, which are larger than those of the smoothed curve."""
    stage_support: float = 0.5
    """Share of resamples that must hold a boundary for it to be told; fainter ones are counted in a note."""
    code: tuple[str, ...] = ("code", "python", "github", "c")
    """Names of data that are program text: specialisation is tested on the first of them that heads were sampled on."""
    level: float = 0.05
    """Of the two errors of a claim's verdict: how often "seen" is said where there is nothing, and "not seen" where there is as much as the least
    that counts."""
    least_change: float = 0.1
    """The least difference of refined LLCs that counts, as a share of their size."""
    least_correlation: float = 0.5
    """The least rank correlation, and the least agreement of clusters with types, that counts."""

    def __post_init__(self) -> None:
        for name in ("previous_token", "current_token", "prefix_matching"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "a share of attention above 0 and up to 1")
        _require(set(self.methods) <= set(get_args(Method)), "methods", self.methods, f"names out of {', '.join(get_args(Method))}")
        known = get_args(Preprocessing)
        _require(set(self.preprocessing) <= set(known), "preprocessing", self.preprocessing, f"names out of {', '.join(known)}")
        _require(bool(self.time) and set(self.time) <= set(get_args(Time)), "time", self.time, f"names out of {', '.join(get_args(Time))}")
        _require(self.criterion in get_args(Criterion), "criterion", self.criterion, f"one of {', '.join(get_args(Criterion))}")
        _require(self.n_clusters == 0 or self.n_clusters >= 2, "n_clusters", self.n_clusters, "0 or a number from 2 on")
        for name, least in (
            ("max_clusters", 2),
            ("resamples", 10),
            ("warped_resamples", 5),
            ("permutations", 10),
            ("gap_references", 5),
            ("max_bends", 1),
            ("min_checkpoints", 4),
        ):
            _require(getattr(self, name) >= least, name, getattr(self, name), f"a number from {least} on")
        _require(self.stage_prominence >= 0, "stage_prominence", self.stage_prominence, "a number from 0 on")
        _require(0 <= self.stage_support <= 1, "stage_support", self.stage_support, "a share from 0 to 1")
        _require(0 < self.level < 0.5, "level", self.level, "a share between 0 and a half")
        for name in ("least_change", "least_correlation"):
            _require(0 < getattr(self, name) < 1, name, getattr(self, name), "a share between 0 and 1")
        _require(self.stage_window > 0, "stage_window", self.stage_window, "a number above 0")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RllcError(f"The analysis setting {name} is {value!r}.", f"Give {expected}.")

"""Settings of the analysis. Thresholds were not published (METHOD 6): they are stated here and in every result that used them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rllc.core.errors import RllcError

Method = Literal["kmeans", "hierarchical"]
Preprocessing = Literal["raw", "standardised"]


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
    """How heads are clustered: Euclidean K-means, and hierarchical by Ward's criterion."""
    preprocessing: tuple[Preprocessing, ...] = ("raw", "standardised")
    """What is clustered: the curves as they are, or each with its mean taken out and divided by its standard deviation over checkpoints."""
    n_clusters: int = 0
    """Number of clusters; 0 chooses, by silhouette, between 2 and max_clusters."""
    max_clusters: int = 6
    """Largest number of clusters that is tried."""
    resamples: int = 100
    """Curves drawn within their errors, for the stability of clusters and for the intervals of stages."""
    permutations: int = 500
    """Permutations of labels, for what agreement chance alone gives."""
    min_checkpoints: int = 5
    """Fewest checkpoints with an estimate of the full model from which stages are read."""
    stage_window: float = 0.5
    """How far, in log(step + 1), a boundary may move between draws and still count as the same."""

    stage_prominence: float = 1.0
    """Errors by which a peak must stand above the troughs beside it, and a trough below its peaks; else it is a ripple. These are the errors
    of the difference of two single checkpoints, which are larger than those of the smoothed curve."""
    stage_support: float = 0.5
    """Share of resamples that must hold a boundary for it to be told; fainter ones are counted in a note."""

    def __post_init__(self) -> None:
        for name in ("previous_token", "current_token", "prefix_matching"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "a share of attention above 0 and up to 1")
        _require(set(self.methods) <= set(get_args(Method)), "methods", self.methods, f"names out of {', '.join(get_args(Method))}")
        known = get_args(Preprocessing)
        _require(set(self.preprocessing) <= set(known), "preprocessing", self.preprocessing, f"names out of {', '.join(known)}")
        _require(self.n_clusters == 0 or self.n_clusters >= 2, "n_clusters", self.n_clusters, "0 or a number from 2 on")
        for name, least in (("max_clusters", 2), ("resamples", 10), ("permutations", 10), ("min_checkpoints", 4)):
            _require(getattr(self, name) >= least, name, getattr(self, name), f"a number from {least} on")
        _require(self.stage_prominence >= 0, "stage_prominence", self.stage_prominence, "a number from 0 on")
        _require(0 <= self.stage_support <= 1, "stage_support", self.stage_support, "a share from 0 to 1")
        _require(self.stage_window > 0, "stage_window", self.stage_window, "a number above 0")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise RllcError(f"The analysis setting {name} is {value!r}.", f"Give {expected}.")

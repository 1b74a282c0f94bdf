# pyright: basic
"""scikit-learn and scipy behind typed functions: they ship no types, and the rest of this room is checked strictly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.interpolate import make_smoothing_spline
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist, squareform
from scipy.stats import chi2, f, norm, rankdata
from scipy.stats import t as student
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.metrics import silhouette_score

from rllc.analysis.findings import Floats

Labels = NDArray[np.int64]


def kmeans(points: Floats, n_clusters: int, starts: int, state: int) -> Labels:
    """Labels [H] of points [H, S] by Euclidean K-means, the best of `starts` starts."""
    learner: Any = KMeans(n_clusters, n_init=starts, random_state=state)  # pyright: ignore[reportArgumentType]
    return np.asarray(learner.fit(points).labels_, dtype=np.int64)


def ward_tree(points: Floats) -> Floats:
    """Ward's linkage [H-1, 4] of points [H, S], in scipy's convention."""
    return np.asarray(linkage(points, method="ward"), dtype=np.float64)


def cut(tree: Floats, n_clusters: int) -> Labels:
    """Labels [H] that a linkage gives when cut into so many clusters."""
    return np.asarray(cut_tree(tree, n_clusters=n_clusters)[:, 0], dtype=np.int64)


def euclidean(points: Floats) -> Floats:
    """Distances [H, H] of points [H, S]."""
    return np.asarray(squareform(pdist(points)), dtype=np.float64)


def silhouette_of(apart: Floats, labels: Labels) -> float:
    """Mean silhouette of a clustering, -1..1, by distances [H, H]."""
    return float(silhouette_score(apart, labels, metric="precomputed"))


def matched(score: Floats) -> tuple[Labels, Labels]:
    """Rows and columns of the one-to-one matching with the largest total score [A, B] (Hungarian method); as many pairs as the smaller side has."""
    rows, columns = linear_sum_assignment(score, maximize=True)
    return np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)


@lru_cache(maxsize=4096)  # scipy takes a tenth of a millisecond, and a table of pairs asks for the same one a thousand times
def normal_quantile(share: float) -> float:
    """The number that a standard normal value stays below with this probability."""
    return float(norm.ppf(share))


def t_quantile(share: float, freedom: int) -> float:
    """The same of Student's t with so many degrees of freedom."""
    return float(student.ppf(share, freedom))


def chi2_quantile(share: float, freedom: Floats) -> Floats:
    """The numbers [...] that χ² with so many degrees of freedom [...] stays below with this probability."""
    return np.asarray(chi2.ppf(share, freedom), dtype=np.float64)


def ranks(values: Floats) -> Floats:
    """Ranks [..., H] from 1 on along the last axis, ties sharing their mean."""
    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def smoothed(x: Floats, y: Floats, noise: Floats) -> Floats:
    """Values y [S] at increasing x [S] by a cubic smoothing spline, weighted by 1/noise², its stiffness by generalised cross-validation.

    Fewer than five values are returned as they are.
    """
    if len(x) < 5:
        return y
    return np.asarray(make_smoothing_spline(x, y, w=(noise.min() / noise) ** 2)(x), dtype=np.float64)


def constant_p(y: Floats, noise: Floats, freedom: Floats | None = None) -> float:
    """p-value of the hypothesis that y [S] is one constant plus normal noise of the given standard deviations [S].

    A χ² test where these are known, and Welch's (1951) where they are estimates with `freedom` [S] degrees of freedom.
    """
    weights, n = 1 / noise**2, len(y)
    statistic = float((weights * (y - (weights * y).sum() / weights.sum()) ** 2).sum())
    rough = 0.0 if freedom is None else float(((1 - weights / weights.sum()) ** 2 / freedom).sum()) / (n**2 - 1)
    if rough == 0:
        return float(chi2.sf(statistic, n - 1))
    return float(f.sf(statistic / (n - 1) / (1 + 2 * (n - 2) * rough), n - 1, 1 / (3 * rough)))


@dataclass(frozen=True)
class Smooth:
    """A curve as a Gaussian process sees it through noisy values."""

    values: Floats  # [grid], posterior mean under the best kernel
    slopes: Floats  # [grid], its derivative by x
    slope_draws: Floats  # [R, grid], derivatives drawn from the posterior, kernels included
    complaint: str  # what the choice of the kernel complained of, or ""


def smooth(x: Floats, y: Floats, noise: Floats, grid: Floats, draws: int, generator: np.random.Generator) -> Smooth:
    """Fit a squared-exponential kernel by marginal likelihood to values y [S] at x [S] with known noise (standard deviations [S], above 0).

    y should be centred and scaled, for its prior mean is zero. The length scale is sought between the mean distance of checkpoints and four times
    the range; that it meets the upper end only says that the curve is nearly straight, and is no complaint. Each draw takes a kernel with the
    probability that its marginal likelihood gives it (flat in the logarithms of both its numbers), then a curve from that kernel's posterior:
    with the best kernel alone the intervals of a maximum come out too small (84 % for a nominal 90 % on sines, against 89 %).
    """
    span = float(x[-1] - x[0])
    amplitudes, lengths = (0.1, 100.0), (span / (len(x) - 1), 4 * span)
    kernel: Any = ConstantKernel(1.0, amplitudes) * RBF(span / 4, lengths)
    process: Any = GaussianProcessRegressor(
        kernel,
        alpha=noise**2,  # pyright: ignore[reportArgumentType]
        n_restarts_optimizer=4,
        random_state=int(generator.integers(2**31)),
    )
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ConvergenceWarning)
        process.fit(x[:, None], y)
    texts = [" ".join(str(item.message).split()) for item in complaints]
    thetas = np.log([(a, b) for a in np.geomspace(*amplitudes, 10) for b in np.geomspace(*lengths, 20)])
    best = process.kernel_.theta.copy()
    evidence = np.array([process.log_marginal_likelihood(theta, clone_kernel=False) for theta in thetas])  # cloning would take most of the time
    process.kernel_.theta = best
    weights = np.exp(evidence - evidence.max())
    chosen, counts = np.unique(generator.choice(len(thetas), draws, p=weights / weights.sum()), return_counts=True)
    slope_draws: list[Floats] = []
    for theta, count in zip(thetas[chosen], counts, strict=True):
        _, slopes, covariance = _posterior(process.kernel_.clone_with_theta(theta), x, y, noise, grid)
        sizes, directions = np.linalg.eigh(covariance)
        root = directions * np.sqrt(np.clip(sizes, 0, None))
        slope_draws.append(slopes + generator.standard_normal((count, len(grid))) @ root.T)
    values, slopes, _ = _posterior(process.kernel_, x, y, noise, grid)
    complaint = " ".join(dict.fromkeys(text for text in texts if "upper bound" not in text))
    return Smooth(values, slopes, np.concatenate(slope_draws), complaint)


def _posterior(kernel: Any, x: Floats, y: Floats, noise: Floats, grid: Floats) -> tuple[Floats, Floats, Floats]:
    """Posterior mean [grid], mean of the slope [grid] and covariance of the slope [grid, grid] (Rasmussen and Williams 2006, 9.4)."""
    length, amplitude = float(kernel.k2.length_scale), float(kernel.k1.constant_value)
    gram = kernel(x[:, None]) + np.diag(noise**2)
    cross = kernel(grid[:, None], x[:, None])
    slope_cross = -(grid[:, None] - x[None, :]) / length**2 * cross
    gap = (grid[:, None] - grid[None, :]) / length
    prior = amplitude * np.exp(-(gap**2) / 2) * (1 - gap**2) / length**2
    weights = np.linalg.solve(gram, np.column_stack([y, slope_cross.T]))
    return cross @ weights[:, 0], slope_cross @ weights[:, 0], prior - slope_cross @ weights[:, 1:]

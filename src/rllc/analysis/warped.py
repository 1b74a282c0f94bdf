# pyright: basic
"""tslearn behind typed functions: K-means under dynamic time warping, and k-shape. An extra, for it brings numba (`pip install 'rllc[cluster]'`).

The first call of a process compiles: about ten seconds for time warping, thirty for k-shape.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.findings import Floats
from rllc.core.errors import RllcError

_ITERATIONS = 50
_SHAPE_ITERATIONS = 15  # k-shape either settles within these or goes round in circles


def dtw_kmeans(points: Floats, n_clusters: int, starts: int, state: int) -> NDArray[np.int64] | None:
    """Labels [H] of curves [H, S] by K-means under dynamic time warping, centres by barycentre averaging (Petitjean et al. 2011).

    None where some cluster stayed empty in every start. Raises RllcError where tslearn is not installed.
    """
    learner = _tslearn().TimeSeriesKMeans(n_clusters, metric="dtw", n_init=starts, max_iter=_ITERATIONS, random_state=state)
    return _filled(_fitted(learner, points), n_clusters)


def kshape(points: Floats, n_clusters: int, starts: int, state: int) -> NDArray[np.int64] | None:
    """Labels [H] of curves [H, S] by k-shape (Paparrizos and Gravano 2015), which compares curves up to a shift in time and a factor.

    It was made for standardised curves: raw ones with a common offset look alike to it. None where some cluster stayed empty in every start.
    Raises RllcError where tslearn is not installed.
    """
    norms = np.linalg.norm(points, axis=1)
    if (norms == 0).any():
        return None  # a curve that is zero has no shape; tslearn would divide by its length
    return _filled(_fitted(_tslearn().KShape(n_clusters, n_init=starts, max_iter=_SHAPE_ITERATIONS, random_state=state), points), n_clusters)


def dtw_distances(points: Floats) -> Floats:
    """Distances [H, H] under dynamic time warping: the root of the smallest sum of squares over monotone alignments."""
    return np.asarray(_metrics().cdist_dtw(points), dtype=np.float64)


def shape_distances(points: Floats) -> Floats:
    """Shape-based distances [H, H]: 1 - the largest normalised cross-correlation over shifts, 0..2; a curve that is zero is 1 from every other.

    >>> bump = np.array([0.0, 1.0, 0.0, 0.0])
    >>> shape_distances(np.stack([bump, 3 * np.roll(bump, 1), -bump])).round(12).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    # Every lag at once by the Fourier transform; tslearn's own loop over pairs needs half a minute of compilation for the same numbers.
    size = 2 * points.shape[1] - 1
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    spectra = np.fft.rfft(np.divide(points, norms, out=np.zeros_like(points), where=norms > 0), size, axis=1)
    correlations = np.fft.irfft(spectra[:, None] * spectra.conj()[None], size, axis=2).max(axis=2)
    distances = 1.0 - (correlations + correlations.T) / 2
    np.fill_diagonal(distances, 0.0)
    return np.clip(distances, 0.0, 2.0)


def available() -> bool:
    """Whether tslearn is installed."""
    try:
        return find_spec("tslearn") is not None
    except ValueError:  # a module that was put there without a specification
        return False


def _filled(labels: NDArray[np.int64], n_clusters: int) -> NDArray[np.int64] | None:
    return labels if len(np.unique(labels)) == n_clusters else None


def _fitted(learner: Any, points: Floats) -> NDArray[np.int64]:
    with warnings.catch_warnings():  # a start that did not settle is one of several
        warnings.simplefilter("ignore")
        return np.asarray(learner.fit(points[:, :, None]).labels_, dtype=np.int64)


def _tslearn() -> Any:
    return _imported("tslearn.clustering")


def _metrics() -> Any:
    return _imported("tslearn.metrics")


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        with warnings.catch_warnings():  # it warns that an optional file format is not there
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise RllcError(
            "Clustering by dynamic time warping or by shape was asked for, and tslearn, which does it, is not installed.",
            "Install it with `pip install 'rllc[cluster]'`, or leave dtw and kshape out of the analysis setting methods.",
        ) from error

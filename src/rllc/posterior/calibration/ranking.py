"""Whether two settings put the parts into the same order, with the sampling errors in mind. numpy in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import kendalltau  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from rllc.core import seeds
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

_kendalltau: Any = kendalltau  # pyright: ignore[reportUnknownVariableType] its annotations are partial
_REPEATS = 200
_TOLD_APART = 2.0  # standard errors of a difference


@dataclass(frozen=True)
class Agreement:
    """Of the orders of P parts at two settings. NaN where fewer than three parts, or no pair told apart, leave it undefined."""

    tau: float  # Kendall's, of the estimates as they are
    noise_tau: float  # what it would be on average if only sampling errors parted the two
    kept: float  # of the pairs that both settings tell apart, the share in the same order
    told_apart: float  # share of all pairs that both tell apart, by two standard errors


def agreement(a: Float[Floats, " P"], a_error: Float[Floats, " P"], b: Float[Floats, " P"], b_error: Float[Floats, " P"]) -> Agreement:
    """How far the order of `b` is that of `a`.

    The errors of a difference are taken as of independent estimates, which is wide of the mark to the safe side: parts share minibatches.
    For `noise_tau` both are drawn anew around `a`, with their own errors, relative ones for `b`, whose scale may be another.

    >>> agreement(np.array([1.0, 2, 3]), np.zeros(3), np.array([2.0, 4, 6]), np.zeros(3)).tau
    1.0
    """
    parts = len(a)
    if parts < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Agreement(math.nan, math.nan, math.nan, math.nan)
    tau = float(_kendalltau(a, b).statistic)
    upper = np.triu_indices(parts, 1)
    first, second = _differences(a, a_error)[upper], _differences(b, b_error)[upper]
    both = (np.abs(first) > _TOLD_APART) & (np.abs(second) > _TOLD_APART)
    kept = float((first * second > 0)[both].mean()) if both.any() else math.nan
    relative = np.divide(b_error, np.abs(b), out=np.zeros_like(b), where=b != 0)
    generator = seeds.generator(0, "order of parts")
    one = a + a_error * generator.standard_normal((_REPEATS, parts))
    other = a + np.abs(a) * relative * generator.standard_normal((_REPEATS, parts))
    signs = [np.sign(x[:, :, None] - x[:, None, :])[:, upper[0], upper[1]] for x in (one, other)]
    return Agreement(tau, float((signs[0] * signs[1]).mean()), kept, float(both.mean()))


def _differences(values: Floats, errors: Floats) -> Float[Floats, "P P"]:
    """In standard errors; huge where there is a difference and no error."""
    return (values[:, None] - values) / np.maximum(np.hypot(errors[:, None], errors), 1e-150)

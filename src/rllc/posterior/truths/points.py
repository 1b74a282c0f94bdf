"""Smooth zeros of deep linear networks with a known Hessian (METHOD 3.5, which point). numpy only.

Every point is laid out in threads. A thread (i, k) is one direction that starts at width i, is carried by layers i … k - 1 and ends at width k,
widths counted from 1 at the input: layer j maps the threads that pass it with a gain each, and every width turns by a random orthogonal matrix,
so that no entry of a weight is special. Each tuple of matrices is of this kind up to a change of basis at every width, whatever the ranks of its
partial products; here the bases are orthonormal, and so the Hessian at the point is diagonal in them.

**Which points are smooth.** Around a point, the entry of the end-to-end map from a thread (1, i) to a thread (k, L+1) with `k ≤ i + 1` moves to first
order, as one layer joins the two. Otherwise it is a sum of products over chains of threads between them. Factors that touch the input or the output
are themselves entries of the map, so they vanish along with it; what could spoil smoothness is a chain of threads inside, (c, d) with
`1 < c ≤ d < L + 1`, each joined by one layer to the next. `cut_threads` leaves no such chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from rllc.core.errors import RllcError
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float

Threads = Mapping[tuple[int, int], int]  # how many run from width i to width k, counted from 1


@dataclass(frozen=True)
class LinearPoint:
    """Weights at w* of a deep linear network, and the curvatures of `½‖W_L ⋯ W_1 - T‖²` there."""

    weights: tuple[Float[Floats, "_ _"], ...]  # from the input on, H_{j+1} × H_j
    stretched: tuple[Float[Floats, "N M"], ...]  # of each layer: the eigenvalues that its own part of JJᵀ has on the common eigenvectors

    @property
    def curvatures(self) -> Float[Floats, " directions"]:
        """The nonzero eigenvalues of the Hessian JᵀJ; there are rank J of them, and twice λ."""
        return self.curvatures_of(range(1, len(self.weights) + 1))

    def curvatures_of(self, layers: Sequence[int]) -> Float[Floats, " directions"]:
        """The same with only these layers free, counted from 1; one layer alone is a linear read-out, a quadratic (METHOD 3.6)."""
        total = sum((self.stretched[layer - 1] for layer in layers), np.zeros_like(self.stretched[0]))
        return total[total > 0]

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(w.size for w in self.weights)


def cut_threads(widths: Sequence[int], rank: int, cut: int = 1) -> dict[tuple[int, int], int]:
    """Threads of a generic smooth zero with teacher rank r, which layer `cut` holds down to that rank.

    Besides the r threads that run through, threads from the input go on as far as widths allow but end before layer `cut`, threads to the output
    begin as early as widths allow but after it, and what is left of a width stays alone, without a gain. A thread that ends before the cut was
    squeezed out by a narrow width, and one that begins late by another: a chain from the one to the other would have to pass these widths, which
    are full of threads that touch an end.

    >>> cut_threads((6, 6, 6), 2)
    {(1, 1): 4, (1, 3): 2, (2, 3): 4}
    """
    if not (len(widths) >= 2 and 0 <= rank <= min(widths) and 1 <= cut < len(widths)):
        raise RllcError(
            f"Widths {tuple(widths)} with a teacher of rank {rank} cannot be cut at layer {cut}.", "Choose a rank and a layer that the widths have."
        )
    spare = [width - rank for width in widths]
    last = len(widths)
    rising = [*accumulate(spare[:cut], min), *[0] * (last - cut)]  # from the input, at each width
    falling = [*[0] * cut, *list(accumulate(reversed(spare[cut:]), min))[::-1]]  # to the output
    threads = {(1, i + 1): here - after for i, (here, after) in enumerate(pairwise([*rising, 0]))}
    threads |= {(i + 1, last): here - before for i, (before, here) in enumerate(pairwise([0, *falling]))}
    threads |= {(i + 1, i + 1): spare[i] - rising[i] - falling[i] for i in range(1, last - 1)}
    threads[1, last] = rank
    return {ends: count for ends, count in threads.items() if count}


def stratum_threads(inputs: int, hidden: int, outputs: int, rank: int, first: int, second: int) -> dict[tuple[int, int], int]:
    """Threads of a zero with two layers whose factors have rank a (first) and b (second).

    >>> stratum_threads(6, 6, 6, 0, 3, 3)
    {(1, 1): 3, (1, 2): 3, (2, 3): 3, (3, 3): 3}
    """
    threads = {
        (1, 3): rank,
        (1, 1): inputs - first,
        (1, 2): first - rank,
        (2, 2): hidden + rank - first - second,
        (2, 3): second - rank,
        (3, 3): outputs - second,
    }
    if min(threads.values()) < 0:
        raise RllcError(
            f"No zero with widths {inputs}, {hidden}, {outputs} and teacher rank {rank} has factors of rank {first} and {second}.",
            "Choose ranks from `two_layer_strata`.",
        )
    return {ends: count for ends, count in threads.items() if count}


def linear_point(widths: Sequence[int], threads: Threads, generator: np.random.Generator, spread: float = 0.25) -> LinearPoint:
    """The point with these threads, in random orthonormal bases, each gain drawn evenly in log between `1/(1 + spread)` and `1 + spread`.

    Every nonzero curvature then lies between `(1 + spread)^{-2(L-1)}` and `L (1 + spread)^{2(L-1)}`.
    """
    ends = [pair for pair, count in sorted(threads.items()) for _ in range(count)]
    present = [[t for t, (start, end) in enumerate(ends) if start <= i <= end] for i in range(1, len(widths) + 1)]
    if [len(at) for at in present] != list(widths):
        raise RllcError(f"Threads {dict(threads)} do not fill widths {tuple(widths)}.", "Give each width as many threads as it has directions.")
    reach = math.log1p(spread)
    gains = [{t: math.exp(generator.uniform(-reach, reach)) for t in below if t in above} for below, above in pairwise(present)]
    bases = [_orthogonal(width, generator) for width in widths]
    weights: list[Floats] = []
    for j, gain in enumerate(gains):
        middle = np.zeros((widths[j + 1], widths[j]))
        for t, value in gain.items():
            middle[present[j + 1].index(t), present[j].index(t)] = value
        weights.append(bases[j + 1] @ middle @ bases[j].T)
    return LinearPoint(tuple(weights), tuple(_stretched(gains, present, layer) for layer in range(len(gains))))


def rescaled(point: LinearPoint, layer: int, factor: float) -> LinearPoint:
    """The same function with layer j times c and layer j + 1 divided by it: λ is the same, the curvatures are not (METHOD 3.7)."""
    weights, stretched = list(point.weights), list(point.stretched)
    weights[layer - 1], weights[layer] = weights[layer - 1] * factor, weights[layer] / factor
    # a layer's own part of JJᵀ holds all other layers, squared
    stretched[layer - 1], stretched[layer] = stretched[layer - 1] / factor**2, stretched[layer] * factor**2
    return LinearPoint(tuple(weights), tuple(stretched))


def _stretched(gains: Sequence[Mapping[int, float]], present: Sequence[Sequence[int]], layer: int) -> Float[Floats, "N M"]:
    """Squared gain from each thread at the input up to the layer, times that from the layer to each thread at the output; 0 where it does not get."""

    def carried(t: int, layers: Sequence[Mapping[int, float]]) -> float:
        return reduce(lambda product, gain: product * gain.get(t, 0.0) ** 2, layers, 1.0)

    below = np.array([carried(t, gains[:layer]) for t in present[0]])
    above = np.array([carried(t, gains[layer + 1 :]) for t in present[-1]])
    return above[:, None] * below


def _orthogonal(size: int, generator: np.random.Generator) -> Float[Floats, "n n"]:
    return np.linalg.qr(generator.standard_normal((size, size)))[0]

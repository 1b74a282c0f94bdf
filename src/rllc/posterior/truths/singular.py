"""Learning coefficients of reduced-rank regression and of deep linear networks (METHOD 3.4 and 3.5): closed forms.

Widths are listed from the input to the output, `H_1 … H_{L+1}`; layer j is a matrix `H_{j+1} × H_j`. With two layers they are M, H, N. The loss is
`½‖W_L ⋯ W_1 - T‖²` with a teacher T of rank r; any positive definite input covariance gives the same coefficients.

Aoyagi's values are minima over all zeros of the loss. A sampler reads the coefficient of the zero it was started at: `smooth_llc`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rllc.core.errors import RllcError
from rllc.posterior.traces import Floats

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Coefficient:
    """A learning coefficient λ and its multiplicity m: the free energy is `nL_n + λ log n - (m - 1) log log n`."""

    llc: float
    multiplicity: int


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> Coefficient:
    """Reduced-rank regression, the least over all zeros (Aoyagi & Watanabe 2005; METHOD 3.4).

    >>> reduced_rank(6, 6, 6, 0)
    Coefficient(llc=13.5, multiplicity=1)
    """
    _check((inputs, hidden, outputs), rank)
    m, h, n, r = inputs, hidden, outputs, rank
    if m + h < n + r:
        return Coefficient((h * m - h * r + n * r) / 2, 1)
    if n + h < m + r:
        return Coefficient((h * n - h * r + m * r) / 2, 1)
    if m + n < h + r:
        return Coefficient(m * n / 2, 1)
    odd = (m + h + n + r) % 2
    return Coefficient((-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd) / 8, 1 + odd)


def deep_linear(widths: Sequence[int], rank: int) -> Coefficient:
    """A deep linear network, the least over all zeros (Aoyagi 2024; METHOD 3.5).

    With `Δ_j = H_j - r` there is one set Σ of ℓ + 1 widths with `max_Σ Δ < min_{Σᶜ} Δ` and `ℓ max_Σ Δ ≤ Σ_Σ Δ < ℓ min_{Σᶜ} Δ`. With
    `M = ⌈Σ_Σ Δ/ℓ⌉` and `a = Σ_Σ Δ - (M - 1)ℓ`:
    `λ = (r(H_1 + H_{L+1}) - r²)/2 + a(ℓ - a)/(4ℓ) - ℓ(ℓ - 1)/4 (Σ_Σ Δ/ℓ)² + ½ Σ_{i<j∈Σ} Δ_iΔ_j`, `m = a(ℓ - a) + 1`.

    >>> deep_linear((6, 6, 6), 0)
    Coefficient(llc=13.5, multiplicity=1)
    """
    _check(widths, rank)
    r = rank
    least = _narrowest([width - r for width in widths])
    ell, total = len(least) - 1, sum(least)
    a = total - (math.ceil(Fraction(total, ell)) - 1) * ell
    pairs = (total**2 - sum(delta**2 for delta in least)) // 2
    llc = Fraction(r * (widths[0] + widths[-1]) - r**2, 2) + Fraction(a * (ell - a), 4 * ell)
    llc += -Fraction((ell - 1) * total**2, 4 * ell) + Fraction(pairs, 2)
    return Coefficient(float(llc), a * (ell - a) + 1)


def _narrowest(excess: Sequence[int]) -> list[int]:
    """The Δ of Σ: those below a threshold, so that equal ones are in it together."""
    ordered = sorted(excess)
    for size in range(2, len(ordered) + 1):
        inside, outside = ordered[:size], ordered[size:]
        ell, total, least = size - 1, sum(inside), outside[0] if outside else math.inf
        if inside[-1] < least and ell * inside[-1] <= total < ell * least:
            return inside
    raise AssertionError(f"Aoyagi's set exists for all widths, yet not for {excess}.")


def two_layer_llc(inputs: int, hidden: int, outputs: int, first: int, second: int) -> float:
    """`(N a + M b - a b)/2` at a smooth zero whose factors have rank a (H × M, next to the input) and b (N × H) (METHOD 3.5).

    >>> two_layer_llc(6, 6, 6, 3, 3), two_layer_llc(6, 6, 6, 0, 6)
    (13.5, 18.0)
    """
    if not (0 <= first <= min(inputs, hidden) and 0 <= second <= min(hidden, outputs)):
        raise RllcError(f"Factors {hidden} × {inputs} and {outputs} × {hidden} cannot have ranks {first} and {second}.", "Choose smaller ranks.")
    return (outputs * first + inputs * second - first * second) / 2


def two_layer_strata(inputs: int, hidden: int, outputs: int, rank: int) -> Iterator[tuple[int, int]]:
    """The ranks (a, b) of the two factors on each smooth stratum of the zeros: `a + b = H + r`, with `r ≤ a ≤ min(M, H)`, `r ≤ b ≤ min(H, N)`.

    A factoring keeps `a + b ≤ H + r` (Sylvester), and ranks only rise nearby, so on these strata they are constant. Where H is so wide that no
    such pair exists, there is one stratum, both factors of full rank.

    >>> list(two_layer_strata(3, 2, 3, 1)), list(two_layer_strata(2, 9, 3, 1))
    ([(1, 2), (2, 1)], [(2, 3)])
    """
    _check((inputs, hidden, outputs), rank)
    top_first, top_second = min(inputs, hidden), min(hidden, outputs)
    if top_first + top_second < hidden + rank:
        yield top_first, top_second
    for first in range(rank, top_first + 1):
        if rank <= hidden + rank - first <= top_second:
            yield first, hidden + rank - first


def smooth_llc(weights: Sequence[Float[Floats, "_ _"]]) -> float:
    """`½ rank J` of the end-to-end map at a zero where the zeros form a manifold: the local coefficient at any depth (METHOD 3.5, which point).

    Whether the zero is smooth is the caller's to know; `points` makes only such.
    """
    return jacobian_rank(weights) / 2


def jacobian_rank(weights: Sequence[Float[Floats, "_ _"]]) -> int:
    """Rank of the Jacobian of `(W_1 … W_L) ↦ W_L ⋯ W_1`, from the ranks of partial products alone.

    Its image is the sum over j of `A_j ⊗ B_j`, A_j the range of `W_L ⋯ W_{j+1}` and B_j the row space of `W_{j-1} ⋯ W_1`. The A_j grow with j
    and the B_j shrink, so these rectangles are nested like stairs: `rank J = Σ_j (a_j - a_{j-1}) b_j` with their dimensions a_j and b_j, a_0 = 0.
    """
    b = [weights[0].shape[1], *_ranks(list(weights[:-1]))]
    a = [weights[-1].shape[0], *_ranks([w.T for w in reversed(weights[1:])])][::-1]
    return sum((high - low) * rank for (low, high), rank in zip(pairwise([0, *a]), b, strict=True))


def _ranks(weights: Sequence[Float[Floats, "_ _"]]) -> list[int]:
    """Of `W_1`, `W_2 W_1`, …; a product that vanishes is left with the rounding of its factors, so their norms set the scale."""
    product, scale, ranks = np.eye(weights[0].shape[1]) if weights else np.eye(0), 1.0, list[int]()
    for w in weights:
        product, scale = w @ product, scale * float(np.linalg.norm(w, 2))
        ranks.append(int(np.linalg.matrix_rank(product, tol=1e-9 * scale)))
    return ranks


def _check(widths: Sequence[int], rank: int) -> None:
    if len(widths) < 2 or not 0 <= rank <= min(widths):
        raise RllcError(f"A linear network of widths {tuple(widths)} has no teacher of rank {rank}.", "Choose a rank from 0 to the smallest width.")

"""Closed forms of METHOD 3.4 and 3.5, against each other and against the Jacobian itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.posterior.truths.singular import (
    deep_linear,
    jacobian_rank,
    reduced_rank,
    smooth_llc,
    two_layer_llc,
    two_layer_strata,
)

CASES = [(m, h, n, r) for m, h, n in product(range(1, 8), repeat=3) for r in range(min(m, h, n) + 1)]


def jacobian(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Of the end-to-end map, column by column, the other layers multiplied out."""
    columns: list[np.ndarray] = []
    for j, w in enumerate(weights):
        below, above = np.eye(weights[0].shape[1]), np.eye(weights[-1].shape[0])
        for lower in weights[:j]:
            below = lower @ below
        for upper in reversed(weights[j + 1 :]):
            above = above @ upper
        columns += [np.outer(above[:, row], below[column]).ravel() for row in range(w.shape[0]) for column in range(w.shape[1])]
    return np.stack(columns, axis=1)


def test_aoyagi_agrees_with_reduced_rank_regression() -> None:
    """METHOD 3.5: in all 1,127 cases M, H, N ≤ 7, the multiplicity too."""
    assert len(CASES) == 1127
    for m, h, n, r in CASES:
        assert deep_linear((m, h, n), r) == reduced_rank(m, h, n, r), (m, h, n, r)


def test_known_values() -> None:
    assert reduced_rank(6, 6, 6, 0).llc == 13.5
    assert reduced_rank(1, 1, 1, 0) == deep_linear((1, 1, 1), 0)
    assert (reduced_rank(1, 1, 1, 0).llc, reduced_rank(1, 1, 1, 0).multiplicity) == (0.5, 2)  # w²v², a normal crossing with m = 2
    deep = deep_linear((1, 1, 1, 1), 0)
    assert (deep.llc, deep.multiplicity) == (0.5, 3)  # u²v²w², m = 3
    assert deep_linear((5, 4), 2).llc == 10.0  # one layer is a regular model, half its parameters
    assert deep_linear((5, 9, 9, 4), 4).llc == 10.0  # and so is a wide one with a teacher of full rank


def test_a_deep_network_is_never_less_singular_for_its_depth() -> None:
    """One more hidden layer of the same width can only lower λ, never below the teacher's own dimension."""
    for width, rank in product(range(2, 6), range(3)):
        values = [deep_linear((width,) * (depth + 1), rank).llc for depth in range(1, 6)]
        assert values == sorted(values, reverse=True)
        assert values[-1] >= (2 * width * rank - rank**2) / 2


def test_the_least_smooth_stratum_is_aoyagis_value() -> None:
    """METHOD 3.5, which point: over `a + b = H + r` the least of `(Na + Mb - ab)/2` is 3.4, in all 1,127 cases."""
    for m, h, n, r in CASES:
        local = [two_layer_llc(m, h, n, a, b) for a, b in two_layer_strata(m, h, n, r)]
        assert min(local) == reduced_rank(m, h, n, r).llc, (m, h, n, r)


def factors_of_rank(widths: Sequence[int], ranks: Sequence[int], generator: np.random.Generator) -> list[np.ndarray]:
    return [
        generator.standard_normal((out, rank)) @ generator.standard_normal((rank, size))
        for (size, out), rank in zip(pairwise(widths), ranks, strict=True)
    ]


@pytest.mark.parametrize("widths", [(4, 3, 5), (2, 6, 3), (3, 3, 3), (4, 2, 3, 4), (3, 5, 2, 4), (3, 4, 2, 3, 2), (2, 3, 3, 3, 3)])
def test_rank_of_the_jacobian_from_ranks_of_products(widths: tuple[int, ...]) -> None:
    """Nested rectangles against a singular value decomposition, at full and at deficient ranks, zero included."""
    generator = np.random.default_rng(0)
    most = [min(pair) for pair in pairwise(widths)]
    seen: set[int] = set()
    for ranks in product(*(range(top + 1) for top in most)):
        weights = factors_of_rank(widths, ranks, generator)
        rank = jacobian_rank(weights)
        assert rank == np.linalg.matrix_rank(jacobian(weights)), ranks
        assert smooth_llc(weights) == rank / 2
        seen.add(rank)
    assert len(seen) > 2


def test_rank_of_products_that_vanish_up_to_rounding() -> None:
    """Factors on orthogonal subspaces: the product is 1e-17, which is nothing beside them, whatever the units of a layer."""
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0]
    first, second = turn @ np.diag([1.0, 1.0, 0, 0]), np.diag([0, 0, 1.0, 1.0]) @ turn.T
    assert 0 < np.abs(second @ first).max() < 1e-15
    for c in (1e-6, 1.0, 1e6):
        # of the 4 × 4 entries of a third layer's image, 2 × 4 and the 2 × 2 that its neighbours reach
        assert jacobian_rank([c * first, second / c, np.eye(4)]) == np.linalg.matrix_rank(jacobian([first, second, np.eye(4)])) == 12


def test_two_layers_are_the_case_of_any_depth() -> None:
    generator = np.random.default_rng(1)
    for m, h, n in ((4, 5, 3), (2, 6, 6), (5, 3, 4)):
        for a, b in product(range(min(m, h) + 1), range(min(h, n) + 1)):
            assert smooth_llc(factors_of_rank((m, h, n), (a, b), generator)) == two_layer_llc(m, h, n, a, b)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RllcError, match="no teacher of rank 4"):
        reduced_rank(3, 5, 6, 4)
    with pytest.raises(RllcError, match="no teacher of rank -1"):
        deep_linear((3, 3), -1)
    with pytest.raises(RllcError, match="cannot have ranks 4 and 1"):
        two_layer_llc(3, 5, 6, 4, 1)

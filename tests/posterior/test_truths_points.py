"""Points of deep linear networks: their ranks, their curvatures, and that their zeros form a manifold there (METHOD 3.5, which point)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.posterior.truths.points import LinearPoint, cut_threads, linear_point, rescaled, stratum_threads
from rllc.posterior.truths.singular import jacobian_rank, reduced_rank, smooth_llc, two_layer_llc, two_layer_strata

SHAPES = [(4, 3), (3, 4, 2), (2, 4, 2), (4, 2, 3), (3, 3, 3), (2, 5, 3, 4), (4, 3, 2, 3), (2, 4, 3, 2, 3), (3, 2, 4, 2, 3)]
GENERIC = [(widths, rank, cut) for widths in SHAPES for rank in range(min(widths) + 1) for cut in range(1, len(widths))]


def end_to_end(weights: tuple[np.ndarray, ...]) -> np.ndarray:
    product_ = weights[0]
    for w in weights[1:]:
        product_ = w @ product_
    return product_


def jacobian(weights: tuple[np.ndarray, ...]) -> np.ndarray:
    """Of the end-to-end map: a layer between A and B moves it by A dW B, which is A ⊗ Bᵀ on entries row by row."""
    ends = np.eye(weights[-1].shape[0]), np.eye(weights[0].shape[1])
    return np.hstack([np.kron(end_to_end((*weights[j + 1 :], ends[0])), end_to_end((ends[1], *weights[:j])).T) for j in range(len(weights))])


def unflatten(flat: np.ndarray, like: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    pieces = np.split(flat, np.cumsum([w.size for w in like])[:-1])
    return tuple(piece.reshape(w.shape) for piece, w in zip(pieces, like, strict=True))


def left_over(point: LinearPoint, size: float = 1e-2) -> float:
    """The error that Newton's method leaves after a step along flat directions, over the square of the step.

    The method moves along the directions that are stiff at w*. Where the zeros form a manifold with the flat directions as its tangent space,
    that removes all of it.
    """
    j = jacobian(point.weights)
    pseudo = np.linalg.pinv(j, rcond=1e-8)
    v = np.random.default_rng(3).standard_normal(j.shape[1])
    v -= pseudo @ (j @ v)
    here = np.concatenate([w.ravel() for w in point.weights]) + size * v / np.linalg.norm(v)
    teacher = end_to_end(point.weights)
    error = np.zeros_like(teacher)
    for _ in range(50):
        error = end_to_end(unflatten(here, point.weights)) - teacher
        here = here - pseudo @ error.ravel()
    return float(np.linalg.norm(error)) / size**2


@pytest.mark.parametrize(("widths", "rank", "cut"), [case for case in GENERIC if len(case[0]) > 2])
def test_generic_points_are_smooth(widths: tuple[int, ...], rank: int, cut: int) -> None:
    """Along every flat direction there are zeros."""
    point = linear_point(widths, cut_threads(widths, rank, cut), np.random.default_rng(0))
    assert np.linalg.matrix_rank(end_to_end(point.weights), tol=1e-9) == np.linalg.matrix_rank(point.weights[cut - 1]) == rank
    assert left_over(point) < 1e-9


@pytest.mark.parametrize("ranks", [(0, 0), (1, 1), (2, 1)])
def test_a_point_with_threads_inside_is_not_smooth(ranks: tuple[int, int]) -> None:
    """What the test above must notice: ranks that can rise nearby, a + b < H + r."""
    point = linear_point((3, 4, 3), stratum_threads(3, 4, 3, 0, *ranks), np.random.default_rng(0))
    assert left_over(point) > 1e-3


@pytest.mark.parametrize(("widths", "rank", "cut"), GENERIC)
def test_curvatures_are_the_spectrum_of_the_hessian(widths: tuple[int, ...], rank: int, cut: int) -> None:
    point = linear_point(widths, cut_threads(widths, rank, cut), np.random.default_rng(1), spread=0.4)
    j = jacobian(point.weights)
    spectrum = np.linalg.eigvalsh(j @ j.T)
    expected = np.sort(spectrum[spectrum > 1e-9])
    assert np.sort(point.curvatures) == pytest.approx(expected, rel=1e-9)
    assert len(point.curvatures) == jacobian_rank(point.weights) == 2 * smooth_llc(point.weights)
    layers = len(widths) - 1
    bound = 1.4 ** (2 * (layers - 1))
    assert (point.curvatures >= 1 / bound - 1e-9).all()
    assert (point.curvatures <= layers * bound + 1e-9).all()


def test_curvatures_of_some_layers() -> None:
    """METHOD 3.6: a read-out alone is a quadratic with the curvatures of its own columns of the Jacobian."""
    point = linear_point((3, 4, 5, 2), cut_threads((3, 4, 5, 2), 2), np.random.default_rng(2))
    j = jacobian(point.weights)
    ends = np.cumsum([0, *(w.size for w in point.weights)])
    for layers in ((3,), (1,), (2, 3)):
        columns = np.concatenate([np.arange(ends[layer - 1], ends[layer]) for layer in layers])
        spectrum = np.linalg.eigvalsh(j[:, columns] @ j[:, columns].T)
        assert np.sort(point.curvatures_of(layers)) == pytest.approx(np.sort(spectrum[spectrum > 1e-9]), rel=1e-9)


def test_strata_have_the_ranks_they_are_named_after() -> None:
    for m, h, n, r in ((3, 4, 3, 0), (4, 3, 5, 1), (2, 6, 3, 2), (5, 5, 5, 2)):
        for a, b in two_layer_strata(m, h, n, r):
            point = linear_point((m, h, n), stratum_threads(m, h, n, r, a, b), np.random.default_rng(0))
            assert [int(np.linalg.matrix_rank(w, tol=1e-9)) for w in (*point.weights, end_to_end(point.weights))] == [a, b, r]
            assert smooth_llc(point.weights) == two_layer_llc(m, h, n, a, b) >= reduced_rank(m, h, n, r).llc
            assert left_over(point) < 1e-9


def test_rescaling_changes_curvatures_but_neither_function_nor_rank() -> None:
    """METHOD 3.7."""
    point = linear_point((3, 4, 5, 2), cut_threads((3, 4, 5, 2), 1), np.random.default_rng(4))
    for layer, factor in product((1, 2), (0.5, 3.0)):
        copy = rescaled(point, layer, factor)
        assert end_to_end(copy.weights) == pytest.approx(end_to_end(point.weights))
        j = jacobian(copy.weights)
        spectrum = np.linalg.eigvalsh(j @ j.T)
        assert np.sort(copy.curvatures) == pytest.approx(np.sort(spectrum[spectrum > 1e-9]), rel=1e-9)
        assert len(copy.curvatures) == len(point.curvatures)
        assert copy.curvatures.sum() != pytest.approx(point.curvatures.sum(), rel=1e-2)


def test_bases_are_orthonormal_and_seeded() -> None:
    widths = (30, 40, 20)
    one, same = (linear_point(widths, cut_threads(widths, 20, cut=2), np.random.default_rng(7)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one.weights, same.weights, strict=True))
    gains = np.linalg.svd(one.weights[0], compute_uv=False)
    assert gains.min() >= 0.8 - 1e-9
    assert gains.max() <= 1.25 + 1e-9
    assert one.parameters == 30 * 40 + 40 * 20


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RllcError, match="cannot be cut at layer 3"):
        cut_threads((3, 3, 3), 1, cut=3)
    with pytest.raises(RllcError, match="has factors of rank 3 and 2"):
        stratum_threads(3, 4, 3, 0, 3, 2)
    with pytest.raises(RllcError, match="do not fill widths"):
        linear_point((2, 2), {(1, 2): 1}, np.random.default_rng(0))

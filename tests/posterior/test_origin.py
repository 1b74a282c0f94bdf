"""The gradient at w*: unbiased in spite of its noise, with an honest error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.core.errors import RllcError
from rllc.posterior.origin import gradient_at_origin, mean_gradient
from rllc.posterior.quadratic import Quadratic


def noisy(parts: int, g: float, s: float, d: int = 30) -> Quadratic:
    like = torch.ones(parts, d, dtype=torch.float64)
    return Quadratic({"w": 5 * like}, {"w": like}, {"w": g * like}, gradient_noise={"w": s * like}, offset_noise=0.2, constant=3.0)


def check_unbiased() -> None:
    """400 parts of equal gradient, ‖g‖² = 0.3, under noise of ‖s‖² = 30: the plain norm of the mean reads 0.3 + 30/16."""
    toy = noisy(400, g=0.1, s=1.0)
    found = gradient_at_origin(toy, toy.origin, range(16))
    error = found.sq_norm.std(ddof=1)
    assert found.sq_norm.mean() == pytest.approx(0.3, abs=3 * error / 20)
    assert (found.sq_norm < 0).any()
    assert found.batches == 16
    np.testing.assert_allclose(found.sq_batch_norm.mean(), 30.3, rtol=0.02)
    # the jackknife errs to the wide side, by half at most
    assert error < np.sqrt(np.mean(found.sq_norm_stderr**2)) < 1.5 * error


def test_the_estimate_is_unbiased_and_its_error_is_not_too_small() -> None:
    check_unbiased()


def test_without_noise_it_is_exact() -> None:
    toy = noisy(2, g=0.1, s=0.0)
    found = gradient_at_origin(toy, toy.origin, range(3))
    np.testing.assert_allclose(found.sq_norm, 0.3)
    np.testing.assert_allclose(found.sq_norm_stderr, 0, atol=1e-12)


def test_the_loss_is_the_mean_baseline() -> None:
    toy = noisy(3, g=0.1, s=1.0)
    expected = np.mean([3.0 + toy.prepare(b).offset.numpy() for b in range(40, 50)], axis=0)
    np.testing.assert_allclose(gradient_at_origin(toy, toy.origin, range(40, 50)).loss, expected)


def test_two_minibatches_are_too_few() -> None:
    toy = noisy(1, g=0.1, s=1.0)
    with pytest.raises(RllcError, match="at least 3 minibatches to have an error, but 2 were given"):
        gradient_at_origin(toy, toy.origin, range(2))


def test_an_objective_without_gradients_is_told() -> None:
    class Probe(Quadratic):
        def evaluate(self, variants, context, *, gradients=True):
            del gradients
            return super().evaluate(variants, context, gradients=False)

    toy = noisy(1, g=0.1, s=1.0)
    with pytest.raises(ValueError, match="returned no gradients"):
        gradient_at_origin(Probe(toy.origin, toy.curvature), toy.origin, range(3))


def check_power_iteration() -> None:
    """Three parts of different curvature, each with one steep direction among 40: found within 2 % under noise of the curvature of 20 %."""
    h = torch.ones(3, 40, dtype=torch.float64)
    h[:, 7] = torch.tensor([10.0, 50.0, 200.0])
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, {"w": torch.ones_like(h)}, offset_noise=1.0)
    np.testing.assert_allclose(gradient_at_origin(toy, toy.origin, range(16)).top_curvature, [10, 50, 200], rtol=0.02)
    noisy = Quadratic(toy.origin, toy.curvature, gradient_noise={"w": torch.ones_like(h)}, stretch_noise=0.2)
    found = gradient_at_origin(noisy, noisy.origin, range(64)).top_curvature
    np.testing.assert_allclose(found, [10, 50, 200], rtol=4 * 0.2 / np.sqrt(32))


def test_power_iteration_finds_the_steepest_direction() -> None:
    check_power_iteration()


def test_a_part_that_the_loss_ignores_has_no_curvature() -> None:
    toy = noisy(1, g=0.0, s=0.0)
    flat = Quadratic(toy.origin, {"w": torch.zeros_like(toy.origin["w"])})
    assert gradient_at_origin(flat, flat.origin, range(3)).top_curvature == 0


def test_what_is_known_of_one_part() -> None:
    toy = noisy(3, g=0.1, s=1.0)
    found = gradient_at_origin(toy, toy.origin, range(4))
    assert found.part(1).sq_norm == found.sq_norm[1]
    assert found.part(1).batches == 4
    np.testing.assert_allclose(found.sq_center, 30 * 25)


def test_the_mean_gradient() -> None:
    toy = noisy(2, g=0.1, s=1.0)
    by_hand = torch.stack([toy._slope("w", toy.prepare(b)) for b in range(5)]).mean(dim=0)
    torch.testing.assert_close(mean_gradient(toy, toy.origin, range(5))["w"], by_hand)
    with pytest.raises(RllcError, match="over at least one minibatch"):
        mean_gradient(toy, toy.origin, [])

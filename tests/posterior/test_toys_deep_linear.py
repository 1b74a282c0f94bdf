"""The deep linear network: the loss as defined, gradients against autograd, restriction, precision, speed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rllc.posterior.protocol import Objective
from rllc.posterior.toys.deep_linear import DeepLinear
from rllc.posterior.truths.points import LinearPoint, cut_threads, linear_point, rescaled

CHAINS = 3


def point(*widths: int, rank: int = 1, seed: int = 0) -> LinearPoint:
    return linear_point(widths, cut_threads(widths, rank), np.random.default_rng(seed))


def loss_of(layers: list[torch.Tensor], teacher: torch.Tensor) -> torch.Tensor:
    """½‖W_L ⋯ W_1 - T‖², one variant."""
    x = torch.eye(teacher.shape[1], dtype=teacher.dtype)
    for w in layers:
        x = w @ x
    return (x - teacher).square().sum() / 2


@pytest.mark.parametrize("widths", [(3, 4), (3, 4, 2), (2, 3, 4, 3), (4, 3, 2, 3, 4)])
def test_losses_and_gradients_of_every_restriction(widths: tuple[int, ...]) -> None:
    toy = DeepLinear.at([point(*widths, seed=s) for s in range(2)], torch.float64)
    assert isinstance(toy, Objective)
    names = list(toy.origin)
    assert names == [f"W{j}" for j in range(1, len(widths))]
    subsets = [names, *([name] for name in names), [names[0], names[-1]], names[::-1]]
    for subset in subsets:
        free = {n: toy.origin[n].repeat_interleave(CHAINS, dim=0) for n in dict.fromkeys(subset)}
        free = {n: (w + 0.3 * torch.randn_like(w)).requires_grad_() for n, w in free.items()}
        truth = torch.stack(
            [loss_of([free[n][c] if n in free else toy.origin[n][c // CHAINS] for n in names], toy.teacher[c // CHAINS]) for c in range(2 * CHAINS)]
        )
        truth.sum().backward()
        result = toy.evaluate({n: w.detach() for n, w in free.items()}, toy.prepare(0))
        torch.testing.assert_close(result.losses, truth.detach(), rtol=1e-12, atol=1e-12)
        assert result.gradients is not None
        assert result.gradients.keys() == free.keys()
        for n, w in free.items():
            torch.testing.assert_close(result.gradients[n], w.grad, rtol=1e-12, atol=1e-12)
        assert toy.evaluate({n: w.detach() for n, w in free.items()}, None, gradients=False).gradients is None


def test_the_loss_is_the_mean_over_normal_inputs() -> None:
    """E_x ½‖(W - T)x‖² = ½‖W - T‖² for E xxᵀ = I."""
    toy = DeepLinear.at([point(3, 4, 2)], torch.float64)
    w1, w2 = toy.origin["W1"] + 0.2, toy.origin["W2"] - 0.1
    x = torch.randn(400_000, 3, dtype=torch.float64)
    sampled = ((x @ (w2[0] @ w1[0] - toy.teacher[0]).T).square().sum(dim=1) / 2).mean()
    assert float(toy.evaluate({"W1": w1, "W2": w2}, None).losses) == pytest.approx(float(sampled), rel=0.01)


def test_the_origin_is_a_zero() -> None:
    for dtype, tiny in ((torch.float64, 1e-28), (torch.float32, 1e-12)):
        toy = DeepLinear.at([point(20, 30, 20, rank=20), point(20, 30, 20, rank=10)], dtype)
        result = toy.evaluate({n: w.repeat_interleave(2, dim=0) for n, w in toy.origin.items()}, None)
        assert result.losses.dtype == dtype
        assert float(result.losses.max()) < tiny
        assert result.baseline.tolist() == [0.0] * 4


def test_one_layer_alone_is_the_quadratic_of_its_curvatures() -> None:
    """METHOD 3.6: along any direction of one layer the loss is exactly quadratic, with the trace that the point tells."""
    p = point(3, 4, 5, 2, rank=2)
    toy = DeepLinear.at([p], torch.float64)
    for layer in (1, 2, 3):
        center = toy.origin[f"W{layer}"]
        units = torch.eye(center[0].numel(), dtype=torch.float64).view(-1, *center.shape[1:])
        for size in (1e-2, 10.0):
            losses = toy.evaluate({f"W{layer}": center + size * units}, None).losses
            assert float(2 * losses.sum() / size**2) == pytest.approx(p.curvatures_of([layer]).sum(), rel=1e-9)


def test_a_rescaled_copy_is_the_same_function() -> None:
    """METHOD 3.7."""
    p = point(3, 4, 2)
    toy = DeepLinear.at([p, rescaled(p, 1, 5.0)], torch.float64)
    torch.testing.assert_close(toy.teacher[0], toy.teacher[1])
    torch.testing.assert_close(toy.origin["W1"][1], 5 * toy.origin["W1"][0])


def test_a_variant_that_turned_nan_spoils_only_itself() -> None:
    toy = DeepLinear.at([point(3, 4, 2)], torch.float32)
    variants = {n: w + 0.1 * torch.randn(4, *w.shape[1:]) for n, w in toy.origin.items()}
    clean = toy.evaluate(variants, None)
    variants["W1"][1] = math.nan
    result = toy.evaluate(variants, None)
    assert torch.isnan(result.losses).tolist() == [False, True, False, False]
    assert result.gradients is not None
    assert clean.gradients is not None
    for n, gradient in result.gradients.items():
        assert torch.equal(gradient[[0, 2, 3]], clean.gradients[n][[0, 2, 3]])

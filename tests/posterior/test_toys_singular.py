"""The singular toys: values, gradients, rows that stay apart."""

from __future__ import annotations

import math

import pytest
import torch

from rllc.posterior.protocol import Objective
from rllc.posterior.toys.singular import Copies, Cusp, NormalCrossing, Separable


def origin(*shape: int) -> dict[str, torch.Tensor]:
    return {"w": torch.randn(*shape, dtype=torch.float64)}


TOYS = [
    (Separable(origin(2, 5, 1), (4.0,), 3.0), lambda v: 3 * v[..., 0] ** 4),
    (Separable(origin(2, 5, 3), (2.0, 3.0, 1.5)), lambda v: v[..., 0] ** 2 + v[..., 1].abs() ** 3 + v[..., 2].abs() ** 1.5),
    (NormalCrossing(origin(2, 5, 2), (2.0, 4.0), 0.5), lambda v: 0.5 * v[..., 0] ** 2 * v[..., 1] ** 4),
    (NormalCrossing(origin(2, 2, 3, 3), (2.0, 4.0, 6.0)), lambda v: v[..., 0] ** 2 * v[..., 1] ** 4 * v[..., 2] ** 6),
    (Cusp(origin(2, 5, 2), 2.0), lambda v: 2 * (v[..., 0] ** 2 - v[..., 1] ** 3) ** 2),
]


@pytest.mark.parametrize(("toy", "loss"), TOYS)
def test_losses_and_gradients(toy: Copies, loss) -> None:
    """Against the formula as written, and against autograd."""
    center = toy.origin["w"]
    v = torch.randn(2, 3, *center.shape[1:], dtype=torch.float64, requires_grad=True)
    truth = loss(v).flatten(2).sum(dim=2).flatten()
    truth.sum().backward()
    assert v.grad is not None
    assert isinstance(toy, Objective)
    result = toy.evaluate({"w": (center[:, None] + v.detach()).flatten(0, 1)}, toy.prepare(0))
    assert result.gradients is not None
    torch.testing.assert_close(result.losses, truth.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.gradients["w"], v.grad.flatten(0, 1), rtol=1e-12, atol=1e-12)
    assert result.baseline.tolist() == [0.0] * 6


@pytest.mark.parametrize(("toy", "loss"), TOYS)
def test_at_the_origin_nothing_moves(toy: Copies, loss) -> None:
    result = toy.evaluate(dict(toy.origin), toy.prepare(0))
    assert result.gradients is not None
    assert result.losses.tolist() == [0.0, 0.0]
    assert not result.gradients["w"].any()
    assert toy.evaluate(dict(toy.origin), None, gradients=False).gradients is None


def test_a_factor_at_zero_leaves_the_others_their_gradient() -> None:
    toy = NormalCrossing({"w": torch.zeros(1, 2)}, (1.0, 2.0))
    gradients = toy.evaluate({"w": torch.tensor([[1e-30, 3.0], [0.0, 3.0]])}, None).gradients
    assert gradients is not None
    assert gradients["w"].tolist() == [[9.0, pytest.approx(6e-30)], [0.0, 0.0]]


@pytest.mark.parametrize(("toy", "loss"), TOYS)
def test_a_variant_that_turned_nan_spoils_only_itself(toy: Copies, loss) -> None:
    variants = toy.origin["w"].repeat_interleave(2, dim=0) + 0.5
    clean = toy.evaluate({"w": variants}, None)
    spoilt = variants.clone()
    spoilt[1] = math.nan
    result = toy.evaluate({"w": spoilt}, None)
    assert torch.isnan(result.losses[1])
    keep = [0, 2, 3]
    assert torch.equal(result.losses[keep], clean.losses[keep])
    assert result.gradients is not None
    assert clean.gradients is not None
    assert torch.equal(result.gradients["w"][keep], clean.gradients["w"][keep])


def test_several_tensors_add_up_and_those_left_out_add_nothing() -> None:
    toy = Separable({"a": torch.zeros(1, 2), "b": torch.zeros(1, 3, 2)}, (2.0, 4.0))
    a, b = torch.ones(1, 2), 2 * torch.ones(1, 3, 2)
    assert toy.evaluate({"a": a, "b": b}, None).losses.tolist() == [2.0 + 3 * (4 + 16)]
    assert toy.evaluate({"a": a}, None).losses.tolist() == [2.0]

"""The whole Hessian through the protocol, and the curvature twin (METHOD 3.1c)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.core.errors import RllcError
from rllc.posterior import exact
from rllc.posterior.curvature import hessian, twin
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerSettings

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0)


class Coupled:
    """`Σ_b ½ vᵀ(H + bI)v / n + quartic`, with H not diagonal: what a finite difference must see through."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.origin = matrix, {"w": torch.full((2, len(matrix)), 0.5, dtype=matrix.dtype)}

    def prepare(self, batch: int) -> int:
        return batch

    def evaluate(self, variants: Tensors, context: int, *, gradients: bool = True) -> Evaluation:
        del gradients
        w = variants["w"].detach().requires_grad_()
        v = w - 0.5
        scale = torch.tensor([1.0, 3.0], dtype=w.dtype).repeat_interleave(len(w) // 2)
        loss = scale * (0.5 * (v @ self.matrix * v).sum(1) + context / 2 * (v**2).sum(1)) + (v**4).sum(1)
        (gradient,) = torch.autograd.grad(loss.sum(), w)
        return Evaluation(loss.detach(), {"w": gradient}, torch.zeros_like(loss))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 5e-3)])
def test_the_hessian_is_that_of_the_loss(dtype: torch.dtype, tolerance: float) -> None:
    root = torch.randn(70, 70, dtype=dtype)  # more than one block of columns
    matrix = root @ root.T / 70
    found = hessian(Coupled(matrix), Coupled(matrix).origin, [0, 2])
    for p, scale in enumerate((1.0, 3.0)):
        np.testing.assert_allclose(found[p], scale * (matrix.double().numpy() + np.eye(70)), atol=tolerance * scale)


def test_the_twin_is_the_formula() -> None:
    """½ Σ nβh/(nβh + γ) by hand; what SGLD reads is this, raised by its discretisation."""
    h = np.array([0.0, 1.0, 20.0, 60.0])
    toy = Quadratic({"w": torch.zeros(1, 4, dtype=torch.float64)}, {"w": torch.tensor(h)[None]})
    by_hand = 0.5 * (30 / 230 + 600 / 800 + 1800 / 2000)
    np.testing.assert_allclose(twin(toy, toy.origin, range(2), PAPER), by_hand, rtol=1e-6)
    assert exact.llc(h, PAPER).sum() > by_hand


def test_the_twin_of_a_saddle() -> None:
    assert exact.curvature_twin([-2.0], PAPER) == pytest.approx(-60 / 140 / 2)
    assert np.isnan(exact.curvature_twin([-7.0, 5.0], PAPER))


def test_no_minibatch_no_hessian() -> None:
    toy = Quadratic({"w": torch.zeros(1, 4)}, {"w": torch.ones(1, 4)})
    with pytest.raises(RllcError, match="at least one minibatch"):
        hessian(toy, toy.origin, [])

"""One matrix for many variants: the product, its gradient, and that no variant sees how many others there are."""

from __future__ import annotations

import pytest
import torch

from rllc.model.attention import attend
from rllc.model.linear import shared_product
from rllc.model.shape import ModelShape

SIZES = [(5, 10, 17), (165, 10, 96), (33, 64, 40), (64, 128, 512), (1, 3, 1)]


@pytest.mark.parametrize("variants", [1, 4])
@pytest.mark.parametrize(("rows", "d", "m"), SIZES)
def test_values_and_gradients(variants: int, rows: int, d: int, m: int) -> None:
    g = torch.Generator().manual_seed(rows)
    x, scale = (torch.randn(variants, rows, k, generator=g, dtype=torch.float64) for k in (d, m))
    weight = torch.randn(m, d, generator=g, dtype=torch.float64).T  # as a tied unembedding lies: not contiguous
    x.requires_grad_()
    product, expected = shared_product(x, weight), torch.einsum("cnd,dm->cnm", x, weight)
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-12)
    got, true = (torch.autograd.grad((y * scale).sum(), x)[0] for y in (product, expected))
    torch.testing.assert_close(got, true, rtol=0, atol=1e-12)


def test_the_matrix_gets_its_gradient_in_training_and_is_refused_one_among_variants() -> None:
    x, weight = torch.randn(3, 5, 4), torch.randn(4, 2, requires_grad=True)
    shared_product(x[:1], weight).sum().backward()
    torch.testing.assert_close(weight.grad, x[0].sum(0)[:, None].expand(4, 2))
    with pytest.raises(ValueError, match="is frozen; give it the axis C to differentiate it"):
        shared_product(x, weight)


@pytest.mark.parametrize(("rows", "d", "m"), SIZES)
def test_a_variant_s_product_is_the_same_to_the_bit_alone_and_among_others(rows: int, d: int, m: int) -> None:
    x, weight = torch.randn(7, rows, d), torch.randn(d, m)
    together = shared_product(x, weight)
    assert all(torch.equal(shared_product(x[c : c + 1], weight)[0], together[c]) for c in range(7))


def test_a_second_derivative_is_refused() -> None:
    x, weight = torch.randn(3, 5, 4, requires_grad=True), torch.randn(4, 2)
    (gradient,) = torch.autograd.grad(shared_product(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("size", [1, 4, 12, 16, 24, 32])
@pytest.mark.parametrize("length", [1, 5, 33])
def test_a_sequence_attends_the_same_to_the_bit_alone_and_among_others(size: int, length: int, cap: float) -> None:
    q, k, v = torch.randn(3, 6, 3, length, size)
    shape = ModelShape(d_head=size, score_softcap=cap)
    together = attend(shape, q, k, v)
    assert all(torch.equal(attend(shape, q[n : n + 1], k[n : n + 1], v[n : n + 1])[0], together[n]) for n in range(6))
    scores = q.double() @ k.double().mT / size**0.5
    weights = (cap * torch.tanh(scores / cap) if cap else scores).exp().tril()
    torch.testing.assert_close(together.double(), weights / weights.sum(-1, keepdim=True) @ v.double(), rtol=0, atol=2e-6)

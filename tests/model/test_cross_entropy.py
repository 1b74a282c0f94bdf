"""The fused read-out against autograd through F.cross_entropy of whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.model import cross_entropy
from rllc.model.cross_entropy import block_rows, variant_losses

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(c: int, n: int, d: int, v: int, weight_axis: bool, bias_axis: bool, scale: float = 1.0) -> Problem:
    g = torch.Generator().manual_seed(c * 1000 + n * 100 + v)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=g, dtype=torch.float64)

    weight, bias = random(*([c] if weight_axis else []), d, v), random(*([c] if bias_axis else []), v)
    return random(c, n, d) * scale, weight, bias, torch.randint(0, v, (n,), generator=g)


def reference(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    c = x.shape[0]
    weights, biases = (weight if weight.ndim == 3 else [weight] * c), (bias if bias.ndim == 2 else [bias] * c)
    return torch.stack([F.cross_entropy(x[i] @ weights[i] + biases[i], targets) for i in range(c)])


def assert_same(case: Problem, wanted: tuple[bool, bool, bool], tolerance: float = 1e-12) -> None:
    *tensors, targets = case
    tensors = [t.clone().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
    asked = [t for t in tensors if t.requires_grad]
    scales = torch.linspace(-1.5, 2.0, tensors[0].shape[0], dtype=torch.float64)  # each variant's loss may enter with a factor of its own
    expected, got = reference(*tensors, targets), variant_losses(*tensors, targets)
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)
    for a, b in zip(torch.autograd.grad(got @ scales, asked), torch.autograd.grad(expected @ scales, asked), strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("block", [17, 4 * 17, 9 * 17, 1 << 19])
@pytest.mark.parametrize(("c", "weight_axis", "bias_axis", "wanted"), [
    (3, False, False, (True, False, False)),
    (3, True, False, (True, True, False)),
    (3, True, True, (True, True, True)),
    (3, False, True, (True, False, True)),
    (3, True, True, (False, True, True)),
    (1, False, False, (True, True, True)),
    (1, False, False, (False, True, False)),
    (1, True, True, (True, True, True)),
])  # fmt: skip
def test_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, block: int, c: int, weight_axis: bool, bias_axis: bool, wanted: tuple[bool, bool, bool]
) -> None:
    """Blocks of 1, 4 and 9 of 9 rows, and all at once: rows that do not divide into blocks included."""
    monkeypatch.setattr(cross_entropy, "_BLOCK_NUMBERS", block)
    assert_same(problem(c, 9, 5, 17, weight_axis, bias_axis), wanted)


def test_a_vocabulary_larger_than_a_block() -> None:
    assert block_rows(100, (1 << 19) + 1) == 1
    assert block_rows(100, 5000) == 100
    assert block_rows(1000, 5000) == 104
    assert_same(problem(2, 5, 3, 150_000, False, False), (True, False, False))
    assert_same(problem(1, 5, 3, (1 << 19) + 1, False, False), (True, True, True))


def test_one_row_and_one_token() -> None:
    assert_same(problem(2, 1, 3, 4, True, True), (True, True, True))
    x, weight, bias, targets = problem(2, 3, 3, 1, False, False)
    assert variant_losses(x, weight, bias, targets).tolist() == [0.0, 0.0]


def test_logits_of_thousands_neither_overflow_nor_underflow() -> None:
    case = problem(2, 20, 4, 30, False, False, scale=2000.0)
    assert (case[0] @ case[1]).abs().max() > 5000
    *tensors, targets = case
    torch.testing.assert_close(variant_losses(*tensors, targets), reference(*tensors, targets), rtol=1e-13, atol=0)
    single = variant_losses(*(t.float() for t in tensors), targets)
    assert torch.isfinite(single).all()
    torch.testing.assert_close(single, reference(*(t.float().double() for t in tensors), targets), rtol=1e-6, atol=0)


def test_a_large_offset_common_to_all_logits_costs_no_precision() -> None:
    """Cross-entropy is blind to it; so must be the sum in single precision."""
    x, weight, _, targets = (t.float() if t.is_floating_point() else t for t in problem(1, 50, 4, 30, False, False))
    offset = torch.full((30,), 4096.0)
    rounded = (x[0] @ weight + offset).double()  # the logits themselves are rounded: that much is given
    expected = F.cross_entropy(rounded, targets)
    assert abs(variant_losses(x, weight, offset, targets).item() - expected.item()) < 1e-6


def test_a_logit_that_is_not_finite_gives_a_loss_that_is_not() -> None:
    x, weight, bias, targets = problem(3, 4, 3, 5, False, False)
    x[1, 2, 0] = float("nan")
    x[2, 0, 0] = float("inf")
    assert variant_losses(x, weight, bias, targets).isfinite().tolist() == [True, False, False]


def test_the_sum_over_tokens_is_taken_in_double_precision() -> None:
    x, weight, bias, targets = (t.float() if t.is_floating_point() else t for t in problem(1, 20_000, 4, 30, False, False))
    loss = variant_losses(x, weight, bias, targets)
    assert loss.dtype == torch.float64
    exact = F.cross_entropy((x[0] @ weight + bias).double(), targets)
    assert abs(loss.item() - exact.item()) < 2e-8


def test_gradients_come_in_the_dtype_of_what_they_belong_to() -> None:
    tensors = [t.float().requires_grad_() for t in problem(1, 4, 3, 5, False, False)[:3]]
    targets = torch.zeros(4, dtype=torch.int64)
    assert {g.dtype for g in torch.autograd.grad(variant_losses(*tensors, targets).sum(), tensors)} == {torch.float32}


@pytest.mark.parametrize("wanted", [(False, True, False), (False, False, True)])
def test_gradients_of_several_losses_have_no_room_in_one_shared_tensor(wanted: tuple[bool, bool, bool]) -> None:
    *tensors, targets = problem(2, 4, 3, 5, False, False)
    tensors = [t.requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
    with pytest.raises(ValueError, match="shared"):
        variant_losses(*tensors, targets)


def test_a_second_derivative_is_refused_and_not_zero() -> None:
    x, weight, bias, targets = problem(1, 4, 3, 5, False, False)
    x.requires_grad_()
    for loss, sentence in ((lambda y: y.sum(), "does not require grad"), (lambda y: y.square().sum(), "once_differentiable")):
        (gradient,) = torch.autograd.grad(loss(variant_losses(x, weight, bias, targets)), x, create_graph=True)
        with pytest.raises(RuntimeError, match=sentence):
            gradient.sum().backward()

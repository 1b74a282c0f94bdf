"""Logits near the checkpoint's: exact in double precision, and in short types wrong by a share of the difference alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.core.names import Part
from rllc.model import cross_entropy, near
from rllc.model import forward as fw
from rllc.model.near import Base, near_losses
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape

SHAPE = ModelShape(n_layers=2, d_model=64, n_heads=4, d_head=16, d_vocab=300, n_ctx=32)


def problem(moved: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    rows, weight, bias, step = (torch.randn(size, generator=g, dtype=dtype) for size in ((23, 8), (8, 40), (40,), (3, 23, 8)))
    return rows, weight, bias, rows + moved * step, torch.randint(0, 40, (23,), generator=g)


@pytest.mark.parametrize("block", [40, 7 * 40, 1 << 19])
@pytest.mark.parametrize(("kept", "cap"), [(0, 0.0), (1 << 24, 0.0), (1 << 24, 1.5)])
def test_in_double_precision_it_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, block: int, kept: int, cap: float) -> None:
    monkeypatch.setattr(cross_entropy, "_BLOCK_NUMBERS", block)
    monkeypatch.setattr(near, "KEPT_LOGITS", kept)
    rows, weight, bias, x, targets = problem(0.5)
    base = Base.of(rows, weight, cap)

    def cut(logits: Tensor) -> Tensor:
        return cap * torch.tanh(logits / cap) if cap else logits

    assert (base.kept is None) == (kept == 0)
    x.requires_grad_()
    expected = torch.stack([F.cross_entropy(cut(one @ weight + bias), targets) for one in x])
    got = near_losses(x, base, bias, targets, torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    scales = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad(loss @ scales, x) for loss in (got, expected))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    torch.testing.assert_close(base.loss(bias, targets), F.cross_entropy(cut(rows @ weight + bias), targets), rtol=0, atol=1e-12)


@pytest.mark.parametrize("moved", [1.0, 1e-1, 1e-2, 1e-3])
def test_what_bf16_loses_is_a_share_of_the_difference(moved: float) -> None:
    """Rounded logits would err by some 1e-2 nats here, whatever the difference."""
    rows, weight, bias, x, targets = (t.float() if t.is_floating_point() else t for t in problem(moved))
    base = Base.of(rows, weight)
    difference = near_losses(x, base, bias, targets, torch.bfloat16) - base.loss(bias, targets)
    exact = near_losses(x.double(), Base.of(rows.double(), weight.double()), bias.double(), targets, torch.float64)
    true = exact - Base.of(rows.double(), weight.double()).loss(bias.double(), targets)
    assert (difference - true).abs().max() < 6e-3 * moved + 1e-7
    assert (difference - true).abs().max() > 1e-6 * moved  # it is rounded indeed


@pytest.mark.parametrize("products", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_that_have_not_moved_have_the_baseline_s_loss_to_the_bit(products: torch.dtype) -> None:
    rows, weight, bias, _, targets = (t.float() if t.is_floating_point() else t for t in problem(0.0))
    base = Base.of(rows, weight)
    losses = near_losses(rows.expand(3, -1, -1), base, bias, targets, products)
    assert torch.equal(losses, base.loss(bias, targets).expand(3))


@pytest.mark.parametrize("change", [{}, {"d_mlp": 48, "norm": "rmsnorm"}, {"d_mlp": 48, "norm_place": "both", "logit_softcap": 3.0}])
def test_short_products_in_an_objective(change: dict[str, object]) -> None:
    """Exactly zero under a frozen zero W_O, differences within a hundredth, gradients within a hundredth of their norm; last layers unchanged."""
    shape = replace(SHAPE, **change)
    params = {name: t + 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(5)) for name, t in fw.init_params(shape, 0).items()}
    params["blocks.0.attn.W_O"][3] = 0
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(1))
    results = {}
    for text in ("0:1", "0:3.V", "1:1"):
        for products in (torch.float32, torch.bfloat16):
            objective = build_objective(shape, params, (Part.parse(text),), 0, products)
            g = torch.Generator().manual_seed(2)
            variants = {name: t + 0.1 * torch.randn((3, *t.shape[1:]), generator=g) for name, t in objective.origin.items()}
            results[text, products] = objective.evaluate(variants, objective.prepare(tokens))
    zero = results["0:3.V", torch.bfloat16]
    assert torch.equal(zero.losses, zero.baseline)
    exact, short = results["0:1", torch.float32], results["0:1", torch.bfloat16]
    torch.testing.assert_close(short.baseline, exact.baseline, rtol=0, atol=1e-6)
    true = exact.losses - exact.baseline
    assert (short.losses - short.baseline - true).abs().max() < 1e-2 * true.abs().max()
    for name, gradient in exact.gradients.items():
        if "b_K" in name:  # a flat direction: its gradient is rounding alone
            continue
        assert (short.gradients[name] - gradient).norm() < 1e-2 * gradient.norm()
        assert not torch.equal(short.gradients[name], gradient)
    if not shape.d_mlp:
        assert torch.equal(results["1:1", torch.float32].losses, results["1:1", torch.bfloat16].losses)


def test_a_last_layer_head_whose_logits_are_not_kept(plain: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = replace(SHAPE, d_vocab=17, d_model=10, n_heads=3, d_head=4, n_ctx=9)
    found = []
    for kept in (1 << 24, 0):
        monkeypatch.setattr(near, "KEPT_LOGITS", kept)
        objective = build_objective(shape, plain.params(shape), (Part.parse("1:2"), Part.parse("1:0")), 3)
        context = objective.prepare(plain.tokens(shape))
        assert (context.behind.base.kept is None) == (kept == 0)
        g = torch.Generator().manual_seed(2)
        found.append(
            objective.evaluate(
                {n: t.repeat_interleave(2, 0) + 0.1 * torch.randn((4, *t.shape[1:]), generator=g).double() for n, t in objective.origin.items()},
                context,
            )
        )
    assert torch.equal(found[0].losses, found[1].losses)
    assert all(torch.equal(found[0].gradients[name], found[1].gradients[name]) for name in found[0].gradients)

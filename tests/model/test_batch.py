"""Losses of some predictions alone, and against another model's distribution: every road against the model in loops."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.batch import TokenBatch, counted
from rllc.model.evaluation import Evaluation
from rllc.model.objective import build_objective
from rllc.model.parts import insert
from rllc.model.shape import ModelShape

PARTS = ["0:1", "1:2", "1:0.Q", "1.attn", "embed", "full"]


def some_batch(shape: ModelShape, plain: SimpleNamespace, *, masked: bool, referred: bool) -> TokenBatch:
    tokens = plain.tokens(shape, n=3, length=6)
    rows = torch.tensor([0, 3, 4, 9, 13]) if masked else None
    reference = None
    if referred:
        scores = plain.logits(shape, plain.params(shape, seed=9), tokens)[:, :-1].flatten(0, 1).softmax(1)
        reference = scores if rows is None else scores[rows]
    return TokenBatch(tokens, rows, reference)


def plain_loss(shape: ModelShape, plain: SimpleNamespace, params: dict[str, Tensor], batch: TokenBatch) -> Tensor:
    logs = plain.logits(shape, params, batch.tokens)[:, :-1].flatten(0, 1).log_softmax(1)
    labels = batch.tokens[:, 1:].flatten()
    chosen = range(len(labels)) if batch.rows is None else batch.rows.tolist()
    each = [-logs[row, labels[row]] if batch.reference is None else -(batch.reference[i] * logs[row]).sum() for i, row in enumerate(chosen)]
    return torch.stack(each).mean()


@pytest.mark.parametrize("referred", [False, True], ids=["labels", "reference"])
@pytest.mark.parametrize("masked", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("change", [{}, {"d_mlp": 11, "positions": "rotary"}], ids=["attention", "mlp"])
@pytest.mark.parametrize("text", PARTS)
def test_every_road_equals_the_model_in_loops(plain: SimpleNamespace, change: dict[str, object], text: str, masked: bool, referred: bool) -> None:
    shape, part = replace(plain.SMALL, **change), Part.parse(text)
    params, batch = plain.params(shape), some_batch(shape, plain, masked=masked, referred=referred)
    objective = build_objective(shape, params, (part,), 0)
    leaf = {name: (t[0] + 0.1).requires_grad_() for name, t in objective.origin.items()}
    found: Evaluation = objective.evaluate({name: t.detach()[None] for name, t in leaf.items()}, objective.prepare(batch))
    expected = plain_loss(shape, plain, insert(shape, params, part, leaf), batch)
    torch.testing.assert_close(found.losses[0], expected.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.baseline[0], plain_loss(shape, plain, params, batch), rtol=0, atol=1e-10)
    assert found.gradients is not None
    for gradient, true in zip(found.gradients.values(), torch.autograd.grad(expected, list(leaf.values())), strict=True):
        torch.testing.assert_close(gradient[0], true, rtol=0, atol=1e-10)


def test_short_products_take_both_too(plain: SimpleNamespace) -> None:
    """bf16 factors of what has moved: exact at w*, and away from it up to their rounding."""
    shape = plain.SMALL
    params, batch = plain.params(shape), some_batch(shape, plain, masked=True, referred=True)
    short, exact = (build_objective(shape, params, (Part.parse("0:1"),), 0, dtype) for dtype in (torch.bfloat16, torch.float32))
    still = short.evaluate(short.origin, short.prepare(batch))
    assert torch.equal(still.losses, still.baseline)
    moved = {name: t + 0.2 * torch.randn(t.shape, generator=torch.Generator().manual_seed(2), dtype=t.dtype) for name, t in short.origin.items()}
    a, b = (o.evaluate(moved, o.prepare(batch)) for o in (short, exact))
    assert 0 < (a.losses - b.losses).abs() < 0.02 * (b.losses - b.baseline).abs()


def test_a_model_against_itself_has_its_entropy_and_no_gradient(plain: SimpleNamespace) -> None:
    shape, params = plain.SMALL, plain.params(plain.SMALL)
    tokens = plain.tokens(shape)
    own = fw.logits(shape, params, tokens)[:, :-1].flatten(0, 1).softmax(1)
    objective = build_objective(shape, params, (Part.parse("0:0"), Part.parse("0:2")), 0)
    found = objective.evaluate(objective.origin, objective.prepare(TokenBatch(tokens, None, own)))
    entropy = -(own * own.log()).sum(1).mean()
    torch.testing.assert_close(found.baseline, entropy.expand(2), rtol=0, atol=1e-12)
    assert found.gradients is not None
    assert max(gradient.abs().max() for gradient in found.gradients.values()) < 1e-12


def test_padding_on_the_right_is_out_of_the_loss_whatever_it_holds(plain: SimpleNamespace) -> None:
    shape, params = plain.SMALL, plain.params(plain.SMALL)
    tokens = plain.tokens(shape, n=2, length=7)
    real = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
    other = torch.where(real, tokens, (tokens + 3) % shape.d_vocab)
    first, second = (fw.losses(shape, params, counted(t, real)) for t in (tokens, other))
    assert torch.equal(first, second)
    alone = fw.losses(shape, params, tokens[:1, :4]) * 3 + fw.losses(shape, params, tokens[1:]) * 6
    torch.testing.assert_close(first, alone / 9, rtol=0, atol=1e-12)


def test_what_no_loss_can_come_from_is_refused() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(RllcError, match=r"No prediction of the minibatch counts"):
        counted(tokens, torch.tensor([[True, False, False], [True, False, False]]))
    with pytest.raises(RllcError, match=r"The reference tells 3 predictions, but 4 of the minibatch count"):
        TokenBatch(tokens, None, torch.full((3, 2), 0.5))


def test_a_uniform_reference_costs_the_logarithm_of_the_vocabulary_at_a_blank_model(plain: SimpleNamespace) -> None:
    shape = plain.SMALL
    params = {name: torch.zeros_like(t) for name, t in plain.params(shape).items()}
    tokens = plain.tokens(shape)
    n = tokens[:, 1:].numel()
    uniform = torch.full((n, shape.d_vocab), 1 / shape.d_vocab, dtype=torch.float64)
    assert math.isclose(fw.losses(shape, params, TokenBatch(tokens, None, uniform)).item(), math.log(shape.d_vocab), rel_tol=1e-12)

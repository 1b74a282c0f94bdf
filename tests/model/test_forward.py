"""The forward pass against the same model written in loops, and what must hold of any causal language model."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from rllc.model import forward as fw
from rllc.model.rotary import rotate
from rllc.model.shape import ModelShape


def test_logits_and_losses_equal_the_model_in_loops(plain: SimpleNamespace, family_shape: ModelShape) -> None:
    params, tokens = plain.params(family_shape), plain.tokens(family_shape)
    expected = plain.logits(family_shape, params, tokens)
    torch.testing.assert_close(fw.logits(family_shape, params, tokens), expected, rtol=0, atol=1e-10)
    per_token = torch.stack(
        [torch.stack([-row.log_softmax(0)[target] for row, target in zip(scores, s[1:])]) for scores, s in zip(expected, tokens)]  # noqa: B905
    )
    torch.testing.assert_close(fw.token_losses(family_shape, params, tokens), per_token, rtol=0, atol=1e-10)
    torch.testing.assert_close(fw.losses(family_shape, params, tokens), plain.loss(family_shape, params, tokens)[None], rtol=0, atol=1e-10)


def test_gradients_of_all_weights_equal_those_of_the_model_in_loops(plain: SimpleNamespace, family_shape: ModelShape) -> None:
    params = {name: tensor.requires_grad_() for name, tensor in plain.params(family_shape).items()}
    tokens = plain.tokens(family_shape, n=2)
    expected = torch.autograd.grad(plain.loss(family_shape, params, tokens), list(params.values()))
    got = torch.autograd.grad(fw.losses(family_shape, params, tokens).sum(), list(params.values()))
    for name, a, b in zip(params, got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
        assert b.abs().max() > 1e-6 or name.endswith("b_K")  # a key's bias shifts all scores of a query alike: a flat direction


def test_captured_patterns_are_those_of_the_model_in_loops(plain: SimpleNamespace) -> None:
    for shape in (plain.SMALL, replace(plain.SMALL, positions="rotary", d_mlp=11)):
        params, tokens = plain.params(shape), plain.tokens(shape)
        capture = fw.Capture()
        looked_at = fw.logits(shape, params, tokens, capture)
        assert torch.equal(looked_at, fw.logits(shape, params, tokens))
        assert [tuple(a.shape) for a in capture.attention] == [(1, 3, 3, 7, 7)] * 2
        for b, sequence in enumerate(tokens):
            for (layer, head), pattern in plain.sequence(shape, params, sequence)[1].items():
                torch.testing.assert_close(capture.attention[layer][0, b, head], pattern, rtol=0, atol=1e-12)
                assert not capture.attention[layer][0, b, head].triu(1).any()


def test_no_logit_depends_on_a_later_token(plain: SimpleNamespace, family_shape: ModelShape) -> None:
    shape = replace(family_shape, tied=False)
    params = plain.params(shape)
    params["embed.W_E"].requires_grad_()
    tokens = torch.arange(6)[None]  # all different: row s of the gradient belongs to position s
    scores = fw.logits(shape, params, tokens)
    for t in range(6):
        (gradient,) = torch.autograd.grad(scores[0, t].sin().sum(), params["embed.W_E"], retain_graph=True)
        reached = gradient.abs().sum(1)
        assert (reached[: t + 1] > 0).all()
        assert (reached[t + 1 :] == 0).all()


@pytest.mark.parametrize(
    ("positions", "norm", "tied"), [("shortformer", "layernorm", False), ("learned", "rmsnorm", True), ("rotary", "layernorm", True)]
)
def test_weights_with_an_axis_of_variants_give_every_variant_its_own_loss(plain: SimpleNamespace, positions: str, norm: str, tied: bool) -> None:
    """Any single tensor, and all of them together, may carry the axis C in front."""
    shape = replace(plain.SMALL, positions=positions, norm=norm, tied=tied, d_mlp=11)
    models = [plain.params(shape, seed) for seed in range(3)]
    tokens = plain.tokens(shape, n=2)
    stacked = {name: torch.stack([m[name] for m in models]) for name in models[0]}
    expected = torch.cat([fw.losses(shape, m, tokens) for m in models])
    torch.testing.assert_close(fw.losses(shape, stacked, tokens), expected, rtol=0, atol=1e-10)
    for name in stacked:
        mixed = {**models[0], name: stacked[name]}
        expected = torch.cat([fw.losses(shape, {**models[0], name: m[name]}, tokens) for m in models])
        assert expected.unique().numel() == 3 or name.endswith("b_K"), name
        torch.testing.assert_close(fw.losses(shape, mixed, tokens), expected, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_a_long_context_is_positionwise_the_short_one(plain: SimpleNamespace) -> None:
    shape, params = plain.SMALL, plain.params(plain.SMALL)
    tokens = plain.tokens(shape, n=2, length=9)
    torch.testing.assert_close(fw.logits(shape, params, tokens)[:, :4], fw.logits(shape, params, tokens[:, :4]), rtol=0, atol=1e-12)


def test_rotary_scores_depend_on_the_distance_alone(plain: SimpleNamespace) -> None:
    shape = replace(plain.SMALL, positions="rotary", d_head=8)
    q, k = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = rotate(shape, 0, q.expand(9, 8)) @ rotate(shape, 0, k.expand(9, 8)).T
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-12)
    torch.testing.assert_close(rotate(shape, 0, q.expand(9, 8)).norm(dim=1), q.norm().expand(9), rtol=0, atol=1e-12)


def test_a_fresh_model_is_seeded_scaled_and_guesses_evenly() -> None:
    shape = ModelShape(n_layers=1, d_model=64, n_heads=4, d_head=32, d_vocab=300, n_ctx=40, d_mlp=128)
    params = fw.init_params(shape, 7)
    again, other = fw.init_params(shape, 7), fw.init_params(shape, 8)
    assert all(torch.equal(params[n], again[n]) for n in params)
    for name, tensor in params.items():
        assert tuple(tensor.shape) == shape.tensors()[name]
        assert tensor.dtype == torch.float32
        kind = name.rsplit(".", 1)[1]
        if kind.startswith("W"):
            assert tensor.std().item() == pytest.approx(0.8 / 8, rel=0.06)
            assert not torch.equal(tensor, other[name])
        elif kind == "w":
            assert (tensor == 1).all()
        elif kind.startswith("b"):
            assert not tensor.any()
    tokens = torch.randint(0, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    assert abs(fw.losses(shape, params, tokens).item() - math.log(300)) < 1


def test_the_loss_is_the_mean_of_the_token_losses_in_single_precision_too() -> None:
    shape = ModelShape(n_layers=2, d_model=64, n_heads=4, d_head=16, d_vocab=300, n_ctx=32)
    params = fw.init_params(shape, 0)
    tokens = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(1))
    mean = fw.token_losses(shape, params, tokens).double().mean()
    loss = fw.losses(shape, params, tokens)
    assert loss.dtype == torch.float64
    assert abs(loss.item() - mean.item()) < 1e-6
    scores = fw.logits(shape, params, tokens)
    assert F.cross_entropy(scores[:, :-1].mT, tokens[:, 1:]).item() == pytest.approx(loss.item(), abs=1e-6)

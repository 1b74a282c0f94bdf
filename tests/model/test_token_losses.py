"""Losses of single predictions: on every road and in every architecture those of the plain model, with their mean the loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from rllc.core.names import Part
from rllc.model.batch import counted
from rllc.model.forward import against, init_params
from rllc.model.objective import build_objective
from rllc.model.parts import insert
from rllc.model.shape import ModelShape

SMALL = ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=17, n_ctx=9)


def moved(objective, chains: int, size: float = 0.1, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (t := tensor.repeat_interleave(chains, 0)) + size * torch.randn(t.shape, generator=generator, dtype=t.dtype)
        for name, tensor in objective.origin.items()
    }


@pytest.mark.parametrize("name", ["shortformer-layernorm-untied-attention", "gpt2", "llama", "neox", "gemma2", "olmo2"])
@pytest.mark.parametrize("text", ["0:1", "1:1", "1:1.O", "1:0.Q", "1.random0", "full", "embed"])
def test_each_is_the_plain_model_s(plain: SimpleNamespace, name: str, text: str) -> None:
    shape, part = plain.FAMILY[name], Part.parse(text)
    params, tokens = plain.params(shape), plain.tokens(shape, n=2)
    objective = build_objective(shape, params, (part,), 2)
    values = moved(objective, 3)
    found = objective.token_losses(values, objective.prepare(tokens))
    for c in range(3):
        scores = plain.logits(shape, insert(shape, params, part, {key: tensor[c] for key, tensor in values.items()}), tokens)
        expected = F.cross_entropy(scores[:, :-1].reshape(-1, shape.d_vocab), tokens[:, 1:].reshape(-1), reduction="none")
        assert (found[c] - expected).abs().max() < 1e-10


@pytest.mark.parametrize("parts", [("0:0", "0:2"), ("1:0", "1:2"), ("1:0.V", "1:1.V"), ("1.attn",)])
@pytest.mark.parametrize("targets", ["labels", "some", "reference"])
def test_their_mean_is_the_loss_whatever_counts(parts: tuple[str, ...], targets: str) -> None:
    params = init_params(SMALL, 0, torch.float64)
    tokens = torch.randint(0, 17, (3, 8), generator=torch.Generator().manual_seed(1))
    mask = (tokens % 3 > 0) if targets != "labels" else torch.ones_like(tokens, dtype=torch.bool)
    batch = counted(tokens, mask)
    batch = against(SMALL, init_params(SMALL, 1, torch.float64), batch) if targets == "reference" else batch
    objective = build_objective(SMALL, params, tuple(map(Part.parse, parts)), 0)
    values, context = moved(objective, 2), objective.prepare(batch)
    each, whole = objective.token_losses(values, context), objective.evaluate(values, context, gradients=False)
    assert batch.rows is not None
    assert each.shape == (2 * len(parts), len(batch.rows))
    assert (each.mean(1) - whole.losses).abs().max() < 1e-10
    assert (each.mean(1) - whole.baseline).abs().min() > 1e-6
    assert not each.requires_grad


@pytest.mark.parametrize("text", ["0:0", "1:0", "full"])
def test_chunks_do_not_matter(text: str) -> None:
    params, tokens = init_params(SMALL, 0, torch.float64), torch.arange(18).view(2, 9) % 17
    one, many = (build_objective(SMALL, params, (Part.parse(text),), chunk) for chunk in (1, 0))
    values = moved(many, 3)
    difference = one.token_losses(values, one.prepare(tokens)) - many.token_losses(values, many.prepare(tokens))
    assert difference.abs().max() < 1e-10


def test_products_in_a_shorter_type_leave_them_whole() -> None:
    params, tokens = init_params(SMALL, 0), torch.arange(18).view(2, 9) % 17
    short, whole = (build_objective(SMALL, params, (Part.parse("0:1"),), 0, products) for products in (torch.bfloat16, torch.float32))
    values = moved(whole, 2)
    assert torch.equal(short.token_losses(values, short.prepare(tokens)), whole.token_losses(values, whole.prepare(tokens)))

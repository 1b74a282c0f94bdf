"""The size-matched random part: which weights it holds, and that sampling it is sampling those and no others."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.forward import losses
from rllc.model.objective import GeneralObjective, build_objective
from rllc.model.parts import insert, select
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, size, within_one_head
from rllc.posterior.protocol import Evaluation
from rllc.posterior.sampling import sample
from rllc.posterior.settings import SamplerSettings

PAPER = ModelShape()
SMALL = ModelShape(n_layers=2, d_model=10, n_heads=3, d_head=4, d_vocab=17, n_ctx=9)
GROUPED = replace(SMALL, n_heads=4, n_kv_heads=2)


def held(shape: ModelShape, text: str) -> dict[str, torch.Tensor]:
    """Which numbers of the weights a part holds, seen by writing into it."""
    zeros = {name: torch.zeros(sizes) for name, sizes in shape.tensors().items()}
    ones = {name: torch.ones_like(tensor) for name, tensor in select(shape, zeros, Part.parse(text)).items()}
    return {name: tensor > 0 for name, tensor in insert(shape, zeros, Part.parse(text), ones).items()}


@pytest.mark.parametrize("shape", [SMALL, GROUPED, replace(SMALL, qkv_bias=False)])
def test_of_every_tensor_it_holds_as_many_numbers_as_a_head(shape: ModelShape) -> None:
    mine, head = held(shape, "1.random0"), held(shape, "1:0")
    assert {name: int(mask.sum()) for name, mask in mine.items()} == {name: int(mask.sum()) for name, mask in head.items()}
    assert size(shape, Part.parse("1.random0")) == size(shape, Part.parse("1:0")) == sum(int(mask.sum()) for mask in mine.values())
    assert all(any((mine[name] != held(shape, f"1:{h}")[name]).any() for name in mine) for h in range(shape.n_heads))
    assert first_layer(shape, Part.parse("1.random0")) == 1


def test_the_paper_s_random_part_has_a_head_s_number_of_weights() -> None:
    assert size(PAPER, Part.parse("1.random0")) == 32_864


def test_one_deal_holds_every_weight_of_the_heads_once_and_the_next_deal_is_another() -> None:
    masks = [held(SMALL, f"0.random{n}") for n in range(6)]
    heads = [held(SMALL, f"0:{h}") for h in range(3)]
    for deal in (masks[:3], masks[3:]):
        assert all(torch.equal(sum(m[name].int() for m in deal), sum(m[name].int() for m in heads)) for name in masks[0])
    assert (masks[0]["blocks.0.attn.W_Q"] != masks[3]["blocks.0.attn.W_Q"]).any()
    joined = held(SMALL, "0.random1+0.random0")
    assert all(torch.equal(joined[name], masks[0][name] | masks[1][name]) for name in joined)
    # not the same entries in every tensor or layer, and not whole rows of a head
    q, k = masks[0]["blocks.0.attn.W_Q"], masks[0]["blocks.0.attn.W_K"]
    assert (q != k).any()
    assert (held(SMALL, "1.random0")["blocks.1.attn.W_Q"] != q).any()
    assert all(0 < q[h].sum() < q[h].numel() for h in range(3))


def test_the_weights_are_told_by_the_name_alone() -> None:
    """Pinned: other weights under an old name would make old records mean something else."""
    places = held(SMALL, "1.random0")["blocks.1.attn.b_Q"].flatten().nonzero().flatten().tolist()
    again = held(replace(SMALL, d_vocab=40, n_ctx=5), "1.random0")["blocks.1.attn.b_Q"].flatten().nonzero().flatten().tolist()
    assert places == again == [3, 4, 5, 10]


@pytest.mark.parametrize("text", ["1.random0+1:0", "1.random0+1.random3", "1:2.Q+1.random1", "0:0+1.random0+1:1"])
def test_weights_that_might_be_held_twice_are_refused(text: str) -> None:
    with pytest.raises(RllcError, match=r"joins random weights of a layer to others of it.*random0 to random2"):
        size(SMALL, Part.parse(text))


def test_unions_that_share_nothing_are_parts_like_any_other() -> None:
    one = size(SMALL, Part.parse("1:0"))
    assert size(SMALL, Part.parse("1.random0+0:1")) == size(SMALL, Part.parse("0.random5+1.random5")) == 2 * one
    assert size(SMALL, Part.parse("1.random0+1.attn")) == size(SMALL, Part.parse("1.attn"))
    with pytest.raises(RllcError, match=r"'2\.random0' .*does not exist"):
        size(SMALL, Part.parse("2.random0"))


def test_it_never_shares_a_pass_with_heads() -> None:
    assert not within_one_head(SMALL, Part.parse("1.random0"))
    params = {name: torch.zeros(sizes) for name, sizes in SMALL.tensors().items()}
    assert isinstance(build_objective(SMALL, params, (Part.parse("1.random0"),), 0), GeneralObjective)
    for parts in itertools.permutations(("1.random0", "1:0")):
        with pytest.raises(ValueError, match="cannot share one pass"):
            build_objective(SMALL, params, tuple(map(Part.parse, parts)), 0)


@pytest.mark.parametrize("name", ["shortformer-layernorm-untied-attention", "llama", "gemma2", "olmo2"])
@pytest.mark.parametrize("layer", [0, 1])
def test_losses_and_gradients_are_the_whole_model_s_at_these_weights(plain: SimpleNamespace, name: str, layer: int) -> None:
    shape, part = plain.FAMILY[name], Part.parse(f"{layer}.random1")
    params, tokens = plain.params(shape), plain.tokens(shape)
    objective = build_objective(shape, params, (part,), 2)
    generator = torch.Generator().manual_seed(5)
    moved = {
        key: tensor.expand(3, *tensor.shape[1:]) + 0.1 * torch.randn(3, *tensor.shape[1:], generator=generator, dtype=tensor.dtype)
        for key, tensor in objective.origin.items()
    }
    moved = {key: torch.cat([tensor, objective.origin[key]]) for key, tensor in moved.items()}
    found = objective.evaluate(moved, objective.prepare(tokens))
    assert found.losses[3] == found.baseline[3] == plain_loss(shape, params, tokens)  # nothing moved, nothing lost
    for c in range(3):
        whole = insert(shape, params, part, {key: tensor[c] for key, tensor in moved.items()})
        leaves = {key: tensor.clone().requires_grad_() for key, tensor in whole.items()}
        loss = plain.loss(shape, leaves, tokens)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
        expected = select(shape, {key: torch.zeros_like(leaves[key]) if g is None else g for key, g in gradients.items()}, part)
        assert abs(found.losses[c] - loss) < 1e-10
        assert found.gradients is not None
        assert all((found.gradients[key][c] - expected[key]).abs().max() < 1e-10 for key in expected)


def plain_loss(shape: ModelShape, params: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    return losses(shape, params, tokens)[0]


class Bowls:
    """½ Σ h w² over all numbers of a model, of which one part is free; the curvature h of each is 40 or, of most, 0."""

    def __init__(self, part: str) -> None:
        generator = torch.Generator().manual_seed(7)
        self.part = Part.parse(part)
        self.params = {name: torch.zeros(sizes, dtype=torch.float64) for name, sizes in SMALL.tensors().items()}
        self.curvature = {name: 40.0 * (torch.rand(tensor.shape, generator=generator) < 0.3).double() for name, tensor in self.params.items()}
        self.origin = {name: tensor[None] for name, tensor in select(SMALL, self.params, self.part).items()}

    def prepare(self, batch: int) -> int:
        return batch

    def evaluate(self, variants: dict[str, torch.Tensor], context: int, *, gradients: bool = True) -> Evaluation:
        del context
        values = {name: tensor.detach().requires_grad_() for name, tensor in variants.items()}
        whole = insert(SMALL, self.params, self.part, values)
        count = len(next(iter(values.values())))
        terms = [(h * whole[name].square() / 2).expand(count, *h.shape).flatten(1).sum(1) for name, h in self.curvature.items()]
        found = torch.stack(terms).sum(0)
        slopes = torch.autograd.grad(found.sum(), list(values.values()))
        return Evaluation(found.detach(), dict(zip(values, slopes, strict=True)) if gradients else None, torch.zeros(count, dtype=torch.float64))


def test_its_llc_is_the_exact_one_of_its_own_weights() -> None:
    """METHOD 3.1, Leimkuhler–Matthews: the sum over these weights alone, which other weights' curvature would miss by far more than the error."""
    settings = SamplerSettings("leimkuhler-matthews", step_size=4e-3, localization=50.0, nbeta=10.0, chains=8, draws=300, burn_in=40)
    exact = {}
    for text in ("0.random0", "0.random1", "0:0"):
        curvature = select(SMALL, Bowls(text).curvature, Part.parse(text))
        exact[text] = sum(float((settings.nbeta * h / (settings.nbeta * h + settings.localization) / 2).sum()) for h in curvature.values())
    objective = Bowls("0.random0")
    (result,) = sample(objective, itertools.repeat(0), settings, noise_seeds=[list(range(8))]).results
    assert result.estimate is not None
    assert abs(result.estimate.llc / exact["0.random0"] - 1) < 0.01
    assert all(abs(exact[text] / exact["0.random0"] - 1) > 0.02 for text in ("0.random1", "0:0")), exact

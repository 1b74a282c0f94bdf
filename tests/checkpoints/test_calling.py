"""Foreign language models by their logits and their loss, and their heads on the general road to the sampler."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from rllc.checkpoints.calling import language_logits, language_loss
from rllc.checkpoints.head_slices import head_slices
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.outcome import Outcome
from rllc.model.module_objective import ModuleObjective
from rllc.posterior.sampling import Minibatches, sample
from rllc.posterior.settings import SamplerSettings

from .live_models import KINDS, TRANSFORMERS, H, V, built, tokens

pytest.importorskip("transformers")

ATOL = 1e-10
SLOW = {"olmo": "clamp_"} | dict.fromkeys(("nano", "hooked", "hooked grouped"), "_scaled_dot_product_flash_attention_for_cpu")
SETTINGS = SamplerSettings("sgld", step_size=1e-4, localization=100.0, nbeta=10.0, chains=2, draws=8, burn_in=0)


def names(module, part):
    return head_slices(module, Part.parse(part)).names


def plainly(module, ids):
    """The loss by its definition, position by position."""
    with torch.no_grad():
        logits = language_logits(module, ids)
    rows = [-F.log_softmax(logits[b, t].double(), 0)[ids[b, t + 1]] for b in range(ids.shape[0]) for t in range(ids.shape[1] - 1)]
    return torch.stack(rows).mean()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_every_position_whatever_the_module_returns(kind):
    module = built(kind)
    returned = module(tokens(), tokens()) if kind == "nano" else module(tokens())
    expected = returned.logits if kind in TRANSFORMERS else returned[0] if kind == "nano" else returned
    found = language_logits(module, tokens())
    assert found.shape == (*tokens().shape, V)
    torch.testing.assert_close(found, expected, rtol=0, atol=ATOL)
    torch.testing.assert_close(language_loss(module, tokens()), plainly(module, tokens()), rtol=0, atol=ATOL)


@torch.no_grad()
def test_other_ways_to_return_logits():
    llama = built("llama")
    expected = language_logits(llama, tokens())
    for returned in ((expected, None), [expected], {"logits": expected}, SimpleNamespace(logits=expected), expected):
        assert language_logits(Returning(returned), tokens()) is expected
    with pytest.raises(RllcError, match=r"The LlamaModel returns a \w+ without logits\. Give the model with its language-model head"):
        language_logits(llama.model, tokens())
    with pytest.raises(RllcError, match=r"returns logits \[3, 1, 23\] for tokens \[3, 7\], but should for every position"):
        language_logits(Returning(expected[:, -1:]), tokens())


class Returning(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, _):
        return self.what


def test_half_precision_is_averaged_in_single():
    module = copy.deepcopy(built("gpt2")).bfloat16()
    with torch.no_grad():
        assert language_loss(module, tokens()).dtype == torch.float32


def padded(left):
    """Sequences of 7, 4 and 2 tokens, padded with an id that means something else to the model."""
    ids, mask = tokens().clone(), torch.ones(3, 7, dtype=torch.long)
    for row, length in ((1, 4), (2, 2)):
        gap = slice(0, 7 - length) if left else slice(length, 7)
        ids[row, gap], mask[row, gap] = 9, 0
    return ids, mask


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "mistral", "gemma3_text"])
def test_padding_changes_nothing(kind, attention, left):
    """Neither the loss nor its gradient."""
    module = copy.deepcopy(built(kind))
    module.set_attn_implementation(attention)
    ids, mask = padded(left)
    part = [module.get_parameter(name) for name in dict.fromkeys(n.split("[")[0] for n in names(module, "1:2"))]
    found = language_loss(module, {"input_ids": ids, "attention_mask": mask})
    alone = [(language_loss(module, row[real.bool()][None]), int(real.sum()) - 1) for row, real in zip(ids, mask, strict=True)]
    expected = sum((loss * count for loss, count in alone), torch.tensor(0.0)) / sum(count for _, count in alone)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-7)  # transformers takes norms or softmax in fp32
    for a, b in zip(torch.autograd.grad(found, part), torch.autograd.grad(expected, part), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-7)
    assert (language_loss(module, ids) - expected).abs() > 1e-3


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@torch.no_grad()
def test_padding_changes_nothing_for_a_module_that_takes_no_mask(left):
    module = built("nano")
    ids, mask = padded(left)
    alone = [(plainly(module, row[real.bool()][None]), int(real.sum()) - 1) for row, real in zip(ids, mask, strict=True)]
    expected = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    torch.testing.assert_close(language_loss(module, {"input_ids": ids, "attention_mask": mask.bool()}), expected, rtol=0, atol=ATOL)
    logits, row = language_logits(module, ids, mask), mask[1].bool()
    torch.testing.assert_close(logits[1, row], language_logits(module, ids[1, row][None])[0], rtol=0, atol=ATOL)


@torch.no_grad()
def test_a_position_before_a_gap_does_not_count():
    module, ids, mask = built("llama"), tokens(1), torch.ones(1, 7, dtype=torch.long)
    mask[0, 3] = 0
    without = ids[:, [0, 1, 2, 4, 5, 6]]
    each = F.cross_entropy(language_logits(module, without)[0, :-1], without[0, 1:], reduction="none")
    expected = each[[0, 1, 3, 4]].mean()  # not the one that would predict across the gap
    torch.testing.assert_close(language_loss(module, {"input_ids": ids, "attention_mask": mask}), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("kind", "taken"), [("llama", "sdpa"), ("gemma2", "eager")])
@torch.no_grad()
def test_attention_that_wants_half_precision_gives_way_for_the_call(kind, taken):
    module, seen = copy.deepcopy(built(kind)), []
    module.get_submodule("model.layers.0.self_attn").register_forward_pre_hook(lambda part, _: seen.append(part.config._attn_implementation))
    module.config._attn_implementation = "flash_attention_2"
    torch.testing.assert_close(language_loss(module, tokens()), language_loss(built(kind), tokens()), rtol=0, atol=2e-7)
    assert (seen, module.config._attn_implementation) == ([taken], "flash_attention_2")


def test_batches_that_are_none_are_told():
    module, ids = built("gpt2"), tokens()
    wrong = [
        (ids.double(), r"a tensor \[3, 7\] of torch\.float64, but should be ids"),
        (ids[0], r"a tensor \[7\] of torch\.int64"),
        ([1, 2], "are a list"),
        (ids[:, :1], r"are \[3, 1\], and so nothing to predict"),
        (ids[:0], r"are \[0, 7\], and so nothing to predict"),
        ({"input_ids": ids, "labels": ids}, "A batch holds 'input_ids', 'labels'. Give input_ids"),
        ({"tokens": ids}, "holds 'tokens'"),
        ({"input_ids": ids, "attention_mask": ids[:, 1:]}, r"not of the shape of its input_ids. Give a tensor \[3, 7\]"),
        ({"input_ids": ids, "attention_mask": torch.zeros_like(ids)}, "No position of the batch counts"),
        (ids + V - 1, f"token id {V + int(ids.max()) - 1}, which is not in the vocabulary of {V} tokens. Use the tokenizer"),
        (ids - V, r"token id -\d+, which"),
    ]
    for batch, told in wrong:
        with pytest.raises(RllcError, match=told):
            language_loss(module, batch)


def varied(objective, count=3):
    g = torch.Generator().manual_seed(5)
    return {name: t + 0.1 * torch.randn(count, *t.shape[1:], generator=g, dtype=t.dtype) for name, t in objective.origin.items()}


def state_of(module):
    tensors = {name: (tensor.clone(), tensor.requires_grad, tensor.grad) for name, tensor in module.state_dict(keep_vars=True).items()}
    return tensors, [part.training for part in module.modules()], str(getattr(module, "config", ""))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_goes_under_vmap_and_in_the_loop_with_the_gradients_of_autograd(kind):
    """No layout keeps vmap from going; OLMo's clipping, and the fused attention of the stand-ins, go through it one variant at a time."""
    module, batch, part = built(kind), tokens(), names(built(kind), "1:2")
    before = state_of(module)
    roads = {road: ModuleObjective(module, language_loss, part, road=road) for road in ("auto", "loop")}
    variants = varied(roads["loop"])
    found = {road: objective.evaluate(variants, objective.prepare(batch)) for road, objective in roads.items()}
    assert roads["auto"].road == "vmap"
    assert roads["auto"].why == (f"vmap takes one variant at a time through aten::{SLOW[kind]}" if kind in SLOW else "")
    at_origin = ModuleObjective(module, language_loss, part).evaluate(roads["loop"].origin, roads["loop"].prepare(batch))
    after = state_of(module)
    assert before[1:] == after[1:]
    for name, (tensor, wants, grad) in before[0].items():
        assert torch.equal(after[0][name][0], tensor)
        assert (wants, grad) == (after[0][name][1], after[0][name][2])
    torch.testing.assert_close(found["auto"].losses, found["loop"].losses, rtol=0, atol=ATOL)
    torch.testing.assert_close(found["auto"].baseline, found["loop"].baseline, rtol=0, atol=ATOL)
    assert found["loop"].losses.std() > 1e-5
    plain = copy.deepcopy(module)
    loss = language_loss(plain, batch)
    loss.backward()
    torch.testing.assert_close(at_origin.losses, loss.detach()[None], rtol=0, atol=ATOL)
    for name in part:
        torch.testing.assert_close(found["auto"].gradients[name], found["loop"].gradients[name], rtol=0, atol=ATOL)
        tensor, _, inside = name.partition("[")
        gradient = plain.get_parameter(tensor).grad[eval(f"__import__('numpy').s_[{inside}")]
        torch.testing.assert_close(at_origin.gradients[name][0], gradient, rtol=0, atol=ATOL)
        assert gradient.abs().max() > 1e-6 or "bias" in name or "b_K" in name  # a key bias may be flat


def test_sdpa_goes_under_vmap_one_variant_at_a_time_which_is_told():
    module = copy.deepcopy(built("llama"))
    module.set_attn_implementation("sdpa")
    objective = ModuleObjective(module, language_loss, names(module, "0:1"))
    found = objective.evaluate(varied(objective), objective.prepare(tokens()))
    assert objective.road == "vmap"
    assert "one variant at a time through aten::_scaled_dot_product" in objective.why
    loop = ModuleObjective(module, language_loss, names(module, "0:1"), road="loop")
    expected = loop.evaluate(varied(loop), loop.prepare(tokens()))
    torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=ATOL)


def test_padded_batches_go_under_vmap():
    module = built("llama")
    ids, mask = padded(left=True)
    batch = {"input_ids": ids, "attention_mask": mask}
    found = []
    for road in ("vmap", "loop"):
        objective = ModuleObjective(module, language_loss, names(module, "1:0"), road=road)
        found.append(objective.evaluate(varied(objective), objective.prepare(batch)))
    torch.testing.assert_close(found[0].losses, found[1].losses, rtol=0, atol=ATOL)


def test_dropout_of_a_module_in_training_mode_is_not_sampled_with():
    module = copy.deepcopy(built("gpt2"))
    expected = ModuleObjective(module, language_loss, names(module, "0:1")).prepare(tokens())
    module.train()
    assert module.transformer.drop.p > 0
    objective = ModuleObjective(module, language_loss, names(module, "0:1"), road="loop")
    found = objective.prepare(tokens())
    torch.testing.assert_close(found.baseline, language_loss(module.eval(), tokens()).detach()[None], rtol=0, atol=ATOL)
    assert expected.random == found.random == ()


@pytest.mark.parametrize("kind", ["gpt2", "nano"])
def test_a_tied_embedding_is_sampled_once_in_both_of_its_places(kind):
    module = built(kind)
    objective = ModuleObjective(module, language_loss, names(module, "embed + unembed"))
    assert objective.tied == {"transformer.wte.weight": ("lm_head.weight",)}
    variants = varied(objective, 2)
    found = objective.evaluate(variants, objective.prepare(tokens()))
    plain = copy.deepcopy(module)
    plain.lm_head.weight.data.copy_(variants["transformer.wte.weight"][0])
    loss = language_loss(plain, tokens())
    torch.testing.assert_close(found.losses[0], loss.detach(), rtol=0, atol=ATOL)
    torch.testing.assert_close(found.gradients["transformer.wte.weight"][0], torch.autograd.grad(loss, plain.lm_head.weight)[0], rtol=0, atol=ATOL)


@pytest.mark.parametrize(("kind", "part"), [("gpt2", "1:6"), ("llama", "0:1"), ("llama", "1:g1")])
def test_a_head_is_sampled_to_its_end(kind, part):
    module, part = built(kind), part.replace("1:6", f"1:{H - 1}")
    objective = ModuleObjective(module, language_loss, names(module, part))
    data = Minibatches((tokens(seed=s) for s in range(9)), [tokens(seed=s) for s in range(20, 24)])
    sampled = sample(objective, data, SETTINGS, noise_seeds=[[1, 2]])
    (result,), (traces,) = sampled.results, sampled.traces
    assert result.outcome in (Outcome.OK, Outcome.TILTED, Outcome.DRIFTING)  # random weights are no minimum: a mark says so
    assert (result.outcome == Outcome.OK) == (result.outcome.text in result.reason and "No diagnostic" in result.reason)
    assert result.estimate is not None
    assert math.isfinite(result.estimate.llc)
    assert np.ptp(traces.losses) > 1e-4
    assert objective.road == "vmap"

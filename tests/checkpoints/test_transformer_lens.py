"""The heads of TransformerLens' models, held against its own hooks; small stand-ins with their names are in the tests of every layout."""

from __future__ import annotations

import copy

import pytest
import torch

from rllc.checkpoints.calling import language_logits, language_loss
from rllc.checkpoints.head_slices import head_slices
from rllc.core.names import Part
from rllc.model.module_objective import ModuleObjective
from rllc.model.module_part import pieces

from .live_models import LAYERS, TRANSFORMERS, C, G, H, V, configuration, perturbed, tokens

lens = pytest.importorskip("transformer_lens")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own, which change from version to version

BRIDGED = ("gpt2", "gpt_neox", "llama", "qwen3", "phi3", "gemma2")


def hooked(kind):
    settings = {
        "standard": {},
        "grouped": {"n_key_value_heads": G},
        "rotary": {"positional_embedding_type": "rotary", "rotary_dim": 2},
        "shortformer": {"positional_embedding_type": "shortformer"},
    }[kind]
    config = lens.HookedTransformerConfig(n_layers=LAYERS, d_model=C, n_ctx=32, d_head=6, n_heads=H, d_vocab=V, d_mlp=12, act_fn="gelu", **settings)
    return perturbed(lens.HookedTransformer(config))


def bridge(kind):
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM

    config = configuration(kind)
    model = perturbed(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    return build_bridge_from_module(model, type(model).__name__, hf_config=config, tokenizer=None, dtype=torch.float64)


KINDS = ("standard", "grouped", "rotary", "shortformer", *BRIDGED)


@pytest.fixture(scope="module", params=KINDS)
def lensed(request):
    kind = request.param
    return kind, bridge(kind) if kind in BRIDGED else hooked(kind)


def share(kind):
    return H // G if kind == "grouped" or "num_key_value_heads" in TRANSFORMERS.get(kind, ("", {}))[1] else 1


def named(module, part):
    return head_slices(module, Part.parse(part)).names


@torch.no_grad()
def heads(module, layer, change=None):
    """Logits, and what the heads of a layer put out by TransformerLens' hook, [B, T, H, D]."""
    seen = []

    def look(z, hook):
        z = z.clone()
        blocks = z if z.ndim == 4 else z.unflatten(-1, (H, -1))
        if change is not None:
            change(blocks)
        seen.append(blocks.clone())
        return z

    logits = module.run_with_hooks(tokens(), fwd_hooks=[(f"blocks.{layer}.attn.hook_z", look)])
    (only,) = seen
    return logits, only


def with_part(module, part, change):
    """The tensors of the module with `change` made to a part, for a call of the module itself."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    kept = []
    with torch.no_grad():
        for piece in pieces(module, named(module, part)):
            own = parameters[piece.tensors[0]]
            kept.append((own, piece.index, own[piece.index].clone()))
            own[piece.index] = change(piece.value[0])

    def undo():
        with torch.no_grad():
            for own, index, before in kept:
                own[index] = before

    return undo


def test_slices_of_a_head_do_to_the_model_what_they_do_to_the_head(lensed):
    kind, module = lensed
    for layer in range(LAYERS):
        intact, before = heads(module, layer)
        for head in range(H):

            def leave_out(z, head=head):
                z[:, :, head] = 0

            expected, _ = heads(module, layer, leave_out)
            undo = with_part(module, f"{layer}:{head}.O", torch.zeros_like)
            found, _ = heads(module, layer)
            undo()
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
            assert (found - intact).abs().max() > 1e-3
        for piece in "QKV":
            for block in range(H if piece == "Q" else H // share(kind)):
                group = share(kind) > 1 and piece != "Q"
                own = [*range(block * share(kind), (block + 1) * share(kind))] if group else [block]
                undo = with_part(module, f"{layer}:{'g' * group}{block}.{piece}", lambda value: value + torch.randn_like(value))
                moved = (heads(module, layer)[1] - before).abs().amax((0, 1, 3))
                undo()
                assert (moved[own] > 1e-4).all(), (layer, piece, block, moved)
                assert (moved[[head for head in range(H) if head not in own]] == 0).all(), (layer, piece, block, moved)
        torch.testing.assert_close(heads(module, layer)[0], intact, rtol=0, atol=0)


def test_every_head_goes_the_general_road(lensed):
    kind, module = lensed
    with torch.no_grad():
        module(tokens())  # a bridge keeps what it computed last, which cannot be copied if it wants gradients
        assert language_logits(module, tokens()).shape == (*tokens().shape, V)
    part = named(module, "1:g1" if share(kind) > 1 else "1:1")
    roads = [ModuleObjective(module, language_loss, part, road=road) for road in ("auto", "loop")]
    variants = {name: t + 0.1 * torch.randn(3, *t.shape[1:], dtype=t.dtype) for name, t in roads[0].origin.items()}
    found, expected = (road.evaluate(variants, road.prepare(tokens())) for road in roads)
    torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=1e-10)
    assert expected.losses.std() > 1e-4
    for name in part:
        torch.testing.assert_close(found.gradients[name], expected.gradients[name], rtol=0, atol=1e-10)
        assert expected.gradients[name].abs().max() > 1e-6 or "b_K" in name or "bias" in name
    assert (roads[0].road, roads[0].why) == ("vmap", "")


def test_padding_changes_nothing(lensed):
    _, module = lensed
    ids, mask = tokens(2).clone(), torch.ones(2, 7, dtype=torch.long)
    ids[1, :3], mask[1, :3] = 9, 0
    with torch.no_grad():
        found = language_loss(module, {"input_ids": ids, "attention_mask": mask})
        expected = (6 * language_loss(module, ids[:1]) + 3 * language_loss(module, ids[1:, 3:])) / 9
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("kind", "joint"), [("gpt2", "transformer.h.0.attn.qkv"), ("gpt_neox", "gpt_neox.layers.0.attn.qkv")])
def test_a_joint_weight_that_a_bridge_does_not_compute_with_is_left_out(kind, joint):
    """Sampling it would find nothing but flat directions."""
    module = bridge(kind)
    objective = ModuleObjective(module, language_loss, [f"{joint}._original_component.weight"])
    variants = {name: t + torch.randn(3, *t.shape[1:], dtype=t.dtype) for name, t in objective.origin.items()}
    found = objective.evaluate(variants, objective.prepare(tokens()), gradients=False)
    torch.testing.assert_close(found.losses, found.baseline, rtol=0, atol=0)
    whole = dict(module.named_parameters(remove_duplicate=False))[f"{joint}._original_component.weight"]
    for part in ("0.attn", "full", "0:1"):
        assert not any(
            piece.whole.data_ptr() == whole.data_ptr() and piece.whole.shape == whole.shape for piece in pieces(module, named(module, part))
        )
    assert len(named(module, "0.attn")) == 8


def test_notes_of_key_biases_follow_the_positions():
    flat = {kind: " ".join(head_slices(hooked(kind), Part.parse("0:1")).notes) for kind in ("standard", "rotary", "shortformer")}
    assert "The key bias is exactly flat" in flat["standard"]
    assert "The key bias is exactly flat" in flat["shortformer"]
    assert "4 of the 6 numbers of the key bias" in flat["rotary"]
    for kind, told in (("gpt2", "The key bias is exactly flat"), ("gpt_neox", "2 of the 4 numbers of the key bias")):
        assert told in " ".join(head_slices(bridge(kind), Part.parse("0:1")).notes)


def test_the_module_itself_is_left_as_it_was():
    module = hooked("grouped")
    before = copy.deepcopy(module.state_dict())
    objective = ModuleObjective(module, language_loss, named(module, "1:2"))
    objective.evaluate(objective.origin, objective.prepare(tokens()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())

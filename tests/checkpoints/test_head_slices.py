"""Every head of every layout, held against the model itself: zeroing and perturbing its slices does what it does to the head, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from rllc.checkpoints.calling import language_logits
from rllc.checkpoints.head_slices import head_slices
from rllc.checkpoints.recognise import recognise
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.module_part import pieces

from .live_models import GROUPED, KINDS, LAYERS, OTHERS, TRANSFORMERS, C, G, H, V, built, configuration, heads_seen, tokens

pytest.importorskip("transformers")


def named(module, part):
    return head_slices(module, Part.parse(part)).names


def noted(module, part):
    return " ".join(head_slices(module, Part.parse(part)).notes)


@contextmanager
def changed(module, part, change) -> Iterator[None]:
    """The module with `change` made to the weights of a part, and afterwards as it was."""
    kept = []
    with torch.no_grad():
        for piece in pieces(module, named(module, part)):
            kept.append((piece.whole[piece.index], piece.value[0]))
            kept[-1][0].copy_(change(piece.value[0]))
        yield
        for place, before in kept:
            place.copy_(before)


@torch.no_grad()
def seen(kind, module, layer):
    with heads_seen(kind, module, layer) as found:
        language_logits(module, tokens())
    (only,) = found
    return only


def noise(value):
    return value + torch.randn(value.shape, generator=torch.Generator().manual_seed(3), dtype=value.dtype)


def twice(value):
    return 2 * value


def groups(kind):
    return (1 if kind == "gemma" else G) if kind in GROUPED else H


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_head_whose_output_weights_are_zero_is_a_head_that_is_left_out(kind):
    module = built(kind)
    intact = language_logits(module, tokens())
    for layer in range(LAYERS):
        for head in range(H):

            def leave_out(z, head=head):
                z[:, :, head] = 0

            with heads_seen(kind, module, layer, leave_out):
                expected = language_logits(module, tokens())
            with changed(module, f"{layer}:{head}.O", torch.zeros_like):
                found = language_logits(module, tokens())
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
            assert (found - intact).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_queries_keys_and_values_of_a_head_change_its_output_alone(kind):
    """Under grouped-query attention keys and values are those of all heads of the group, and of no other."""
    module, share = built(kind), H // groups(kind)
    intact = seen(kind, module, 1)
    for piece in "QKV":
        for block in range(H if piece == "Q" else groups(kind)):
            own = [block] if piece == "Q" else [*range(block * share, (block + 1) * share)]
            group = share > 1 and piece != "Q"
            with changed(module, f"1:{'g' * group}{block}.{piece}", twice if piece == "V" else noise):
                found = seen(kind, module, 1)
            moved = (found - intact).abs().amax((0, 1, 3))
            if piece == "V":
                torch.testing.assert_close(found[:, :, own], 2 * intact[:, :, own], rtol=0, atol=1e-9)
            others = [head for head in range(H) if head not in own]
            assert (moved[own] > 1e-4).all(), (piece, block, moved)
            if kind == "olmo2" and piece in "QK" and others:
                assert (moved[others] > 1e-6).all()  # its norms run over all heads, which the note says
            else:
                assert (moved[others] == 0).all(), (piece, block, moved)


@pytest.mark.parametrize("kind", ["gpt2", "nano", "gpt_neox", "phi3"])
@torch.no_grad()
def test_queries_and_keys_of_a_joint_weight_are_not_mistaken_for_each_other(kind):
    """A change that only the input of position 3 feels: of the queries it moves that position, of the keys those that look back at it."""
    module, inputs = built(kind), []
    owner = module.get_submodule(named(module, "0:0.Q")[0].split(".weight")[0])
    handle = owner.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]))
    ids = tokens(1)

    def heads():
        with heads_seen(kind, module, 0) as found:
            language_logits(module, ids)
        return found[0][0]

    intact = heads()
    handle.remove()
    direction = torch.linalg.pinv(inputs[0])[:, 3]

    def felt_at_three(value):
        if value.ndim == 1:
            return value
        return value + (direction[:, None] if len(value) == C else direction) * 3.0

    for part, moves in (("0:1.Q", [3]), ("0:g0.K" if kind in GROUPED else "0:1.K", [3, 4, 5, 6])):
        with changed(module, part, felt_at_three):
            moved = (heads() - intact).abs().amax((1, 2))
        assert (moved[moves] > 1e-4).all(), (part, moved)
        assert (moved[[t for t in range(7) if t not in moves]] < 1e-6).all(), (part, moved)


def counted(module, names):
    counts = {name: torch.zeros(p.shape, dtype=torch.int) for name, p in module.named_parameters()}
    for piece in pieces(module, names):
        counts[piece.tensors[0]][piece.index] += 1
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_disjoint_and_together_with_what_is_shared_all_of_attention(kind):
    module, grouped = built(kind), groups(kind) < H
    atoms = [f"1:{head}" for head in range(H)] + [f"1:g{group}.{piece}" for group in range(groups(kind)) for piece in "KV" if grouped]
    held = sum((torch.cat([c.flatten() for c in counted(module, named(module, atom)).values()]) for atom in atoms), torch.zeros(1, dtype=torch.int))
    assert held.max() == 1
    union = counted(module, named(module, " + ".join(atoms)))
    torch.testing.assert_close(torch.cat([c.flatten() for c in union.values()]), held)
    whole = counted(module, named(module, "1.attn"))
    shared = {name.split(".", name.split(".").index("1"))[-1]: n for name, n in whole.items() if (n > union[name]).any()}
    assert all((union[name] <= n).all() for name, n in whole.items())
    # no tensor of attention is a head's in part alone, but for those that belong to no head at all
    assert all(not union[name].any() for name, n in whole.items() if (n > union[name]).any()), shared
    ends = {name.rsplit("attn.")[-1].rsplit("attention.")[-1] for name, n in whole.items() if (n > union[name]).any()}
    output_bias = {"gpt2": "c_proj.bias", "gpt_neox": "dense.bias", "gpt_neo": "out_proj.bias", "llama": "o_proj.bias", "nano": "c_proj.bias"}
    norms = {"q_norm.weight", "k_norm.weight"} if kind in ("olmo2", "qwen3", "gemma3_text") else set()
    assert ends == norms | ({"b_O"} if "hooked" in kind else {output_bias[kind]} if kind in output_bias else set())
    note = noted(module, "1:0")
    assert ("output bias" in note) == bool(ends - norms)
    assert ("norms of queries and keys" in note) == bool(norms)
    assert ("run over all heads" in note) == (kind == "olmo2")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in GROUPED])
def test_a_group_is_its_keys_and_values_with_queries_and_outputs_of_all_its_heads(kind):
    module, share = built(kind), H // groups(kind)
    last = groups(kind) - 1
    whole = set(named(module, f"1:g{last}"))
    heads = " + ".join(f"1:{head}" for head in range(last * share, H))
    assert whole == set(named(module, f"{heads} + 1:g{last}.K + 1:g{last}.V"))
    assert f"Head 1:{H - 1} shares keys and values with heads {last * share} to {H - 1} (group 1:g{last})" in noted(module, f"1:{H - 1}")
    with pytest.raises(RllcError, match=rf"'1:{H - 1}.K' is shared by heads .* Name it by the group: 1:g{last}.K"):
        named(module, f"1:{H - 1}.K")


def test_names_are_what_a_person_would_write():
    gpt2, llama = built("gpt2"), built("llama")
    assert named(gpt2, "1:2") == (
        "transformer.h.1.attn.c_attn.weight[:, 8:12]",
        "transformer.h.1.attn.c_attn.weight[:, 24:28]",
        "transformer.h.1.attn.c_attn.weight[:, 40:44]",
        "transformer.h.1.attn.c_attn.bias[8:12]",
        "transformer.h.1.attn.c_attn.bias[24:28]",
        "transformer.h.1.attn.c_attn.bias[40:44]",
        "transformer.h.1.attn.c_proj.weight[8:12]",
    )
    assert named(llama, "0:3") == (
        "model.layers.0.self_attn.q_proj.weight[18:24]",
        "model.layers.0.self_attn.q_proj.bias[18:24]",
        "model.layers.0.self_attn.o_proj.weight[:, 18:24]",
    )
    assert named(built("hooked grouped"), "0:g1.K") == ("blocks.0.attn._W_K[1]", "blocks.0.attn._b_K[1]")
    assert named(built("nano"), "0:1.Q") == ("transformer.h.0.attn.c_attn.weight[4:8]", "transformer.h.0.attn.c_attn.bias[4:8]")


def test_unions_hold_every_weight_once_and_join_neighbours():
    module = built("gpt2")
    assert named(module, "0:0.O + 0:1.O") == ("transformer.h.0.attn.c_proj.weight[0:8]",)
    assert named(module, "0:0.O + 0:2.O") == ("transformer.h.0.attn.c_proj.weight[0:4]", "transformer.h.0.attn.c_proj.weight[8:12]")
    assert named(module, "1.attn + 1:2") == named(module, "1.attn")
    assert named(module, "=transformer.h.0.attn.c_proj.weight + 0:1.O + 0:1.Q")[-1] == "transformer.h.0.attn.c_proj.weight"
    assert named(module, "full + 0:1 + embed + 1.mlp") == named(module, "full") == tuple(name for name, _ in module.named_parameters())
    assert pieces(module, named(module, "full + 1:1"))


def test_layers_mlps_and_embeddings_by_name():
    gpt2, neox, hooked = built("gpt2"), built("gpt_neox"), built("hooked")
    assert named(gpt2, "1.mlp") == tuple(f"transformer.h.1.mlp.{a}.{b}" for a in ("c_fc", "c_proj") for b in ("weight", "bias"))
    assert named(neox, "0.attn") == tuple(f"gpt_neox.layers.0.attention.{a}.{b}" for a in ("query_key_value", "dense") for b in ("weight", "bias"))
    assert named(neox, "embed") == ("gpt_neox.embed_in.weight",)
    (unembed,) = named(neox, "unembed")
    assert neox.get_parameter(unembed) is neox.get_output_embeddings().weight
    assert (named(hooked, "embed"), named(hooked, "unembed")) == (("embed.W_E",), ("unembed.W_U",))
    assert named(gpt2, "embed") == named(gpt2, "embed + unembed") == ("transformer.wte.weight",)
    assert named(gpt2, "unembed") == ("lm_head.weight",)
    assert "one tensor (transformer.wte.weight, lm_head.weight): it is sampled once" in noted(gpt2, "unembed")
    assert not noted(neox, "embed + unembed")
    with pytest.raises(RllcError, match=r"0\.mlp.*layers 0 to 1 and heads 0 to 3"):
        named(hooked, "0.mlp")


@pytest.mark.parametrize("kind", ["gpt2", "nano", "gpt_neox", "hooked", "hooked grouped", "llama", "qwen2", "qwen3"])
@torch.no_grad()
def test_key_biases_that_the_loss_does_not_depend_on_are_told(kind):
    """NeoX turns a quarter of its queries and keys, here one number of four, and numbers are turned in pairs."""
    module, part = built(kind), "1:g1" if kind in GROUPED else "1:1"
    flat = dict.fromkeys(("gpt2", "nano", "hooked", "hooked grouped"), "The key bias is exactly flat")
    flat["gpt_neox"] = "2 of the 4 numbers of the key bias, those that are not rotated, are exactly flat"
    assert ("flat" in noted(module, part)) == (kind in flat)
    assert flat.get(kind, "") in noted(module, part)
    assert "flat" not in noted(module, part + ".Q")
    biases = [name for name in named(module, part + ".K") if "bias" in name or "b_K" in name]
    intact = language_logits(module, tokens())

    def change(which):
        def moved(value):
            moved = value.clone()
            if value.numel() in (4, 5, 6):  # of a bias, not of a weight
                moved[..., which] += torch.rand(moved[..., which].shape)
            return moved

        with changed(module, part + ".K", moved):
            return (language_logits(module, tokens()) - intact).abs().max()

    assert bool(biases) == (kind != "qwen3")
    if kind == "gpt_neox":
        assert change(slice(2)) > 1e-4
    if biases:
        assert (change(slice(2, None)) < 1e-6) == (kind in flat)


def test_a_module_within_others_is_found_and_two_are_asked_about():
    inner = built("llama")
    outer = nn.Module()
    outer.wrapped = nn.Module()
    outer.wrapped.model = inner
    assert named(outer, "1:3.O") == ("wrapped.model.model.layers.1.self_attn.o_proj.weight[:, 18:24]",)
    outer.again = inner
    assert len(named(outer, "1:3.O")) == 1
    bare = inner.model
    assert named(bare, "1:3.O") == ("layers.1.self_attn.o_proj.weight[:, 18:24]",)
    outer.other = built("mistral")
    with pytest.raises(RllcError, match=r"several transformers, at 'wrapped\.model\.model\.', 'other\.model\.'"):
        named(outer, "1:3")


def test_the_text_half_of_a_model_of_text_and_images_is_found():
    import transformers

    text = configuration("gemma3_text").to_dict()
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    module = transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1, image_token_index=V - 1)
    )
    assert named(module, "1:3.O") == ("model.language_model.layers.1.self_attn.o_proj.weight[:, 18:24]",)
    assert language_logits(module.eval(), tokens() % (V - 1)).shape[-1] == V


def test_all_heads_are_listed_with_their_sizes():
    found = recognise(built("qwen3"))
    assert (found.layout.name, found.n_layers, found.n_heads, found.n_groups, found.d_head) == ("Llama", LAYERS, H, G, 6)
    assert [str(head) for head in found.heads()] == [f"{layer}:{head}" for layer in range(LAYERS) for head in range(H)]


def test_a_type_that_was_not_verified_is_told_or_refused():
    assert "The type 'granite' was not verified" in noted(built("granite"), "0:1")
    assert "verified" not in noted(built("llama"), "0:1")
    module = copy.deepcopy(built("gpt2"))
    module.config.model_type = "gpt_of_tomorrow"  # a joint weight can be read in more than one way
    module.transformer.config = module.config
    with pytest.raises(RllcError, match=r"GPT2LMHeadModel of type 'gpt_of_tomorrow' is not known; known are .* Name its parameters, with slices"):
        named(module, "0:1")
    with pytest.raises(RllcError, match=r"Where the heads lie in a Linear is not known; known are HookedTransformer.*, gpt2"):
        named(nn.Linear(2, 2), "0:1")
    assert named(nn.Linear(2, 2), "full + =bias") == ("weight", "bias")
    with pytest.raises(RllcError, match=r"no parameter 'wait'\. Its parameters are weight, bias"):
        named(nn.Linear(2, 2), "=wait")


def test_shapes_that_are_not_those_of_the_names_are_refused():
    module = copy.deepcopy(built("llama"))
    module.model.layers[1].self_attn.k_proj = nn.Linear(C, 18)
    with pytest.raises(
        RllcError, match=r"names of a Llama, but 'model\.layers\.1\.self_attn\.k_proj\.weight' is of shape \[18, 16\] and should be 12"
    ):
        named(module, "0:1")
    module = copy.deepcopy(built("nano"))
    del module.config
    with pytest.raises(RllcError, match="Neither the Nano nor its attention says how many heads it has"):
        named(module, "0:1")
    module.transformer["h"][0].attn.n_head = H
    assert named(module, "0:1") == named(built("nano"), "0:1")


def test_heads_and_layers_that_are_not_there():
    for part in (f"0:{H}", f"{LAYERS}:0", f"{LAYERS}.attn", f"0:g{G}"):
        with pytest.raises(RllcError, match=r"does not exist in this Llama.*layers 0 to 1 and heads 0 to 3 in each, groups g0 to g1"):
            named(built("llama"), part)


def test_the_tables_of_the_tests_hold_what_they_say():
    assert {configuration(kind).model_type for kind in TRANSFORMERS} == set(TRANSFORMERS)
    assert set(OTHERS).isdisjoint(TRANSFORMERS)
    assert language_logits(built("llama"), tokens()).shape[-1] == V

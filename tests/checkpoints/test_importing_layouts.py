"""One model comes in many guises: old and new configs, hub and live names, buffers, wrappers, half precision, other contexts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rllc.checkpoints.importing import import_module, import_state
from rllc.core.errors import RllcError
from rllc.model.forward import logits

from .foreign_models import CASES, CONTEXT, VOCAB, built, tokens

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
LLAMA3, NEOX, QWEN2, MISTRAL = "llama 3.1, biases, tied", "gpt_neox, in sequence, half turned, no biases, tied", "qwen2", "mistral"


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: built(*CASES[name]) for name in ("gpt2", "gpt_neox", NEOX, LLAMA3, QWEN2, MISTRAL, "qwen3", "olmo", "llama, grouped, wide heads")}


def saved(model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return model.state_dict(), model.config.to_dict()


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and list(a.params) == list(b.params) and all(torch.equal(a.params[name], b.params[name]) for name in a.params)


@pytest.mark.parametrize("name", ["gpt2", LLAMA3, "mistral", "olmo"])
def test_tensors_come_in_the_shapes_order_and_sizes(models, name):
    imported = import_module(models[name])
    assert {key: tuple(tensor.shape) for key, tensor in imported.params.items()} == imported.shape.tensors()
    assert list(imported.params) == list(imported.shape.tensors())
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in imported.params.values())


def test_what_is_imported_is_a_copy(models):
    model = models["gpt2"]
    before = import_module(model)
    kept = {name: tensor.clone() for name, tensor in before.params.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert all(torch.equal(before.params[name], kept[name]) for name in kept)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(2)


def test_gpt2_as_the_hub_has_it(models):
    """Without a prefix, without the tied unembedding, with the causal masks of old releases."""
    state, config = saved(models["gpt2"])
    hub = {name.removeprefix("transformer."): tensor for name, tensor in state.items() if name != "lm_head.weight"}
    hub |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    assert same(import_state(hub, config), import_module(models["gpt2"]))


@pytest.mark.parametrize("name", ["gpt_neox", NEOX])
def test_gpt_neox_as_the_hub_has_it(models, name):
    """The unembedding's old name, masks and frequencies saved along, rotary settings as before release 5 of transformers."""
    state, config = saved(models[name])
    hub = {key.replace("lm_head", "embed_out"): tensor for key, tensor in state.items()}
    hub |= {f"gpt_neox.layers.0.attention.{key}": torch.ones(3) for key in ("bias", "masked_bias", "rotary_emb.inv_freq")}
    rope = config.pop("rope_parameters")
    old = config | {"rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": rope["rope_theta"]}
    assert same(import_state(hub, old), import_module(models[name]))


@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_llama_with_rope_settings_as_before_release_5(models, kind):
    state, config = saved(models[LLAMA3])
    rope = config.pop("rope_parameters")
    scaling = {kind: rope["rope_type"]} | {key: value for key, value in rope.items() if key not in ("rope_type", "rope_theta")}
    state |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    imported = import_state(state, config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling})
    assert imported.shape.rotary_scaling == (8.0, 0.3, 2.0, 16.0)
    assert same(imported, import_module(models[LLAMA3]))
    unscaled = import_state(state, config | {"rope_theta": 300.0, "rope_scaling": None}).shape
    assert (unscaled.rotary_scaling, unscaled.rotary_base) == ((), 300.0)


@pytest.mark.parametrize("name", ["gpt_neox", "qwen3", QWEN2, "olmo", "llama, grouped, wide heads"])
def test_a_config_that_does_not_name_its_kind(models, name):
    """Then the tensors' names tell, and a note says so."""
    state, config = saved(models[name])
    config.pop("model_type")
    imported = import_state(state, config)
    assert imported.family == CASES[name][0]
    assert "names" in imported.notes[-1]
    assert same(imported, import_module(models[name]))


def test_a_config_of_gpt2_is_known_by_its_settings(models):
    state, config = saved(models["gpt2"])
    config.pop("model_type")
    assert import_state(state, config).family == "gpt2"


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_wrappers_lengthen(models, wrapper):
    state, config = saved(models[QWEN2])
    assert same(import_state({wrapper + name: tensor for name, tensor in state.items()}, config), import_module(models[QWEN2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_said(models, dtype):
    state, config = saved(models["gpt2"])
    half = {name: tensor.to(dtype) for name, tensor in state.items()}
    imported = import_state(half, config)
    assert imported.notes == (f"Weights of {str(dtype).removeprefix('torch.')} were widened to float32.",)
    assert torch.equal(imported.params["embed.W_E"], half["transformer.wte.weight"].float())
    assert {tensor.dtype for tensor in imported.params.values()} == {torch.float32}


def test_an_unembedding_is_tied_by_memory_and_not_by_content(models):
    """At the start of a training the two may be equal; in a series the shape must not depend on it."""
    state, config = saved(models["gpt_neox"])
    state["lm_head.weight"] = state["gpt_neox.embed_in.weight"].clone()
    apart = import_state(state, config)
    assert not apart.shape.tied
    assert apart.notes == ("lm_head.weight equals gpt_neox.embed_in.weight, but the config does not tie them: they are taken as two tensors.",)
    assert torch.equal(apart.params["unembed.W_U"], apart.params["embed.W_E"].T)
    state["lm_head.weight"] = state["gpt_neox.embed_in.weight"]
    one = import_state(state, config)
    assert one.shape.tied
    assert one.notes == ("lm_head.weight is gpt_neox.embed_in.weight: they are taken as one tensor, tied, whatever the config says.",)
    assert "unembed.W_U" not in one.params


def test_the_window_limits_the_context_and_beyond_it_we_differ(models):
    """Up to the window logits agree, which test_importing shows; one token further they do not, so that the limit is where it must be."""
    imported, ids = import_module(models[MISTRAL]), tokens(17)
    assert imported.shape.n_ctx == 16
    assert imported.notes[0] == "n_ctx is 16, the sliding window, because longer contexts would not see everything."
    assert "shared by 2 heads each" in imported.notes[1]
    with torch.no_grad():
        difference = (logits(imported.shape, imported.params, ids) - models[MISTRAL](ids).logits).abs().amax((0, 2))
    assert difference[:16].max() < 1e-4 < difference[16]
    assert import_module(models[MISTRAL], n_ctx=9).shape.n_ctx == 9
    with pytest.raises(RllcError, match=r"sliding window is 16.*1 to 16"):
        import_module(models[MISTRAL], n_ctx=17)


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({"use_sliding_window": False, "sliding_window": 8}, CONTEXT),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None}, 8),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "layer_types": None}, CONTEXT),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]}, 8),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"] * 2}, CONTEXT),
    ],
)
def test_a_window_of_some_layers_of_qwen_counts_where_it_is_used(models, changes, length):
    state, config = saved(models[QWEN2])
    assert import_state(state, config | changes).shape.n_ctx == length


def test_positions_are_cut_to_the_context(models):
    imported = import_module(models["gpt2"], n_ctx=5)
    assert imported.params["pos.W_pos"].shape[0] == imported.shape.n_ctx == 5
    with pytest.raises(RllcError, match=f"A context of 99 tokens .* it has {CONTEXT} positions"):
        import_module(models["gpt2"], n_ctx=99)


class Reader(Mapping[str, Tensor]):
    """A file read tensor by tensor, that counts how many of what it gave are still held."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state, self.given, self.most = state, [], 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.state[name].clone()
        self.given.append(weakref.ref(tensor))
        self.most = max(self.most, sum(ref() is not None for ref in self.given))
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", LLAMA3])
def test_a_lazy_file_is_never_held_whole(models, name):
    state, config = saved(models[name])
    reader = Reader(state)
    imported = import_state(reader, config)
    assert same(imported, import_module(models[name]))
    assert reader.most <= 2  # the unembedding beside the embedding, or one tensor while the next is read
    assert len(reader.given) <= len(state) + 2  # those two once more
    assert imported.params["embed.W_E"].shape[0] == VOCAB

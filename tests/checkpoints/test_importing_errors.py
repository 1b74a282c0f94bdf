"""What cannot be imported is told by a sentence that names the tensor or the setting."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rllc.checkpoints.importing import NotImportable, import_module, import_state
from rllc.checkpoints.not_native import REASONS
from rllc.core.errors import RllcError

from .foreign_models import CASES, built

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
NAMES = {"gpt2": "gpt2", "gpt_neox": "gpt_neox", "llama": "llama, grouped, wide heads", "mistral": "mistral", "olmo": "olmo"}
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def originals() -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
    models = {kind: built(*CASES[name]) for kind, name in NAMES.items()}
    return {kind: (model.state_dict(), model.config.to_dict()) for kind, model in models.items()}


def test_a_missing_tensor_is_named(originals):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match=r"config of a Llama model: model\.layers\.1\.mlp\.down_proj\.weight is missing"):
        import_state({name: tensor for name, tensor in state.items() if name != DOWN}, config)


def test_a_tensor_that_is_there_twice_is_named(originals):
    state, config = originals["gpt2"]
    with pytest.raises(RllcError, match=r"transformer\.wte\.weight and wte\.weight are one and the same"):
        import_state(state | {"wte.weight": state["transformer.wte.weight"]}, config)


def test_a_missing_unembedding_is_named(originals):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match=r"lm_head\.weight is missing"):
        import_state({name: tensor for name, tensor in state.items() if name != "lm_head.weight"}, config)


@pytest.mark.parametrize("extra", ["score.weight", "model.layers.0.self_attn.q_norm.weight", "model.layers.2.mlp.up_proj.weight"])
def test_an_unknown_tensor_is_named(originals, extra):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match=f"{extra} is not known"):
        import_state(state | {extra: torch.ones(3)}, config)


def test_a_tensor_of_another_size_is_named_with_both_sizes(originals):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match=r"model\.layers\.1\.mlp\.down_proj\.weight is \[32, 39\], and by the config it should be \[32, 40\]"):
        import_state(state | {DOWN: state[DOWN][:, :-1]}, config)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("llama", {"num_hidden_layers": 1}, r"model\.layers\.1\.input_layernorm\.weight and \d+ more are not known"),
        ("llama", {"num_hidden_layers": 3}, r"model\.layers\.2\.input_layernorm\.weight and \d+ more are missing"),
        ("llama", {"num_key_value_heads": 4}, r"k_proj\.weight is \[24, 32\], and by the config it should be \[48, 32\]"),
        ("llama", {"attention_bias": True}, r"self_attn\.k_proj\.bias and \d+ more are missing"),
        ("llama", {"tie_word_embeddings": True}, r"lm_head\.weight differs from model\.embed_tokens\.weight"),
        ("gpt2", {"vocab_size": 40}, r"transformer\.wte\.weight is \[37, 32\], and by the config it should be \[40, 32\]"),
        ("gpt2", {"n_positions": 30}, r"transformer\.wpe\.weight is \[24, 32\]"),
        ("gpt2", {"n_inner": 30}, r"mlp\.c_fc\.weight is \[32, 128\], and by the config it should be \[32, 30\]"),
        ("gpt2", {"n_head": 5}, r"n_embd = 32, which n_head = 5 does not divide"),
        ("gpt2", {"n_embd": None}, r"n_embd = None, expected a positive whole number"),
        ("gpt2", {"n_layer": "two"}, r"n_layer = 'two'"),
        ("gpt_neox", {"attention_bias": False}, r"gpt_neox\.layers\.0\.attention\.dense\.bias and \d+ more are not known"),
    ],
)
def test_a_config_that_contradicts_the_weights(originals, kind, changes, sentence):
    state, config = originals[kind]
    with pytest.raises(RllcError, match=sentence) as refused:
        import_state(state, config | changes)
    assert not isinstance(refused.value, NotImportable)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gpt2", {"scale_attn_weights": False}, "not scaled"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scaled by the layer"),
        ("gpt2", {"add_cross_attention": True}, "cross-attention"),
        ("gpt2", {"activation_function": "relu2"}, "'relu2'"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantised"),
        ("llama", {"hidden_act": "mish"}, "'mish'"),
        ("llama", {"mlp_bias": True}, r"gate_proj\.bias"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "'yarn'"),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "turn 6 of a head's 12"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "several kinds"),
        ("gpt_neox", {"rope_parameters": None, "rotary_pct": 0.0}, "turn 0 of"),
        ("olmo", {"clip_qkv": 8.0}, "clips"),
    ],
)
def test_a_feature_that_we_have_not(originals, kind, changes, reason):
    state, config = originals[kind]
    with pytest.raises(NotImportable, match=reason) as refused:
        import_state(state, config | changes)
    assert "name the parts by its parameters" in refused.value.remedy


@pytest.mark.parametrize("kind", ["gpt_neo", "phi", "mixtral"])
def test_models_that_are_not_native_say_why(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 9}
    small |= {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 2, "head_dim": 8, "num_local_experts": 2}
    own = AutoConfig.for_model(kind)
    config = AutoConfig.for_model(kind, **{name: value for name, value in small.items() if hasattr(own, name)}, pad_token_id=0)
    with pytest.raises(NotImportable) as refused:
        import_module(AutoModelForCausalLM.from_config(config))
    assert REASONS[kind] in str(refused.value)
    assert kind in str(refused.value)


def test_an_unknown_kind_names_the_known_ones(originals):
    state, config = originals["llama"]
    with pytest.raises(NotImportable, match=r"'weird' cannot be converted .* the known types are .*gpt2.*llama"):
        import_state(state, config | {"model_type": "weird"})
    with pytest.raises(NotImportable, match="neither its config nor the names"):
        import_state({"layer.weight": torch.ones(2)}, {})


def test_an_llama3_stretching_needs_its_numbers(originals):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match="without all of factor, low_freq_factor and high_freq_factor"):
        import_state(state, config | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}})


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(originals, dtype):
    state, config = originals["llama"]
    with pytest.raises(NotImportable, match=r"quantised: the tensor model\.layers\.1\.mlp\.down_proj\.weight holds " + str(dtype)[6:]):
        import_state(state | {DOWN: state[DOWN].to(dtype)}, config)


def test_weights_without_numbers_are_refused(originals):
    state, config = originals["llama"]
    with pytest.raises(RllcError, match="meta device"):
        import_state({name: tensor.to("meta") for name, tensor in state.items()}, config)


def test_arguments_of_no_use(originals):
    state, config = originals["gpt2"]
    with pytest.raises(RllcError, match=r"torch\.float16 are asked for"):
        import_state(state, config, dtype=torch.float16)
    with pytest.raises(RllcError, match="The config is a int"):
        import_state(state, 3)
    with pytest.raises(RllcError, match="A context of -1 tokens"):
        import_state(state, config, n_ctx=-1)
    with pytest.raises(NotImportable, match=r"A Linear cannot be converted .* neither `config` nor `cfg`"):
        import_module(nn.Linear(2, 2))


def test_a_bridge_is_sent_back_to_what_it_wraps():
    with pytest.raises(NotImportable, match="the model that it wraps"):
        import_module(type("TransformerBridge", (nn.Module,), {})())


def test_the_error_survives_a_worker(originals):
    state, config = originals["gpt2"]
    with pytest.raises(NotImportable) as refused:
        import_state(state, config | {"add_cross_attention": True})
    again = pickle.loads(pickle.dumps(refused.value))
    assert (type(again), str(again)) == (NotImportable, str(refused.value))

"""OLMo-2, OLMo-3, Phi-3 and Gemma: configs old and new, windows, what their norms weigh, and what of them is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rllc.checkpoints.importing import NotImportable, import_module, import_state
from rllc.core.errors import RllcError
from rllc.model.forward import logits

from .foreign_models import CASES, CONTEXT, built, tokens

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
PHI3 = "phi3, half turned, window, tied"
NAMES = ("olmo2", "olmo3", "phi3", PHI3, "gemma", "gemma2", "gemma3")
YARN = {"rope_type": "yarn", "rope_theta": 300.0, "factor": 2.0}
FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: built(*CASES[name]) for name in NAMES}


def saved(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return model.state_dict(), model.config.to_dict()


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and list(a.params) == list(b.params) and all(torch.equal(a.params[name], b.params[name]) for name in a.params)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_come_in_the_shapes_order_and_sizes(models, name):
    imported = import_module(models[name])
    assert [(key, tuple(tensor.shape)) for key, tensor in imported.params.items()] == list(imported.shape.tensors().items())


@pytest.mark.parametrize("name", ["olmo3", PHI3, "gemma2", "gemma3"])
def test_the_window_limits_the_context_and_beyond_it_we_differ(models, name):
    imported, ids = import_module(models[name]), tokens(17)
    assert imported.shape.n_ctx == 16
    assert imported.notes[0] == "n_ctx is 16, the sliding window, because longer contexts would not see everything."
    with torch.no_grad():
        difference = (logits(imported.shape, imported.params, ids) - models[name](ids).logits).abs().amax((0, 2))
    assert difference[:16].max() < 1e-4 < difference[16]
    with pytest.raises(RllcError, match=r"sliding window is 16.*1 to 16"):
        import_module(models[name], n_ctx=17)


@pytest.mark.parametrize("name", ["olmo3", "gemma2", "gemma3"])
def test_a_window_that_no_layer_sees_is_none(models, name):
    state, config = saved(models[name])
    rope = config["rope_parameters"]
    full = import_state(state, config | {"layer_types": ["full_attention"] * 2}).shape
    assert (full.n_ctx, full.local_layers) == (CONTEXT, ())
    assert full.rotary_base == rope.get("full_attention", rope)["rope_theta"]


def test_layers_of_two_kinds_turn_by_bases_of_their_own(models):
    shape = import_module(models["gemma3"]).shape
    assert (shape.local_layers, shape.local_rotary_base, shape.rotary_base, shape.rotary_scaling) == ((0,), 50.0, 300.0, (3.0,))
    state, config = saved(models["gemma3"])
    alike = {kind: {"rope_type": "default", "rope_theta": 70.0} for kind in ("full_attention", "sliding_attention")}
    shape = import_state(state, config | {"rope_parameters": alike}).shape
    assert (shape.local_layers, shape.rotary_base, shape.rotary_scaling) == ((), 70.0, ())


def test_gemma_3_as_the_hub_has_it(models):
    """Rotary settings as before release 5 of transformers, and a period in place of the kinds of layers."""
    state, config = saved(models["gemma3"])
    new = ("rope_parameters", "layer_types", "_sliding_window_pattern")
    old = {key: value for key, value in config.items() if key not in new}
    old |= {"rope_theta": 300.0, "rope_local_base_freq": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0}, "sliding_window_pattern": 2}
    assert same(import_state(state, old), import_module(models["gemma3"]))
    sliding = import_state(state, old | {"sliding_window_pattern": 6}).shape
    assert (sliding.local_layers, sliding.rotary_base, sliding.rotary_scaling) == ((), 50.0, ())
    assert import_state(state, old | {"rope_scaling": None}).shape.rotary_scaling == ()


def test_phi_3_as_the_hub_has_it(models):
    state, config = saved(models[PHI3])
    rope = config.pop("rope_parameters")
    old = config | {"rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.5, "rope_scaling": None}
    assert import_state(state, old).shape.rotary_dim == 4
    assert same(import_state(state, old), import_module(models[PHI3]))


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3", "olmo2", "olmo3", "phi3"])
def test_what_a_config_leaves_out_is_as_the_library_has_it(models, name):
    """Context, window, base, epsilon, caps and the rest at the defaults of transformers' own class."""
    from transformers import AutoConfig

    kind, settings = CASES[name]
    sizes = {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "head_dim"}
    few = {key: value for key, value in settings.items() if key in sizes} | {"vocab_size": 37, "max_position_embeddings": 8192, "model_type": kind}
    state = models[name].state_dict()
    whole = AutoConfig.for_model(**few).to_dict()
    tied = {key: tensor for key, tensor in state.items() if key != "lm_head.weight" or not whole["tie_word_embeddings"]}
    bare = import_state(tied, few).shape
    found = import_state(tied, whole).shape
    assert bare == found


def test_gemma_2_whose_config_leaves_out_its_caps_or_says_that_there_are_none(models):
    state, config = saved(models["gemma2"])
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    shape = import_state(state, {key: value for key, value in config.items() if key not in caps}).shape
    assert (shape.score_softcap, shape.logit_softcap) == (50.0, 30.0)
    shape = import_state(state, config | dict.fromkeys(caps)).shape
    assert (shape.score_softcap, shape.logit_softcap) == (0.0, 0.0)


def test_gemma_s_first_configs_say_gelu_and_mean_its_approximation(models):
    state, config = saved(models["gemma"])
    imported = import_state(state, config | {"hidden_act": "gelu"})
    assert imported.shape.activation == "gelu_tanh"
    assert same(imported, import_module(models["gemma"]))


def test_gemma_s_norms_weigh_by_one_more_which_half_precision_does_not_round(models):
    state, config = saved(models["gemma3"])
    half = {key: tensor.bfloat16() for key, tensor in state.items()}
    found = import_state(half, config).params
    for ours, theirs in {"blocks.0.ln1_post.w": "post_attention_layernorm", "blocks.0.attn.k_norm.w": "self_attn.k_norm"}.items():
        weight = half[f"model.layers.0.{theirs}.weight"]
        assert torch.equal(found[ours], 1 + weight.float())
        assert not torch.equal(found[ours], (1 + weight).float())


@pytest.mark.parametrize("name", ["olmo2", "phi3", "gemma2", "gemma3"])
def test_a_config_that_does_not_name_its_kind(models, name):
    state, config = saved(models[name])
    config.pop("model_type")
    imported = import_state(state, config)
    assert imported.family == CASES[name][0]
    assert same(imported, import_module(models[name]))


def test_the_text_half_of_a_gemma_3_that_reads_images():
    import transformers

    kind, settings = CASES["gemma3"]
    text = transformers.AutoConfig.for_model(kind, **settings, vocab_size=37, pad_token_id=0).to_dict()
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1, image_token_index=36)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    with pytest.raises(NotImportable, match=r"its text half alone, model\.model\.language_model, can be converted"):
        import_module(model)
    imported, ids = import_module(model.model.language_model), tokens(12, 36)
    assert imported.family == "gemma3_text"
    # The wrapper's logits are not capped, whatever its text half says.
    expected = model(input_ids=ids).logits.detach()
    expected = 3.0 * torch.tanh(expected / 3.0)
    torch.testing.assert_close(logits(imported.shape, imported.params, ids), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("olmo2", {"clip_qkv": 8.0}, "clips"),
        ("olmo2", {"rope_parameters": YARN}, "'yarn'"),
        ("olmo3", {"rope_parameters": {"full_attention": YARN, "sliding_attention": {"rope_theta": 300.0}}}, "'yarn'"),
        ("olmo3", {"layer_types": ["sliding_attention", "chunked_attention"]}, "several kinds"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 300.0} | FACTORS}, "'longrope'"),
        ("phi3", {"rope_parameters": None, "rope_scaling": {"type": "su"} | FACTORS}, "'su'"),
        ("phi3", {"hidden_act": "mish"}, "'mish'"),
        ("gemma2", {"use_bidirectional_attention": True}, "looks ahead"),
        ("gemma3", {"use_bidirectional_attention": True}, "looks ahead"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "does not"),
        ("gemma3", {"rope_parameters": {"full_attention": {"rope_theta": 9.0}, "sliding_attention": {"rope_type": "linear", "factor": 2}}}, "own"),
    ],
)
def test_a_feature_that_we_have_not(models, name, changes, reason):
    state, config = saved(models[name])
    with pytest.raises(NotImportable, match=reason) as refused:
        import_state(state, config | changes)
    assert "name the parts by its parameters" in refused.value.remedy


def test_a_stretching_by_a_factor_needs_it(models):
    state, config = saved(models["phi3"])
    with pytest.raises(RllcError, match="without a factor"):
        import_state(state, config | {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0}})

"""HookedTransformers, converted, compute the same logits: held against plain formulae, and those against TransformerLens where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rllc.checkpoints.importing import NotImportable, import_module, import_state
from rllc.core.errors import RllcError
from rllc.model.forward import logits
from rllc.model.parts import insert, select
from rllc.model.slices import slices

from .foreign_models import all_parts, mean_loss, tokens
from .hooked_reference import CASES, CONTEXT, FLOAT32_ANGLES, VOCAB, reference_logits, state_of

IDS = tokens(CONTEXT, VOCAB)
LENS_WARNS = pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated:DeprecationWarning")
LLAMA, PAPERS = CASES["Llama"], CASES["the paper's"]


def theirs(cfg: dict[str, Any], tensor: str) -> str:
    """The foreign name of one of our attention's tensors."""
    block, piece = tensor.rsplit(".", 1)
    return f"{block}.{'_' if cfg.get('n_key_value_heads') and piece[-1] in 'KV' else ''}{piece}"


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_formulae(name):
    cfg, state = CASES[name], state_of(CASES[name])
    imported = import_state(state, cfg, dtype=torch.float64)
    expected = reference_logits(cfg, state, IDS)
    assert imported.family == "transformer_lens"
    torch.testing.assert_close(logits(imported.shape, imported.params, IDS), expected, rtol=0, atol=1e-9)
    single = import_state(state, cfg)
    torch.testing.assert_close(logits(single.shape, single.params, IDS).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_head_zeroed_is_the_originals_head_zeroed(name):
    cfg, state = CASES[name], state_of(CASES[name])
    imported = import_state(state, cfg, dtype=torch.float64)
    before = reference_logits(cfg, state, IDS)
    for part in all_parts(imported.shape):
        changed = dict(state)
        for piece in slices(imported.shape, part):
            key = theirs(cfg, piece.tensor)
            changed[key] = changed[key].clone()
            changed[key][piece.head] = 0
        zeros = {key: torch.zeros_like(value) for key, value in select(imported.shape, imported.params, part).items()}
        expected = reference_logits(cfg, changed, IDS)
        assert (expected - before).abs().max() > 1e-2
        ours = logits(imported.shape, insert(imported.shape, imported.params, part, zeros), IDS)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_heads_are_the_originals_slices(name):
    cfg, state = CASES[name], state_of(CASES[name])
    imported = import_state(state, cfg, dtype=torch.float64)
    shape = imported.shape
    weights = {key: tensor.requires_grad_() for key, tensor in state.items() if ".attn." in key and key.rsplit("_", 1)[-1] in tuple("QKVO")}
    mean_loss(reference_logits(cfg, state, IDS), IDS).backward()
    for part in all_parts(shape):
        values = {key: value.requires_grad_() for key, value in select(shape, imported.params, part).items()}
        mean_loss(logits(shape, insert(shape, imported.params, part, values), IDS), IDS).backward()
        pairs = [(values[str(piece)].grad, weights[theirs(cfg, piece.tensor)].grad[piece.head]) for piece in slices(shape, part)]
        scale = max(expected.abs().max() for _, expected in pairs)
        assert scale > 1e-4
        for ours, expected in pairs:
            torch.testing.assert_close(ours, expected, rtol=0, atol=float(1e-9 * scale))


@LENS_WARNS
@pytest.mark.parametrize("name", CASES)
def test_transformer_lens_itself_agrees(name):
    """With both: the formulae that stand in for it, and a live HookedTransformer imported."""
    library = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
    cfg, state = CASES[name], state_of(CASES[name])
    weights = {key: tensor for key, tensor in state.items() if tensor.dtype == torch.float64}
    for dtype, tolerance in ((torch.float64, 1e-5 if name in FLOAT32_ANGLES else 1e-9), (torch.float32, 1e-4)):
        model = library.HookedTransformer(library.HookedTransformerConfig(**cfg, dtype=dtype, device="cpu", init_weights=False))
        missing, unknown = model.load_state_dict(weights, strict=False)
        assert not unknown
        assert all(key.rsplit(".", 1)[1] in ("mask", "IGNORE", "rotary_sin", "rotary_cos") for key in missing)
        model.eval()
        expected = model(IDS).detach()
        torch.testing.assert_close(expected.double(), reference_logits(cfg, state, IDS), rtol=0, atol=tolerance)
        imported = import_module(model)
        assert {tensor.dtype for tensor in imported.params.values()} == {dtype}
        torch.testing.assert_close(logits(imported.shape, imported.params, IDS), expected, rtol=0, atol=tolerance)


@LENS_WARNS
def test_a_model_that_transformer_lens_folded_is_still_the_same():
    library = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
    cfg, state = CASES["GPT-2"], state_of(CASES["GPT-2"])
    model = library.HookedTransformer(library.HookedTransformerConfig(**cfg, dtype=torch.float64, device="cpu", init_weights=False))
    model.load_state_dict({key: tensor for key, tensor in state.items() if tensor.dtype == torch.float64}, strict=False)
    model.process_weights_(fold_ln=True, center_writing_weights=True, center_unembed=False)
    imported = import_module(model)
    assert imported.shape.norm == "layernorm_pre"
    ours = logits(imported.shape, imported.params, IDS)
    torch.testing.assert_close(ours, model(IDS).detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours, reference_logits(cfg, state, IDS), rtol=0, atol=1e-5)  # TransformerLens folds in float32


def test_the_shape_does_not_hang_on_the_numbers():
    """Biases that are still zero at the first checkpoint of a series may grow."""
    zeros = {key: torch.zeros_like(tensor) if ".b_" in key else tensor for key, tensor in state_of(LLAMA).items()}
    imported = import_state(zeros, LLAMA, dtype=torch.float64)
    assert imported.shape == import_state(state_of(LLAMA), LLAMA).shape
    torch.testing.assert_close(logits(imported.shape, imported.params, IDS), reference_logits(LLAMA, zeros, IDS), rtol=0, atol=1e-9)


def test_what_is_folded_and_shared_is_said():
    notes = " ".join(import_state(state_of(LLAMA), LLAMA).notes)
    assert "folded into b_out" in notes
    assert "shared by 2 heads each" in notes
    assert import_state(state_of(PAPERS), PAPERS).notes == ()


def test_a_shorter_context_keeps_the_first_positions():
    imported = import_state(state_of(PAPERS), PAPERS, n_ctx=7, dtype=torch.float64)
    assert imported.shape.n_ctx == 7
    expected = reference_logits(PAPERS, state_of(PAPERS), IDS[:, :7])
    torch.testing.assert_close(logits(imported.shape, imported.params, IDS[:, :7]), expected, rtol=0, atol=1e-9)


def test_an_unembedding_that_equals_the_embedding_is_tied():
    state = state_of(PAPERS)
    state["unembed.W_U"] = state["embed.W_E"].T.clone()
    imported = import_state(state, PAPERS, dtype=torch.float64)
    assert imported.shape.tied
    assert "tied" in imported.notes[0]
    torch.testing.assert_close(logits(imported.shape, imported.params, IDS), reference_logits(PAPERS, state, IDS), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attn_scale": 1.0}, "divided by 1 "),
        ({"use_attn_scale": False}, "not scaled"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scaled by the layer"),
        ({"use_local_attn": True, "window_size": 8}, "window"),
        ({"attn_scores_soft_cap": 50.0}, "scores are capped"),
        ({"output_logits_soft_cap": 30.0}, "logits are capped"),
        ({"use_normalization_before_and_after": True}, "norms behind"),
        ({"original_architecture": "Olmo2ForCausalLM"}, "all heads at once"),
        ({"positional_embedding_type": "alibi"}, "'alibi'"),
        ({"normalization_type": None}, "its norms are None"),
        ({"final_rms": True}, "last norm"),
        ({"rotary_adjacent_pairs": True}, "adjacent pairs"),
        ({"use_yarn_rope": True}, "YaRN"),
        ({"num_experts": 4}, "experts"),
        ({"attn_only": False, "act_fn": "solu_ln"}, "'solu_ln'"),
        ({"attention_dir": "bidirectional"}, "looks ahead"),
        ({"clip_qkv": 8.0}, "clips"),
        ({"d_vocab_out": 3}, "predicts 3"),
    ],
)
def test_what_we_have_not_is_refused_with_the_reason_and_a_way_out(changes, reason):
    with pytest.raises(NotImportable, match=reason) as refused:
        import_state(state_of(PAPERS), PAPERS | changes)
    assert "name the parts by its parameters" in refused.value.remedy


@pytest.mark.parametrize("changes", [{"attn_scale": 8**0.5}, {"attn_scale": -1.0}, {"attn_scores_soft_cap": -1.0, "num_experts": None}])
def test_settings_at_rest_are_no_obstacle(changes):
    assert import_state(state_of(PAPERS), PAPERS | changes).shape == import_state(state_of(PAPERS), PAPERS).shape


def test_weights_that_were_folded_after_the_config_was_written_are_told_apart():
    with pytest.raises(RllcError, match=r"blocks\.0\.ln1\.b and \d+ more are missing"):
        import_state(state_of(PAPERS | {"normalization_type": "LNPre"}), PAPERS)
    with pytest.raises(RllcError, match=r"blocks\.0\.ln1\.b and \d+ more are not known"):
        import_state(state_of(PAPERS), PAPERS | {"normalization_type": "LNPre"})

"""Models of transformers through the one call: live, from a folder, and a series of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import rllc
from rllc.checkpoints.series import Series

transformers = pytest.importorskip("transformers")
SMALL = {"chains": 2, "draws": 8, "burn_in": 2, "batch_size": 3, "origin_batches": 3}
TINY = {"vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 32}


def gpt2(seed: int = 0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=23, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def tokens(n: int = 12, length: int = 10):
    return torch.randint(0, 23, (n, length), generator=torch.Generator().manual_seed(0))


def test_a_live_model_and_its_folder_are_one(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path / "model")
    live = rllc.estimate(model, tokens(), "heads", **SMALL)
    stored = rllc.estimate(tmp_path / "model", tokens(), "heads", **SMALL)
    assert list(live) == list(stored) == ["0:0", "0:1", "1:0", "1:1"]
    for part in live:
        assert live[part].road == stored[part].road == "native"
        np.testing.assert_array_equal(live[part].traces.losses, stored[part].traces.losses)
    general = rllc.estimate(model, tokens(), "1:1", road="general", **SMALL)
    np.testing.assert_allclose(general.traces.losses[..., 0], live["1:1"].traces.losses[..., 0], rtol=0, atol=5e-6)


def test_what_is_no_member_of_the_family_is_sampled_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.GraniteForCausalLM(transformers.GraniteConfig(**TINY, num_key_value_heads=2, pad_token_id=0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    r = rllc.estimate(model, tokens(), "1:3", **SMALL)
    assert r.road == "general"
    assert any("A model of type 'granite' cannot be converted" in note for note in r.notes)
    assert np.isfinite(r.traces.losses).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_head_of_olmo_2_is_native_and_tells_that_it_scales_others() -> None:
    torch.manual_seed(0)
    model = transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**TINY, num_key_value_heads=2, pad_token_id=0))
    rs = rllc.estimate(model, tokens(), ["0:3", "1:1", "1:2.O"], **SMALL)
    assert {r.road for r in rs.cells} == {"native"}
    for part, told in {"0:3": True, "1:1": True, "1:2.O": False}.items():
        assert any("changes the scale of the others'" in note for note in rs[part].notes) is told
    general = rllc.estimate(model, tokens(), "1:1", road="general", **SMALL)
    np.testing.assert_allclose(general.traces.losses[..., 0], rs["1:1"].traces.losses[..., 0], rtol=0, atol=5e-6)


def test_a_context_beyond_a_window_is_sampled_as_it_is() -> None:
    torch.manual_seed(0)
    sizes = TINY | {"num_key_value_heads": 2, "head_dim": 4, "sliding_window": 6, "query_pre_attn_scalar": 4, "pad_token_id": 0}
    model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**sizes))
    within, beyond = (rllc.estimate(model, tokens(), "1:3", context=context, **SMALL) for context in (6, 9))
    assert (within.road, beyond.road) == ("native", "general")
    assert any("a context of 9 tokens is asked for, and the native road of this model has 6" in note for note in beyond.notes)
    assert any("the sliding window" in note for note in beyond.notes)
    with pytest.raises(rllc.RllcError, match="longer than the model's 6"):
        rllc.estimate(model, tokens(), "1:3", context=9, road="native", **SMALL)


@pytest.mark.parametrize("given", ["folder", "series"])
def test_a_series_of_folders_is_swept(tmp_path: Path, given: str) -> None:
    for step in (0, 100):
        gpt2(step).save_pretrained(tmp_path / f"checkpoint-{step}")
    asked = tmp_path if given == "folder" else Series.from_folder(tmp_path)
    results = rllc.sweep(asked, tokens(), "0:1", progress=False, **SMALL).run()
    assert [r.step for r in results.cells] == [0, 100]
    for r in results.cells:
        alone = rllc.estimate(gpt2(r.step), tokens(), "0:1", **SMALL)
        np.testing.assert_array_equal(r.traces.losses, alone.traces.losses)


def test_a_group_of_a_llama_and_a_head_s_shared_keys() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY, num_key_value_heads=2, pad_token_id=0))
    rs = rllc.estimate(model, tokens(), ["1:0", "1:g1"], **SMALL)
    assert {r.road for r in rs.cells} == {"native"}
    assert any("Keys and values are shared" in note for note in rs["1:0"].notes)
    with pytest.raises(rllc.RllcError, match=r"Name it by the group: 1:g0\.K"):
        rllc.estimate(model, tokens(), "1:0.K", **SMALL)


@pytest.mark.parametrize("road", ["native", "general"])
def test_a_loss_no_better_than_guessing_is_doubted_on_both_roads(road: str) -> None:
    model = gpt2()
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(23, 16))  # guesses evenly: ln 23
    model.config.tie_word_embeddings = False
    (told,) = [note for note in rllc.estimate(model, tokens(), "1:1", road=road, **SMALL).notes if "guessing" in note]
    assert told.startswith("The loss at the checkpoint is 3.14 nats per token, and guessing evenly costs 3.14: an untrained model, or a tokenizer")
    with torch.no_grad():
        for layer in model.transformer.h:
            for name in ("attn.c_proj", "mlp.c_proj"):
                layer.get_submodule(name).weight.zero_()
                layer.get_submodule(name).bias.zero_()
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.copy_(torch.eye(23, 16))
        model.lm_head.weight.copy_(20 * torch.eye(23, 16).roll(1, 0))  # 1 follows 0, 2 follows 1, …
    successors = (torch.arange(10) + torch.arange(4)[:, None]) % 15
    assert not [note for note in rllc.estimate(model, successors, "1:1", road=road, **SMALL).notes if "guessing" in note]


def test_a_model_that_contradicts_its_config_is_an_error_and_no_reason_for_the_general_road() -> None:
    model = gpt2()
    model.config.n_layer = 3
    with pytest.raises(rllc.RllcError, match=r"h\.2"):
        rllc.estimate(model, tokens(), "1:1", **SMALL)

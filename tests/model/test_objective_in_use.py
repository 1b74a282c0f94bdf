"""The batched objective of shapes that models in use have, by every road, against one plain loss a variant."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from rllc.model.head_objective import HeadObjective
from rllc.model.objective import GeneralObjective, build_objective

from .test_objective import BASE, assert_equals_looped_plain_losses, parse

USED = ["gpt2", "nanogpt", "neox", "llama", "qwen2", "qwen3", "folded", "folded-rms", "phi3", "gemma", "gemma2", "gemma3", "capped", "both-beside"]
WIDE = ["olmo2", "behind"]  # norms of queries and keys over a whole layer


@pytest.mark.parametrize("relative", USED)
@pytest.mark.parametrize("texts", [["0:2", "0:1"], ["1:0", "1:2"], ["0:0.Q", "0:1.Q"], ["1:1.O", "1:2.O"], ["full"], ["1.attn"]], ids="|".join)
def test_models_in_use(plain: SimpleNamespace, relative: str, texts: list[str]) -> None:
    assert_equals_looped_plain_losses(plain, replace(BASE, **plain.RELATIVES[relative]), texts, chains=2, chunk=3)


@pytest.mark.parametrize("relative", WIDE)
@pytest.mark.parametrize("text", ["0:2", "1:0", "0:0.Q", "1:1.Q+1:1.O", "0:2.Q+1:0.O", "full", "1.attn", "=blocks.0.attn.k_norm.w"])
def test_heads_that_scale_others_take_the_whole_layer(plain: SimpleNamespace, relative: str, text: str) -> None:
    shape = replace(BASE, **plain.RELATIVES[relative])
    assert isinstance(build_objective(shape, plain.params(shape), parse([text]), 0), GeneralObjective)
    assert_equals_looped_plain_losses(plain, shape, [text], chains=2, chunk=3)


@pytest.mark.parametrize(("relative", "piece"), [("olmo2", "O"), ("behind", "O"), ("behind", "V")])
def test_values_and_outputs_scale_no_other_head(plain: SimpleNamespace, relative: str, piece: str) -> None:
    shape = replace(BASE, **plain.RELATIVES[relative])
    for layer in (0, 1):
        texts = [f"{layer}:2.{piece}", f"{layer}:0.{piece}"]
        assert isinstance(build_objective(shape, plain.params(shape), parse(texts), 0), HeadObjective)
        assert_equals_looped_plain_losses(plain, shape, texts, chains=2, chunk=3)
    with pytest.raises(ValueError, match="cannot share one pass"):
        build_objective(shape, plain.params(shape), parse(["0:0", "0:1"]), 0)


@pytest.mark.parametrize("relative", ["gemma2", "gemma3", "olmo2"])
@pytest.mark.parametrize("tensor", ["blocks.0.ln1_post.w", "blocks.1.ln2_post.w", "embed.W_E", "ln_final.w"])
def test_norms_behind_and_scaled_embeddings(plain: SimpleNamespace, relative: str, tensor: str) -> None:
    assert_equals_looped_plain_losses(plain, replace(BASE, **plain.RELATIVES[relative]), ["=" + tensor], chains=2, chunk=0)


@pytest.mark.parametrize("relative", ["qwen2", "olmo2", "gemma2"])
@pytest.mark.parametrize("text", ["0:g1", "1:g0", "1:g1.K", "1:g0.V", "0:g0.Q", "0:1+1:g1"])
def test_groups_of_heads_with_shared_keys_and_values(plain: SimpleNamespace, relative: str, text: str) -> None:
    assert_equals_looped_plain_losses(plain, replace(BASE, **plain.RELATIVES[relative]), [text], chains=2, chunk=0)

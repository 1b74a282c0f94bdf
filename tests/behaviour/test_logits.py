from __future__ import annotations

import numpy as np
import pytest
import torch

import rllc.behaviour.inputs as inputs
import rllc.model.cross_entropy as cross_entropy
from rllc.behaviour.logits import logit_attribution, ov_table, qk_table
from rllc.core.errors import RllcError
from rllc.core.names import Head
from rllc.model import forward as fw

from . import planted_models as planted
from .shapes import ALONE, SHAPES, hooked_losses, some_tokens, weights

TOKENS = some_tokens(3, 0, 8)


@pytest.mark.parametrize("name", ALONE)
def test_attributions_and_the_rest_of_the_stream_add_up_to_the_logits(name):
    """And each head's is what its output gives through the last norm, held at the size it has, made of whole logits."""
    shape = SHAPES[name]
    params = weights(shape)
    seen = {}
    hooked_losses(shape, params, TOKENS, lambda name, layer, value: seen.setdefault((name, layer), value))
    final = seen["final", 3]
    layer_norm = shape.norm.startswith("layernorm")
    size = (final.var(-1, correction=0) if layer_norm else (final**2).mean(-1)).add(shape.norm_eps).sqrt()[..., None]

    def said(part):
        y = (part - part.mean(-1, keepdim=True) if layer_norm else part) / size * params.get("ln_final.w", torch.ones(12))
        scores = y @ fw.unembedding(shape, params)
        scores = scores - scores.mean(-1, keepdim=True)
        return torch.gather(scores[:, :-1], 2, torch.from_numpy(TOKENS)[:, 1:, None])[..., 0].numpy()

    found = logit_attribution(shape, params, TOKENS)
    outs = torch.cat([seen["out", layer] for layer in range(3)], 1)
    np.testing.assert_allclose(found, [said(outs[:, h]) for h in range(12)], atol=1e-10)
    bias = params.get("ln_final.b", torch.zeros(12, dtype=torch.float64)) @ fw.unembedding(shape, params) + fw.unembedding_bias(shape, params)
    scores = fw.logits(shape, params, torch.from_numpy(TOKENS))
    scores = scores - bias - (scores - bias).mean(-1, keepdim=True)
    whole = torch.gather(scores[:, :-1], 2, torch.from_numpy(TOKENS)[:, 1:, None])[..., 0].numpy()
    np.testing.assert_allclose(found.sum(0) + said(final - outs.sum(1)), whole, atol=1e-10)


def test_pieces_give_the_attributions_of_the_whole(monkeypatch):
    params = weights(SHAPES["gpt2"])
    whole = logit_attribution(SHAPES["gpt2"], params, TOKENS)
    monkeypatch.setattr(inputs, "_NUMBERS", 1)
    np.testing.assert_allclose(logit_attribution(SHAPES["gpt2"], params, TOKENS), whole, atol=1e-12)


@pytest.mark.parametrize("mlp0", [True, False])
@pytest.mark.parametrize("name", ALONE)
def test_tables_are_the_largest_entries_of_the_whole_matrices(monkeypatch, name, mlp0):
    shape = SHAPES[name]
    params, head = weights(shape), Head(1, 2)
    group = 2 // (4 // shape.groups)
    x = params["embed.W_E"][None, None]
    if mlp0 and shape.d_mlp:
        x = x + fw.mlp(shape, params, 0, x)
    x = fw.norm(shape, params, "blocks.1.ln1", x)[0, 0]
    qkvo = {piece: params[f"blocks.1.attn.W_{piece}"][group if piece in "KV" else 2] for piece in "QKVO"}
    bias = {piece: params[f"blocks.1.attn.b_{piece}"][group if piece == "K" else 2] if shape.qkv_bias else 0.0 for piece in "QK"}
    written = x @ qkvo["V"] @ qkvo["O"]
    if shape.norm.startswith("layernorm"):
        written = written - written.mean(-1, keepdim=True)
    ov = (written * params.get("ln_final.w", torch.ones(12))) @ fw.unembedding(shape, params)
    q, k = (x @ qkvo[piece] + bias[piece] for piece in "QK")
    if shape.qk_norm:
        q, k = (torch.nn.functional.rms_norm(y, (4,), params[f"blocks.1.attn.{z}_norm.w"], shape.norm_eps) for y, z in ((q, "q"), (k, "k")))
    monkeypatch.setattr(cross_entropy, "_BLOCK_NUMBERS", 17 * 5)  # blocks of 5 rows
    for table, dense in ((ov_table, ov), (qk_table, q @ k.T / 2)):
        relative = (dense - dense.mean(1, keepdim=True)).numpy()
        found = table(shape, params, head, 4, mlp0=mlp0)
        assert np.array_equal(found.rows, np.arange(17))
        np.testing.assert_allclose(found.values, -np.sort(-relative, 1)[:, :4], atol=1e-10)
        np.testing.assert_allclose(np.take_along_axis(relative, found.tokens, 1), found.values, atol=1e-10)
        some = table(shape, params, head, 4, np.array([3, 11]), mlp0=mlp0)
        assert np.array_equal(some.tokens, found.tokens[[3, 11]])
        row, column, value = found.strongest(1)[0]
        assert value == pytest.approx(relative.max())
        assert relative[row, column] == pytest.approx(relative.max())


def test_the_skip_trigrams_are_the_tables_entries():
    model = planted.skip_trigram_model()
    ov, qk = (table(model.shape, model.params, model.heads["skip_trigram"], 3) for table in (ov_table, qk_table))
    says = {(a, c) for a, _, c in planted.SKIP_TRIGRAMS}
    asks = {(b, a) for a, b, _ in planted.SKIP_TRIGRAMS}
    assert {entry[:2] for entry in ov.strongest(len(says))} == says
    assert ov.strongest(len(says) + 1)[-1][2] < 0.1 * ov.strongest(len(says))[-1][2]
    rest = {(token, 0) for token in range(planted.V)}  # every query, if it finds nothing, rests on BOS, at half the score
    assert {entry[:2] for entry in qk.strongest(len(asks))} == asks
    assert {entry[:2] for entry in qk.strongest(len(asks) + planted.V)} == asks | rest
    idle = ov_table(model.shape, model.params, Head(0, 1))
    assert np.all(idle.values == 0)


def test_the_bracket_head_says_each_brackets_partner():
    model = planted.bracket_model()
    table = ov_table(model.shape, model.params, model.heads["bracket"], 2)
    assert {entry[:2] for entry in table.strongest(3)} == set(planted.OPEN.items())
    assert table.strongest(4)[-1][2] < 0.1 * table.strongest(3)[-1][2]


def test_the_induction_head_copies_and_says_what_comes_next():
    model = planted.induction_model()
    table = ov_table(model.shape, model.params, model.heads["induction"], 2)
    assert {entry[:2] for entry in table.strongest(planted.V - 1)} == {(token, token) for token in range(1, planted.V)}
    tokens = planted.repeats(6, np.random.default_rng(0))
    found = logit_attribution(model.shape, model.params, tokens)
    # The gain, less its share in the mean logit; the previous-token head says nothing itself.
    assert found[6, :, 8:] == pytest.approx(np.full((6, 20), planted.GAIN * (1 - 1 / planted.V)), rel=1e-2)
    assert np.abs(found[6, :, :8]).max() < 1e-2
    assert np.abs(np.delete(found, 6, 0)).max() < 1e-5


@pytest.mark.parametrize("table", [ov_table, qk_table])
def test_what_does_not_exist_is_told(table):
    params = weights(SHAPES["bare"])
    with pytest.raises(RllcError, match="The model has no head 3:0"):
        table(SHAPES["bare"], params, Head(3, 0))
    with pytest.raises(RllcError, match="A table of 18 entries for each of 17 tokens does not fit a vocabulary of 17"):
        table(SHAPES["bare"], params, Head(0, 0), 18)
    with pytest.raises(RllcError, match="does not fit a vocabulary of 17"):
        table(SHAPES["bare"], params, Head(0, 0), 3, np.array([17]))

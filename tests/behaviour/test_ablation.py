from __future__ import annotations

import numpy as np
import pytest
import torch

import rllc.behaviour.inputs as inputs
from rllc.behaviour.ablation import ablation_effects
from rllc.core.errors import RllcError

from . import planted_models as planted
from .shapes import SHAPES, hooked_losses, some_tokens, untouched, weights

TOKENS, REFERENCE = some_tokens(5, 0, 8), some_tokens(4, 1)


def written(shape, params, tokens):
    """What each head writes, L of [B, H, T, D], of a plain pass."""
    seen = []
    hooked_losses(shape, params, tokens, lambda name, _, value: seen.append(value) or value if name == "out" else value)
    return seen


def by_loops(shape, params, tokens, instead):
    """The definition: one whole forward pass a head, its output replaced by instead[layer][:, index]."""
    base = hooked_losses(shape, params, tokens, untouched)
    effects = []
    for head in shape.heads():

        def hook(name, layer, value, head=head):
            if name == "out" and layer == head.layer:
                value = value.clone()
                value[:, head.index] = instead[layer][:, head.index]
            return value

        effects.append(hooked_losses(shape, params, tokens, hook) - base)
    return np.array(effects)


@pytest.mark.parametrize("name", SHAPES)
def test_effects_are_those_of_whole_passes_with_the_head_replaced(name):
    shape = SHAPES[name]
    params = weights(shape)
    clean = written(shape, params, TOKENS)
    zero = [torch.zeros_like(out) for out in clean]
    mean = [out[:, :, :8].mean(0, keepdim=True) for out in written(shape, params, REFERENCE[:, :8])]
    for kind, instead in (("zero", zero), ("mean", mean)):
        effects = ablation_effects(shape, params, TOKENS, kind, REFERENCE)
        assert effects.shape == (12, 5, 7)
        assert np.abs(effects).max() > 0.1
        np.testing.assert_allclose(effects, by_loops(shape, params, TOKENS, instead), atol=1e-10)


@pytest.mark.parametrize("name", ["shortformer", "qwen3"])
def test_a_resampled_head_writes_what_it_writes_elsewhere(name):
    """Without knowing the donors: each context's effects are those of exactly one other context, the same for all heads."""
    shape = SHAPES[name]
    params = weights(shape)
    effects = ablation_effects(shape, params, TOKENS, "resample", seed=1)
    clean = written(shape, params, TOKENS)
    donors = []
    for row in range(5):
        fits = [
            donor
            for donor in range(5)
            if np.allclose(effects[:, row], by_loops(shape, params, TOKENS[row : row + 1], [o[donor : donor + 1] for o in clean])[:, 0], atol=1e-10)
        ]
        assert len(fits) == 1
        donors += fits
    assert sorted(donors) == list(range(5))
    assert all(donor != row for row, donor in enumerate(donors))
    assert np.array_equal(effects, ablation_effects(shape, params, TOKENS, "resample", seed=1))
    assert not np.allclose(effects, ablation_effects(shape, params, TOKENS, "resample", seed=2))


def test_resampling_from_one_context_replaces_by_it():
    shape = SHAPES["gpt2"]
    params = weights(shape)
    effects = ablation_effects(shape, params, TOKENS, "resample", REFERENCE[2:3])
    np.testing.assert_allclose(effects, by_loops(shape, params, TOKENS, written(shape, params, REFERENCE[2:3, :8])), atol=1e-10)


def test_pieces_give_the_effects_of_the_whole(monkeypatch):
    shape = SHAPES["llama"]
    params = weights(shape)
    whole = [ablation_effects(shape, params, TOKENS, kind) for kind in ("zero", "mean", "resample")]
    monkeypatch.setattr(inputs, "_NUMBERS", 1)
    pieces = [ablation_effects(shape, params, TOKENS, kind) for kind in ("zero", "mean", "resample")]
    np.testing.assert_allclose(pieces, whole, atol=1e-12)


@pytest.mark.parametrize("kind", ["zero", "resample"])
def test_the_induction_circuits_heads_carry_the_repeats_and_no_other_head_does_anything(kind):
    model = planted.induction_model()
    tokens = planted.repeats(8, np.random.default_rng(0))
    effects = ablation_effects(model.shape, model.params, tokens, kind)
    for role, index in model.indices.items():
        assert effects[index, :, 8:].mean() > 2, role  # the queries whose token stood there before: predictions of tokens 9 …
        if kind == "zero":
            assert np.abs(effects[index, :, :8]).max() < 1e-3, role
    assert np.abs(np.delete(effects, list(model.indices.values()), 0)).max() < 1e-4


def test_the_skip_trigram_heads_effect_lies_on_its_tokens_alone():
    model = planted.skip_trigram_model()
    tokens, where = planted.skip_trigram_text(16, np.random.default_rng(0))
    effects = ablation_effects(model.shape, model.params, tokens)
    assert effects[2, where].min() > 2
    assert np.abs(effects[2, ~where]).max() < 1e-3
    assert np.abs(np.delete(effects, 2, 0)).max() < 1e-4


def test_the_bracket_head_helps_where_a_bracket_closes():
    model = planted.bracket_model()
    tokens, match = planted.bracket_text(24, np.random.default_rng(0))
    effects = ablation_effects(model.shape, model.params, tokens)
    closes = np.isin(tokens[:, 1:], list(planted.CLOSE))
    depth, bracket = (effects[model.indices[role]] for role in ("depth", "bracket"))
    assert bracket[closes].min() > 2
    assert bracket[~closes].max() < 1e-3
    # Without depths every place is at depth 0: right where the latest bracket is the innermost one that is open, wrong behind a closed pair.
    latest = np.maximum.accumulate(np.where((tokens > 0) & (tokens < 4), np.arange(planted.T), 0), 1)[:, :-1]
    behind = closes & (latest != match[:, :-1])
    assert depth[behind & (np.take_along_axis(tokens, latest, 1) != np.take_along_axis(tokens, match[:, :-1], 1))].min() > 2
    assert np.abs(depth[closes & (latest == match[:, :-1])]).max() < 0.01  # the count itself is right to some thousandths
    assert np.abs(np.delete(effects, list(model.indices.values()), 0)).max() < 1e-4


def test_what_does_not_fit_is_told():
    shape = SHAPES["bare"]
    params = weights(shape)
    with pytest.raises(RllcError, match="The kind of ablation is 'median', which is unknown"):
        ablation_effects(shape, params, TOKENS, "median")
    with pytest.raises(RllcError, match=r"The reference of a mean ablation has the shape \(5, 7\)"):
        ablation_effects(shape, params, TOKENS, "mean", TOKENS[:, :7])
    with pytest.raises(RllcError, match=r"The reference of a resample ablation has the shape \(1, 8\)"):
        ablation_effects(shape, params, TOKENS[:1], "resample")
    with pytest.raises(RllcError, match="The contexts of the reference hold tokens from"):
        ablation_effects(shape, params, TOKENS, "resample", TOKENS + 17)
    with pytest.raises(RllcError, match="The contexts to ablate on have the shape"):
        ablation_effects(shape, params, TOKENS[:0])

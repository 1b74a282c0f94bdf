"""The planted models do what they say, by looking at their attention and losses alone."""

from __future__ import annotations

import numpy as np
import torch

from rllc.behaviour.attention import attention_patterns, prefix_matching, text_scores
from rllc.model.forward import logits, token_losses

from . import planted_models as planted

RNG = np.random.default_rng


def test_the_induction_circuit_is_found_by_its_scores_and_predicts_repeats():
    model = planted.induction_model()
    shape, params, at = model.shape, model.params, model.indices
    previous, current = text_scores(shape, params, planted.random_text(8, RNG(0)))
    repeated = planted.repeats(8, RNG(0))
    prefix = prefix_matching(shape, params, repeated, 7)
    assert at == {"previous": 1, "induction": 6}
    assert previous[1] > 0.999
    assert np.delete(previous, 1).max() < 0.2
    assert current.max() < 0.2
    assert prefix[6] > 0.999
    assert np.delete(prefix, 6).max() < 0.2
    losses = token_losses(shape, params, torch.from_numpy(repeated))
    assert losses[:, 8:].max() < 0.5 < 2.5 < losses[:, :6].min()


def test_the_bracket_head_looks_at_the_innermost_open_bracket():
    model = planted.bracket_model()
    tokens, match = planted.bracket_text(24, RNG(0))
    pattern = attention_patterns(model.shape, model.params, torch.from_numpy(tokens))
    found = torch.gather(pattern[model.indices["bracket"]], 2, torch.from_numpy(match)[..., None])
    assert match.max() > 20
    assert found.min() > 0.99
    closer = np.vectorize(lambda token: planted.OPEN.get(token, -1))(np.take_along_axis(tokens, match, 1))
    guess = logits(model.shape, model.params, torch.from_numpy(tokens)).argmax(-1).numpy()
    assert np.array_equal(guess[match > 0], closer[match > 0])


def test_the_skip_trigrams_are_predicted_and_nothing_else():
    model = planted.skip_trigram_model()
    tokens, where = planted.skip_trigram_text(16, RNG(0))
    losses = token_losses(model.shape, model.params, torch.from_numpy(tokens)).numpy()
    assert losses[where].max() < 0.5
    assert np.allclose(losses[~where], np.log(planted.V), atol=1e-3)

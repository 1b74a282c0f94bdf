from __future__ import annotations

import numpy as np
import pytest
import torch

import rllc.behaviour.inputs as inputs
from rllc.behaviour.loss_scores import context_losses, icl_windows, loss_scores
from rllc.core.errors import RllcError
from rllc.model import forward as fw
from rllc.model.shape import ModelShape

SHAPE = ModelShape(n_layers=1, d_model=8, n_heads=2, d_head=4, d_vocab=24, n_ctx=29)


def test_a_model_that_knows_frequencies_alone_has_their_cross_entropy(text):
    """Logits equal to the bias: the loss of every token is minus its log-probability, and context does not help."""
    params = {name: torch.zeros_like(p) for name, p in fw.init_params(SHAPE, 0).items()}
    bias = torch.randn(24, generator=torch.Generator().manual_seed(0))
    scores = loss_scores(SHAPE, params | {"unembed.b_U": bias}, text)
    exact = -bias.double().log_softmax(0).numpy()[text[:, 1:]]
    assert scores.loss == pytest.approx(exact.mean(), rel=1e-6)
    assert scores.by_position == pytest.approx(exact.mean(0), rel=1e-6)
    assert scores.stderr == pytest.approx(np.std(exact.mean(1), ddof=1) / 5**0.5, rel=1e-5)
    uniform = loss_scores(SHAPE, params, text)
    assert uniform.loss == pytest.approx(np.log(24), rel=1e-6)
    assert (uniform.icl, uniform.icl_stderr) == pytest.approx((0, 0), abs=1e-7)


def test_the_score_is_late_minus_early(text):
    """T = 29: early tokens are 1 ± 1 (of which token 0, BOS, is never predicted), late ones 14 ± 1."""
    params = {name: 4 * p for name, p in fw.init_params(SHAPE, 0).items()}
    losses = fw.token_losses(SHAPE, params, torch.from_numpy(text)).double().numpy()  # column p - 1 predicts token p
    by_context = (losses[:, 12] + losses[:, 13] + losses[:, 14]) / 3 - (losses[:, 0] + losses[:, 1]) / 2
    scores = loss_scores(SHAPE, params, text)
    assert scores.icl == pytest.approx(by_context.mean(), rel=1e-6)
    assert scores.icl_stderr == pytest.approx(by_context.std(ddof=1) / 5**0.5, rel=1e-6)
    assert abs(scores.icl) > 1e-2


def test_induction_shows_as_in_context_learning(circuit, repeated, text):
    """A random segment of tokens 1 to 7 cannot be known, its repeats from token 9 on can; random text never.

    A one-hot code read through the norm grows by √D over the residual stream's length, so the loss of a right guess follows by hand.
    """
    shape, params = circuit
    own = 2 if shape.positions == "learned" else 1  # squared length of token and place
    before = (shape.d_model / own) ** 0.5
    guess = (shape.d_model / (own + before**2)) ** 0.5
    logit = 3 * guess * (shape.d_model / (own + before**2 + guess**2)) ** 0.5
    known = np.log1p(23 * np.exp(-logit))
    scores = loss_scores(shape, params, repeated)
    assert scores.by_position[8:] == pytest.approx(np.full(20, known), rel=1e-3)
    assert scores.by_position[:8].min() > known + 1
    assert scores.icl < -1
    assert loss_scores(shape, params, text).icl > -1


def test_windows_of_the_paper_and_of_small_contexts():
    early, late = icl_windows(1024)
    assert (early.start + 1, early.stop) == (42, 58)
    assert (late.start + 1, late.stop) == (492, 508)
    for context in range(8, 400):
        early, late = icl_windows(context)
        assert 0 <= early.start < early.stop <= late.start < late.stop <= context - 1


def test_pieces_give_the_losses_of_the_whole(monkeypatch, text):
    params = fw.init_params(SHAPE, 0)
    whole = context_losses(SHAPE, params, text)
    monkeypatch.setattr(inputs, "_NUMBERS", 2 * 29 * 24)
    assert whole.shape == (5, 28)
    assert whole.dtype == np.float64
    assert context_losses(SHAPE, params, text) == pytest.approx(whole, rel=1e-6)


def test_too_little_is_told(text):
    params = fw.init_params(SHAPE, 0)
    with pytest.raises(RllcError, match="One context has no standard error"):
        loss_scores(SHAPE, params, text[:1])
    with pytest.raises(RllcError, match="needs contexts of at least 8 tokens, and these hold 7"):
        loss_scores(SHAPE, params, text[:, :7])
    with pytest.raises(RllcError, match="The held-out contexts hold tokens"):
        loss_scores(SHAPE, params, text + 5)

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.behaviour.composition import composition
from rllc.core.errors import RllcError
from rllc.model.forward import init_params
from rllc.model.shape import ModelShape

from . import planted_models as planted
from .shapes import SHAPES, weights


def brute_force(shape, params, kind, folded):
    """METHOD 6 with D × D matrices, pair by pair."""
    n, share = shape.n_heads, shape.n_heads // shape.groups
    scores = np.full((n * shape.n_layers,) * 2, np.nan)

    def read(piece, head):
        weight = params[f"blocks.{head.layer}.attn.W_{piece}"][head.index if piece == "Q" else head.index // share].double()
        if not folded:
            return weight
        centre = torch.eye(shape.d_model, dtype=torch.float64)
        if shape.norm.startswith("layernorm"):
            centre = centre - 1 / shape.d_model
        return centre @ torch.diag(params.get(f"blocks.{head.layer}.ln1.w", torch.ones(shape.d_model)).double()) @ weight

    def ov(head):
        written = params[f"blocks.{head.layer}.attn.W_O"][head.index].double()
        if folded and shape.norms_behind:  # RMSNorms in these shapes
            written = written @ torch.diag(params[f"blocks.{head.layer}.ln1_post.w"])
        return read("V", head) @ written

    for i, first in enumerate(shape.heads()):
        for j, second in enumerate(shape.heads()):
            if first.layer < second.layer:
                qk = read("Q", second) @ read("K", second).T
                other = {"q": qk, "k": qk.T, "v": ov(second)}[kind]
                scores[i, j] = (ov(first) @ other).norm() / (ov(first).norm() * other.norm())
    return scores


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_scores_are_those_of_whole_matrices(name, folded):
    shape = SHAPES[name]
    params = weights(shape)
    found = composition(shape, params, folded=folded, draws=2)
    for kind in "qkv":
        expected = brute_force(shape, params, kind, folded)
        np.testing.assert_allclose(getattr(found, kind), expected, rtol=1e-9)
        assert np.nanstd(expected) > 0.01


def test_a_head_wider_than_the_model_is_welcome():
    shape = ModelShape(n_layers=2, d_model=6, n_heads=2, d_head=8, d_vocab=5, n_ctx=4)
    params = weights(shape)
    np.testing.assert_allclose(composition(shape, params, draws=2).q, brute_force(shape, params, "q", True), rtol=1e-9)


def test_random_heads_score_the_baseline_within_its_error():
    """An untrained model's pairs are draws of the baseline: the mean over pairs meets it, and the spread is the deviation told."""
    shape = ModelShape(n_layers=2, d_model=64, n_heads=8, d_head=8, d_vocab=5, n_ctx=4)
    found = composition(shape, init_params(shape, 0), folded=False, draws=400)
    pairs = np.array([getattr(found, kind)[:8, 8:] for kind in "qkv"])
    error = found.baseline_deviation / 24**0.5  # pairs share heads: about as many independent ones as there are heads
    assert abs(pairs.mean() - found.baseline) < 3 * (error + found.baseline_stderr)
    assert pairs.std() == pytest.approx(found.baseline_deviation, rel=0.25)
    assert found.baseline_stderr == pytest.approx(found.baseline_deviation / 20)
    assert found.excess("k")[0, 8] == found.k[0, 8] - found.baseline
    again = composition(shape, init_params(shape, 0), folded=False, draws=400)
    assert again.baseline == found.baseline != composition(shape, init_params(shape, 0), draws=400, seed=1).baseline


def test_the_planted_pair_stands_out_by_its_keys_alone():
    model = planted.induction_model()
    found = composition(model.shape, model.params)
    before, after = model.indices["previous"], model.indices["induction"]
    assert found.excess("k")[before, after] > 20 * found.baseline_deviation
    assert found.q[before, after] == found.v[before, after] == 0
    others = found.k.copy()
    others[before, after] = np.nan
    assert np.nanmax(others) == 0  # the other heads are zero, and compose with nothing


def test_the_planted_pair_stands_out_among_random_heads():
    model = planted.induction_model()
    noise = init_params(model.shape, 5)
    params = dict(model.params)
    for name, p in params.items():
        if ".attn.W_" in name:
            keep = 1 if "blocks.0" in name else 2
            params[name] = torch.where((torch.arange(4) == keep)[:, None, None], p, noise[name])
    found = composition(model.shape, params)
    before, after = model.indices["previous"], model.indices["induction"]
    excess = found.excess("k")
    assert np.unravel_index(np.nanargmax(excess), excess.shape) == (before, after)
    others = np.delete(np.delete(found.k[:4, 4:], before, 0), after - 4, 1)
    assert np.abs(others - found.baseline).max() < 5 * found.baseline_deviation


def test_what_cannot_compose_is_told():
    with pytest.raises(RllcError, match="Heads compose across layers, and this model has one"):
        composition(planted.skip_trigram_model().shape, {})
    with pytest.raises(RllcError, match="takes 1 draws, which give no error"):
        composition(SHAPES["bare"], weights(SHAPES["bare"]), draws=1)

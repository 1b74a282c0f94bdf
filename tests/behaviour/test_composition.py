from __future__ import annotations

import numpy as np
import pytest
import torch

from rllc.analysis.measured import Composition
from rllc.behaviour.composition import _turned, composition
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
    found = composition(shape, params, folded=folded)
    for kind in "qkv":
        expected = brute_force(shape, params, kind, folded)
        np.testing.assert_allclose(getattr(found, kind), expected, rtol=1e-9)
        assert np.nanstd(expected) > 0.01


def test_a_head_wider_than_the_model_is_welcome():
    shape = ModelShape(n_layers=2, d_model=6, n_heads=2, d_head=8, d_vocab=5, n_ctx=4)
    params = weights(shape)
    np.testing.assert_allclose(composition(shape, params).q, brute_force(shape, params, "q", True), rtol=1e-9)


def turned_scores(p, r, width, draws, seed):
    """Scores of two heads with these shares of squared singular values, turned against each other at random: METHOD 6 by whole matrices."""
    rng = np.random.default_rng(seed)
    spectra = [np.sqrt(np.pad(shares, (0, width - len(shares)))) for shares in (p, r)]
    turns = np.linalg.qr(rng.standard_normal((draws, width, width)))[0] * np.sign(rng.standard_normal((draws, 1, width)))
    return np.sqrt(((spectra[0][:, None] * turns * spectra[1]) ** 2).sum(axis=(1, 2)))


@pytest.mark.parametrize("spectrum", ["flat", "geometric", "one direction"])
def test_the_null_is_that_of_the_pair_s_own_matrices_turned_at_random(spectrum):
    """Whatever the spectrum, a pair passes the stated level about as often as stated: concentrated ones spread far more than Gaussian matrices."""
    p = {"flat": np.ones(8), "geometric": 0.5 ** np.arange(8), "one direction": np.eye(8)[0]}[spectrum]
    p = p / p.sum()
    deviation, freedom = _turned(p[None], p[None], 32)
    null = Composition((("0:0", "1:0"),), np.array([0]), {}, 32**-0.5, {"q": deviation}, {"q": freedom})
    drawn = turned_scores(p, p, 32, 5_000, 0)
    assert (drawn**2).mean() == pytest.approx(1 / 32, rel=0.04)
    assert (drawn**2).std() == pytest.approx(float(deviation[0, 0]), rel=0.1)
    for level, least in ((0.05, 0.8), (0.01, 0.5)):
        beyond = float((drawn - null.baseline > null.reach("q", level)[0, 0]).mean())
        assert least * level - 3 * np.sqrt(level / 5_000) <= beyond <= level + 3 * np.sqrt(level / 5_000)


def test_heads_of_few_directions_in_random_orientation_pass_the_level_as_often_as_it_says():
    """Of all pairs of a model whose heads write and read few directions: by the spread of Gaussian matrices a third of them would pass."""
    shape = ModelShape(n_layers=2, d_model=64, n_heads=8, d_head=8, d_vocab=5, n_ctx=4)
    beyond, pairs, gaussian = 0, 0, 0
    for seed in range(12):
        params = dict(init_params(shape, seed))
        for name, p in params.items():
            if ".attn.W_" in name:
                u, _, v = torch.linalg.svd(p.double(), full_matrices=False)
                params[name] = (u * 0.4 ** torch.arange(8)) @ v
        found = composition(shape, params, folded=False)
        null = measured(shape, found)
        plain = measured(shape, composition(shape, init_params(shape, seed), folded=False))
        for kind in "qkv":
            beyond += int((null.excess(kind) > null.reach(kind, 0.05)).sum())
            gaussian += int((null.excess(kind) > plain.reach(kind, 0.05)).sum())
            pairs += null.scores[kind].size
    assert 0.03 < beyond / pairs < 0.07
    assert gaussian / pairs > 0.15


def measured(shape, found):
    """The scores of all pairs as the analysis reads them."""
    before, after = np.array([(i, j) for i in range(shape.n_heads) for j in range(shape.n_heads, 2 * shape.n_heads)]).T
    heads = [str(head) for head in shape.heads()]
    scores, deviation, freedom = ({kind: of[kind][before, after][:, None] for kind in "qkv"} for of in (vars(found), found.deviation, found.freedom))
    pairs = tuple((heads[i], heads[j]) for i, j in zip(before, after, strict=True))
    return Composition(pairs, np.array([0]), scores, found.baseline, deviation, freedom)


def test_a_head_as_wide_as_the_model_of_flat_spectrum_composes_with_all_alike():
    deviation, freedom = _turned(np.full((1, 8), 1 / 8), np.full((1, 8), 1 / 8), 8)
    assert deviation[0, 0] < 1e-8
    assert freedom[0, 0] == pytest.approx(64)


def test_the_planted_pair_stands_out_by_its_keys_alone():
    model = planted.induction_model()
    found = composition(model.shape, model.params)
    before, after = model.indices["previous"], model.indices["induction"]
    null = measured(model.shape, found)
    place = null.pairs.index((str(model.shape.heads()[before]), str(model.shape.heads()[after])))
    assert null.excess("k")[place, 0] > null.reach("k", 1e-4)[place, 0]
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
    null = measured(model.shape, found)
    beyond = null.excess("k") > null.reach("k", 0.05 / 16)
    assert [null.pairs[place] for place in np.flatnonzero(beyond)] == [(str(model.shape.heads()[before]), str(model.shape.heads()[after]))]
    assert others.max() < found.k[before, after]


def test_what_cannot_compose_is_told():
    with pytest.raises(RllcError, match="Heads compose across layers, and this model has one"):
        composition(planted.skip_trigram_model().shape, {})

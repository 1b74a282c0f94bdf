"""Controls through the one call: random parts, shuffled tokens, and which tokens carry λ̂."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rllc

from .toys import SHAPE, SMALL, Bowl, Foreign, Ours, height, stand_ins, tokens


def test_random_is_one_part_a_layer() -> None:
    rs = rllc.estimate(Ours(), tokens(), "random", **SMALL)
    assert list(rs) == ["0.random0", "1.random0"]
    one = rllc.estimate(Ours(), tokens(), "1.random0", **SMALL)
    head = rllc.estimate(Ours(), tokens(), "1:0", **SMALL)
    assert one.traces.dimension == head.traces.dimension
    np.testing.assert_array_equal(one.traces.losses, rs["1.random0"].traces.losses)
    assert any(note.startswith("A control") for note in one.notes)
    assert not any(note.startswith("A control") for note in head.notes)


def test_random_parts_are_not_looked_for_in_somebody_else_s_module(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch, importable=False)
    for part in ("random", ["1:0", "1.random0"]):
        with pytest.raises(rllc.RllcError, match="Random parts are drawn on the native road alone"):
            rllc.estimate(Foreign(), tokens(), part, **SMALL)


def test_shuffled_tokens_are_the_same_tokens_in_an_order_of_the_seed() -> None:
    """A model that repeats what stood before knows nothing of shuffled text but how often tokens occur."""
    seen: list[np.ndarray] = []
    rows = torch.arange(60).view(12, 5) % 11
    rows = torch.cat([torch.full((12, 1), 7), rows], 1)

    def looked(ids: np.ndarray) -> np.ndarray:
        seen.append(ids)
        return ids >= 0

    for seed in (0, 0, 1):
        rllc.estimate(Ours(), rllc.Refined(rows, positions=looked, shuffled=True), "1:0", **SMALL, seed=seed)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).any()
    for ids in seen:
        np.testing.assert_array_equal(ids[:, 0], 7)
        np.testing.assert_array_equal(np.sort(ids, 1), np.sort(rows.numpy(), 1))
        assert (ids[:, 1:] != rows.numpy()[:, 1:]).mean() > 0.5
    mixed = rllc.Refined(rllc.Mixed({"a": rows, "b": rows}), positions=looked, shuffled=True)
    rllc.estimate(Ours(), mixed, "1:0", **SMALL)
    np.testing.assert_array_equal(seen[-1], seen[0])


def test_shares_add_up_to_the_llc_of_a_fixed_set_of_as_many_contexts() -> None:
    given = SMALL | {"fixed_contexts": 5, "dtype": "float64"}
    plain = rllc.estimate(Ours(), tokens(), ["0:1", "1:0", "1.random0"], **given)
    rs = rllc.estimate(Ours(), tokens(), ["0:1", "1:0", "1.random0"], **given, share_contexts=5)
    for name, r in rs.items():
        np.testing.assert_array_equal(r.traces.losses, plain[name].traces.losses)
        assert plain[name].token_shares is None
        shares = r.token_shares
        assert shares is not None
        assert (shares.heads, shares.step, shares.data, len(shares.tokens), len(shares.texts)) == ((name,), 0, "data", 30, 5)
        assert abs(np.nansum(shares.share) - plain[name].llc) < 1e-9
        assert abs(shares.total_stderr[0] - plain[name].stderr) < 1e-9
        assert np.isnan(shares.share[0].reshape(5, 6)).tolist() == [[True] + [False] * 5] * 5
        assert shares.tokens[:6] == shares.of("data, context 1").tokens
        assert all(token.isdigit() and int(token) < SHAPE.d_vocab for token in shares.tokens)


def test_refined_tokens_alone_have_shares() -> None:
    data = rllc.Refined(tokens(), positions=lambda ids: ids == 3)
    r = rllc.estimate(Ours(), data, "1:0", **SMALL, share_contexts=6)
    assert r.token_shares is not None
    counted = np.isfinite(r.token_shares.share[0])
    expected = [token == "3" and t % 6 > 0 for t, token in enumerate(r.token_shares.tokens)]
    assert counted.tolist() == expected
    assert any(expected)


def test_a_loss_of_one_s_own_has_no_tokens() -> None:
    with pytest.raises(rllc.RllcError, match="tokens no shares"):
        rllc.estimate(Bowl(np.ones(3)), tokens().double(), "w", loss=height, **SMALL, share_contexts=2)

"""Shuffled tokens: each context keeps its tokens and its BOS, and loses their order."""

from __future__ import annotations

import numpy as np

from rllc.corpus.shuffled import shuffled


def test_contexts_keep_their_tokens_and_lose_their_order() -> None:
    tokens = np.random.default_rng(0).integers(1, 50, (6, 40))
    tokens[:, 0] = 0
    before = tokens.copy()
    found = shuffled(tokens, 3)
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(np.sort(found, 1), np.sort(tokens, 1))
    assert (found[:, 0] == 0).all()
    assert (found[:, 1:] == tokens[:, 1:]).mean() < 0.2


def test_a_permutation_follows_from_seed_and_number_alone() -> None:
    places = np.tile(np.arange(30), (6, 1))
    found = shuffled(places, 3)
    np.testing.assert_array_equal(shuffled(places[4:], 3, first=4), found[4:])
    assert len({tuple(row) for row in found}) == 6
    assert (shuffled(places, 4) != found).any()


def test_padding_stays_where_it_is_and_the_first_real_token_too() -> None:
    places = np.tile(np.arange(30), (2, 1))
    real = np.ones((2, 30), dtype=bool)
    real[0, :7] = real[1, 20:] = False
    found = shuffled(places, 3, real=real)
    np.testing.assert_array_equal(found[0, :8], np.arange(8))
    np.testing.assert_array_equal(found[1, [0, *range(20, 30)]], [0, *range(20, 30)])
    np.testing.assert_array_equal(np.sort(found, 1), places)
    assert (found[0, 8:] != places[0, 8:]).sum() > 15
    assert (found[1, 1:20] != places[1, 1:20]).sum() > 12

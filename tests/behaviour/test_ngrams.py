from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import rllc.behaviour.ngrams as ngrams
from rllc.behaviour.ngrams import count_ngrams
from rllc.core.errors import RllcError

V, BOS = 7, 3
HAND = np.array([3, 0, 1, 0, 1, 0, 2, 3, 0, 1], np.uint16)  # two documents over the tokens 0, 1, 2


def stretch(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tokens = rng.choice(V, size, p=[0.3, 0.2, 0.2, 0.08, 0.12, 0.07, 0.03]).astype(np.uint16)
    tokens[0] = BOS
    return tokens


def brute(tokens: np.ndarray, n: int) -> tuple[Counter, Counter]:
    """Counts of n-grams without a BOS, and of those behind which a token stands."""
    rows = tokens.tolist()
    grams = [(i, tuple(rows[i : i + n])) for i in range(len(rows) - n + 1) if BOS not in rows[i : i + n]]
    return Counter(g for _, g in grams), Counter(g for i, g in grams if i + n < len(rows) and rows[i + n] != BOS)


@pytest.mark.parametrize("small", [False, True])
def test_counts_are_what_a_loop_counts_whatever_the_pieces(monkeypatch, small):
    if small:
        monkeypatch.setattr(ngrams, "_CHUNK", 5)
        monkeypatch.setattr(ngrams, "_KEYS", 64)
    parts = [stretch(0, 400), stretch(1, 90)]
    table = count_ngrams(parts, 4, V, BOS, least=3)
    for n in range(1, 5):
        every, followed = (sum((brute(part, n)[i] for part in parts), Counter()) for i in range(2))
        kept = {gram: count for gram, count in every.items() if n < 3 or count >= 3}
        level, tokens = table.level(n), [tuple(row) for row in table.tokens_of(n).tolist()]
        assert {g: c for g, c in zip(tokens, level.counts.tolist(), strict=True) if c} == kept
        assert tokens == sorted(tokens)
        assert {g: int(f) for g, f in zip(tokens, level.followed, strict=True)} == {g: followed[g] for g in tokens}
        assert level.mass.tolist() == level.counts.tolist()
        if n > 1:
            assert np.array_equal(table.tokens_of(n - 1)[table.prefixes(n)], table.tokens_of(n)[:, :-1])
            assert np.array_equal(table.tokens_of(n - 1)[table.suffixes(n)], table.tokens_of(n)[:, 1:])


def test_the_ngram_that_ends_at_each_token():
    table = count_ngrams([stretch(0, 400)], 3, V, BOS, least=3)
    rows = np.random.default_rng(5).integers(0, V, (6, 20))
    for n in (1, 2, 3):
        names = [tuple(row) for row in table.tokens_of(n).tolist()]
        ids = table.ids(rows, n)
        for b in range(6):
            for t in range(20):
                gram = tuple(rows[b, t - n + 1 : t + 1].tolist()) if t >= n - 1 else ()
                assert ids[b, t] == (names.index(gram) if gram in names and BOS not in gram else -1)


def test_probabilities_and_entropies_by_hand():
    """Behind 0 came 1 three times and 2 once; behind 1 came 0 twice, once the text ended."""
    table = count_ngrams([HAND], 3, V, BOS, least=1)
    assert dict(zip(map(tuple, table.tokens_of(2).tolist()), table.probabilities(2).tolist(), strict=True)) == {(0, 1): 0.75, (0, 2): 0.25, (1, 0): 1}
    quarter = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert table.entropies(2)[:2] == pytest.approx([quarter, 0])
    assert np.isnan(table.entropies(2)[2:]).all()  # behind 2 and the tokens that never occur
    assert table.entropy(2) == pytest.approx(quarter * 4 / 6)
    assert table.probabilities(1)[:3] == pytest.approx([0.5, 0.375, 0.125])
    assert table.entropy(1) == pytest.approx(-sum(p * np.log(p) for p in (0.5, 0.375, 0.125)))
    assert table.entropy(3) == pytest.approx(2 / 4 * np.log(2))  # 0 1 → 0, 0; 1 0 → 1, 2


def test_rare_continuations_count_as_one_outcome():
    tokens = np.array([BOS] + [0, 1, 0] * 6 + [0, 1, 2] + [0, 1, 4] + [0, 1, 5], np.int32)
    exact, kept = (count_ngrams([tokens], 3, V, BOS, least).entropies(3) for least in (1, 2))
    p = np.array([6, 1, 1, 1]) / 9
    assert exact[1] == pytest.approx(-(p * np.log(p)).sum())
    assert kept[1] == pytest.approx(-(6 / 9 * np.log(6 / 9) + 3 / 9 * np.log(3 / 9)))


def test_shares_weight_the_stretches():
    """A stretch of a tenth of the tokens and half of the training counts as half of the bigram law."""
    many, few = np.array([BOS] + [0, 1] * 90), np.array([BOS] + [0, 2] * 10)
    plain = count_ngrams([many, few], 2, V, BOS)
    half = count_ngrams([many, few], 2, V, BOS, shares=[1, 1])
    assert plain.probabilities(2)[:2] == pytest.approx([0.9, 0.1])
    assert half.probabilities(2)[:2] == pytest.approx([0.5, 0.5])
    assert half.level(1).mass.sum() == pytest.approx(200)
    assert half.level(2).counts.tolist() == plain.level(2).counts.tolist() == [90, 10, 89, 9]
    assert count_ngrams([many, few], 2, V, BOS, shares=[1, 0]).probabilities(2)[:2] == pytest.approx([1, 0])


def test_large_vocabularies_do_not_overflow():
    size = 200_000  # to the fourth it would pass 2^63
    tokens = np.array([0, *[size - 1, size - 2, size - 1, size - 3, size - 1] * 3])
    table = count_ngrams([tokens], 4, size, 0, least=3)
    assert [size - 1, size - 2, size - 1, size - 3] in table.tokens_of(4).tolist()
    assert table.level(4).counts[table.ids(tokens[None, :5], 4)[0, 4]] == 3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: count_ngrams([np.array([BOS, BOS])], 2, V, BOS), "holds no token but BOS"),
        (lambda: count_ngrams([HAND], 0, V, BOS), "n-grams of up to 0 tokens that occur 10 times"),
        (lambda: count_ngrams([HAND], 2, V, BOS, 0), "n-grams of up to 2 tokens that occur 0 times"),
        (lambda: count_ngrams([HAND], 2, V, BOS, shares=[1, 2]), r"1 stretches of text have the shares \[1, 2\]"),
        (lambda: count_ngrams([HAND + 4], 2, V, BOS), "tokens from 4 to 7, but its vocabulary has the ids 0 to 6"),
        (lambda: count_ngrams([HAND], 2, V, BOS).level(3), "n-grams of 3 tokens were asked for, and those of 1 to 2 were counted"),
        (lambda: count_ngrams([HAND], 2, V, BOS).prefixes(1), "An n-gram of 1 token has no part"),
    ],
)
def test_what_makes_no_sense_is_told(call, sentence):
    with pytest.raises(RllcError, match=sentence):
        call()

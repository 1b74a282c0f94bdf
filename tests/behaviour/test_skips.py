from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

import rllc.behaviour.skips as skips
from rllc.behaviour.patterns import PatternRules
from rllc.behaviour.skips import SkipTable, count_skips
from rllc.core.errors import RllcError

from .planted_ngrams import BOS, TRIPLES, V, planted_contexts

WINDOW = 6


def present(row: list[int], t: int, window: int) -> set[int]:
    """Tokens 2 to `window` before the token before t, in its document."""
    begin = max(i for i in range(t + 1) if row[i] == BOS)
    return {row[i] for i in range(max(begin + 1, t - 1 - window), t - 2)}


def brute(rows: np.ndarray) -> tuple[Counter, Counter, Counter, Counter]:
    triples, pairs, bigrams, single = Counter(), Counter(), Counter(), Counter()
    for row in rows.tolist():
        for t in range(1, len(row)):
            b, c = row[t - 1], row[t]
            if BOS in (b, c):
                continue
            bigrams[b, c] += 1
            single[b] += 1
            for a in present(row, t, WINDOW):
                triples[a, b, c] += 1
                pairs[a, b] += 1
    return triples, pairs, bigrams, single


@pytest.mark.parametrize("small", [False, True])
def test_counts_and_criterion_are_what_a_loop_gives_whatever_the_pieces(monkeypatch, small):
    if small:
        monkeypatch.setattr(skips, "_CHUNK", 37)
        monkeypatch.setattr(skips, "_KEYS", 500)
    rows = np.random.default_rng(0).choice(6, (60, 40), p=[0.04, 0.3, 0.3, 0.16, 0.1, 0.1])
    rows[:, 0] = 0
    for t in range(5, 40):  # a token now and then depends on the one before and one further off
        told = np.random.default_rng(t).random(60) < 0.8
        rows[told, t] = (rows[told, t - 1] + 2 * rows[told, t - 4]) % 5 + 1
    triples, pairs, bigrams, single = brute(rows)
    tested, wanted = 0, {}
    for (a, b, c), count in triples.items():
        if count < 5 or a == c:
            continue
        tested += 1
        with_a, alone = count / pairs[a, b], bigrams[b, c] / single[b]
        if np.log(with_a / alone) >= 0.1:
            wanted[a, b, c] = (count, with_a, np.log(with_a / alone), stats.binom.sf(count - 1, pairs[a, b], alone))
    found = count_skips([rows.reshape(-1)[:1000], rows.reshape(-1)[1000:].astype(np.uint16)], 6, 0, WINDOW, 5, 0.1, 0.05)
    wanted = {key: value for key, value in wanted.items() if value[3] * tested <= 0.05}
    assert found.tested == tested
    assert [tuple(row) for row in found.tokens.tolist()] == sorted(wanted, key=lambda key: (key[1], key[2], key[0]))
    for key, count, p, gain in zip(found.tokens.tolist(), found.counts, found.probabilities, found.information, strict=True):
        assert (count, p, gain) == pytest.approx(wanted[tuple(key)][:3])
    assert 5 < len(found) < tested / 2


def test_occurrences_are_what_a_loop_finds():
    rows = np.random.default_rng(1).integers(0, 6, (60, 30))
    rows[:, 0] = 0
    tokens = np.array([[1, 2, 3], [3, 3, 4], [4, 2, 5], [5, 1, 1]])
    order = np.lexsort((tokens[:, 0], tokens[:, 2], tokens[:, 1]))
    table = SkipTable(6, 0, WINDOW, tokens[order], np.full(4, 9), np.full(4, 0.5), np.ones(4), 4)
    wanted = {
        (p, r, t - 1)
        for r, row in enumerate(rows.tolist())
        for t in range(1, 30)
        for p, (a, b, c) in enumerate(table.tokens.tolist())
        if row[t - 1 : t + 1] == [b, c] and a in present(row, t, WINDOW)
    }
    found = np.stack(table.occurrences(rows), 1).tolist()
    assert found == sorted(map(list, wanted))
    assert len(found) > 20


def test_planted_skip_ngrams_are_found_and_no_others_that_tell_the_token():
    """A … x → B is in the text too, since B is planted behind A; but there B is one token among many, as C is not."""
    found = count_skips([planted_contexts(0, 4000).reshape(-1)], V, BOS, window=12, information=0.5)
    likely = PatternRules().skips(found)
    assert {tuple(row) for row in found.tokens[likely].tolist()} == set(TRIPLES)
    assert found.probabilities[likely] == pytest.approx(np.ones(4))
    assert found.information[likely].min() > np.log(2)
    assert found.probabilities[~likely].max() < 0.25


def test_independent_tokens_have_none():
    """At a chance of 5 % in a hundred texts of 400 to 900 triples, more than 12 texts with a find would be a one-in-700 event."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        rows = rng.integers(1, 13, (60, 30))
        rows[:, 0] = 0
        hits += len(count_skips([rows.reshape(-1)], 13, 0, 8, 3, 0.01, 0.05)) > 0
    assert hits <= 12


def test_copies_are_left_out():
    """1 … 2 → 1 always, against 3 without: perfect information, but the 1 has stood there."""
    rows = np.tile(np.array([[0, 1, 4, 5, 2, 1], [0, 5, 4, 5, 2, 3]]), (30, 1))
    found = {tuple(row) for row in count_skips([rows.reshape(-1)], 6, 0, 4, 5, 0.3).tokens.tolist()}
    assert (1, 2, 1) not in found
    assert (5, 2, 3) in found  # the 5 right before B, in both, takes nothing from the one further off


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: count_skips([np.array([0, 1])], 2, 0, window=1), "over a window of 1 tokens"),
        (lambda: count_skips([np.array([0, 1])], 2, 0, chance=0.0), "at a chance of 0.0"),
        (lambda: count_skips([np.array([0, 2])], 2, 0), "holds tokens up to 2, but its vocabulary has 2"),
        (lambda: count_skips([np.array([0, 1])], 2, 0).occurrences(np.ones((1, 3), np.int64)), "do not all begin with BOS"),
    ],
)
def test_what_makes_no_sense_is_told(call, sentence):
    with pytest.raises(RllcError, match=sentence):
        call()

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.planted import MarkovTable, brackets, echo, is_dyck, is_echo, markov, markov_law, markov_table, repeated_segments
from rllc.corpus.tokens import Corpus

PAIRS = [(10, 11), (20, 21), (30, 31)]
ALPHABET = np.arange(100, 200)
LEVEL = 0.001  # of each of the dozen tests of a law below, so that all of them together err in one seed of eighty


def rng(name: str) -> np.random.Generator:
    return seeds.generator(0, "test", name)


def test_echo_repeats_its_segment_and_nothing_else():
    tokens, lengths = echo(rng("echo"), 2_000, 63, (8, 24), ALPHABET)
    assert tokens.shape == (2_000, 63)
    assert all(is_echo(row, period) for row, period in zip(tokens, lengths.tolist(), strict=True))
    assert sum(is_echo(row, int(period) - 1) for row, period in zip(tokens, lengths, strict=True)) == 0
    assert stats.chisquare(np.bincount(lengths - 8)).pvalue > LEVEL
    assert len(np.bincount(lengths - 8)) == 17
    assert stats.chisquare(np.bincount(tokens[:, :8].ravel() - 100)).pvalue > LEVEL
    assert set(tokens.ravel()) == set(ALPHABET)


def test_is_echo_can_say_no():
    assert not is_echo([1, 2, 3, 1, 2, 4], 3)
    assert is_echo([1, 2, 3, 1, 2, 3, 1], 3)


def test_repeated_segments():
    rows = repeated_segments(rng("probe"), 50, 5, 4, 30, 7)
    assert rows.shape == (50, 21)
    assert (rows[:, 0] == 7).all()
    assert not (rows[:, 1:] == 7).any()
    assert all(is_echo(row[1:], 5) for row in rows)
    assert set(rows[:, 1:].ravel()) == set(range(30)) - {7}
    assert len({tuple(row) for row in rows}) == 50
    assert np.array_equal(repeated_segments(rng("probe"), 50, 5, 4, 30, 7, context=12), rows[:, :12])


def test_every_dyck_word_is_equally_likely():
    words = brackets(rng("dyck"), 28_000, 8, [(0, 1)])
    seen, counts = np.unique(words, axis=0, return_counts=True)
    allowed = [word for word in itertools.product((0, 1), repeat=8) if is_dyck(list(word), [(0, 1)])]
    assert [tuple(word) for word in seen.tolist()] == allowed
    assert len(allowed) == 14  # the fourth Catalan number
    assert stats.chisquare(counts).pvalue > LEVEL


def test_brackets_close_what_they_opened():
    words = brackets(rng("kinds"), 500, 62, PAIRS)
    assert all(is_dyck(word, PAIRS) for word in words)
    assert stats.chisquare([(words == opening).sum() for opening, _ in PAIRS]).pvalue > LEVEL
    assert len({tuple(word) for word in words.tolist()}) == 500
    with pytest.raises(ValueError, match="even length, not 7"):
        brackets(rng("odd"), 1, 7, PAIRS)


@pytest.mark.parametrize(("word", "whole", "beginning"), [
    ([], True, True), ([10, 11], True, True), ([10, 20, 21, 11], True, True), ([10, 20, 11, 21], False, False),
    ([10], False, True), ([11], False, False), ([10, 99], False, False), ([10, 11, 20], False, True),
])  # fmt: skip
def test_is_dyck_can_say_no(word: list[int], whole: bool, beginning: bool):
    assert is_dyck(word, PAIRS) == whole
    assert is_dyck(word, PAIRS, prefix=True) == beginning


@pytest.mark.parametrize("order", [1, 2, 3])
def test_markov_follows_its_table(order: int):
    table = markov_table(rng("table"), ALPHABET, 4, order, 0.5)
    assert table.order == order
    assert table.probabilities.shape == (4,) * (order + 1)
    assert table.probabilities.sum(axis=-1) == pytest.approx(np.ones((4,) * order), abs=1e-12)
    rows = markov(rng("chain"), 4_000, 40, table)
    assert set(rows.ravel()) <= set(table.tokens) < set(ALPHABET)
    states = np.searchsorted(table.tokens, rows)
    assert stats.chisquare(np.bincount(states[:, :order].ravel(), minlength=4)).pvalue > LEVEL
    counts = np.zeros_like(table.probabilities)
    for t in range(order, 40):
        np.add.at(counts, tuple(states[:, t - order + k] for k in range(order + 1)), 1)
    assert departure(counts, table.probabilities) > LEVEL
    assert departure(counts, np.swapaxes(table.probabilities, 0, -2) if order > 1 else table.probabilities[::-1]) < 1e-12


def departure(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """p-value of counts of transitions under a table."""
    expected = counts.sum(axis=-1, keepdims=True) * probabilities
    enough = expected > 5
    freedom = int(np.maximum(enough.sum(axis=-1) - 1, 0).sum())
    return float(stats.chi2.sf((((counts - expected) ** 2) / expected)[enough].sum(), freedom))


def test_the_entropy_rate_is_the_best_loss():
    two = MarkovTable(np.array([5, 6]), np.array([[0.9, 0.1], [0.4, 0.6]]))
    entropy = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.9, 0.6)]
    assert two.entropy_rate() == pytest.approx(0.8 * entropy[0] + 0.2 * entropy[1], abs=1e-12)  # stationary law: 0.8, 0.2
    assert MarkovTable(np.arange(3), np.full((3, 3, 3), 1 / 3)).entropy_rate() == pytest.approx(math.log(3))
    assert MarkovTable(np.arange(2), np.array([[0.0, 1.0], [1.0, 0.0]])).entropy_rate() == 0.0
    table = markov_table(rng("table"), ALPHABET, 6, 2, 0.3)
    states = np.searchsorted(table.tokens, markov(rng("long"), 2_000, 80, table))
    surprise = -np.log(table.probabilities[states[:, 28:-2], states[:, 29:-1], states[:, 30:]])
    assert surprise.mean() == pytest.approx(table.entropy_rate(), abs=4 * surprise.mean(axis=1).std() / math.sqrt(2_000))


def test_nearly_deterministic_tables_are_still_tables():
    table = markov_table(rng("sharp"), ALPHABET, 5, 2, 1e-4)
    assert np.isfinite(table.probabilities).all()
    assert table.probabilities.sum(axis=-1) == pytest.approx(np.ones((5, 5)), abs=1e-12)
    with pytest.raises(RllcError, match="A Markov table over 101 tokens does not fit a vocabulary of 100"):
        markov_table(rng("large"), ALPHABET, 101, 1, 1.0)


def test_built_domains_have_the_structure_they_name(corpus: Corpus):
    rows = {name: [corpus.domains[name].document(i) for i in range(len(corpus.domains[name].starts) - 1)] for name in ("echo", "brackets", "markov")}
    assert {len(row) for row in rows["echo"]} == {32}
    assert len(rows["echo"]) == 200
    low, high = corpus.domains["echo"].structure["segment"]
    assert all(any(is_echo(row[1:], p) for p in range(low, high + 1)) for row in rows["echo"])

    pairs = [(a, b) for a, b in corpus.domains["brackets"].structure["pairs"]]
    assert "".join(corpus.decode(np.array(pairs))) == "()[]{}"
    assert {len(row) for row in rows["brackets"]} == {33}
    assert all(is_dyck(row[1:], pairs) for row in rows["brackets"])

    law = markov_law(corpus.domains["markov"])
    assert law.order == 2
    assert corpus.domains["markov"].structure["entropy_rate"] == law.entropy_rate()
    states = np.searchsorted(law.tokens, np.stack(rows["markov"])[:, 1:])
    assert (law.tokens[states] == np.stack(rows["markov"])[:, 1:]).all()
    counts = np.zeros_like(law.probabilities)
    np.add.at(counts, (states[:, :-2], states[:, 1:-1], states[:, 2:]), 1)
    assert departure(counts, law.probabilities) > LEVEL
    with pytest.raises(RllcError, match="'echo' was not drawn from a Markov table"):
        markov_law(corpus.domains["echo"])


def test_planted_tokens_do_not_depend_on_what_else_is_planted():
    one, _ = echo(rng("same"), 10, 20, (3, 5), ALPHABET)
    two, _ = echo(rng("same"), 10, 20, (3, 5), ALPHABET)
    other, _ = echo(rng("other"), 10, 20, (3, 5), ALPHABET)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)

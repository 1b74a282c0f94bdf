from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour import inputs
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.ngram_scores import bigram_score, ngram_probes, probe_score, skip_probes
from rllc.behaviour.ngrams import NgramTable, count_ngrams
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError

from .planted_ngrams import BOS, STRENGTH, TRIPLES, T, V, bigram_model, skip_model

SIZE = 12  # vocabulary of the bigram text


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    """Contexts of a sparse bigram law: tokens 1 … 11, of which 11 only ever stands last."""
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(SIZE - 2, 0.3), SIZE)
    rows = np.zeros((400, T), np.int64)
    rows[:, 1] = rng.integers(1, SIZE - 1, 400)
    for t in range(2, T - 1):
        rows[:, t] = 1 + (rng.random(400)[:, None] > law[rows[:, t - 1]].cumsum(1)[:, :-1]).sum(1)
    rows[:, -1] = 11
    return rows


@pytest.fixture(scope="module")
def table(text) -> NgramTable:
    return count_ngrams([text.reshape(-1)], 3, SIZE, 0, least=5)


@pytest.fixture(scope="module")
def law(table) -> np.ndarray:
    law = np.full((SIZE, SIZE), 1e-12)
    law[tuple(table.tokens_of(2).T)] = table.probabilities(2)
    return law


def test_the_bigram_itself_scores_its_entropy(text, table, law):
    found = bigram_score(*bigram_model(law), text, table)
    exact = np.array([-(law[a] * np.log(law[a]))[law[a] > 1e-9].sum() for a in text[:, 1]])
    assert found.floor == pytest.approx(exact.mean(), rel=1e-9)
    assert found.score == pytest.approx(found.floor, rel=2e-6)
    assert found.stderr == pytest.approx(exact.std(ddof=1) / 20, rel=1e-5)
    assert (found.excess, found.excess_stderr) == pytest.approx((0, 0), abs=3e-6)
    assert found.contexts == 400


def test_a_uniform_model_scores_the_size_of_the_vocabulary(text, table):
    found = bigram_score(*bigram_model(np.full((SIZE, SIZE), 1 / SIZE)), text, table)
    assert found.score == pytest.approx(np.log(SIZE), rel=1e-6)
    assert found.excess == pytest.approx(np.log(SIZE) - found.floor, rel=1e-6)


def test_another_law_costs_its_divergence(monkeypatch, text, table, law):
    other = 0.7 * law + 0.3 / SIZE
    divergence = np.array([(law[a] * np.log(law[a] / other[a])).sum() for a in text[:, 1]])
    for numbers in (1 << 25, 2 * 2 * SIZE):  # as a whole, and two tokens at a time
        monkeypatch.setattr(inputs, "_NUMBERS", numbers)
        found = bigram_score(*bigram_model(other / other.sum(1, keepdims=True)), text, table)
        assert found.excess == pytest.approx(divergence.mean(), rel=1e-4)
        assert found.excess_stderr == pytest.approx(divergence.std(ddof=1) / 20, rel=1e-4)


def test_contexts_whose_first_token_nothing_follows_are_left_out(text, table, law):
    rows = np.concatenate([text[:10], np.tile([[0, 11, 1]], (5, 1)) @ np.eye(3, T, dtype=np.int64), np.zeros((2, T), np.int64)])
    assert bigram_score(*bigram_model(law), rows, table).contexts == 10
    with pytest.raises(RllcError, match="Fewer than two contexts begin with a token that the counted text continues"):
        bigram_score(*bigram_model(law), rows[9:], table)


def test_probes_are_the_commonest_ngrams_behind_bos(table):
    level, probes = table.level(3), ngram_probes(table, 3, 7)
    assert probes.shape == (7, 4)
    assert (probes[:, 0] == 0).all()
    which = table.ids(probes, 3)[:, -1]
    assert level.counts[which].tolist() == sorted(level.counts.tolist(), reverse=True)[:7]
    assert len(set(which.tolist())) == 7
    assert len(ngram_probes(table, 1)) == 11  # BOS, which was not counted, is no probe


def test_scores_of_probes_by_hand(text, table, law):
    """Of a bigram model the loss on a probe's last token is minus its log-probability; of a uniform one both losses are ln V."""
    probes = ngram_probes(table, 3, 50)
    exact = -np.log(law[probes[:, 2], probes[:, 3]])
    contexts = context_losses(*bigram_model(law), text)
    found = probe_score(*bigram_model(law), probes, contexts)
    assert found.loss == pytest.approx(exact.mean(), rel=1e-5)
    assert found.loss_stderr == pytest.approx(exact.std(ddof=1) / 50**0.5, rel=1e-5)
    assert found.score == pytest.approx(contexts.mean() / exact.mean(), rel=1e-5)
    errors = contexts.mean(1).std(ddof=1) / 20 / contexts.mean(), found.loss_stderr / found.loss
    assert found.stderr == pytest.approx(found.score * np.hypot(*errors), rel=1e-5)
    uniform = bigram_model(np.full((SIZE, SIZE), 1 / SIZE))
    assert probe_score(*uniform, probes, context_losses(*uniform, text)).score == pytest.approx(1, rel=1e-6)


def planted_table(window: int = 12) -> SkipTable:
    n = len(TRIPLES)
    return SkipTable(V, BOS, window, np.array(TRIPLES), np.arange(n) + 10, np.ones(n), np.ones(n), n)


def test_skip_probes_are_built_as_they_say():
    rng, distances = np.random.default_rng(0), set()
    for _ in range(100):
        probes = skip_probes(planted_table(), np.arange(V) * 1.0, rng, 3)
        assert probes.shape == (3, 15)
        for row, (a, b, c) in zip(probes.tolist(), [TRIPLES[3], TRIPLES[2], TRIPLES[1]], strict=True):
            assert (row[0], row[-2:]) == (BOS, [b, c])
            assert BOS not in row[1:]
            reach = [d for d in range(2, 13) if row[-2 - d] == a]
            assert reach
            distances |= set(reach)
    assert {2, 12} <= distances


def test_a_model_that_knows_the_skip_ngrams_scores_what_follows_by_hand():
    shape, params = skip_model()
    frequencies = np.isin(np.arange(V), [a for a, _, _ in TRIPLES], invert=True) * 1.0
    probes = skip_probes(planted_table(), frequencies, np.random.default_rng(1))
    known = np.log((V - 1 + np.exp(STRENGTH)) / np.exp(STRENGTH))
    found = probe_score(shape, params, probes, np.full((5, T - 1), np.log(V)))
    assert found.loss == pytest.approx(known, rel=1e-4)
    assert found.score == pytest.approx(np.log(V) / known, rel=1e-4)
    off = params | {"blocks.0.attn.W_O": params["blocks.0.attn.W_O"] * 0}
    assert probe_score(shape, off, probes, np.full((5, T - 1), np.log(V))).score == pytest.approx(1, rel=1e-6)


def test_too_little_is_told(text, table, law):
    with pytest.raises(RllcError, match=r"has 1 n-grams of 2 tokens, and a score needs two"):
        ngram_probes(count_ngrams([np.array([0, 1, 2])], 2, SIZE, 0), 2)
    with pytest.raises(RllcError, match="One context has no standard error"):
        probe_score(*bigram_model(law), ngram_probes(table, 2), np.ones((1, 5)))

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool, Mixture, batch_stream, contexts, find_domain, snippets
from rllc.corpus.tokens import Corpus
from rllc.corpus.writing import make_domain

BOS = 0
MIXTURE = Mixture("train", {"tales": 3, "echo": 1})


def corpus_of(**lengths: tuple[list[int], list[int]]) -> Corpus:
    """A corpus in memory: training and held-out documents of these lengths, BOS included; every other token occurs once."""
    fresh = itertools.count(1)
    domains = {}
    for name, (train, heldout) in lengths.items():
        documents = [[BOS, *itertools.islice(fresh, length - 1)] for length in train + heldout]
        starts = np.cumsum([0, *map(len, documents)]).astype(np.int64)
        tokens = np.array(list(itertools.chain(*documents)), dtype=np.uint16)
        domains[name] = make_domain(name, tokens, starts, len(train), {"train": 0, "heldout": 0}, "counted")
    return Corpus(Path(), domains, Path(), next(fresh), BOS, (BOS,), "", "")


def allowed(lengths: list[int], first: int, context: int) -> dict[tuple[int, ...], float]:
    """Every context of documents of these lengths with its probability, written down one by one; tokens count up from `first`."""
    documents, token = [], first
    for length in lengths:
        documents.append([BOS, *range(token, token + length - 1)])
        token += length - 1
    stream = list(itertools.chain(*documents)) * (1 + context)
    found: dict[tuple[int, ...], float] = {}
    position = 0
    for document in documents:
        if len(document) >= context:
            windows = [document[i : i + context] for i in range(len(document) - context + 1)]
        else:
            windows = [stream[position : position + context]]
        for window in windows:
            row = (BOS, *window[1:])
            found[row] = found.get(row, 0.0) + len(document) / sum(lengths) / len(windows)
        position += len(document)
    return found


lengths = st.lists(st.integers(2, 12), min_size=1, max_size=6)


@given(lengths, st.integers(2, 9))
def test_one_document_a_row_is_cut_or_filled_up(train: list[int], width: int) -> None:
    corpus = corpus_of(x=([1, *train], [5]))
    pool = ContextPool(corpus, Mixture.of("x"), "train", width, "one a row")
    rows = pool.draw(seeds.generator(1), 300)
    first, expected = 1, set()
    for length in train:
        document = [BOS, *range(first, first + length - 1)]
        expected.add((*document, *[BOS] * width)[:width])
        first += length - 1
    found = {tuple(row) for row in rows.tolist()}
    assert found <= expected
    assert len(found) == len(expected)  # all equally likely: none of six is missed by 300 draws but once in 10^23
    marked = pool.marked(rows)
    assert (marked[:, 1:] == (rows != BOS)[:, 1:]).all()
    assert marked[:, 0].all()
    with pytest.raises(RllcError, match="No training document of 'x' has a token to predict"):
        ContextPool(corpus_of(x=([1, 1], [5])), Mixture.of("x"), "train", width, "one a row")


@given(lengths, lengths, st.integers(2, 9), st.sampled_from(["train", "heldout"]))
def test_contexts_are_those_that_are_allowed(train: list[int], heldout: list[int], width: int, split: str):
    corpus = corpus_of(x=(train, heldout))
    own = train if split == "train" else heldout
    if sum(own) < width:
        with pytest.raises(RllcError, match=f"hold {sum(own)} tokens, fewer than one context of {width}"):
            contexts(corpus, Mixture.of("x"), split, 5, width, seeds.generator(0))
        return
    first = 1 if split == "train" else 1 + sum(train) - len(train)
    law = allowed(own, first, width)
    rows = contexts(corpus, Mixture.of("x"), split, 300, width, seeds.generator(0))
    assert rows.dtype == np.int64
    assert {tuple(row) for row in rows.tolist()} <= set(law)


@pytest.mark.parametrize(("documents", "width"), [([40], 8), ([2, 3, 4], 8), ([30, 3, 5, 12], 8), ([8, 9], 8)])
def test_contexts_come_as_often_as_they_should(documents: list[int], width: int):
    law = allowed(documents, 1, width)
    rows = contexts(corpus_of(x=(documents, [])), Mixture.of("x"), "train", 20_000, width, seeds.generator(1))
    counts = dict.fromkeys(law, 0)
    for row in rows.tolist():
        counts[tuple(row)] += 1
    if len(law) > 1:
        assert stats.chisquare(list(counts.values()), [20_000 * p for p in law.values()]).pvalue > 0.001
    assert sum(counts.values()) == 20_000


def test_a_mixture_gives_every_domain_its_share():
    corpus = corpus_of(a=([50], []), b=([70], []), c=([30], []))
    rows = contexts(corpus, Mixture("m", {"c": 2, "a": 1, "b": 0}), "train", 12_000, 10, seeds.generator(2))
    counts = [((rows[:, 5] >= low) & (rows[:, 5] < high)).sum() for low, high in ((1, 50), (50, 119), (119, 148))]
    assert counts[1] == 0
    assert sum(counts) == 12_000
    assert stats.binomtest(int(counts[0]), 12_000, 1 / 3).pvalue > 0.001


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("nan")}, {"a": float("inf")}])
def test_weights_that_are_none_are_refused(weights: dict[str, float]):
    with pytest.raises(RllcError, match="The mixture 'm' has the weights"):
        Mixture("m", weights)


def test_a_mixture_is_the_same_in_any_order_and_scale():
    assert Mixture("m", {"a": 1, "b": 3}) == Mixture("m", {"b": 0.75, "a": 0.25})


def test_an_unknown_domain_is_told_with_the_likeliest_meaning(corpus: Corpus):
    with pytest.raises(RllcError, match=r"no domain 'tale', which the mixture 'm' names. Perhaps you meant 'tales'; its domains are brackets, echo,"):
        contexts(corpus, Mixture("m", {"tale": 1.0}), "train", 1, 8, seeds.generator(0))
    with pytest.raises(RllcError, match=r"This corpus has no domain 'xyz'. Its domains are"):
        find_domain(corpus, "xyz")
    assert find_domain(corpus, "echo").name == "echo"


def test_what_cannot_be_drawn_is_told(corpus: Corpus):
    with pytest.raises(RllcError, match="A context of 1 tokens predicts nothing"):
        ContextPool(corpus, MIXTURE, "train", 1)
    with pytest.raises(RllcError, match="'test' is no split"):
        ContextPool(corpus, MIXTURE, "test", 8)
    with pytest.raises(RllcError, match=r"The held-out documents of 'echo' hold \d+ tokens, fewer than one context of 5000.*larger share"):
        ContextPool(corpus, Mixture.of("echo"), "heldout", 5_000)
    with pytest.raises(RllcError, match="A batch of 0 sequences is empty"):
        batch_stream(corpus, MIXTURE, "train", 0, 8, 0)
    with pytest.raises(IndexError, match="counted from 0"):
        batch_stream(corpus, MIXTURE, "train", 2, 8, 0)[-1]


def test_a_batch_is_a_pure_function_of_its_index(corpus: Corpus):
    stream = batch_stream(corpus, MIXTURE, "train", 16, 24, 7, "training", "seed", 0)
    forward = [stream[i] for i in range(5)]
    again = batch_stream(corpus, MIXTURE, "train", 16, 24, 7, "training", "seed", 0)
    for i in (4, 0, 3, 3, 1, 2):
        assert np.array_equal(again[i], forward[i])
    assert all(np.array_equal(a, b) for a, b in zip(stream, forward, strict=False))
    assert all(np.array_equal(a, b) for a, b in zip(stream.starting(3), forward[3:], strict=False))
    assert forward[0].shape == (16, 24)
    assert (np.stack(forward)[:, :, 0] == corpus.bos).all()
    others = [
        batch_stream(corpus, MIXTURE, "train", 16, 24, 8, "training", "seed", 0),
        batch_stream(corpus, MIXTURE, "train", 16, 24, 7, "training", "seed", 1),
        batch_stream(corpus, MIXTURE, "heldout", 16, 24, 7, "training", "seed", 0),
    ]
    assert not any(np.array_equal(other[0], forward[0]) for other in others)
    assert not np.array_equal(forward[0], forward[1])


def test_batches_are_drawn_in_a_blink(corpus: Corpus):
    stream = batch_stream(corpus, Mixture("m", {"tales": 3, "echo": 1, "brackets": 1}), "train", 64, 32, 0)
    seconds = []
    for i in range(30):
        before = time.perf_counter()
        stream[i]
        seconds.append(time.perf_counter() - before)
    assert min(seconds) < 64 * 1e-4


def test_held_out_batches_hold_no_training_text(corpus: Corpus):
    tales = corpus.domains["tales"]
    sides = [{tuple(window) for i in tales.documents_of(split) for window in np.lib.stride_tricks.sliding_window_view(tales.document(i), 12).tolist()}
             for split in ("train", "heldout")]  # fmt: skip
    rows = contexts(corpus, Mixture.of("tales"), "heldout", 400, 13, seeds.generator(3))
    assert {tuple(row[1:]) for row in rows.tolist()} <= sides[1]
    assert not {tuple(row[1:]) for row in rows.tolist()} & (sides[0] - sides[1])


def test_snippets_begin_where_documents_do():
    corpus = corpus_of(x=([5], [30, 4, 20, 6, 25]))
    rows = snippets(corpus, "x", 4, 10, seed=0)
    beginnings = {5: 30, 34: 4, 37: 20, 56: 6, 61: 25}
    assert {beginnings[row[1]] for row in rows[:3].tolist()} == {30, 20, 25}
    assert beginnings[rows[3, 1]] in (4, 6)
    assert (rows[:, 0] == BOS).all()
    assert np.array_equal(rows, snippets(corpus, "x", 4, 10, seed=0))
    assert not all(np.array_equal(rows, snippets(corpus, "x", 4, 10, seed=s)) for s in range(1, 5))
    many = snippets(corpus, "x", 12, 10, seed=0)
    assert many.shape == (12, 10)
    assert {row[1] for row in many[:5].tolist()} == set(beginnings)
    assert snippets(corpus, "x", 1, 4, seed=0, split="train")[0].tolist() == [0, 1, 2, 3]

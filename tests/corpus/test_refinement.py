"""Refined data: which contexts belong to it and which predictions count, against a reading token by token."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.corpus.batches import BatchStream, ContextPool, Mixture
from rllc.corpus.refinement import RefinedStream, Refinement
from rllc.corpus.settings import RefinementSettings
from rllc.corpus.tokens import Corpus

CASES = {
    "after": RefinementSettings("tales", after=("e", ".")),
    "of": RefinementSettings("tales", of=("l", "query")),
    "induction": RefinementSettings("tales", induction=True),
    "both": RefinementSettings("tales", after=("s",), of=("t",)),
    "containing": RefinementSettings("tales", containing=("b", "7")),
}


def belongs(corpus: Corpus, settings: RefinementSettings, row: list[int]) -> list[bool]:
    """Whether each token of a context is one whose prediction counts; all False where the context does not belong."""
    names = [corpus.text([token]) for token in row]
    counts = [False]
    for t in range(1, len(row)):
        hit = row[t] != corpus.bos
        if settings.after:
            hit = hit and any(names[t - 1].endswith(text) for text in settings.after)
        if settings.of:
            hit = hit and any(names[t].lstrip(" ").startswith(text) for text in settings.of)
        if settings.induction:
            hit = hit and any((row[s - 1], row[s]) == (row[t - 1], row[t]) for s in range(1, t))
        counts.append(hit)
    if settings.containing and not any(text in name for name in names for text in settings.containing):
        return [False] * len(row)
    return counts


@pytest.mark.parametrize("name", CASES)
def test_marks_and_filter_are_those_of_a_reading_token_by_token(corpus: Corpus, name: str) -> None:
    settings = CASES[name]
    refinement = Refinement(settings, corpus)
    pool = ContextPool(corpus, Mixture.of("tales"), "train", 24)
    tokens = pool.draw(np.random.default_rng(0), 60)
    expected = np.array([belongs(corpus, settings, row.tolist()) for row in tokens])
    held = refinement.holds(tokens)
    assert np.array_equal(held, expected.any(1))
    assert np.array_equal(refinement.marked(tokens)[held], expected[held])
    assert 0 < expected.sum() < expected.size
    if settings.containing or name == "both":
        assert 0 < held.sum() < len(held)


def test_batches_are_functions_of_their_number_and_hold_contexts_of_the_refinement_alone(corpus: Corpus) -> None:
    refinement = Refinement(CASES["both"], corpus)
    pool = ContextPool(corpus, Mixture.of("tales"), "train", 24)
    stream = RefinedStream(pool, refinement, 5, 0, ("sample",))
    for number, (tokens, marked) in enumerate(islice(stream.starting(2), 3), 2):
        assert tokens.shape == marked.shape == (5, 24)
        assert np.array_equal(tokens, stream[number][0])
        assert marked.any(1).all()
        assert np.array_equal(marked, refinement.marked(tokens))
    plain = BatchStream(pool, 64, 0, ("sample",))[2]
    first = plain[refinement.holds(plain)][:5]
    assert len(first)
    assert np.array_equal(stream[2][0][: len(first)], first)


def test_shuffled_contexts_are_those_of_the_pool_in_another_order_and_conditions_are_asked_of_that_order(corpus: Corpus) -> None:
    pool = ContextPool(corpus, Mixture.of("tales"), "train", 24)
    whole = RefinedStream(pool, Refinement(RefinementSettings("tales", shuffled=True), corpus), 5, 0, ("sample",))
    plain = BatchStream(pool, 64, 0, ("sample",))[2][:5]
    tokens, marked = whole[2]
    assert np.array_equal(np.sort(tokens, 1), np.sort(plain, 1))
    assert np.array_equal(tokens[:, 0], plain[:, 0])
    assert (tokens[:, 1:] != plain[:, 1:]).mean() > 0.7
    assert np.array_equal(marked[:, 1:], tokens[:, 1:] != corpus.bos)
    assert np.array_equal(tokens, whole[2][0])
    assert len({tuple(np.argsort(row, kind="stable")) for row in whole[2][0]}) == 5
    after = RefinedStream(pool, Refinement(RefinementSettings("tales", after=("e",), shuffled=True), corpus), 5, 0, ("sample",))
    tokens, marked = after[0]
    names = [[corpus.text([token]) for token in row] for row in tokens.tolist()]
    expected = [[t > 0 and names[b][t - 1].endswith("e") and tokens[b, t] != corpus.bos for t in range(24)] for b in range(5)]
    assert np.array_equal(marked, expected)


def test_a_padding_bos_between_documents_is_never_counted(corpus: Corpus) -> None:
    refinement = Refinement(RefinementSettings("echo", containing=corpus_text(corpus)), corpus)
    tokens = ContextPool(corpus, Mixture.of("echo"), "train", 80).draw(np.random.default_rng(1), 20)
    assert (tokens[:, 1:] == corpus.bos).any()
    assert np.array_equal(refinement.marked(tokens)[:, 1:], tokens[:, 1:] != corpus.bos)


def corpus_text(corpus: Corpus) -> tuple[str, ...]:
    return ("a", "e", "t")


def test_what_the_vocabulary_lacks_is_told(corpus: Corpus) -> None:
    with pytest.raises(RllcError, match=r"No token is what of = \['zyzzyva'\] asks for"):
        Refinement(RefinementSettings("tales", of=("zyzzyva",)), corpus)


def test_what_the_text_hardly_holds_is_told(corpus: Corpus) -> None:
    rare = Refinement(RefinementSettings("tales", after=("~",)), corpus)
    pool = ContextPool(corpus, Mixture.of("tales"), "train", 24)
    with pytest.raises(RllcError, match=r"Of 20\d\d\d contexts of 'tales', 0 belong to the refinement: fewer than a minibatch of 4\."):
        RefinedStream(pool, rare, 4, 0, ())[0]


@pytest.mark.parametrize(("given", "sentence"), [
    ({}, r"The refinement of 'mixture' refines nothing"),
    ({"after": ("",)}, r"after of a refinement holds an empty text"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(given: dict[str, tuple[str, ...]], sentence: str) -> None:
    with pytest.raises(RllcError, match=sentence):
        RefinementSettings(**given)

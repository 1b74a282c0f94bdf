from __future__ import annotations

from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.corpus.settings import CorpusSettings, SourceSettings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"kind": "pile"}, "'pile' is no kind of source"),
        ({"kind": "echo", "domain": "a/b"}, "'a/b' cannot name a domain"),
        ({"kind": "python", "domain": "x"}, "names its own two, code and prose"),
        ({"kind": "files", "domain": "x"}, "names no file or folder"),
        ({"kind": "huggingface", "domain": "x"}, "names no dataset"),
        ({"kind": "echo", "tokens": 100}, "'echo' asks for 100 tokens in documents of 64"),
        ({"kind": "brackets", "domain": "dyck", "document_tokens": 2}, "'dyck' asks for"),
        ({"kind": "echo", "segment": (8, 32)}, "Segments of 8 to 32 tokens do not all repeat"),
        ({"kind": "echo", "segment": (9, 8)}, "Segments of 9 to 8"),
        ({"kind": "brackets", "pairs": "()["}, "not a list of bracket pairs"),
        ({"kind": "brackets", "pairs": "(())"}, "not a list of bracket pairs"),
        ({"kind": "markov", "order": 0}, "Markov table of order 0"),
        ({"kind": "markov", "states": 1}, "over 1 tokens"),
        ({"kind": "markov", "concentration": 0.0}, "concentration 0 cannot"),
        ({"kind": "markov", "order": 9}, "order 9"),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_a_sentence(given: dict[str, Any], sentence: str):
    with pytest.raises(RllcError, match=sentence):
        SourceSettings(**given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"sources": ()}, "has no sources"),
        ({"vocabulary": 256}, "A vocabulary of 256 is too small.*at least 257"),
        ({"heldout": 1.0}, "share of documents, but 1 was given"),
        ({"heldout": -0.1}, "share of documents"),
        ({"max_bytes": 0}, "max_bytes is 0"),
    ],
)
def test_a_corpus_that_cannot_be_is_refused_in_a_sentence(given: dict[str, Any], sentence: str):
    with pytest.raises(RllcError, match=sentence):
        CorpusSettings(**{"sources": (SourceSettings("echo"),)} | given)


def test_a_given_tokenizer_needs_no_vocabulary():
    assert CorpusSettings((SourceSettings("echo"),), tokenizer="tokenizer.json", vocabulary=1).vocabulary == 1

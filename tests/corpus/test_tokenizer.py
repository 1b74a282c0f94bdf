from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from rllc.core.errors import RllcError
from rllc.corpus.tokenizer import (
    BOS,
    bos_id,
    encode_documents,
    load_tokenizer,
    parse_tokenizer,
    printable_tokens,
    special_ids,
    train_tokenizer,
    vocabulary_size,
)

from .conftest import story

TEXTS = [story(i) for i in range(30)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 320)


def test_training_is_deterministic_and_exact(tokenizer: Tokenizer):
    assert train_tokenizer(TEXTS, 320).to_str() == tokenizer.to_str()
    assert vocabulary_size(tokenizer) == 320
    assert bos_id(tokenizer) == 0
    assert special_ids(tokenizer) == (0,)
    assert sorted(tokenizer.get_vocab().values()) == list(range(320))


@given(st.text(max_size=80))
def test_any_text_comes_back_and_holds_no_special(tokenizer: Tokenizer, text: str):
    ids = next(iter(encode_documents(tokenizer, [text])))
    assert tokenizer.decode(ids.tolist()) == text
    assert 0 not in ids


def test_the_name_of_bos_in_a_text_is_text(tokenizer: Tokenizer):
    (ids,) = encode_documents(tokenizer, [f"before {BOS} after"])
    assert 0 not in ids
    assert tokenizer.decode(ids.tolist()) == f"before {BOS} after"


def test_documents_stay_apart_whatever_the_batches(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    alone = [next(iter(encode_documents(tokenizer, [text]))) for text in TEXTS]
    for size in (1, 700, 10**9):
        monkeypatch.setattr("rllc.corpus.tokenizer._BATCH_CHARACTERS", size)
        together = list(encode_documents(tokenizer, TEXTS))
        assert len(together) == len(alone)
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert list(encode_documents(tokenizer, [])) == []


def test_a_vocabulary_that_the_text_does_not_allow():
    with pytest.raises(RllcError, match=r"A vocabulary of 400 was asked for, but this text allows only 25\d tokens. Set vocabulary to 25\d or less"):
        train_tokenizer(["ab ab"], 400)
    with pytest.raises(RllcError, match="A vocabulary of 200 is too small"):
        train_tokenizer(TEXTS, 200)
    assert vocabulary_size(train_tokenizer([], 257)) == 257


def test_tokens_are_shown_readably(tokenizer: Tokenizer):
    shown = printable_tokens(tokenizer)
    assert len(shown) == 320
    assert all(piece and piece.isprintable() for piece in shown)
    (ids,) = encode_documents(tokenizer, ["a b\n\tü\x07"])
    assert "".join(shown[i] for i in ids) == "a␣b⏎⇥\\xc3\\xbc\\x07"
    assert len(set(shown)) == 320


def test_characters_that_are_a_token_are_shown_whole():
    tokenizer = train_tokenizer(["ü ü ü größe größe \u202e\u202e\u202e \u202e"], 263)
    shown = printable_tokens(tokenizer)
    assert any("ü" in piece for piece in shown)
    assert any("\\u202e" in piece for piece in shown)  # an override of direction would garble a page


def word_level(tmp_path: Path, specials: list[str]) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"▁a": 0, "[UNK]": 1, "b": 4}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(specials)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_given_tokenizer(tmp_path: Path):
    given = load_tokenizer(word_level(tmp_path, ["<s>", "[UNK]"]))
    assert given.truncation is None
    assert bos_id(given) == given.token_to_id("<s>")
    assert bos_id(given, "[UNK]") == 1
    assert printable_tokens(given)[:5] == ("␣a", "[UNK]", "⟨2⟩", "<s>", "b")
    with pytest.raises(RllcError, match=r"no special token '<bos>'; it has '<s>', '\[UNK\]'|'\[UNK\]', '<s>'"):
        bos_id(given, "<bos>")


def test_a_given_tokenizer_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(RllcError, match=r"no beginning-of-sequence token of a usual name; it has none at all"):
        bos_id(load_tokenizer(word_level(tmp_path, [])))
    with pytest.raises(RllcError, match="There is no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RllcError, match=r"bad.json is not a tokenizer"):
        load_tokenizer(tmp_path / "bad.json")


def test_a_parsed_tokenizer_has_no_stale_cache(tokenizer: Tokenizer):
    again = parse_tokenizer(json.dumps(json.loads(tokenizer.to_str())))
    assert [ids.tolist() for ids in encode_documents(again, TEXTS)] == [ids.tolist() for ids in encode_documents(tokenizer, TEXTS)]


FORK = """
import os, signal
from rllc.corpus.tokenizer import encode_documents, train_tokenizer
texts = [f"text {i} of many words that repeat" for i in range(500)]
tokenizer = train_tokenizer(texts, 270)
list(encode_documents(tokenizer, texts))
if not os.fork():
    signal.alarm(20)
    list(encode_documents(tokenizer, texts))
    os._exit(0)
assert os.wait()[1] == 0
print(os.environ["TOKENIZERS_PARALLELISM"])
"""


@pytest.mark.parametrize("chosen", [None, "false", "0"])
def test_a_later_fork_is_silent_and_works(chosen: str | None):
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    if chosen is not None:
        environment["TOKENIZERS_PARALLELISM"] = chosen
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert (done.stdout.strip(), done.stderr) == (chosen or "false", "")

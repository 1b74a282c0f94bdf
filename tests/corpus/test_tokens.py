from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.corpus.tokens import Corpus, open_corpus


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _one(folder: Path, pattern: str) -> Path:
    return next(folder.glob(pattern))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no header": (lambda f: (f / "corpus.json").unlink(), "There is no corpus in .* Build one with `rllc corpus`"),
    "torn header": (lambda f: (f / "corpus.json").write_text("{"), "is damaged: corpus.json cannot be read"),
    "no object": (lambda f: (f / "corpus.json").write_text("[]"), "is damaged: corpus.json cannot be read"),
    "altered header": (lambda f: _edit(f / "corpus.json", bos=7), "is damaged: corpus.json is not what was written"),
    "newer": (lambda f: _edit(f / "corpus.json", format=2), "written by a newer version .*format 2; this one reads up to 1.* Upgrade rllc"),
    "no tokens": (lambda f: _one(f, "echo-*.tokens.npy").unlink(), r"is damaged: echo-\w+.tokens.npy is missing"),
    "altered tokens": (lambda f: _flip(_one(f, "tales-*.tokens.npy")), r"is damaged: tales-\w+.tokens.npy is not what was written"),
    "altered table": (lambda f: _flip(_one(f, "*.table.npy")), r"markov-\w+.table.npy is not what was written"),
    "altered tokenizer": (lambda f: _flip(_one(f, "*.tokenizer.json")), "tokenizer.json is not what was written"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_opened_is_told(corpus: Corpus, tmp_path: Path, damage: str):
    folder = Path(shutil.copytree(corpus.folder, tmp_path / "corpus"))
    assert open_corpus(folder).digest == corpus.digest
    act, sentence = DAMAGES[damage]
    act(folder)
    with pytest.raises(RllcError, match=sentence):
        open_corpus(folder)


def test_without_verifying_only_what_cannot_be_read_is_told(corpus: Corpus, tmp_path: Path):
    folder = Path(shutil.copytree(corpus.folder, tmp_path / "corpus"))
    _flip(_one(folder, "tales-*.tokens.npy"))
    assert open_corpus(folder, verify=False).digest == corpus.digest
    _one(folder, "tales-*.documents.npy").write_bytes(_one(folder, "echo-*.documents.npy").read_bytes())
    with pytest.raises(RllcError, match="the documents do not end where the tokens do"):
        open_corpus(folder, verify=False)
    _one(folder, "tales-*.tokens.npy").write_bytes(b"torn")
    with pytest.raises(RllcError, match="is damaged: its arrays cannot be read"):
        open_corpus(folder, verify=False)


def test_text_and_tokens_lead_to_each_other(corpus: Corpus):
    ids = corpus.encode("the head\n of α <|bos|>")
    assert corpus.text(ids) == "the head\n of α <|bos|>"
    assert corpus.bos not in ids
    assert "".join(corpus.decode(ids)) == "the␣head⏎␣of␣\\xce\\xb1␣<|bos|>"
    assert corpus.decode([corpus.bos]) == ["<|bos|>"]
    assert corpus.text([corpus.bos, *ids[:1]]) == corpus.text(ids[:1])
    for outside in (-1, 300):
        with pytest.raises(RllcError, match=f"{outside} is no token of this corpus. Its ids run from 0 to 299"):
            corpus.decode(np.array([[1, outside]]))


def test_the_numbers_of_a_report(corpus: Corpus, stories: Path):
    told = json.loads(json.dumps(corpus.describe()))
    tales = told["domains"]["tales"]
    assert tales["documents"] == 40
    assert tales["bytes"] == sum(path.stat().st_size for path in stories.iterdir())
    for key in ("documents", "tokens", "bytes"):
        assert tales["train"][key] + tales["heldout"][key] == tales[key]
    texts = [corpus.domains["tales"].document(i) for i in range(40)]
    assert tales["tokens"] == sum(map(len, texts))
    assert tales["tokens_per_document"] == tales["tokens"] / 40
    assert tales["bytes_per_token"] == pytest.approx(tales["bytes"] / (tales["tokens"] - 40))
    heldout = sum(len(corpus.text(corpus.domains["tales"].document(i)).encode()) for i in corpus.domains["tales"].documents_of("heldout"))
    assert tales["heldout"]["bytes"] == heldout
    assert told["domains"]["echo"]["bytes"] == 0
    assert told["domains"]["echo"]["structure"] == {"kind": "echo", "segment": [4, 10]}
    assert told["digest"] == corpus.digest


def test_a_split_has_two_sides(corpus: Corpus):
    with pytest.raises(RllcError, match="'test' is no split"):
        corpus.domains["tales"].documents_of("test")

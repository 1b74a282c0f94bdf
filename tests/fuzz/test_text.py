"""Text and tokenizers from strangers: read, or refused in a sentence, within memory."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.corpus import tokens
from rllc.corpus.build import build_corpus
from rllc.corpus.hub import given_tokenizer
from rllc.corpus.local_files import files_fingerprint, read_files
from rllc.corpus.settings import CorpusSettings, SourceSettings
from rllc.corpus.tokenizer import load_tokenizer, printable_tokens, special_ids, train_tokenizer

from .bounds import examples, outcome, refused
from .hostile import WORDS, values

zstandard = pytest.importorskip("zstandard")
pyarrow = pytest.importorskip("pyarrow")
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": lambda content: zstandard.ZstdCompressor().compress(content)}
BOMBS = {
    ".gz": lambda: gzip.compress(bytes(200 * 2**20), 1),
    ".xz": lambda: lzma.compress(bytes(200 * 2**20), preset=0),
    ".zst": lambda: zstandard.ZstdCompressor(level=1).compress(bytes(600 * 2**20)),
}


def rows(path: Path, **settings: Any) -> list[tuple[str, str]]:
    return list(read_files(SourceSettings("files", paths=(str(path),), **({"domain": "text"} | settings))))


@examples(30)
@given(st.lists(st.one_of(values.map(lambda v: json.dumps(v)[:5000]), st.text(max_size=20)), max_size=4), st.sampled_from(sorted(PACK)), st.data())
def test_any_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], suffix: str, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("rows") / f"a.jsonl{suffix}"
    content = bytearray(PACK[suffix]("\n".join(lines).encode("utf-8", "surrogatepass")))
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    outcome(lambda: rows(path))


LINES = [
    "[" * 100_000,
    '{"text":' * 50_000,
    "9" * 5000,
    '{"text": 3}',
    "{}",
    '"text"',
    '{"text": "a", "domain": "' + "x" * 5000 + '"}',
    "NaN",
    "\x00",
]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_line_that_is_no_row(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' + line + "\n")
    assert len(str(refused(lambda: rows(path)))) < 1000


@pytest.mark.parametrize("suffix", sorted(BOMBS))
def test_a_bomb_is_one_line_and_too_long(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(BOMBS[suffix]())
    assert "characters" in str(refused(lambda: rows(path), seconds=60, megabytes=400))


def test_invalid_bytes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n')
    refused(lambda: rows(path))


@examples(15)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4), st.integers(1, 3000))
def test_changed_parquet(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], kept: int) -> None:
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    pq.write_table(pyarrow.table({"text": ["a text", "another text"] * 20, "domain": ["a", "b"] * 20}), path)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    for bad in (bytes(content), bytes(content)[: kept % len(content)]):
        path.write_bytes(bad)
        outcome(lambda: rows(path), seconds=20, megabytes=1000)


def test_text_of_a_parquet_file_that_is_not_utf8(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    column = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")])
    pq.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    refused(lambda: rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize("given_path", [*WORDS, "x" * 5000, "/dev/zero", "/proc/self/mem"])
def test_any_path_and_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("text")
    for source in (SourceSettings("files", domain="d", paths=(given_path,)), SourceSettings("files", domain="d", paths=("in",), pattern=given_path)):
        if given_path not in ("/etc/passwd", "..", "../..", "", "a/../../b"):  # what is there to be read is read
            outcome(lambda s=source: list(read_files(s)))
            outcome(lambda s=source: files_fingerprint(s))


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "a\x00b", "x" * 300, "/etc", "a\nb", "\x1b[2J"])
def test_no_domain_leads_out_of_the_corpus(tmp_path: Path, name: str) -> None:
    corpus, text = tmp_path / "run" / "corpus", tmp_path / "in.jsonl"
    text.write_text("".join(json.dumps({"text": f"some words and more of them {i}", "domain": name}) + "\n" for i in range(40)))
    outcome(lambda: build_corpus(CorpusSettings((SourceSettings("files", paths=(str(text),), domain="d"),), vocabulary=260), corpus), seconds=30)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "in.jsonl"}
    assert {path.name for path in (tmp_path / "run").iterdir() if (tmp_path / "run").exists()} <= {"corpus"} if (tmp_path / "run").exists() else True


SOUND = json.loads(train_tokenizer(["some words and more of them"] * 4, 260).to_str())


@examples(30)
@given(st.sampled_from([*SOUND, "vocab", "merges", "added_tokens"]), values)
def test_any_tokenizer(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    broken = SOUND | {"model": SOUND["model"] | {key: value}} if key in ("vocab", "merges") else SOUND | {key: value}
    path.write_text(json.dumps(broken))
    found = outcome(lambda: load_tokenizer(path))
    if not isinstance(found, RllcError):
        outcome(lambda: (printable_tokens(found), special_ids(found), found.encode("some words")))


TOKENIZERS = {
    "nothing": "", "a list": "[]", "deep": "[" * 100_000, "deep model": '{"model":' * 50_000, "not UTF-8": "\xff",
    "huge id": json.dumps(SOUND | {"model": SOUND["model"] | {"vocab": SOUND["model"]["vocab"] | {"x": 2**32 - 1}}}),
    "negative id": json.dumps(SOUND | {"model": SOUND["model"] | {"vocab": {"x": -1}}}),
    "empty": json.dumps(SOUND | {"added_tokens": [], "model": SOUND["model"] | {"vocab": {}, "merges": []}}),
    "merge of nothing": json.dumps(SOUND | {"model": SOUND["model"] | {"merges": [["nope", "x"]]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_is_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(TOKENIZERS[name].encode("latin-1"))
    refused(lambda: load_tokenizer(path))


@pytest.mark.parametrize("name", ["", "..", "a\x00b", "x" * 5000, "~nobody-here/x", "/dev/zero", "/"])
def test_any_name_of_a_tokenizer(name: str) -> None:
    refused(lambda: given_tokenizer(name))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    text = tmp_path_factory.mktemp("text") / "a.jsonl"
    text.write_text("".join(json.dumps({"text": f"some words and more of them {i}"}) + "\n" for i in range(40)))
    build_corpus(CorpusSettings((SourceSettings("files", paths=(str(text),), domain="d"),), vocabulary=260), folder)
    return folder


def altered(folder: Path, change: Any) -> None:
    """The header with a change, sealed as if we had written it."""
    header = json.loads((folder / tokens.HEADER).read_text())
    header.pop("seal")
    change(header)
    (folder / tokens.HEADER).write_text(json.dumps({**header, "seal": tokens.digest.of_json(header)}))


@examples(30)
@given(st.data(), values.filter(lambda v: "nan" not in str(v) and "inf" not in str(v)))
def test_any_header_of_a_corpus(corpus: Path, data: st.DataObject, value: Any) -> None:
    sound = (corpus / tokens.HEADER).read_text()
    header = json.loads(sound)
    place = data.draw(st.sampled_from([(key,) for key in header if key != "seal"] + [("domains", "d", key) for key in header["domains"]["d"]]))

    def change(table: Any) -> None:
        for key in place[:-1]:
            table = table[key]
        table[place[-1]] = value

    try:
        altered(corpus, change)
        outcome(lambda: tokens.open_corpus(corpus))
    finally:
        (corpus / tokens.HEADER).write_text(sound)


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/passwd", "..", "", "a\x00b"])
def test_a_header_names_no_file_elsewhere(corpus: Path, name: str) -> None:
    sound = (corpus / tokens.HEADER).read_text()
    try:
        altered(corpus, lambda header: header["domains"]["d"]["files"]["tokens"].update(file=name))
        refused(lambda: tokens.open_corpus(corpus, verify=False))
    finally:
        (corpus / tokens.HEADER).write_text(sound)

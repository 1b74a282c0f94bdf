from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.corpus.local_files import cut_at_lines, files_fingerprint, read_files
from rllc.corpus.settings import SourceSettings

from .conftest import FORMATS

ROWS = [
    {"text": "A tale.", "domain": "tales", "n": 1},
    {"text": "A law, § 1.", "domain": "US Laws", "n": 2},
    {"text": "No home.", "domain": None, "n": 3},
]


def source(*paths: Path, **more) -> SourceSettings:
    return SourceSettings("files", paths=tuple(map(str, paths)), **{"domain": "rest"} | more)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_name_their_own_domain(tmp_path: Path, form: str):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form](ROWS))
    assert list(read_files(source(path))) == [("tales", "A tale."), ("US-Laws", "A law, § 1."), ("rest", "No home.")]
    assert {domain for domain, _ in read_files(source(path, domain_column=""))} == {"rest"}
    with pytest.raises(RllcError, match=r"Row 3 of .* belongs to no domain"):
        list(read_files(source(path, domain="")))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_nested_columns(tmp_path: Path, form: str):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form]([{"content": {"body": "Deep."}, "meta": {"set": "pile"}}]))
    assert list(read_files(source(path, text_column="content.body", domain_column="meta.set"))) == [("pile", "Deep.")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_row_without_text_is_told_with_what_it_has(tmp_path: Path, form: str):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form](ROWS))
    with pytest.raises(RllcError, match=r"no (text in|column) 'body'; it has .*text.*Name the right `text_column`"):
        list(read_files(source(path, text_column="body")))


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.xz", "jsonl.zst", "parquet"])
def test_a_damaged_file_is_told(tmp_path: Path, form: str):
    path = tmp_path / f"rows.{form}"
    whole = FORMATS[form](ROWS * 50)
    path.write_bytes(whole[:30] + b"\xff\x00\xff\x00\xff" + whole[35:])
    with pytest.raises(RllcError, match=r"could not be read|is not JSON"):
        list(read_files(source(path)))


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.xz", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("lost", [1, 12])
def test_a_file_cut_short_is_told(tmp_path: Path, form: str, lost: int):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form](ROWS)[:-lost])
    with pytest.raises(RllcError, match=r"could not be read .*(cut short|no parquet file)"):
        list(read_files(source(path)))


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.xz", "jsonl.zst"])
def test_files_compressed_in_pieces_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form](ROWS) + FORMATS[form](ROWS * 200))
    for chunk in (1 << 16, 7):
        monkeypatch.setattr("rllc.corpus.local_files._CHUNK", chunk)
        assert [text for _, text in read_files(source(path))] == [row["text"] for row in ROWS] * 201


@pytest.mark.parametrize(("line", "sentence"), [("{not json}", "Line 2 of .* is not JSON"), ("[1, 2]", "Line 2 of .* is not a JSON object")])
def test_a_damaged_line_is_told_with_its_number(tmp_path: Path, line: str, sentence: str):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(RllcError, match=sentence):
        list(read_files(source(path)))


@pytest.mark.parametrize(("form", "module"), [("jsonl.zst", "zstandard"), ("parquet", "pyarrow")])
def test_a_missing_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, module: str):
    path = tmp_path / f"rows.{form}"
    path.write_bytes(FORMATS[form](ROWS))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RllcError, match=rf"needs the package {module}, which is not installed.*rllc\[data\]"):
        list(read_files(source(path)))


def test_a_folder_gives_its_texts_in_order_without_hidden_ones(tmp_path: Path):
    for name in ("b.md", "a.txt", "c.png", ".git/config.txt", "deep/d.rst", "__pycache__/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    assert [text for _, text in read_files(source(tmp_path))] == ["a.txt", "b.md", "deep/d.rst"]
    assert [text for _, text in read_files(source(tmp_path, pattern="*.md"))] == ["b.md"]
    assert [text for _, text in read_files(source(tmp_path / "c.png"))] == ["c.png"]
    with pytest.raises(RllcError, match=r"latin.txt is not UTF-8 text"):
        list(read_files(source(tmp_path / "latin.txt")))
    with pytest.raises(RllcError, match=r"No file of .* would match '\*.tex'"):
        list(read_files(source(tmp_path, pattern="*.tex")))
    with pytest.raises(RllcError, match="does not exist"):
        list(read_files(source(tmp_path / "nowhere")))
    with pytest.raises(RllcError, match=r"a.txt belongs to no domain"):
        list(read_files(source(tmp_path / "a.txt", domain="")))


def test_the_fingerprint_is_of_text_and_not_of_place(tmp_path: Path):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text("same")
    assert files_fingerprint(source(tmp_path / "here")) == files_fingerprint(source(tmp_path / "there"))
    (tmp_path / "there" / "a.txt").write_text("other")
    assert files_fingerprint(source(tmp_path / "here")) != files_fingerprint(source(tmp_path / "there"))


@given(st.text(alphabet="ab \n", max_size=200), st.integers(0, 20))
def test_cutting_loses_nothing_and_keeps_to_the_size(text: str, size: int):
    pieces = list(cut_at_lines(text, size))
    assert "".join(pieces) == text
    assert size == 0 or all(len(piece) <= size for piece in pieces)


def test_cutting_ends_at_lines_then_at_spaces(tmp_path: Path):
    (tmp_path / "long.txt").write_text("one two\nthree four five\n")
    assert [text for _, text in read_files(source(tmp_path / "long.txt", document_characters=10))] == ["one two\n", "three ", "four five\n"]

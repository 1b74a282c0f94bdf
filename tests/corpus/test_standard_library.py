from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rllc.corpus.standard_library import CODE, PROSE, help_topics, library_files, library_fingerprint, library_root, part_docstrings, read_library

MODULE = '''\
"""Module words,
on two lines."""
import os  # kept


class Alone:
    """Alone in its block."""


class Two:
    """The first."""
    "The second would become one."
    x = 1

    async def f(self):
        """Words of f."""  # a comment beside it
        return "not a docstring"

    def one_line(self): "on the line of def"

    def shared(self): "before a semicolon"; return 1


if os:
    def inner(é="é"):
        u"""Inner wörds."""
        match é:
            case 1:
                def innermost():
                    ("in " "brackets")
                    return 1
'''


def docstrings_of(source: str) -> list[str]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [text for node in ast.walk(ast.parse(source)) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


def test_docstrings_are_taken_out_and_the_rest_runs_as_before():
    code, docstrings = part_docstrings(MODULE) or ("", [])
    assert docstrings == [
        "Module words,\non two lines.",
        "Alone in its block.",
        "The first.",
        "The second would become one.",
        "Words of f.",
        "on the line of def",
        "before a semicolon",
        "Inner wörds.",
        "in brackets",
    ]
    assert docstrings_of(code) == []
    assert "import os  # kept" in code
    assert 'return "not a docstring"' in code
    namespace: dict = {}
    exec(compile(code, "parted", "exec"), namespace)
    assert namespace["Two"]().shared() == 1
    assert namespace["Two"]().one_line() is None
    assert "words" not in code.lower()


def test_source_that_does_not_parse_is_passed_over(tmp_path: Path):
    assert part_docstrings("def f(:\n") is None
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "odd.py").write_bytes(b"# coding: no-such-encoding\nx = 1\n")
    assert list(read_library(tmp_path)) == []


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library in miniature."""
    contents = {
        "LICENSE.txt": "You may use it.",
        "plain.py": '"""Plain words."""\nx = 1\n',
        "empty.py": "",
        "words_only.py": '"""Nothing but words."""\n',
        "encodings/cp1.py": "table = {}\n",
        "_sysconfigdata_here.py": "build_time_vars = {}\n",
        "test/test_x.py": "assert True\n",
        "json/tests/test_y.py": "assert True\n",
        "json/__init__.py": "def dump():\n    '''Dump it.'''\n",
        "site-packages/numpy.py": "x = 2\n",
        "pydoc_data/topics.py": "# made\ntopics = {'b': 'Second topic.', 'a': 'First topic.'}\n",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_and_prose_of_a_library(library: Path):
    documents = list(read_library(library))
    assert sorted(text for domain, text in documents if domain == CODE) == ["def dump():\n    pass\n", "x = 1\n"]
    assert sorted(text for domain, text in documents if domain == PROSE) == [
        "Dump it.",
        "First topic.",
        "Nothing but words.",
        "Plain words.",
        "Second topic.",
        "You may use it.",
    ]


def test_a_library_without_topics_is_still_read(library: Path):
    (library / "pydoc_data" / "topics.py").write_text("nothing = 1\n")
    assert help_topics(library) == {}
    (library / "pydoc_data" / "topics.py").unlink()
    assert help_topics(library) == {}
    assert len(list(read_library(library))) == 6


@pytest.mark.parametrize("changed", ["plain.py", "LICENSE.txt", "pydoc_data/topics.py"])
def test_the_fingerprint_follows_every_file_that_is_read(library: Path, changed: str):
    before = library_fingerprint(library)
    (library / "site-packages" / "numpy.py").write_text("x = 3\n")
    assert library_fingerprint(library) == before
    (library / changed).write_text("topics = {}\n")
    assert library_fingerprint(library) != before


def test_this_machine_has_code_and_prose_that_do_not_overlap():
    root = library_root()
    chosen = [path for path in library_files(root) if path.name in ("argparse.py", "textwrap.py", "LICENSE.txt")]
    assert {"argparse.py", "textwrap.py"} <= {path.name for path in chosen}
    code, prose = part_docstrings((root / "argparse.py").read_text(encoding="utf-8")) or ("", [])
    assert docstrings_of(code) == []
    long = [text for text in prose if len(text) > 60]
    assert long
    assert not any(text.splitlines()[0] in code for text in long)
    assert len(help_topics(root)) > 50

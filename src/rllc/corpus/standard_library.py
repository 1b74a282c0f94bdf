"""Text that every machine has: the Python standard library, its code and its prose, without overlap."""

from __future__ import annotations

import ast
import inspect
import os
import platform
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rllc.core import digest

CODE, PROSE = "code", "prose"

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"})
# Tables of data in the shape of Python: character maps, the help topics (read as prose below), build variables of this machine.
_SKIPPED_TABLES = ("encodings", "pydoc_data", "config-", "_sysconfigdata", "_sysconfig_vars")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def read_library(root: Path | None = None) -> Iterator[tuple[str, str]]:
    """Documents of the standard library as (domain, text).

    `code` is one document a module, its docstrings taken out. `prose` is one document a module that has docstrings (all of them,
    in the order of the file), one a help topic of `pydoc`, and one a text file: the licence and the histories that lie beside the code.
    Tests, installed packages and modules that are tables of data are left out.
    """
    root = root or library_root()
    for path in library_files(root):
        if path.suffix == ".txt":
            yield PROSE, path.read_text(encoding="utf-8", errors="replace")
            continue
        parted = part_docstrings(read_python(path))
        if parted is None:
            continue
        code, docstrings = parted
        if code.strip():
            yield CODE, code
        if docstrings:
            yield PROSE, "\n\n".join(docstrings)
    for _, topic in sorted(help_topics(root).items()):
        yield PROSE, topic


def library_root() -> Path:
    """The folder of the running interpreter's standard library; a virtual environment shares that of its base."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(root: Path) -> list[Path]:
    """The modules and text files that are read, sorted."""
    found: list[Path] = []
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        tables = _SKIPPED_TABLES if here == root else ()
        inner[:] = [name for name in inner if name not in _SKIPPED_FOLDERS and not name.startswith(tables)]  # installed packages may be many
        found += [here / name for name in names if name.endswith((".py", ".txt")) and not name.startswith(tables)]
    return sorted(path for path in found if path.is_file())


def library_fingerprint(root: Path | None = None) -> dict[str, Any]:
    """What identifies this machine's library: the version and a digest of every file that is read."""
    root = root or library_root()
    topics = _topics_file(root)
    files = library_files(root) + ([topics] if topics.is_file() else [])
    return {"python": platform.python_version(), "files": digest.of_json({path.relative_to(root).as_posix(): digest.of_file(path) for path in files})}


def read_python(path: Path) -> str:
    """A module's source in its declared encoding, with plain line ends; empty where it cannot be read as text."""
    try:
        with tokenize.open(path) as stream:
            return stream.read()
    except (SyntaxError, UnicodeDecodeError):
        return ""


def part_docstrings(source: str) -> tuple[str, list[str]] | None:
    r"""The source without its docstrings, and the docstrings, cleaned of indentation. None where the source does not parse.

    >>> part_docstrings('def f():\n    "Return one."\n    return 1\n')
    ('def f():\n    return 1\n', ['Return one.'])
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    lines = source.encode().split(b"\n")
    found = sorted(_docstrings(tree), key=lambda item: (item[0].lineno, item[0].col_offset))
    for statement, alone in reversed(found):
        _take_out(lines, statement, alone)
    texts = [inspect.cleandoc(statement.value.value) for statement, _ in found]  # pyright: ignore[reportAttributeAccessIssue]
    return b"\n".join(lines).decode(), [text for text in texts if text.strip()]


def help_topics(root: Path) -> dict[str, str]:
    """The help topics that `pydoc` shows, read without being executed; empty where the interpreter comes without them."""
    path = _topics_file(root)
    if not path.is_file():
        return {}
    for statement in ast.parse(read_python(path)).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            topics = ast.literal_eval(statement.value)
            return {str(name): str(text) for name, text in topics.items()}
    return {}


def _topics_file(root: Path) -> Path:
    return root / "pydoc_data" / "topics.py"


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Expr, bool]]:
    """Every docstring statement, and whether its block holds nothing else. Strings that follow at once would become docstrings: they count."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, _Documented):
            leading = []
            for statement in node.body:
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)):
                    break
                leading.append(statement)
            alone = len(leading) == len(node.body) and not isinstance(node, ast.Module)
            yield from ((statement, alone and statement is leading[0]) for statement in leading)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):  # statements only: docstrings live in no expression
            stack.extend(child for child in getattr(node, field, ()) if isinstance(child, ast.AST))


def _take_out(lines: list[bytes], statement: ast.Expr, alone: bool) -> None:
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    before, after = lines[first][: statement.col_offset], lines[last][statement.end_col_offset :]
    whole_lines = not before.strip() and (not after.strip() or after.lstrip().startswith(b"#"))
    lines[first : last + 1] = [] if whole_lines and not alone else [before + b"pass" + after]

"""Documents from local files and folders: plain text, JSON lines (compressed or not) and parquet."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import parse_json
from rllc.corpus.settings import SourceSettings

TEXT_SUFFIXES = frozenset(
    {".txt", ".md", ".rst", ".tex", ".org", ".adoc", ".html", ".htm", ".xml", ".css", ".srt", ".csv", ".tsv", ".log", ".toml", ".yaml", ".yml"}
    | {".py", ".pyi", ".js", ".ts", ".jsx", ".tsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".rs", ".go", ".java", ".kt", ".scala", ".swift"}
    | {".rb", ".pl", ".php", ".lua", ".r", ".jl", ".m", ".hs", ".ml", ".lisp", ".clj", ".ex", ".erl", ".sh", ".bash", ".sql", ".ini", ".cfg"}
)
_CHUNK = 1 << 10  # of a compressed file: a few bytes of one may stand for 128 KiB
_LONGEST_LINE = 50_000_000  # characters of a row
_LONGEST_NAME = 100  # bytes of a domain's name, which files are named after
ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst", ".parquet")


def read_files(source: SourceSettings) -> Iterator[tuple[str, str]]:
    """Documents of a `files` source as (domain, text).

    Raises RllcError where a path is missing, a file given by name is not UTF-8, a row is damaged or lacks its text, or nothing names
    the domain. Files of a folder that are not UTF-8 are passed over.
    """
    for path, named in local_paths(source):
        if path.name.lower().endswith(ROW_SUFFIXES):
            yield from _read_rows(path, source)
            continue
        text = _read_text(path)
        if text is None:
            if named:
                raise RllcError(f"{path} is not UTF-8 text.", "Convert it, or leave it out of `paths`.")
            continue
        domain = source.domain or _no_domain(str(path))
        yield from ((domain, piece) for piece in cut_at_lines(text, source.document_characters))


def local_paths(source: SourceSettings) -> list[tuple[Path, bool]]:
    """Every file to read and whether it was given by name, in a fixed order. Hidden files and folders are passed over."""
    found: dict[Path, bool] = {}
    for given in source.paths:
        path = _expanded(given)
        if path.is_dir():
            found = {file: False for file in _fitting(path, source.pattern) if _wanted(file, path, source.pattern)} | found
        elif path.is_file():
            found[path] = True
        else:
            raise RllcError(f"{path} does not exist.", "Check `paths`; relative paths start at the working directory.")
    if not found:
        what = f"match {source.pattern!r}" if source.pattern else "have a suffix that can be read"
        raise RllcError(f"No file of {', '.join(source.paths)} would {what}.", "Check `paths` and `pattern`.")
    return list(found.items())


def _expanded(given: str) -> Path:
    try:
        path = Path(given).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # a name that no file can have; a home of nobody
        raise RllcError(f"{given[:200]!r} names no file: {getattr(error, 'strerror', None) or error}.", "Check `paths`.") from error
    return path


def _fitting(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.rglob(pattern or "*"))
    except (NotImplementedError, ValueError, IndexError, OSError) as error:
        raise RllcError(
            f"{pattern[:200]!r} is no pattern of names within a folder: {getattr(error, 'strerror', None) or error}.",
            "Write one such as *.md in `pattern`.",
        ) from error


def files_fingerprint(source: SourceSettings) -> list[str]:
    """Digests of the files in the order they are read: changed text changes it, a moved folder does not."""
    return [_of_file(path) for path, _ in local_paths(source)]


def _of_file(path: Path) -> str:
    try:
        return digest.of_file(path)
    except OSError as error:
        raise RllcError(f"{path} could not be read: {error.strerror or error}.", "Check that the file may be read, or leave it out.") from error


def row_document(row: Mapping[str, Any], source: SourceSettings, where: str) -> tuple[str, str]:
    """The (domain, text) of a row. `where` names the row in errors. Raises RllcError where text or domain are missing."""
    text = _field(row, source.text_column)
    if not isinstance(text, str):
        some = ", ".join(repr(name)[:80] for name in list(row)[:12]) or "nothing"
        raise RllcError(f"{where} has no text in {source.text_column[:80]!r}; it has {some}.", "Name the right `text_column`.")
    own = _field(row, source.domain_column) if source.domain_column else None
    name = re.sub(r"[^\w.-]+", "-", str(own)).strip("-") if own is not None else ""
    if len(name.encode()) > _LONGEST_NAME:
        raise RllcError(f"{where} names the domain {name[:40]!r}…, which is too long a name.", "Name the right `domain_column`, or leave it empty.")
    return name or source.domain or _no_domain(where), text


def cut_at_lines(text: str, size: int) -> Iterator[str]:
    r"""Pieces of about `size` characters that end at a line's end, or at a space where a line is longer; 0 keeps the text whole.

    >>> list(cut_at_lines("one\ntwo\nthree\n", 9))
    ['one\ntwo\n', 'three\n']
    """
    start = 0
    while 0 < size < len(text) - start:
        stop = start + size
        cut = text.rfind("\n", start, stop)
        cut = cut if cut >= 0 else text.rfind(" ", start, stop)
        stop = cut + 1 if cut >= 0 else stop
        yield text[start:stop]
        start = stop
    yield text[start:]


def _wanted(path: Path, folder: Path, pattern: str) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    known = bool(pattern) or path.suffix.lower() in TEXT_SUFFIXES or path.name.lower().endswith(ROW_SUFFIXES)
    return known and not hidden and path.is_file()


def _read_text(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise RllcError(f"{path} could not be read: {error.strerror or error}.", "Check that the file may be read, or leave it out.") from error
    return None if "\0" in text else text


def _read_rows(path: Path, source: SourceSettings) -> Iterator[tuple[str, str]]:
    rows = _parquet_rows(path, source) if path.name.lower().endswith(".parquet") else _json_rows(path)
    for number, row in enumerate(rows, 1):
        yield row_document(row, source, f"Row {number} of {path}")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    stream, damage = _open_compressed(path)
    try:
        with io.TextIOWrapper(stream, encoding="utf-8") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE + 1), ""), 1):
                if len(line) > _LONGEST_LINE:
                    raise RllcError(f"Line {number} of {path} has more than {_LONGEST_LINE:,} characters.", "Split the document, or leave it out.")
                if line.strip():
                    yield _json_row(line, f"Line {number} of {path}")
    except damage as error:
        raise RllcError(f"{path} could not be read to its end: {error}.", "The file is damaged or cut short; fetch it again.") from error


def _json_row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:  # also of numbers of thousands of digits, and of tables within tables without end
        raise RllcError(f"{where} is not JSON: {str(error)[:200]}.", "Mend or remove the line.") from error
    if not isinstance(row, dict):
        raise RllcError(f"{where} is not a JSON object.", 'Each line should read like {"text": "..."}.')
    return row


def _open_compressed(path: Path) -> tuple[Any, tuple[type[Exception], ...]]:
    """The stream of a file's content, and the exceptions that mean damage."""
    name = path.name.lower()
    damage = (EOFError, OSError, UnicodeDecodeError)
    if name.endswith(".gz"):
        return gzip.open(path, "rb"), (*damage, zlib.error)
    if name.endswith(".xz"):
        return lzma.open(path, "rb"), (*damage, lzma.LZMAError)
    if name.endswith(".zst"):
        try:
            import zstandard  # an extra: only those who have such files need it
        except ImportError as error:
            raise missing_extra(f"Reading {path}", "zstandard") from error
        return io.BufferedReader(_Frames(path, zstandard.ZstdDecompressor())), (*damage, zstandard.ZstdError)
    return path.open("rb"), damage


class _Frames(io.RawIOBase):
    """The content of a zstandard file, frame after frame; unlike the library's own reader it does not take a file cut short for a whole one."""

    def __init__(self, path: Path, decompressor: Any) -> None:
        self._file, self._decompressor = path.open("rb"), decompressor
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._file.read(_CHUNK)
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._ready, self._rest = memoryview(self._frame.decompress(data)), b""
            if self._frame.eof:
                self._frame, self._rest = None, self._frame.unused_data
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _parquet_rows(path: Path, source: SourceSettings) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra(f"Reading {path}", "pyarrow") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            wanted = [name.split(".")[0] if name not in names else name for name in (source.text_column, source.domain_column)]
            columns = [name for name in dict.fromkeys(wanted) if name in names]
            if not {wanted[0]} <= names:
                raise RllcError(f"{path} has no column {source.text_column!r}; it has {', '.join(sorted(names))}.", "Name the right `text_column`.")
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:  # text that is not UTF-8 is a ValueError of its own
        raise RllcError(f"{path} could not be read as parquet: {error}.", "The file is damaged or no parquet file; fetch it again.") from error


def missing_extra(what: str, module: str, extra: str = "data") -> RllcError:
    """The sentence for an optional dependency that is not installed."""
    return RllcError(f"{what} needs the package {module}, which is not installed.", f"Install the extra: pip install 'rllc[{extra}]'.")


def _field(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head)
    return _field(inner, rest) if dot and isinstance(inner, Mapping) else None


def _no_domain(where: str) -> str:
    raise RllcError(f"{where} belongs to no domain.", 'Write domain = "..." in the table of its source, or name the `domain_column` of its rows.')

"""A corpus on disk, written: files named by their content first, `corpus.json` last, so that what is half-written is never opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllc.core import digest, files
from rllc.corpus.tokens import FORMAT, HEADER, Domain

_HEX = "[0-9a-f]" * 12
_OWN_FILES = (*(f"*-{_HEX}.{kind}.npy" for kind in ("tokens", "documents", "table")), f"{_HEX}.tokenizer.json")


def make_domain(
    name: str,
    tokens: NDArray[Any],
    starts: NDArray[np.int64],
    train_documents: int,
    text_bytes: Mapping[str, int],
    description: str,
    planted: bool = False,
    structure: Mapping[str, Any] | None = None,
    table: NDArray[np.float64] | None = None,
) -> Domain:
    """A domain with the digest of its content: tokens, borders of documents, where the held-out ones begin, the known structure."""
    key = digest.of_json([digest.of_arrays(_arrays(tokens, starts, table)), train_documents, dict(structure or {})])
    return Domain(name, tokens, starts, train_documents, text_bytes, key, planted, description, structure or {}, table)


def write_domain(folder: Path, domain: Domain) -> dict[str, Any]:
    """Write the arrays of a domain under names made from their content, and return its entry of the header."""
    arrays = _arrays(domain.tokens, domain.starts, domain.table)
    return {
        "files": {kind: _write_array(folder, domain.name, kind, array) for kind, array in arrays.items()},
        "train_documents": domain.train_documents,
        "bytes": dict(domain.bytes),
        "digest": domain.digest,
        "planted": domain.planted,
        "description": domain.description,
        "structure": dict(domain.structure),
    }


def tokenizer_entry(text: str) -> dict[str, str]:
    """The entry of the header for a tokenizer's json: a name made from its content, and its digest."""
    return {"file": f"{digest.of_json(text)[:12]}.tokenizer.json", "digest": digest.of_bytes(text.encode())}


def write_tokenizer(folder: Path, text: str) -> dict[str, str]:
    """Write the tokenizer's json under its name, and return its entry of the header."""
    entry = tokenizer_entry(text)
    files.write_atomic(folder / entry["file"], text)
    return entry


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Write `corpus.json`, the last act of a build, then remove the files of the corpus it replaces."""
    content = {"format": FORMAT, **header}
    files.write_atomic(folder / HEADER, json.dumps({**content, "seal": digest.of_json(content)}, indent=1, sort_keys=True) + "\n")
    entries = [header["tokenizer"], *(entry for domain in header["domains"].values() for entry in domain["files"].values())]
    kept = {entry["file"] for entry in entries}
    for pattern in _OWN_FILES:
        for path in folder.glob(pattern):
            if path.name not in kept:
                path.unlink(missing_ok=True)


def _arrays(tokens: NDArray[Any], starts: NDArray[np.int64], table: NDArray[np.float64] | None) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"tokens": tokens, "documents": starts}
    return arrays if table is None else arrays | {"table": table}


def _write_array(folder: Path, name: str, kind: str, array: NDArray[Any]) -> dict[str, str]:
    key = digest.of_arrays({kind: array})
    path = folder / f"{name}-{key[:12]}.{kind}.npy"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # np.save would add a suffix to a path
            np.save(stream, array, allow_pickle=False)

    files.write_aside(path, write)
    return {"file": path.name, "digest": digest.of_file(path)}

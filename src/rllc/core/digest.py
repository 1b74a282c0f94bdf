"""Content digests: what a record, a corpus or a set of weights is called (ANCHORS, principle 13)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def of_json(value: Any) -> str:
    """Digest of a JSON-able value, independent of the order of keys. Raises TypeError or ValueError for anything else.

    >>> of_json({"a": 1, "b": 2}) == of_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Digest of named arrays: names, dtypes, shapes and bytes, independent of the order of names. Raises TypeError for arrays of objects."""
    h = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        if array.dtype.hasobject:
            raise TypeError(f"{name!r} holds objects, whose bytes are addresses")
        h.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        h.update(array.tobytes())
    return h.hexdigest()


def of_bytes(content: bytes) -> str:
    """Digest of bytes, which is that of a file that holds them."""
    return hashlib.sha256(content).hexdigest()


def of_file(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

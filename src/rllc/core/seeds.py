"""The one place where a seed is invented: every random stream is derived from a root and a name (ANCHORS, principle 3)."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(root: int, *names: str | int) -> int:
    """A 63-bit seed from a root and names; equal input gives equal output on every machine.

    >>> derive(0, "noise", "1:6", 3) == derive(0, "noise", "1:6", 3) != derive(0, "noise", "1:6", 4)
    True
    """
    text = "\x1f".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """A numpy generator of the stream with these names."""
    return np.random.Generator(np.random.PCG64(derive(root, *names)))

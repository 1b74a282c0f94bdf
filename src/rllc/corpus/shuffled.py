"""A control: the same tokens in every context, in an order that says nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllc.core.seeds import generator

Ints = NDArray[np.int64]


def shuffled(tokens: Ints, seed: int, first: int = 0, real: NDArray[np.bool_] | None = None) -> Ints:
    """Contexts [B, T] with the tokens of each but its first, BOS, permuted; a copy.

    A context's permutation follows from the seed and its number `first + row` alone, so that it is the same in whatever batch it comes. What is not
    `real` [B, T], padding, stays where it is, and of the others the first.
    """
    out = np.array(tokens, dtype=np.int64)
    for row, context in enumerate(out):
        moving = slice(1, None) if real is None else np.flatnonzero(real[row])[1:]
        context[moving] = generator(seed, "shuffled", first + row).permutation(context[moving])
    return out

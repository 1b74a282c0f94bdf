"""Padded rows of token ids, as tokenizers give them: padding goes behind the tokens, where no position sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


def is_padded(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is rows of ids with a mask of what is real, as tokenizers give them."""
    return isinstance(data, Mapping) and "input_ids" in data and "attention_mask" in data


def unpadded(data: Mapping[str, Any]) -> tuple[Ids, Flags]:
    """Ids [n, T] with the padding moved behind the tokens, and what is real [n, T].

    No position looks ahead, so padding behind the tokens need not be masked from attention. Raises RllcError where ids and mask do not fit, or
    there are gaps in a row.
    """
    try:
        ids, real = np.asarray(data["input_ids"]).astype(np.int64), np.asarray(data["attention_mask"]).astype(bool)
    except ValueError as error:
        raise RllcError("The rows of input_ids and attention_mask are of different lengths.", "Give both as [n, T].") from error
    if ids.ndim != 2 or ids.shape != real.shape:
        raise RllcError(f"input_ids are {list(ids.shape)} and attention_mask is {list(real.shape)}.", "Give both as [n, T].")
    if (np.abs(np.diff(real.astype(np.int8), axis=1, prepend=0, append=0)).sum(1) > 2).any():
        raise RllcError("The attention_mask has gaps within a row.", "Give rows that are padded on one side.")
    order = np.argsort(~real, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(real, order, 1)

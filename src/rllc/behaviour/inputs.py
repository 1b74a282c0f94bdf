"""Token arrays as the model takes them, in pieces that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape

# A forward pass keeps about this many numbers of its largest result: 128 MB in float32.
_NUMBERS = 1 << 25


def pieces(shape: ModelShape, params: Mapping[str, Tensor], tokens: NDArray[np.int64], numbers: int, what: str) -> Iterator[Tensor]:
    """The rows of tokens [B, T], a few at a time, on the device of the weights; one row results in `numbers` numbers.

    Raises RllcError where the tokens are not sequences that the model takes; `what` names them.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or not len(tokens) or not 2 <= tokens.shape[1] <= shape.n_ctx:
        raise RllcError(
            f"{what} have the shape {tokens.shape}; the model takes one or more sequences of 2 to {shape.n_ctx} tokens.",
            "Make the probes for this model's context.",
        )
    if tokens.min() < 0 or tokens.max() >= shape.d_vocab:
        raise RllcError(
            f"{what} hold tokens from {tokens.min()} to {tokens.max()}, but the model knows 0 to {shape.d_vocab - 1}.",
            "Make the probes from the corpus the model was trained on.",
        )
    rows = max(1, _NUMBERS // numbers)
    device = params["embed.W_E"].device
    for start in range(0, len(tokens), rows):
        yield torch.tensor(np.asarray(tokens[start : start + rows], dtype=np.int64), device=device)

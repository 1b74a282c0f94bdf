"""Refined data for a notebook: some contexts, some predictions, another model in place of the labels; and padded rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.model.batch import TokenBatch, counted
from rllc.model.forward import against
from rllc.model.shape import ModelShape

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Refined:
    """Data of which not everything counts: a data distribution q' of its own (METHOD 1), for models on the native road.

    Args:
        data: token ids, texts or a data set, as `rllc.estimate` takes them, or a mapping of `input_ids` and `attention_mask`.
        positions: from token ids [n, T] to the tokens [n, T] whose prediction counts; None for all. The first of a row is predicted by nothing.
        contexts: from token ids [n, T] to the rows [n] that belong; None for all. Rows of which nothing counts never do.
        reference: a model whose distribution of the next token takes the place of the labels: an object with `shape` and `params`.

    >>> Refined([[1, 2, 3]], positions=lambda ids: ids == 3).reference is None
    True
    """

    data: Any
    positions: Callable[[Ids], Any] | None = None
    contexts: Callable[[Ids], Any] | None = None
    reference: Any = None


@dataclass(frozen=True)
class MarkedRows:
    """Contexts [n, T] with the tokens whose prediction counts [n, T], and perhaps a model that they are held against."""

    tokens: Ids
    marked: Flags
    reference: tuple[ModelShape, Mapping[str, Tensor]] | None = None

    def draw(self, rng: np.random.Generator, n: int) -> TokenBatch:
        """A minibatch of n contexts."""
        index = rng.integers(len(self.tokens), size=n)
        batch = counted(torch.from_numpy(self.tokens[index]), torch.from_numpy(self.marked[index]))
        if self.reference is None:
            return batch
        with torch.no_grad():
            return against(*self.reference, batch)


def is_padded(data: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is rows of ids with a mask of what is real, as tokenizers give them."""
    return isinstance(data, Mapping) and "input_ids" in data and "attention_mask" in data


def unpadded(data: Mapping[str, Any]) -> tuple[Ids, Flags]:
    """Ids [n, T] with the padding moved behind the tokens, and what is real [n, T].

    No position looks ahead, so padding behind the tokens need not be masked from attention. Raises RllcError where ids and mask do not fit, or
    there are gaps in a row.
    """
    ids, real = np.asarray(data["input_ids"]).astype(np.int64), np.asarray(data["attention_mask"]).astype(bool)
    if ids.ndim != 2 or ids.shape != real.shape:
        raise RllcError(f"input_ids are {list(ids.shape)} and attention_mask is {list(real.shape)}.", "Give both as [n, T].")
    if (np.abs(np.diff(real.astype(np.int8), axis=1, prepend=0, append=0)).sum(1) > 2).any():
        raise RllcError("The attention_mask has gaps within a row.", "Give rows that are padded on one side.")
    order = np.argsort(~real, axis=1, kind="stable")
    return np.take_along_axis(ids, order, 1), np.take_along_axis(real, order, 1)


def marked_rows(tokens: Ids, real: Flags, refined: Refined | None) -> MarkedRows:
    """The contexts that belong, with what counts. Raises RllcError where a function answers in another shape, or nothing is left."""
    marked = real.copy()
    held = np.ones(len(tokens), dtype=bool)
    if refined is not None and refined.positions is not None:
        marked &= _answer("positions", refined.positions, tokens, tokens.shape)
    if refined is not None and refined.contexts is not None:
        held &= _answer("contexts", refined.contexts, tokens, (len(tokens),))
    held &= marked[:, 1:].any(1)
    if not held.any():
        raise RllcError(f"Of {len(tokens)} contexts none belongs to the refinement.", "Give it wider conditions, or more text.")
    return MarkedRows(tokens[held], marked[held], _reference(refined))


def _answer(name: str, ask: Callable[[Ids], Any], tokens: Ids, shape: tuple[int, ...]) -> Flags:
    found = np.asarray(ask(tokens))
    if found.shape != shape or found.dtype != np.bool_:
        raise RllcError(
            f"{name} answered with {list(found.shape)} of {found.dtype}, but should give {list(shape)} of bool.",
            "Compare ids with numpy, for example.",
        )
    return found


def _reference(refined: Refined | None) -> tuple[ModelShape, Mapping[str, Tensor]] | None:
    model = None if refined is None else refined.reference
    if model is None:
        return None
    shape, params = getattr(model, "shape", None), getattr(model, "params", None)
    if not isinstance(shape, ModelShape) or not isinstance(params, Mapping):
        raise RllcError(
            f"The reference is a {type(model).__name__}.", "Give an object with `shape` and `params`, such as `rllc.import_module(model)` makes."
        )
    return shape, {name: tensor.detach().cpu() for name, tensor in params.items()}

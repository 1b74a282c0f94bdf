"""A minibatch of tokens and what is asked of it: which predictions count, and whether they are held against labels or against a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class TokenBatch:
    """Tokens with the predictions that make up the loss (METHOD 1: the data distribution q' of a refinement).

    The N = B (T - 1) predictions of a batch are counted sequence by sequence: number b (T - 1) + t is that of token t + 1 of sequence b from those
    before it. Padding is a matter of this choice alone where it stands on the right, since no position looks ahead.

    Args:
        tokens: [B, T] ids.
        rows: [n] which predictions count, ascending; None for all.
        reference: [n, V] probabilities of the next token under another model, which then take the place of the labels. None for labels.

    Raises RllcError where no prediction counts, or the reference is of another number of them.
    """

    tokens: Int[Tensor, "B T"]
    rows: Int[Tensor, " n"] | None = None
    reference: Float[Tensor, "n V"] | None = None

    def __post_init__(self) -> None:
        n = self.tokens[:, 1:].numel() if self.rows is None else len(self.rows)
        if not n:
            raise RllcError("No prediction of the minibatch counts, so it has no loss.", "Choose more positions, or larger minibatches.")
        if self.reference is not None and len(self.reference) != n:
            raise RllcError(f"The reference tells {len(self.reference)} predictions, but {n} of the minibatch count.", "Give one distribution each.")

    @property
    def targets(self) -> Int[Tensor, " n"] | Float[Tensor, "n V"]:
        """What each prediction that counts is held against."""
        return self.picked(self.tokens[:, 1:].flatten()) if self.reference is None else self.reference

    def picked(self, x: Tensor, axis: int = 0) -> Tensor:
        """Of all N predictions along an axis, the n that count."""
        return x if self.rows is None else x.index_select(axis, self.rows)

    def predicting(self, x: Float[Tensor, "*C B T D"]) -> Float[Tensor, "*C n D"]:
        """The positions of a stream from which the predictions that count are made."""
        return self.picked(x[..., :-1, :].flatten(-3, -2), x.ndim - 3)


def token_batch(batch: Tensor | TokenBatch) -> TokenBatch:
    """A batch in which every prediction counts, where only its tokens are given."""
    return batch if isinstance(batch, TokenBatch) else TokenBatch(batch)


def pieces(batch: Tensor | TokenBatch, size: int) -> list[Tensor | TokenBatch]:
    """A batch as consecutive batches of at most `size` sequences, without those of which nothing counts.

    >>> import torch
    >>> [piece.rows.tolist() for piece in pieces(TokenBatch(torch.zeros(3, 5, dtype=int), torch.tensor([1, 9, 11])), 2)]
    [[1], [1, 3]]
    """
    if not isinstance(batch, TokenBatch):
        return list(batch.split(size))
    found: list[Tensor | TokenBatch] = []
    each = batch.tokens.shape[1] - 1
    rows = batch.rows if batch.rows is not None else torch.arange(len(batch.tokens) * each, device=batch.tokens.device)
    for start in range(0, len(batch.tokens), size):
        inside = (rows >= start * each) & (rows < (start + size) * each)
        if inside.any():
            reference = None if batch.reference is None else batch.reference[inside]
            found.append(TokenBatch(batch.tokens[start : start + size], rows[inside] - start * each, reference))
    return found


def whole_or_counted(tokens: Int[Tensor, "B T"], mask: Tensor) -> Tensor | TokenBatch:
    """The tokens alone where all that have a place before them count, and otherwise as `counted` has them."""
    return tokens if bool(mask[:, 1:].all()) else counted(tokens, mask)


def counted(tokens: Int[Tensor, "B T"], mask: Tensor) -> TokenBatch:
    """The predictions *of* the tokens that a mask [B, T] marks; the first token of a sequence is predicted by nothing.

    >>> import torch
    >>> counted(torch.tensor([[5, 6, 7]]), torch.tensor([[True, False, True]])).rows
    tensor([1])
    """
    return TokenBatch(tokens, mask[:, 1:].flatten().nonzero().flatten())

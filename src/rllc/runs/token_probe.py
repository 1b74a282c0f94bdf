"""The texts whose tokens' shares of λ̂ are wanted: which there are, and how shares become a record and a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rllc.analysis.token_shares import TokenShares
from rllc.model.batch import TokenBatch, pieces, token_batch
from rllc.posterior.shares import Shares, joined_shares

if TYPE_CHECKING:
    from jaxtyping import Int

Ids = NDArray[np.int64]
Batch = Tensor | TokenBatch


@dataclass(frozen=True)
class TokenProbe:
    """A few texts, T tokens in all one after another, of which n are predicted and counted.

    Args:
        batches: as the objective takes them; the predictions of one follow those of the other.
        names: of the texts.
        tokens: [T] ids.
        text: [T] which text a token is of.
        places: [n] the token of each prediction.
    """

    batches: tuple[Batch, ...]
    names: tuple[str, ...]
    tokens: Int[Ids, " T"]
    text: Int[Ids, " T"]
    places: Int[Ids, " n"]

    def arrays(self, shares: Shares) -> dict[str, NDArray[Any]]:
        """What a record holds of the shares of one part."""
        found = {"chain_means": shares.chain_means[0], "sq_stderr": shares.sq_stderr[0]}
        return found | {"tokens": self.tokens, "text": self.text, "places": self.places}


def probe_of(named: Sequence[tuple[Sequence[str], Batch]], size: int) -> TokenProbe:
    """The probe of some batches [B, T], with a name for each of their B texts; at most `size` are evaluated at a time."""
    tokens: list[Ids] = []
    text: list[Ids] = []
    places: list[Ids] = []
    texts, start = 0, 0
    for _, batch in named:
        ids = token_batch(batch).tokens.cpu().numpy()
        b, t = ids.shape
        # Number b (T - 1) + t of the predictions is that of token t + 1 of sequence b.
        predicted = start + (np.arange(b)[:, None] * t + np.arange(1, t)).ravel()
        rows = token_batch(batch).rows
        places.append(predicted if rows is None else predicted[rows.cpu().numpy()])
        tokens.append(ids.ravel())
        text.append(np.repeat(np.arange(texts, texts + b), t))
        texts, start = texts + b, start + ids.size
    names = tuple(name for of_batch, _ in named for name in of_batch)
    batches = tuple(piece for _, batch in named for piece in pieces(batch, size))
    return TokenProbe(batches, names, np.concatenate(tokens), np.concatenate(text), np.concatenate(places))


def shares_of(part: str, data: str, step: int, outcome: str, names: Sequence[str], segments: Sequence[tuple[Mapping[str, NDArray[Any]], int]],
              decode: Callable[[Ids], list[str]]) -> TokenShares:  # fmt: skip
    """The shares of one part, from the arrays and the draws of stretches of its chains; `outcome` is that of the cell."""
    whole = joined_shares([Shares(arrays["chain_means"][None], arrays["sq_stderr"][None], draws) for arrays, draws in segments])
    tokens, text, places = (segments[0][0][name] for name in ("tokens", "text", "places"))
    share, stderr = np.full((2, 1, len(tokens)), np.nan)
    share[:, places], stderr[:, places] = whole.share, whole.stderr
    return TokenShares((part,), data, step, tuple(decode(tokens)), tuple(names), text, share, stderr, whole.total, whole.total_stderr,
                       (whole.draws,), (outcome,))  # fmt: skip

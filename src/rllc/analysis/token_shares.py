"""Which tokens carry a head's complexity: what every token of a probe set adds to λ̂ (METHOD 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenShares:
    """Shares of λ̂ of H parts at one checkpoint, of the T tokens of a few texts, one text after another.

    The share of a token is nβ (E ℓ(w) - ℓ(w*)) / n, ℓ the loss of its prediction and n their number: the shares of a part add up to λ̂ evaluated on
    these texts. Below zero is a token that the moved weights predict better than those of the checkpoint. Dimensionless, as λ̂ is.
    """

    heads: tuple[str, ...]  # H, names of parts
    data: str  # by which the chains moved
    step: int
    tokens: tuple[str, ...]  # T, printable (untrusted text: escape it)
    texts: tuple[str, ...]  # names of the texts
    text: Int[NDArray[np.int64], " T"]  # which text a token is of
    share: Float[Floats, "H T"]  # NaN where nothing is predicted or counted: the first of a text, a BOS, what a refinement leaves out
    stderr: Float[Floats, "H T"]  # over chains and draws
    total: Float[Floats, " H"]  # the sum of the shares
    total_stderr: Float[Floats, " H"]  # over chains and draws; not over which texts there are
    draws: tuple[int, ...]  # H, a chain: those that the shares are of, fewer than the record's where they were asked for later
    outcome: tuple[str, ...]  # H, what became of the cell; one that was refused has no shares, NaN

    def __post_init__(self) -> None:
        refused = np.array([Outcome(outcome).refused for outcome in self.outcome])
        for name in ("share", "stderr", "total", "total_stderr"):
            values = np.array(getattr(self, name), dtype=np.float64)
            values[refused] = np.nan
            object.__setattr__(self, name, values)

    def of(self, text: str) -> TokenShares:
        """The tokens of one text alone; total and its error stay those of all. Raises RllcError where there is no such text."""
        if text not in self.texts:
            raise RllcError(f"There is no text {text!r} among those whose tokens have shares.", f"There are {', '.join(self.texts)}.")
        at = self.text == self.texts.index(text)
        kept = tuple(token for token, here in zip(self.tokens, at, strict=True) if here)
        return replace(self, tokens=kept, texts=(text,), text=np.zeros(len(kept), np.int64), share=self.share[:, at], stderr=self.stderr[:, at])

    def top(self, head: str, n: int = 10) -> list[tuple[int, str, float, float]]:
        """The n tokens with the largest shares of a part, as (place, token, share, standard error). Raises RllcError for a part that is not there."""
        if head not in self.heads:
            raise RllcError(f"{head!r} has no shares of tokens.", f"There are {', '.join(self.heads)}.")
        share, stderr = self.share[self.heads.index(head)], self.stderr[self.heads.index(head)]
        counted = np.flatnonzero(np.isfinite(share))
        order = counted[np.argsort(-share[counted], kind="stable")][:n]
        return [(int(t), self.tokens[t], float(share[t]), float(stderr[t])) for t in order]


def stacked_shares(pieces: Sequence[TokenShares]) -> TokenShares:
    """The shares of several parts on the same tokens as one. Raises RllcError where the tokens, data or steps differ."""
    first = pieces[0]
    if any((p.data, p.step, p.tokens, p.texts) != (first.data, first.step, first.tokens, first.texts) for p in pieces):
        raise RllcError("Shares of different texts, data or checkpoints cannot be put together.", "Take those of one probe set.")
    return replace(
        first,
        heads=tuple(head for p in pieces for head in p.heads),
        draws=tuple(draws for p in pieces for draws in p.draws),
        outcome=tuple(outcome for p in pieces for outcome in p.outcome),
        **{name: np.concatenate([getattr(p, name) for p in pieces]) for name in ("share", "stderr", "total", "total_stderr")},
    )

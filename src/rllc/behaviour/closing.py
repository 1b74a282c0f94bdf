"""Which tokens of a text close a bracket or a quotation, and how deep that was nested; read off the tokens' strings. Numpy alone.

Round, square and curly brackets, “ ” and « » pair by kind; the straight quotes " and ' close where one of their kind is open and open otherwise.
An apostrophe behind a letter or digit and before another is none. Text need not be balanced: a closing one without an opening one is nothing; it
closes the nearest of its kind, and what was opened after that is forgotten; the end of a line ends straight quotes, so that a stray apostrophe spoils
no more than its line. On Dyck words all this is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

_PAIRS = ("()", "[]", "{}", "“”", "«»")
_QUOTES = "\"'"
_LINE_ENDS = "\n⏎"  # as it is, and as a corpus prints it
# What a character does: kinds are counted from 1; k opens kind k, -k closes it, k + _TOGGLE is a straight quote, _END a line end, 0 nothing.
_TOGGLE, _END = 100, 200
_KIND = {pair[0]: k for k, pair in enumerate(_PAIRS, 1)} | {pair[1]: -k for k, pair in enumerate(_PAIRS, 1)}
_KIND |= {quote: _TOGGLE + len(_PAIRS) + k for k, quote in enumerate(_QUOTES, 1)} | dict.fromkeys(_LINE_ENDS, _END)


@dataclass(frozen=True)
class Closing:
    """Whether each token [B, T] closes what an earlier token opened, and how many were open before it (0 at the start of a document)."""

    closes: Bool[Flags, "B T"]
    depth: Int[Ints, "B T"]


class Brackets:
    """The brackets of a vocabulary. `names` is one string a token, as `Corpus.decode` gives them; `bos` begins every document."""

    def __init__(self, names: Sequence[str], bos: int) -> None:
        self._bos = bos
        free = [_acts(name, False) for name in names]
        glued = [_acts(name, True) for name in names]  # what the token does behind a letter or digit
        free[bos] = glued[bos] = []
        width = max(1, *map(len, free), *map(len, glued))
        self._acts = np.array([[acts + [0] * (width - len(acts)) for acts in table] for table in (free, glued)])  # [2, V, width]
        self._letter = np.array([name[-1:].isalnum() for name in names])

    def closing(self, tokens: Int[Ints, "B T"]) -> Closing:
        """Which tokens of the contexts close something."""
        rows = np.arange(len(tokens))
        glued = np.zeros(tokens.shape, np.int64)
        glued[:, 1:] = self._letter[tokens[:, :-1]]
        acts = self._acts[glued, tokens]
        deepest = int(((acts > 0) & (acts != _END)).sum((1, 2)).max(initial=0))
        stack = np.zeros((len(tokens), deepest + 1), np.int64)
        depth = np.zeros(len(tokens), np.int64)
        closes, depths = np.zeros(tokens.shape, bool), np.zeros(tokens.shape, np.int64)
        places = np.arange(deepest + 1)
        for t in range(tokens.shape[1]):
            depth[tokens[:, t] == self._bos] = 0
            depths[:, t] = depth
            below = depth  # what is open from before this token
            for act in acts[:, t].T:
                if not act.any():
                    continue
                kind = np.where((act > _TOGGLE) & (act < _END), act - _TOGGLE, np.abs(act))
                live = places < depth[:, None]
                ended = act == _END
                if ended.any():
                    quotes = live & (stack > len(_PAIRS))
                    depth = np.where(ended & quotes.any(1), quotes.argmax(1), depth)
                    below = np.minimum(below, depth)
                match = live & (stack == kind[:, None])
                there = deepest - match[:, ::-1].argmax(1)
                shut = match.any(1) & ((act < 0) | (act > _TOGGLE)) & ~ended
                closes[:, t] |= shut & (there < below)
                opens = ((act > 0) & (act < _TOGGLE)) | ((act > _TOGGLE) & ~ended & ~shut)
                stack[rows[opens], depth[opens]] = kind[opens]
                depth = np.where(shut, there, depth + opens)
                below = np.minimum(below, depth)
        return Closing(closes, depths)


def _acts(name: str, glued: bool) -> list[int]:
    """What the characters of a token do, in order; `glued` where a letter or digit stands before it."""
    acts = []
    for i, character in enumerate(name):
        before = name[i - 1].isalnum() if i else glued
        if character == "'" and before and name[i + 1 : i + 2].isalnum():
            continue
        if act := _KIND.get(character, 0):
            acts.append(act)
    return acts

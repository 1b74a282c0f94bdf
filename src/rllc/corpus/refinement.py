"""Refined data: contexts that pass a filter, and which of their predictions count (METHOD 1, the data distribution q')."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool
from rllc.corpus.settings import RefinementSettings
from rllc.corpus.shuffled import shuffled
from rllc.corpus.tokenizer import shown
from rllc.corpus.tokens import Corpus, Ints

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Flags = NDArray[np.bool_]
# Contexts are looked through in lots; where so many hold fewer than are wanted, the data is taken to be too rare to sample from.
_LOT = 64
_MOST_CONTEXTS = 20_000


class Refinement:
    """Which contexts of a corpus belong to a refinement, and which of their tokens' predictions count.

    Raises RllcError where no token of the vocabulary is what a condition asks for.
    """

    def __init__(self, settings: RefinementSettings, corpus: Corpus) -> None:
        self.settings, self._bos = settings, corpus.bos
        names = corpus.decode(range(corpus.vocabulary))
        special = set(corpus.specials)

        def those(what: str, texts: tuple[str, ...]) -> Flags:
            wanted = tuple(map(shown, texts))
            if what == "after":
                found = [name.endswith(wanted) for name in names]
            elif what == "of":
                found = [name.startswith(wanted) or name.lstrip(shown(" ")).startswith(wanted) for name in names]
            else:
                found = [any(text in name for text in wanted) for name in names]
            flags = np.array([hit and i not in special for i, hit in enumerate(found)])
            if texts and not flags.any():
                raise RllcError(
                    f"No token is what {what} = {list(texts)} asks for.", "Look at the tokenizer.json of the corpus, and choose other texts."
                )
            return flags

        self._containing, self._after, self._of = (those(what, getattr(settings, what)) for what in ("containing", "after", "of"))

    def marked(self, tokens: Int[Ints, "n T"]) -> Bool[Flags, "n T"]:
        """The tokens whose prediction counts; never the first of a context, which nothing predicts, nor a BOS behind it."""
        settings, counts = self.settings, tokens != self._bos
        counts[:, 0] = False
        if settings.after:
            counts[:, 1:] &= self._after[tokens[:, :-1]]
        if settings.of:
            counts &= self._of[tokens]
        if settings.induction:
            counts &= followed_before(tokens)
        return counts

    def shuffled(self, tokens: Int[Ints, "n T"], seed: int, first: int = 0) -> Int[Ints, "n T"]:
        """The contexts as a shuffled refinement has them: all but BOS, which padding is made of too, in random order (`shuffled`)."""
        real = tokens != self._bos
        real[:, 0] = True
        return shuffled(tokens, seed, first, real)

    def holds(self, tokens: Int[Ints, "n T"]) -> Bool[Flags, " n"]:
        """The contexts that belong to it: such as pass the filter and have a prediction that counts."""
        held: Flags = np.any(self.marked(tokens), axis=1)
        return held & np.any(self._containing[tokens], axis=1) if self.settings.containing else held


@dataclass(frozen=True)
class RefinedStream:
    """Batches of a refinement by index, as `BatchStream` has them: contexts [B, T] and the tokens whose prediction counts [B, T].

    Contexts are i.i.d. from those of the pool that belong to the refinement, shuffled before that is asked where they are.

    Raises RllcError where they are too rare.
    """

    pool: ContextPool
    refinement: Refinement
    batch_size: int
    root: int
    names: tuple[str | int, ...]

    def __getitem__(self, index: int) -> tuple[Int[Ints, "B T"], Bool[Flags, "B T"]]:
        rng = seeds.generator(self.root, *self.names, index)
        found, seen = [np.empty((0, self.pool.context), dtype=np.int64)], 0
        while sum(map(len, found)) < self.batch_size:
            if seen >= _MOST_CONTEXTS:
                raise RllcError(
                    f"Of {seen} contexts of {self.refinement.settings.source}, {sum(map(len, found))} belong to the refinement: "
                    f"fewer than a minibatch of {self.batch_size}.",
                    "Give it wider conditions, longer contexts, or a domain that has more of it.",
                )
            drawn = self.pool.draw(rng, max(_LOT, self.batch_size))
            if self.refinement.settings.shuffled:
                drawn = self.refinement.shuffled(drawn, seeds.derive(self.root, *self.names, index), seen)
            found.append(drawn[self.refinement.holds(drawn)])
            seen += len(drawn)
        tokens = np.concatenate(found)[: self.batch_size]
        return tokens, self.refinement.marked(tokens)

    def starting(self, index: int) -> Iterator[tuple[Int[Ints, "B T"], Bool[Flags, "B T"]]]:
        """Batches from `index` on, without end."""
        while True:
            yield self[index]
            index += 1


def followed_before(tokens: Int[Ints, "n T"]) -> Bool[Flags, "n T"]:
    """Tokens that stand behind the same token as once before in their context, the targets of an induction head.

    >>> followed_before(np.array([[0, 5, 6, 7, 5, 6]])).astype(int)
    array([[0, 0, 0, 0, 0, 1]])
    """
    size = int(tokens.max()) + 1
    pairs = tokens[:, :-1] * size + tokens[:, 1:]
    order = np.argsort(pairs, axis=1, kind="stable")
    ordered = np.take_along_axis(pairs, order, 1)
    again = np.zeros(pairs.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return np.concatenate([np.zeros((len(tokens), 1), dtype=bool), again], 1)

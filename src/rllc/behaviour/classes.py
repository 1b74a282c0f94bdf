"""The class in context of every predicted token: induction, bracket, skip n-gram, n-gram, or none of them (METHOD 6). Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rllc.behaviour.closing import Brackets
from rllc.behaviour.ngrams import NgramTable
from rllc.behaviour.patterns import PatternRules
from rllc.behaviour.skips import SkipTable
from rllc.core.errors import RllcError
from rllc.corpus.refinement import followed_before

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

# A prediction that belongs to several classes has the first of these as its primary one: what the context itself holds before what the text taught.
CLASSES = ("induction", "bracket", "skip_ngram", "ngram", "other")


@dataclass(frozen=True)
class TokenClasses:
    """Classes of the predictions of contexts [B, T]; prediction p is that of token p + 1.

    Args:
        flags: [K, B, T-1] membership by `CLASSES`; a prediction may have several, and has "other" where it has none of the rest.
        primary: [B, T-1] the first class of each, as an index into `CLASSES`; -1 where it does not count.
        counted: [B, T-1] predictions that count: not those of a BOS, nor those behind one, which nothing in the context tells.
        depth: [B, T-1] brackets and quotations open before the token.
    """

    flags: Bool[Flags, "K B S"]
    primary: Int[Ints, "B S"]
    counted: Bool[Flags, "B S"]
    depth: Int[Ints, "B S"]

    def of(self, name: str) -> Bool[Flags, "B S"]:
        """The members of one class. Raises RllcError where there is none of that name."""
        if name not in CLASSES:
            raise RllcError(f"There is no class of tokens {name!r}.", f"Use one of {', '.join(CLASSES)}.")
        return self.flags[CLASSES.index(name)]


def classify(tokens: Int[Ints, "B T"], table: NgramTable, skips: SkipTable, brackets: Brackets, rules: PatternRules | None = None) -> TokenClasses:
    """The classes of every prediction of some contexts.

    - induction: token and predecessor stood next to each other, in this order, earlier in the context ([A][B] … [A] → [B]);
    - bracket: the token closes a bracket or a quotation that an earlier token opened (`closing`);
    - skip_ngram: it ends a skip n-gram of the table that passes the rules;
    - ngram: it ends an n-gram, n = 2 … `table.longest`, that passes the rules.

    Raises RllcError where tokens lie outside the vocabulary or a context does not begin with BOS.
    """
    rules = rules or PatternRules()
    counted = (tokens[:, 1:] != table.bos) & (tokens[:, :-1] != table.bos)
    closing = brackets.closing(tokens)
    flags = np.zeros((len(CLASSES), *counted.shape), bool)
    flags[0] = followed_before(tokens)[:, 1:]
    flags[1] = closing.closes[:, 1:]
    likely = rules.skips(skips)
    patterns, rows, columns = skips.occurrences(tokens)
    flags[2, rows[likely[patterns]], columns[likely[patterns]]] = True
    for n in range(2, table.longest + 1):
        ids = table.ids(tokens, n)[:, 1:]
        flags[3] |= (ids >= 0) & np.append(rules.ngrams(table, n), False)[ids]  # -1 means the last, which is no n-gram
    flags &= counted
    flags[-1] = counted & ~flags[:-1].any(0)
    primary = np.where(counted, flags.argmax(0), -1)
    return TokenClasses(flags, primary, counted, closing.depth[:, 1:])

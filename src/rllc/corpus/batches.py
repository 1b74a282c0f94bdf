"""Contexts and batches: which tokens a model sees at step i, as a pure function of seed and i."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.settings import Documents
from rllc.corpus.tokens import Corpus, Domain, Ints

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Mixture:
    """Domains with weights: the share of sequences (not of documents or bytes) that each gives.

    Weights are normalised to sum 1, sorted by domain, and zeros dropped. Raises RllcError where none is positive.

    >>> Mixture("train", {"echo": 1, "code": 3}).weights
    {'code': 0.75, 'echo': 0.25}
    """

    name: str
    weights: Mapping[str, float | int]

    def __post_init__(self) -> None:
        total = math.fsum(self.weights.values())
        if not math.isfinite(total) or total <= 0 or min(self.weights.values()) < 0:
            raise RllcError(f"The mixture {self.name!r} has the weights {dict(self.weights)}.", "Give every domain 0 or more, and one more than 0.")
        object.__setattr__(self, "weights", {name: weight / total for name, weight in sorted(self.weights.items()) if weight > 0})

    @classmethod
    def of(cls, domain: str) -> Mixture:
        """The mixture that is one domain."""
        return cls(domain, {domain: 1.0})


class ContextPool:
    """The hashed pool that contexts are drawn from: one split (a set of documents chosen by hash) of the domains of a mixture.

    A context is a row of `context` token ids: BOS, then `context - 1` tokens. A document is chosen in proportion to its tokens. From
    one that holds `context` tokens or more, BOS included, a window inside it is taken, all places equally likely, its first token
    replaced by BOS where it is not BOS itself. A shorter one is packed: it is taken from its start and the documents that follow it
    in hashed order are appended, each with its BOS, until the row is full; after the last of the split comes the first. A model in
    training sees the BOS between packed documents and predicts it; chains do not, by `marked`.

    With `documents` "one a row" a context is one document, all equally likely: from its beginning, cut where it is longer than a context, and
    filled up with BOS where it is shorter.

    Raises RllcError for an unknown domain or split, and where a split is shorter than one context, or has no document with a token to predict.
    """

    def __init__(self, corpus: Corpus, mixture: Mixture, split: str, context: int, documents: Documents = "packed") -> None:
        if context < 2:
            raise RllcError(f"A context of {context} tokens predicts nothing.", "Use at least 2: BOS and one token.")
        self.bos, self.context, self.documents = corpus.bos, context, documents
        make = _Section if documents == "packed" else _Documents
        self._sections = [make(find_domain(corpus, name, mixture.name), split, context, corpus.bos) for name in mixture.weights]
        self._cumulative = np.cumsum(list(mixture.weights.values()))[:-1]

    def draw(self, rng: np.random.Generator, n: int) -> Int[Ints, "{n} {self.context}"]:
        """`n` contexts, i.i.d. with replacement [n, context]; each chooses its domain by weight."""
        choice, token, place = rng.random((3, n))
        out = np.empty((n, self.context), dtype=np.int64)
        domain = np.searchsorted(self._cumulative, choice, side="right")
        for d, section in enumerate(self._sections):
            rows = np.flatnonzero(domain == d)
            if len(rows):
                out[rows] = section.windows(token[rows], place[rows])
        out[:, 0] = self.bos
        return out

    def marked(self, tokens: Int[Ints, "n T"]) -> Bool[NDArray[np.bool_], "n T"]:
        """The tokens whose prediction counts: all but BOS. The first of a context, which nothing predicts, counts as one that does."""
        counts = tokens != self.bos
        counts[:, 0] = True
        return counts


def contexts(corpus: Corpus, mixture: Mixture, split: str, n: int, context: int, rng: np.random.Generator) -> Int[Ints, "{n} {context}"]:
    """`n` contexts of a mixture, i.i.d. with replacement [n, context]; `ContextPool` says how they are cut and what it raises."""
    return ContextPool(corpus, mixture, split, context).draw(rng, n)


@dataclass(frozen=True)
class BatchStream:
    """Batches by index: `stream[i]` [B, T] is a pure function of (root, names, i), so a run resumes at any step with the same batches.

    Batches are i.i.d. from a hashed pool of the stated split (METHOD 2). The stream has no end; iterating starts at batch 0.
    """

    pool: ContextPool
    batch_size: int
    root: int
    names: tuple[str | int, ...]

    def __getitem__(self, index: int) -> Int[Ints, "B T"]:
        if index < 0:
            raise IndexError("batches are counted from 0 and have no end")
        return self.pool.draw(seeds.generator(self.root, *self.names, index), self.batch_size)

    def __iter__(self) -> Iterator[Int[Ints, "B T"]]:
        return self.starting(0)

    def starting(self, index: int) -> Iterator[Int[Ints, "B T"]]:
        """Batches from `index` on, without end."""
        while True:
            yield self[index]
            index += 1


def batch_stream(
    corpus: Corpus,
    mixture: Mixture,
    split: str,
    batch_size: int,
    context: int,
    root_seed: int,
    *names: str | int,
    documents: Documents = "packed",
) -> BatchStream:
    """The batches of a mixture under (root_seed, names). Raises RllcError as `ContextPool` does."""
    if batch_size < 1:
        raise RllcError(f"A batch of {batch_size} sequences is empty.", "Use a batch size of 1 or more.")
    return BatchStream(ContextPool(corpus, mixture, split, context, documents), batch_size, root_seed, names)


def snippets(corpus: Corpus, domain: str, n: int, context: int, seed: int, split: str = "heldout") -> Int[Ints, "{n} {context}"]:
    """Contexts to look at [n, context], each from the beginning of a different document as far as there are such documents.

    Documents that fill a context come first; then shorter ones, packed; then contexts from anywhere. Raises RllcError as `ContextPool` does.
    """
    rng = seeds.generator(seed, "snippets", domain, n, context)
    pool = ContextPool(corpus, Mixture.of(domain), split, context)
    section = pool._sections[0]
    assert isinstance(section, _Section)
    order = rng.permutation(len(section.lengths))
    order = order[np.argsort(section.lengths[order] < context, kind="stable")][:n]
    beginnings = section.at(section.starts[order])
    return np.concatenate([beginnings, pool.draw(rng, n - len(order))])


def find_domain(corpus: Corpus, name: str, mixture: str = "") -> Domain:
    """A domain by name. Raises RllcError, with the likeliest meaning, where the corpus has none of that name."""
    if name in corpus.domains:
        return corpus.domains[name]
    where = f", which the mixture {mixture!r} names" if mixture not in ("", name) else ""
    near = difflib.get_close_matches(name, corpus.domains, n=1)
    meant = f"Perhaps you meant {near[0]!r}; its" if near else "Its"
    raise RllcError(f"This corpus has no domain {name!r}{where}.", f"{meant} domains are {', '.join(corpus.domains)}.")


class _Section:
    """One split of one domain: a stretch of its tokens, with the documents in it."""

    def __init__(self, domain: Domain, split: str, context: int, bos: int) -> None:  # noqa: ARG002
        documents = domain.documents_of(split)
        first = int(domain.starts[documents.start])
        self.starts = domain.starts[documents.start : documents.stop] - first
        self.lengths = np.diff(domain.starts[documents.start : documents.stop + 1])
        self.tokens = np.asarray(domain.tokens[first : first + int(self.lengths.sum())])
        self.offsets = np.arange(context)
        if len(self.tokens) < context:
            side = "held-out" if split == "heldout" else "training"
            raise RllcError(
                f"The {side} documents of {domain.name!r} hold {len(self.tokens)} tokens, fewer than one context of {context}.",
                "Add text, shorten the context" + (", or hold out a larger share." if split == "heldout" else "."),
            )

    def windows(self, token: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[Any]:
        """Windows from uniform numbers: `token` chooses the document by its tokens, `place` the window inside it."""
        position = (token * len(self.tokens)).astype(np.int64)
        document = np.searchsorted(self.starts, position, side="right") - 1
        room = np.maximum(self.lengths[document] - len(self.offsets), 0) + 1
        return self.at(self.starts[document] + (place * room).astype(np.int64))

    def at(self, starts: NDArray[np.int64]) -> NDArray[Any]:
        """The windows that begin at these tokens of the section [len(starts), context]; past its end comes its beginning."""
        return self.tokens.take(starts[:, None] + self.offsets[None, :], mode="wrap")


class _Documents:
    """The documents of one split of one domain that hold a token to predict, each a row."""

    def __init__(self, domain: Domain, split: str, context: int, bos: int) -> None:
        documents = domain.documents_of(split)
        starts = np.asarray(domain.starts[documents.start : documents.stop + 1], dtype=np.int64)
        lengths = np.diff(starts)
        self.starts, self.lengths = starts[:-1][lengths > 1], lengths[lengths > 1]
        self.tokens, self.offsets, self.bos = domain.tokens, np.arange(context), bos
        if not len(self.starts):
            side = "held-out" if split == "heldout" else "training"
            raise RllcError(f"No {side} document of {domain.name!r} has a token to predict.", "Add text.")

    def windows(self, token: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[Any]:  # noqa: ARG002
        """Rows from uniform numbers: `token` chooses the document, and there is only one place in it."""
        chosen = (token * len(self.starts)).astype(np.int64)
        inside = self.offsets[None, :] < self.lengths[chosen][:, None]
        rows = np.asarray(self.tokens).take(self.starts[chosen][:, None] + np.where(inside, self.offsets[None, :], 0))
        return np.where(inside, rows, self.bos)

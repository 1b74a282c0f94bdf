"""What all checkpoints of a run are measured on: held-out contexts, and what the training text holds of n-grams."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rllc.behaviour.closing import Brackets
from rllc.behaviour.contexts import Contexts
from rllc.behaviour.settings import BehaviourSettings
from rllc.core import digest, seeds
from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool, Mixture, contexts, snippets
from rllc.corpus.tokens import Corpus, open_corpus
from rllc.records.store import Store
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.measures.text import KIND as TEXT
from rllc.runs.measures.text import TextTables, text_key, text_tables

Ints = NDArray[np.int64]
T = TypeVar("T")


class Bench:
    """Probes and facts of the text, made when they are first asked for.

    Raises RllcError where the settings name data that the corpus does not have.
    """

    def __init__(self, experiment: Experiment, corpus: Corpus, store: Store) -> None:
        self.experiment, self.corpus, self._store = experiment, corpus, store
        self.mixtures = {MIXTURE: Mixture(MIXTURE, experiment.mixture)} | {name: Mixture.of(name) for name in corpus.domains}
        self.data = self.settings.data or tuple(self.mixtures)
        if unknown := [name for name in self.data if name not in self.mixtures]:
            raise RllcError(f"behaviour.data names {unknown[0]!r}, which the corpus does not have.", f"It has {', '.join(self.mixtures)}.")
        self._kept: dict[tuple[Any, ...], Any] = {}

    @classmethod
    def of(cls, experiment: Experiment, folder: RunFolder) -> Bench:
        """That of a run folder; siblings share the tables of the text, which lie in the main run's store."""
        return cls(experiment, open_corpus(folder.corpus), folder.main.store())

    @property
    def settings(self) -> BehaviourSettings:
        """How much is looked at."""
        return self.experiment.behaviour

    @property
    def seed(self) -> int:
        """Root of what is drawn."""
        return self.experiment.seed

    def kept(self, make: Callable[[], T], *name: Any) -> T:
        """What `make` makes, made once under this name."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def heldout(self, data: str, n: int, purpose: str) -> Contexts:
        """`n` held-out contexts of a kind of data, cut and counted as sampling does (`sampling.documents`), so that what is measured is of the loss
        that λ̂ is of; those of two purposes are drawn apart.
        """

        def draw() -> Contexts:
            experiment = self.experiment
            pool = ContextPool(self.corpus, self.mixtures[data], "heldout", experiment.model.n_ctx, experiment.sampling.documents)
            tokens = pool.draw(self._rng(purpose, data), n)
            return Contexts(tokens, pool.marked(tokens)[:, 1:])

        return self.kept(draw, "heldout", data, n, purpose)

    def packed(self, data: str, n: int, purpose: str) -> Ints:
        """`n` held-out contexts [n, T] without padding, whatever sampling does: for what looks at tokens and predicts none."""

        def draw() -> Ints:
            return contexts(self.corpus, self.mixtures[data], "heldout", n, self.experiment.model.n_ctx, self._rng(purpose, data))

        return self.kept(draw, "packed", data, n, purpose)

    def _rng(self, purpose: str, data: str) -> np.random.Generator:
        return seeds.generator(self.seed, "probes", purpose, data)

    def ablated(self, data: str) -> Contexts:
        """The contexts that heads are ablated on."""
        return self.heldout(data, self.settings.ablation.contexts, "ablation")

    @cached_property
    def snippets(self) -> dict[str, Ints]:
        """Sequences [T] to look at, by name."""
        settings, shown = self.settings, dict[str, Ints]()
        length = min(settings.snippet_length, self.experiment.model.n_ctx)
        for name in self.corpus.domains:
            rows = snippets(self.corpus, name, settings.snippets, length, self.seed) if settings.snippets else []
            shown |= {f"{name} {i + 1}" if settings.snippets > 1 else name: row for i, row in enumerate(rows)}
        return shown

    def probes_digest(self, purpose: str, n: int, data: tuple[str, ...] | None = None) -> str:
        """Digest of the contexts that a measurement sees, with what counts of them."""
        seen = {name: self.heldout(name, n, purpose) for name in data or self.data}
        tokens = {f"tokens/{name}": found.tokens for name, found in seen.items()}
        return digest.of_arrays(tokens | {f"counted/{name}": found.counted for name, found in seen.items()})

    @cached_property
    def text_key(self) -> str:
        """Digest of what decides the tables of the training text; it takes no counting."""
        return digest.of_json(self._text_key)

    @property
    def _text_key(self) -> dict[str, Any]:
        return text_key(self.corpus, self.mixtures[MIXTURE].weights, self.settings.ngrams)

    def count_text(self) -> None:
        """Have the tables of the training text in the store, for whoever reads them."""
        if not self._store.has(TEXT, self._text_key):
            text_tables(self._store, self.corpus, self.mixtures[MIXTURE].weights, self.settings.ngrams)

    def text_files(self) -> list[Path]:
        """The files in which those tables lie, with what the store has beside its records; none of a store that is no folder."""
        return [*self._store.files(), *self._store.files(TEXT, self._text_key)]

    @cached_property
    def text(self) -> TextTables:
        """n-grams and skip n-grams of the training text: counted once, then read from the store."""
        return text_tables(self._store, self.corpus, self.mixtures[MIXTURE].weights, self.settings.ngrams)

    @cached_property
    def names(self) -> list[str]:
        """One printable string a token of the vocabulary."""
        return self.corpus.decode(range(self.corpus.vocabulary))

    @cached_property
    def brackets(self) -> Brackets:
        """The brackets of the vocabulary."""
        return Brackets(self.names, self.corpus.bos)

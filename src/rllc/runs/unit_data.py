"""What units read of a run folder: minibatches, which one kind of data gives the chains, as a pure function of seed, purpose and number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from rllc.checkpoints.store import CheckpointInfo
from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.names import DataKey
from rllc.corpus.batches import Mixture, batch_stream, snippets
from rllc.corpus.refinement import RefinedStream, Refinement
from rllc.corpus.tokens import Corpus, Ints, open_corpus
from rllc.model.batch import TokenBatch, counted, whole_or_counted
from rllc.model.forward import against
from rllc.model.shape import ModelShape
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.token_probe import TokenProbe, probe_of

Loaded = Callable[[RunFolder, int, ModelShape], tuple[Mapping[str, Tensor], CheckpointInfo]]


class UnitData:
    """One kind of data of an experiment, opened.

    Args:
        data: its name; where it is evaluated elsewhere has no say here.
        load: gives the weights of a checkpoint, which a refinement may be held against.

    Attributes:
        weights: the digest of the checkpoint that it is held against, by its step or its sibling's name; empty for labels.

    Raises RllcError for data that the corpus does not have, and a reference that is missing.
    """

    def __init__(self, experiment: Experiment, folder: RunFolder, data: DataKey, corpus: Corpus, device: torch.device, load: Loaded) -> None:
        self._experiment, self._data, self._corpus, self._device = experiment, data.text, corpus, device
        self._refinement, self._reference = None, None
        self.weights: dict[int | str, str] = {}
        if refinement := experiment.refinement_of(data):
            self._refinement = Refinement(refinement, corpus)
            if refinement.refers:
                place, step, shape = referred(experiment, folder, refinement.reference)
                params, info = load(place, step, shape)
                self._reference = (shape, params)
                self.weights[refinement.reference] = info.digest

    def stream(self, purpose: str, start: int = 0, size: int = 0) -> Iterator[Tensor | TokenBatch]:
        """Minibatches for one purpose from the one with that number on, without end, of the chains' size unless told otherwise.

        Nothing counts as a prediction of BOS (`ContextPool.marked`), nor in padding, which is made of it.
        """
        experiment, data = self._experiment, self._data
        mixture = Mixture(data.name, experiment.weights_of(data))
        size, context, documents = size or experiment.sampling.batch_size, experiment.model.n_ctx, experiment.sampling.documents
        batches = batch_stream(self._corpus, mixture, data.split, size, context, experiment.seed, purpose, str(data), documents=documents)
        if self._refinement is None:
            for tokens in batches.starting(start):
                yield whole_or_counted(self._there(tokens), self._there(batches.pool.marked(tokens)))
            return
        refined = RefinedStream(batches.pool, self._refinement, batches.batch_size, batches.root, batches.names)
        for tokens, marked in refined.starting(start):
            batch = counted(self._there(tokens), self._there(marked))
            yield batch if self._reference is None else against(*self._reference, batch)

    def probe(self) -> TokenProbe:
        """The texts whose tokens' shares are wanted: the page's snippets of the data's domains, then contexts as the fixed set has them."""
        experiment, behaviour = self._experiment, self._experiment.behaviour
        named: list[tuple[list[str], Tensor | TokenBatch]] = []
        for domain in experiment.weights_of(self._data) if behaviour.snippets else ():
            length = min(behaviour.snippet_length, experiment.model.n_ctx)
            rows = snippets(self._corpus, domain, behaviour.snippets, length, experiment.seed)
            if (batch := self._given(rows)) is not None:
                named.append(([f"{domain} {i + 1}" if len(rows) > 1 else domain for i in range(len(rows))], batch))
        n = experiment.sampling.share_contexts
        named.append(([f"{self._data}, context {i + 1}" for i in range(n)], next(self.stream("fixed", size=n))))
        return probe_of(named, experiment.sampling.batch_size)

    def _given(self, tokens: Ints) -> Tensor | TokenBatch | None:
        """These contexts, with what of them counts; None where nothing does."""
        if self._refinement is None:
            marked = tokens != self._corpus.bos
            return whole_or_counted(self._there(tokens), self._there(marked)) if marked[:, 1:].any() else None
        if self._refinement.settings.shuffled:
            tokens = self._refinement.shuffled(tokens, seeds.derive(self._experiment.seed, "snippets"))
        marked = self._refinement.marked(tokens)
        if not marked.any():
            return None
        batch = counted(self._there(tokens), self._there(marked))
        return batch if self._reference is None else against(*self._reference, batch)

    def batches(self, purpose: str, n: int) -> list[Tensor | TokenBatch]:
        """The first n minibatches of a purpose."""
        return list(islice(self.stream(purpose), n))

    def _there(self, array: object) -> Tensor:
        return torch.as_tensor(array).to(self._device)


def opened(folder: Path) -> Corpus:
    """The corpus of a run; a worker opens it once, and again where its files were touched since."""
    if _opened(folder).touched:
        _opened.cache_clear()
    return _opened(folder)


_opened = lru_cache(maxsize=1)(open_corpus)


def referred(experiment: Experiment, folder: RunFolder, reference: int | str) -> tuple[RunFolder, int, ModelShape]:
    """Where the checkpoint of a refinement's reference lies, its step and its shape."""
    if isinstance(reference, int):
        return folder, reference, experiment.model
    sibling = experiment.sibling(reference)
    return folder.sibling(reference), sibling.checkpoints()[-1], sibling.model


def reads_of(corpus: str, weights: Mapping[int | str, str]) -> dict[str, str]:
    """What a unit reads, by what to call it, with its digest: the corpus and checkpoints, those of siblings by name."""
    called = {f"the checkpoint of step {name}" if isinstance(name, int) else f"the last checkpoint of {name}": name for name in weights}
    return {"the corpus": corpus} | {what: weights[name] for what, name in called.items()}


def exchanged(what: str, folder: Path) -> RllcError:
    """The sentence for something that a run reads and that another was put in the place of while it was at work."""
    return RllcError(
        f"{what[0].upper()}{what[1:]} in {folder} is another one than when the run began; nothing was computed with it.",
        "Put it back and run the same command again, which goes on where it was.",
    )

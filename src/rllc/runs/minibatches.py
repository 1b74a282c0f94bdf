"""Minibatches of whatever a notebook has: i.i.d. with replacement, each a pure function of (seed, purpose, data, number)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool
from rllc.model.batch import TokenBatch
from rllc.posterior.sampling import Minibatches
from rllc.runs.how import How
from rllc.runs.reference import Reference
from rllc.runs.refined import Drawn, MarkedRows, Mixed, MixedRows, PoolBatches, PooledRows, Refined, RefinedBatches, marked_rows
from rllc.runs.token_probe import TokenProbe, probe_of
from rllc.runs.token_rows import is_dataset, is_texts, token_rows

# The order is that in which a callable's numbers are shared out.
PURPOSES = ("sample", "origin", "control", "fixed", "halving", "full")


class Pool(Protocol):
    """What batches are drawn from; `rllc.corpus.batches.ContextPool` is one."""

    def draw(self, rng: np.random.Generator, n: int) -> Any:
        """`n` samples, i.i.d. with replacement."""
        ...


@dataclass(frozen=True)
class Rows:
    """Contexts of equal length [n, T]."""

    tokens: NDArray[np.int64]

    def draw(self, rng: np.random.Generator, n: int) -> Tensor:
        """[n, T]."""
        return torch.from_numpy(self.tokens[rng.integers(len(self.tokens), size=n)])


@dataclass(frozen=True)
class Tensors:
    """Tensors with a common first axis, the samples."""

    tensors: tuple[Tensor, ...]
    alone: bool  # a batch is one tensor and no tuple

    def draw(self, rng: np.random.Generator, n: int) -> Any:
        """A tuple of tensors [n, ...], or one."""
        index = torch.from_numpy(rng.integers(len(self.tensors[0]), size=n))
        found = tuple(tensor[index.to(tensor.device)] for tensor in self.tensors)
        return found[0] if self.alone else found


@dataclass(frozen=True)
class Samples:
    """A data set of samples by number, put together as torch's data loader does unless told otherwise."""

    samples: Any
    collate: Callable[[list[Any]], Any]

    def draw(self, rng: np.random.Generator, n: int) -> Any:
        """A batch of n."""
        return self.collate([self.samples[int(i)] for i in rng.integers(len(self.samples), size=n)])


@dataclass(frozen=True)
class Source:
    """Data by name, ready to be drawn from.

    Args:
        name: under which its batches are seeded: other names, other batches.
        pool: what is drawn from; None where `numbered` makes the batches.
        numbered: from a whole number to the batch of that number.
        context: tokens T of a context; 0 where samples are no contexts.
        notes: what a user should know of how it was read.
    """

    name: str
    pool: Pool | None
    numbered: Callable[[int], Any] | None = None
    context: int = 0
    notes: tuple[str, ...] = ()

    def stream(self, how: How, purpose: str, device: torch.device, size: int = 0) -> Iterator[Any]:
        """Minibatches of a purpose without end, of the chains' size unless told otherwise; seeded as those of a run."""
        for index in count():
            if self.pool is None:
                assert self.numbered is not None
                batch = self.numbered(index * len(PURPOSES) + PURPOSES.index(purpose))
            else:
                batch = self.pool.draw(seeds.generator(how.seed, purpose, self.name, index), size or how.batch_size)
            yield moved(batch, device)

    def minibatches(self, how: How, device: torch.device, elsewhere: Sequence[Source] = ()) -> Minibatches:
        """All the data that sampling takes, and the minibatches of other data on which its draws are evaluated too."""
        chains: Iterator[Any] = self.stream(how, "sample", device)
        if how.sampler.sampler == "mala":
            chains = repeat(next(self.stream(how, "full", device, how.full_batch)))
        return Minibatches(
            sample=chains,
            origin=list(islice(self.stream(how, "origin", device), how.origin_batches)),
            control=islice(self.stream(how, "control", device), how.control_batches),
            fixed=next(self.stream(how, "fixed", device, how.fixed_contexts)) if how.fixed_contexts else None,
            halving=self.stream(how, "halving", device),
            elsewhere={source.name: source.stream(how, "sample", device) for source in elsewhere},
        )

    def probe(self, how: How, device: torch.device) -> TokenProbe:
        """The contexts whose tokens' shares are wanted: those that a fixed evaluation set of as many would hold."""
        batch = next(self.stream(how, "fixed", device, how.share_contexts))
        return probe_of([([f"{self.name}, context {i + 1}" for i in range(how.share_contexts)], batch)], how.batch_size)


def open_tokens(data: Any, name: str, how: How, limit: int, vocabulary: int, native: bool = False, alone: bool = False) -> Source:
    """Data of a language model: contexts of token ids, refined, mixed or padded too.

    Where they are wanted `alone`, as for a loss of the user's own, ids come without what of them counts, and so cannot be padded.

    Raises RllcError as `token_rows` and `marked_rows` do.
    """
    if isinstance(data, ContextPool):
        if limit and data.context > limit:
            raise RllcError(f"The contexts have {data.context} tokens, more than the model's {limit}.", "Open the pool with a smaller context.")
        if alone and data.documents != "packed":
            problem = "The pool has one document a row, and a loss of your own is given token ids alone, which do not say what is padding."
            raise RllcError(problem, "Open the pool packed, or leave loss out.")
        return Source(name, data if alone else PoolBatches(data, native), context=data.context)
    if isinstance(data, Mixed) or (isinstance(data, Refined) and isinstance(data.data, Mixed)):
        return _mixed(data, name, how, limit, vocabulary, native)
    if callable(data) and not hasattr(data, "__len__"):
        return Source(name, None, data)
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) and item.ndim > 1 for item in data):
        raise RllcError("The data is a tuple of tensors, but a language model takes token ids [n, T].", "Give the ids alone, or a loss=.")
    refined, inner = (data, data.data) if isinstance(data, Refined) else (None, data)
    rows = token_rows(
        inner,
        tokenizer=how.tokenizer,
        column=how.column,
        context=how.context,
        documents=how.documents,
        most_contexts=how.most_contexts,
        limit=limit,
        vocabulary=vocabulary,
    )
    if alone and rows.padded:
        problem = "The rows are padded, and a loss of your own is given token ids alone, which do not say what is padding."
        raise RllcError(problem, 'Set documents="packed", give rows without padding, or leave loss out.')
    if refined is None and (rows.counts[:, 1:].all() or alone):
        return Source(name, Rows(rows.tokens), context=rows.tokens.shape[1], notes=rows.notes)
    reference = None if refined is None or refined.reference is None else Reference.of(refined.reference, vocabulary)
    pool = RefinedBatches(marked_rows(rows.tokens, rows.counts, refined, how.seed), reference, native)
    return Source(name, pool, context=rows.tokens.shape[1], notes=rows.notes)


def _mixed(data: Mixed | Refined, name: str, how: How, limit: int, vocabulary: int, native: bool) -> Source:
    """A mixture, or a refinement of one: what it refines, it refines in each kind of data."""
    refined, mixed = (data, data.data) if isinstance(data, Refined) else (None, data)
    pools: list[Drawn] = []
    notes: list[str] = []
    context = 0
    for part, inner in mixed.data.items():
        if isinstance(inner, Refined) and (refined is not None or inner.reference is not None):
            raise RllcError(f"{part!r} of the mixture is refined in a way that cannot be mixed.", "Refine the whole: Refined(Mixed(…), …).")
        one = inner if refined is None else Refined(inner, refined.positions, refined.contexts, shuffled=refined.shuffled)
        source = open_tokens(one, name, how, limit, vocabulary, native)
        pools.append(_drawn(source, str(part)))
        notes += [f"{part}: {note}" for note in source.notes]
        if context and source.context != context:
            raise RllcError(f"The contexts of {part!r} have {source.context} tokens, and others of the mixture {context}.", "Give context=.")
        context = source.context
    shares = mixed.shares
    told = "A mixture: " + ", ".join(f"{part} {share:.3g}" for part, share in shares.items()) + "."
    reference = None if refined is None or refined.reference is None else Reference.of(refined.reference, vocabulary)
    pool = RefinedBatches(MixedRows(pools, list(shares.values())), reference, native)
    return Source(name, pool, context=context, notes=(told, *notes))


def _drawn(source: Source, part: str) -> Drawn:
    """What a kind of data in a mixture is drawn from."""
    if isinstance(source.pool, RefinedBatches):
        return source.pool.contexts
    if isinstance(source.pool, Rows):
        return MarkedRows(source.pool.tokens, np.ones(source.pool.tokens.shape, dtype=bool))
    if isinstance(source.pool, PoolBatches):
        return PooledRows(source.pool.contexts)
    raise RllcError(f"{part!r} of the mixture makes its own batches.", "Give rows of token ids, or texts.")


def open_samples(data: Any, name: str, how: How) -> Source:
    """Data of any module: what its loss takes. Texts, and a column of a data set that is named, become token ids.

    Raises RllcError where the data is empty or in no form that batches can be drawn from.
    """
    if isinstance(data, ContextPool) or is_texts(data) or how.tokenizer is not None or (is_dataset(data) and how.column):
        return open_tokens(data, name, how, 0, 0, alone=True)
    if callable(data) and not hasattr(data, "__len__"):
        return Source(name, None, data)
    if isinstance(data, Tensor | np.ndarray):
        return Source(name, Tensors((_tensor(data),), True))
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor | np.ndarray) for item in data):
        tensors = tuple(_tensor(item) for item in data)
        if len({len(tensor) for tensor in tensors}) != 1:
            raise RllcError(f"The tensors hold {', '.join(str(len(t)) for t in tensors)} samples.", "Give tensors with one first axis, the samples.")
        return Source(name, Tensors(tensors, False))
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise RllcError(
            f"No batches can be drawn from a {type(data).__name__}.",
            "Give tensors, a data set with a length and samples by number, or a function from a number to a batch.",
        )
    samples: Any = data
    if not len(samples):
        raise RllcError("The data is empty.", "Give at least one sample.")
    if isinstance(data, Mapping):
        raise RllcError("The data is a mapping.", "Give a tuple of tensors, or a data set of samples by number.")
    from torch.utils.data import default_collate

    return Source(name, Samples(samples, how.collate or default_collate))


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on the device."""
    if isinstance(batch, np.ndarray):
        batch = torch.from_numpy(batch)
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, TokenBatch):
        return TokenBatch(*(moved(value, device) for value in (batch.tokens, batch.rows, batch.reference)))
    if isinstance(batch, Mapping):
        return {name: moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        items = [moved(value, device) for value in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


def _tensor(data: Any) -> Tensor:
    tensor = torch.as_tensor(data)
    if tensor.ndim == 0 or not len(tensor):
        raise RllcError(f"The data holds a tensor of the shape {list(tensor.shape)}.", "Its first axis must be the samples, at least one.")
    return tensor

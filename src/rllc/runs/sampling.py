"""Sampling one unit: the place where the model meets the sampler. What it returns is ready to be recorded.

A unit is rebuilt from the run folder and the plan alone, so that any process can do it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.checkpoints.store import CheckpointInfo, checkpoint_name, load
from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.names import Cell, DataKey
from rllc.corpus.batches import Mixture, batch_stream
from rllc.corpus.refinement import RefinedStream, Refinement
from rllc.corpus.tokens import Corpus, open_corpus
from rllc.model.batch import TokenBatch, counted
from rllc.model.evaluation import PartObjective
from rllc.model.forward import against
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.posterior.protocol import Originated
from rllc.posterior.sampling import Earlier, Minibatches, Sampled, Snapshot, sample
from rllc.posterior.traces import stacked
from rllc.records.store import Record, Store, key_digest
from rllc.runs.device import choose_device
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.mapping import plain
from rllc.runs.plan import Unit
from rllc.runs.recording import arrays_of, meta_of, prolonged, traces_of

KIND = "sample"
STATE = "state"  # where the chains of a record stand
# The revision of the estimator: raise it with every change that moves a number, so that old records are not mistaken for new ones.
ESTIMATOR = "paired-3"


@dataclass(frozen=True)
class Work:
    """One unit of an experiment in a run folder; picklable.

    Args:
        segment: how many segments its cells have in the store already; above 0 their chains are prolonged.
        planned_chunk: the chunk of the plan, where a lost worker made the unit's smaller; 0 where it is the unit's.
    """

    folder: Path
    experiment: Experiment
    unit: Unit
    segment: int = 0
    planned_chunk: int = 0

    def smaller(self) -> Work:
        """The same with half as many variants in a pass. Raises RllcError where there is one already."""
        if self.unit.chunk <= 1:
            raise RllcError(f"{self.unit} does not fit the memory with one variant at a time.", "Give sampling.batch_size a smaller value.")
        return replace(self, unit=replace(self.unit, chunk=self.unit.chunk // 2), planned_chunk=self.planned_chunk or self.unit.chunk)


@dataclass(frozen=True)
class Sample:
    """What becomes one segment of a record: key, arrays and meta of a cell, and where its chains stand if that is kept."""

    cell: Cell
    key: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    segment: int = 0
    state: Snapshot | None = None

    def put(self, store: Store) -> None:
        """Write it down."""
        digest = store.put(KIND, self.key, self.arrays, self.meta, self.segment)
        if self.state is not None:
            store.put(STATE, state_key(digest, self.segment), self.state, {"draws": self.meta["draws"]})


def record_key(experiment: Experiment, cell: Cell, weights: Mapping[int | str, str], corpus_digest: str) -> dict[str, Any]:
    """What decides a cell's numbers, but for the number of draws: weights, part, data, loss, sampler, dtype, seed, estimator.

    Args:
        weights: digest of the checkpoints by step, and of siblings' last ones by name, those that refinements refer to among them.
    """
    refinement = experiment.refinement_of(cell.data)
    key = {
        "estimator": ESTIMATOR,
        "weights": weights[cell.step],
        "step": cell.step,
        "part": str(cell.part),
        "data": data_key(experiment, cell.data, weights, corpus_digest),
        "loss": "labels" if refinement is None or not refinement.refers else "reference",
        "sampler": {name: value for name, value in plain(experiment.sampler).items() if name != "draws"},
        "sampling": {name: value for name, value in plain(experiment.sampling).items() if name != "keep_state"},
        "dtype": experiment.engine.dtype,
        "seed": experiment.seed,
    }
    if experiment.engine.products != "float32":
        key["products"] = experiment.engine.products
    checks = plain(experiment.checks)
    return key | ({"checks": checks} if any(checks.values()) else {})


def state_key(record_digest: str, segment: int) -> dict[str, Any]:
    """What the state behind a record's segment is called."""
    return {"of": record_digest, "segment": segment}


def data_key(experiment: Experiment, data: DataKey, weights: Mapping[int | str, str], corpus_digest: str) -> dict[str, Any]:
    """What decides the minibatches of a data name, and what they are held against."""
    mixture, refinement = Mixture(data.name, experiment.weights_of(data)), experiment.refinement_of(data)
    key = {"corpus": corpus_digest, "weights": dict(mixture.weights), "split": data.split, "context": experiment.model.n_ctx}
    if refinement is None:
        return key
    refined = {name: value for name, value in plain(refinement).items() if name not in ("data", "reference") and value}
    if not isinstance(refinement.data, str):
        refined["mixed"] = True  # a mixture of the same weights that refines nothing has other minibatches, and counts a BOS
    return key | refined | ({"reference": weights[refinement.reference]} if refinement.refers else {})


def referred(experiment: Experiment, folder: RunFolder, reference: int | str) -> tuple[RunFolder, int, ModelShape]:
    """Where the checkpoint of a refinement's reference lies, its step and its shape."""
    if isinstance(reference, int):
        return folder, reference, experiment.model
    sibling = experiment.sibling(reference)
    return folder.sibling(reference), sibling.checkpoints()[-1], sibling.model


class OpenedUnit:
    """A unit with its weights and text in memory: what can be sampled, and every random thing that sampling takes.

    Noise is seeded by (root, part, chain) and batches by (root, data): equal at every checkpoint, so that differences between
    checkpoints have smaller errors than their ends.

    Raises RllcError for a missing or foreign checkpoint or corpus.
    """

    def __init__(self, work: Work) -> None:
        self.experiment, self.unit = work.experiment, work.unit
        folder = RunFolder(work.folder)
        self.device = choose_device(work.experiment.engine.device)
        self.corpus = opened(folder.corpus)
        self._params, self.checkpoint = self._load(folder, work.unit.step, work.experiment.model)
        self.weights: dict[int | str, str] = {work.unit.step: self.checkpoint.digest}
        self._refinement, self._reference = None, None
        if refinement := work.experiment.refinement_of(work.unit.data):
            self._refinement = Refinement(refinement, self.corpus)
            if refinement.refers:
                place, step, shape = referred(work.experiment, folder, refinement.reference)
                params, info = self._load(place, step, shape)
                self._reference = (shape, params)
                self.weights[refinement.reference] = info.digest
        self._products = getattr(torch, work.experiment.engine.products)
        self._built: list[PartObjective[Any]] = []
        self.objective = self._build(range(len(work.unit.parts)))

    def _load(self, folder: RunFolder, step: int, shape: ModelShape) -> tuple[dict[str, torch.Tensor], CheckpointInfo]:
        _, weights, info = load(folder.checkpoints / checkpoint_name(step), shape)
        dtype = getattr(torch, self.experiment.engine.dtype)
        return {name: tensor.to(device=self.device, dtype=dtype) for name, tensor in weights.items()}, info

    def _build(self, places: Sequence[int]) -> PartObjective[Any]:
        parts = tuple(self.unit.parts[p] for p in places)
        # The protocol is met by shape: the model's room and the sampler's do not know each other.
        self._built.append(build_objective(self.experiment.model, self._params, parts, self.chunk, self._products))
        return self._built[-1]

    @property
    def chunk(self) -> int:
        """Most variants of a pass, as it turned out: fewer than planned where memory ran short."""
        return min([self.unit.chunk, *(objective.chunk for objective in self._built)])

    def narrow(self, places: Sequence[int]) -> Originated[Any]:
        """The loss of some of the unit's parts alone, by their places."""
        return self._build(places)

    def stream(self, purpose: str, start: int = 0, size: int = 0) -> Iterator[torch.Tensor | TokenBatch]:
        """Minibatches for one purpose from the one with that number on, without end, of the chains' size unless told otherwise."""
        experiment, data = self.experiment, self.unit.data
        mixture = Mixture(data.name, experiment.weights_of(data))
        size, context = size or experiment.sampling.batch_size, experiment.model.n_ctx
        batches = batch_stream(self.corpus, mixture, data.split, size, context, experiment.seed, purpose, str(data))
        if self._refinement is None:
            for batch in batches.starting(start):
                yield torch.from_numpy(batch).to(self.device)
            return
        refined = RefinedStream(batches.pool, self._refinement, batches.batch_size, batches.root, batches.names)
        for tokens, marked in refined.starting(start):
            batch = counted(torch.from_numpy(tokens).to(self.device), torch.from_numpy(marked).to(self.device))
            yield batch if self._reference is None else against(*self._reference, batch)

    def batches(self, purpose: str, n: int) -> list[torch.Tensor | TokenBatch]:
        """The first n minibatches of a purpose."""
        return list(islice(self.stream(purpose), n))

    def noise_seeds(self, chains: int, *names: str | int) -> list[list[int]]:
        """One integer a chain, [P][chains]; `names` make other streams than those of the first segment."""
        root = self.experiment.seed
        return [[seeds.derive(root, "noise", str(part), chain, *names) for chain in range(chains)] for part in self.unit.parts]

    def minibatches(self, start: int = 0, purpose: str = "sample") -> Minibatches:
        """All data of the experiment's sampling; the chains' from number `start` on."""
        experiment, n = self.experiment, self.experiment.sampling
        chains: Iterator[torch.Tensor | TokenBatch] = self.stream(purpose, start)
        if experiment.sampler.sampler == "mala":
            chains = repeat(next(self.stream("full", size=n.full_batch)))
        return Minibatches(
            sample=chains,
            origin=self.batches("origin", n.origin_batches),
            control=islice(self.stream("control"), n.control_batches),
            fixed=next(self.stream("fixed", size=n.fixed_contexts)) if n.fixed_contexts else None,
            halving=self.stream("halving"),
        )


def sample_unit(work: Work) -> tuple[Sample, ...]:
    """Sample all cells of a unit at once, on shared minibatches, or prolong their chains.

    Chains go on exactly as one long run where their state was kept for all cells, and otherwise start again at the checkpoint, with a burn-in,
    noise and minibatches of their own.

    Raises RllcError for a missing or foreign checkpoint or corpus.
    """
    started = time.perf_counter()
    unit, experiment = OpenedUnit(work), work.experiment
    store = Store(RunFolder(work.folder).records)
    keys = [record_key(experiment, cell, unit.weights, unit.corpus.digest) for cell in work.unit.cells]
    digests = [key_digest(KIND, key) for key in keys]
    chains = experiment.sampler.chains
    records: list[Record] = []
    earlier, before, names, batches = None, 0, (), unit.minibatches()
    if work.segment:
        records = [store.get(KIND, digest) for digest in digests]
        earlier = Earlier(stacked([traces_of(record) for record in records]), _kept_state(store, digests, work.segment - 1))
        before = earlier.traces.losses.shape[-1]
        if earlier.snapshot is None:
            names = ("segment", work.segment)
            batches = unit.minibatches(purpose=f"sample segment {work.segment}")
        else:
            # chains that started again at w* have used up a stream of their own: go on in the last one
            last = earlier.traces.segments[-1].evaluations
            purpose = "sample" if last == before else f"sample segment {_last_restart(records[0])}"
            batches = unit.minibatches(start=last, purpose=purpose)
    sampled = sample(
        unit.objective,
        batches,
        experiment.sampler,
        noise_seeds=unit.noise_seeds(chains, *names),
        stopping=experiment.stopping,
        checks=experiment.checks,
        earlier=earlier,
        narrow=unit.narrow,
    )
    seconds = (time.perf_counter() - started) / len(keys)
    return tuple(
        Sample(
            cell,
            keys[p],
            {name: array[..., before:] for name, array in arrays_of(sampled.traces[p]).items()},
            _meta(work, cell, sampled, p, seconds, unit.chunk) | prolonged(records[p].meta if records else None, sampled.traces[p], earlier),
            work.segment,
            sampled.snapshots[p] if experiment.sampling.keep_state else None,
        )
        for p, cell in enumerate(work.unit.cells)
    )


def _kept_state(store: Store, digests: Sequence[str], segment: int) -> Snapshot | None:
    """Where the chains of all cells stand, stacked along P; None where that was not kept for one of them."""
    keys = [state_key(digest, segment) for digest in digests]
    if not all(store.has(STATE, key) for key in keys):
        return None
    states = [store.get(STATE, key).arrays for key in keys]
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


@lru_cache(maxsize=1)
def opened(folder: Path) -> Corpus:
    """The corpus of a run; a worker opens it once."""
    return open_corpus(folder)


def _last_restart(record: Record) -> int:
    """The store's number of the segment in which the chains last started at w*."""
    return max(i for i, step in enumerate(record.meta["history"]) if step["how"] != "continued")


def _meta(work: Work, cell: Cell, sampled: Sampled, p: int, seconds: float, chunk: int) -> dict[str, Any]:
    experiment, data = work.experiment, str(cell.data)
    origin = None if sampled.origin is None else sampled.origin.part(p)
    return meta_of(sampled.traces[p], sampled.results[p], origin) | {
        "step": cell.step,
        "part": str(cell.part),
        "data": data,
        "evaluated_on": data,
        "fixed_contexts": experiment.sampling.fixed_contexts,
        "batch_size": experiment.batch_size(),
        "context": experiment.model.n_ctx,
        "dtype": experiment.engine.dtype,
        "threads": experiment.engine.threads,
        "seed": experiment.seed,
        "estimator": ESTIMATOR,
        "seconds": seconds,
        "chunk": chunk,
        "chunk_planned": work.planned_chunk or work.unit.chunk,
    }

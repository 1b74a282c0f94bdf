"""Sampling one unit: the place where the model meets the sampler. What it returns is ready to be recorded.

A unit is rebuilt from the run folder and the plan alone, so that any process can do it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from rllc.model.batch import TokenBatch
from rllc.model.evaluation import PartObjective
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.posterior.protocol import Originated
from rllc.posterior.result import assess_elsewhere
from rllc.posterior.sampling import Earlier, Minibatches, Sampled, Snapshot, sample
from rllc.posterior.traces import stacked
from rllc.records.store import Record, Store, key_digest
from rllc.runs.device import check_fits, choose_device, described
from rllc.runs.experiment import Experiment
from rllc.runs.keys import ESTIMATOR, KIND, SHARES, STATE, record_key, shares_key, state_key
from rllc.runs.layout import RunFolder
from rllc.runs.plan import Unit
from rllc.runs.recording import arrays_of, meta_of, prolonged, traces_of
from rllc.runs.setting_right import forget
from rllc.runs.token_probe import TokenProbe
from rllc.runs.unit_data import UnitData, exchanged, opened, reads_of


@dataclass(frozen=True)
class Work:
    """One unit of an experiment in a run folder; picklable.

    Args:
        segment: how many segments its cells have in the store already; above 0 their chains are prolonged.
        planned_chunk: the chunk of the plan, where a lost worker made the unit's smaller; 0 where it is the unit's.
        reads: digests of what it was planned to read, by what to call it (`reads_of`); where that was exchanged since, the unit is refused.
    """

    folder: Path
    experiment: Experiment
    unit: Unit
    segment: int = 0
    planned_chunk: int = 0
    reads: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.unit)

    def smaller(self) -> Work:
        """The same with half as many variants in a pass. Raises RllcError where there is one already."""
        if self.unit.chunk <= 1:
            raise RllcError(f"{self.unit} does not fit the memory with one variant at a time.", "Give sampling.batch_size a smaller value.")
        return replace(self, unit=replace(self.unit, chunk=self.unit.chunk // 2), planned_chunk=self.planned_chunk or self.unit.chunk)


@dataclass(frozen=True)
class Sample:
    """What becomes one segment of a record: key, arrays and meta of a cell, and where its chains stand and what its tokens add if that is kept."""

    cell: Cell
    key: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    segment: int = 0
    state: Snapshot | None = None
    shares: tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, Any]] | None = None  # key, arrays, meta

    def put(self, store: Store) -> None:
        """Write it down."""
        there = store.get(KIND, self.key) if store.has(KIND, self.key, self.segment) else None
        digest = store.put(KIND, self.key, self.arrays, self.meta, self.segment)
        if there is None:  # what one before it has left, which was set aside since, is of other chains
            forget(store, digest, self.segment, () if self.shares is None else (self.shares[0],))
        # What is there stays; its state, and the shares of its tokens, are then of as many draws as it has, and not of these.
        if self.shares is not None and (there is None or self.shares[2]["draws"] == there.meta["history"][self.segment]["draws"]):
            store.put(SHARES, *self.shares)
        if self.state is not None and there is None:
            store.put(STATE, state_key(digest, self.segment), self.state, {"draws": self.meta["draws"]})


class OpenedUnit:
    """A unit with its weights and text in memory: what can be sampled, and every random thing that sampling takes.

    Noise is seeded by (root, part, chain) and batches by (root, data): equal at every checkpoint, so that differences between
    checkpoints have smaller errors than their ends.

    Raises RllcError for a missing or foreign checkpoint or corpus, and for one that is not what the plan was made with.
    """

    def __init__(self, work: Work) -> None:
        self.experiment, self.unit = work.experiment, work.unit
        folder = RunFolder(work.folder)
        self.device = choose_device(work.experiment.engine.device)
        self.corpus = opened(folder.corpus)
        self._params, self.checkpoint = self._load(folder, work.unit.step, work.experiment.model)
        self.data, *others = (
            UnitData(work.experiment, folder, data, self.corpus, self.device, self._load)
            for data in (work.unit.data, *map(DataKey.parse, work.unit.evaluate_on))
        )
        self.elsewhere = dict(zip(work.unit.evaluate_on, others, strict=True))
        self.weights: dict[int | str, str] = {work.unit.step: self.checkpoint.digest}
        for data in (self.data, *others):
            self.weights |= data.weights
        for what, found in reads_of(self.corpus.digest, self.weights).items():
            if work.reads.get(what, found) != found:
                raise exchanged(what, work.folder)
        self._products = getattr(torch, work.experiment.engine.products)
        self._built: list[PartObjective[Any]] = []
        self.objective = self._build(range(len(work.unit.parts)))

    def _load(self, folder: RunFolder, step: int, shape: ModelShape) -> tuple[dict[str, torch.Tensor], CheckpointInfo]:
        dtype = getattr(torch, self.experiment.engine.dtype)
        check_fits(shape, dtype, self.device)
        _, weights, info = load(folder.checkpoints / checkpoint_name(step), shape)
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

    def noise_seeds(self, chains: int, *names: str | int) -> list[list[int]]:
        """One integer a chain, [P][chains]; `names` make other streams than those of the first segment."""
        root = self.experiment.seed
        return [[seeds.derive(root, "noise", str(part), chain, *names) for chain in range(chains)] for part in self.unit.parts]

    def minibatches(self, start: int = 0, purpose: str = "sample") -> Minibatches:
        """All data of the experiment's sampling; the chains' from number `start` on."""
        experiment, n, data = self.experiment, self.experiment.sampling, self.data
        chains: Iterator[torch.Tensor | TokenBatch] = data.stream(purpose, start)
        if experiment.sampler.sampler == "mala":
            chains = repeat(next(data.stream("full", size=n.full_batch)))
        return Minibatches(
            sample=chains,
            origin=data.batches("origin", n.origin_batches),
            control=islice(data.stream("control"), n.control_batches),
            fixed=next(data.stream("fixed", size=n.fixed_contexts)) if n.fixed_contexts else None,
            halving=data.stream("halving"),
            elsewhere={name: other.stream(purpose, start) for name, other in self.elsewhere.items()},
        )


def sample_unit(work: Work) -> tuple[Sample, ...]:
    """Sample all cells of a unit at once, on shared minibatches, or prolong their chains.

    Chains go on exactly as one long run where their state was kept for all cells, and otherwise start again at the checkpoint, with a burn-in,
    noise and minibatches of their own.

    Raises RllcError for a missing or foreign checkpoint or corpus.
    """
    started = time.perf_counter()
    unit, experiment = OpenedUnit(work), work.experiment
    bundles = [work.unit.bundle(part) for part in work.unit.parts]
    keys = {cell: record_key(experiment, cell, unit.weights, unit.corpus.digest) for bundle in bundles for cell in bundle}
    records: dict[Cell, Record] = {}
    earlier, names, batches = None, (), unit.minibatches()
    probe = unit.data.probe() if experiment.shares_at(work.unit.step) else None
    if work.segment:
        store = RunFolder(work.folder).store()
        records = {cell: store.get(KIND, key) for cell, key in keys.items()}
        earlier = _earlier(store, bundles, records)
        if earlier.snapshot is None:
            names = ("segment", work.segment)
            batches = unit.minibatches(purpose=f"sample segment {work.segment}")
        else:
            # chains that started again at w* have used up a stream of their own: go on in the last one
            last = earlier.traces.segments[-1].evaluations
            purpose = "sample" if last == earlier.traces.losses.shape[-1] else f"sample segment {_last_restart(records[bundles[0][0]])}"
            batches = unit.minibatches(start=last, purpose=purpose)
    sampled = sample(
        unit.objective,
        batches if probe is None else replace(batches, probe=probe.batches),
        experiment.sampler_at(work.unit.data),
        noise_seeds=unit.noise_seeds(experiment.sampler.chains, *names),
        stopping=experiment.stopping,
        checks=experiment.checks,
        earlier=earlier,
        narrow=unit.narrow,
    )
    unit.corpus.check_untouched()
    common = _common(work, unit, (time.perf_counter() - started) / len(bundles))
    samples = (
        (p, _sample(cell, keys[cell], records.get(cell), sampled, p, earlier, common, experiment.sampling.keep_state))
        for p, bundle in enumerate(bundles)
        for cell in bundle
    )
    return tuple(one if probe is None else _with_shares(one, experiment, sampled, p, probe) for p, one in samples)


def _with_shares(one: Sample, experiment: Experiment, sampled: Sampled, p: int, probe: TokenProbe) -> Sample:
    if one.cell.data.elsewhere:
        return one
    key = shares_key(experiment, key_digest(KIND, one.key), one.segment)
    meta = {name: one.meta[name] for name in ("step", "part", "data", "outcome")} | {"draws": sampled.shares[p].draws, "names": probe.names}
    return replace(one, shares=(key, probe.arrays(sampled.shares[p]), meta))


def _earlier(store: Store, bundles: Sequence[Sequence[Cell]], records: Mapping[Cell, Record]) -> Earlier:
    """What the chains of a unit have drawn, on their own data and elsewhere. They go on only where all of it is of one length."""
    columns = [stacked([traces_of(records[cell]) for cell in cells]) for cells in zip(*bundles, strict=True)]
    digests = [records[bundle[0]].digest for bundle in bundles]
    snapshot = None
    if all(traces.segments == columns[0].segments for traces in columns):
        snapshot = _kept_state(store, digests, records[bundles[0][0]].segments - 1)
    return Earlier(columns[0], snapshot, {cell.data.elsewhere: traces for cell, traces in zip(bundles[0][1:], columns[1:], strict=True)})


def _sample(
    cell: Cell,
    key: dict[str, Any],
    record: Record | None,
    sampled: Sampled,
    p: int,
    earlier: Earlier | None,
    common: dict[str, Any],
    keep_state: bool,
) -> Sample:
    """What becomes the next segment of a cell's record."""
    elsewhere = cell.data.elsewhere
    own = sampled.results[p]
    traces = sampled.elsewhere[p][elsewhere] if elsewhere else sampled.traces[p]
    result = assess_elsewhere(own, traces) if elsewhere else own
    origin = None if elsewhere or sampled.origin is None else sampled.origin.part(p)
    before = 0 if record is None else traces_of(record).losses.shape[-1]
    return Sample(
        cell,
        key,
        {name: array[..., before:] for name, array in arrays_of(traces).items()},
        meta_of(traces, result, origin)
        | prolonged(None if record is None else record.meta, traces, earlier)
        | {"part": str(cell.part), "evaluated_on": elsewhere or str(cell.data)}
        | common,
        0 if record is None else record.segments,
        sampled.snapshots[p] if keep_state and not elsewhere else None,
    )


def _kept_state(store: Store, digests: Sequence[str], segment: int) -> Snapshot | None:
    """Where the chains of all cells stand, stacked along P; None where that was not kept for one of them."""
    keys = [state_key(digest, segment) for digest in digests]
    if not all(store.has(STATE, key) for key in keys):
        return None
    states = [store.get(STATE, key).arrays for key in keys]
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


def _last_restart(record: Record) -> int:
    """The store's number of the segment in which the chains last started at w*."""
    return max(i for i, step in enumerate(record.meta["history"]) if step["how"] != "continued")


def _common(work: Work, unit: OpenedUnit, seconds: float) -> dict[str, Any]:
    """What all cells of a unit have in common."""
    experiment = work.experiment
    return {
        "step": work.unit.step,
        "data": str(work.unit.data),
        "fixed_contexts": experiment.sampling.fixed_contexts,
        "batch_size": experiment.batch_size(),
        "context": experiment.model.n_ctx,
        "documents": experiment.sampling.documents,
        "dtype": experiment.engine.dtype,
        "threads": experiment.engine.threads,
        "device": described(unit.device),
        "torch": torch.__version__,
        "seed": experiment.seed,
        "estimator": ESTIMATOR,
        "seconds": seconds,
        "chunk": unit.chunk,
        "chunk_planned": work.planned_chunk or work.unit.chunk,
    }

"""Sampling one unit: the place where the model meets the sampler. What it returns is ready to be recorded.

A unit is rebuilt from the run folder and the plan alone, so that any process can do it.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.checkpoints.store import checkpoint_name, load
from rllc.core import seeds
from rllc.core.names import Cell, DataKey
from rllc.corpus.batches import Mixture, batch_stream
from rllc.corpus.tokens import Corpus, open_corpus
from rllc.model.objective import build_objective
from rllc.posterior.chains import run_chains
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.protocol import Objective
from rllc.posterior.result import Result, assess
from rllc.posterior.traces import OriginGradient, Traces
from rllc.runs.device import choose_device
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.mapping import plain
from rllc.runs.plan import Unit

KIND = "sample"
# The revision of the estimator: raise it with every change that moves a number, so that old records are not mistaken for new ones.
ESTIMATOR = "paired-1"


@dataclass(frozen=True)
class Work:
    """One unit of an experiment in a run folder; picklable."""

    folder: Path
    experiment: Experiment
    unit: Unit


@dataclass(frozen=True)
class Sample:
    """What becomes one record: key, arrays and meta of a cell."""

    cell: Cell
    key: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def record_key(experiment: Experiment, cell: Cell, weights_digest: str, corpus_digest: str) -> dict[str, Any]:
    """What decides a cell's numbers: weights, part, data, loss, sampler, dtype, seed, estimator. The content is the key."""
    return {
        "estimator": ESTIMATOR,
        "weights": weights_digest,
        "step": cell.step,
        "part": str(cell.part),
        "data": data_key(experiment, cell.data, corpus_digest),
        "loss": "labels",
        "sampler": plain(experiment.sampler),
        "sampling": plain(experiment.sampling),
        "dtype": experiment.engine.dtype,
        "seed": experiment.seed,
    }


def data_key(experiment: Experiment, data: DataKey, corpus_digest: str) -> dict[str, Any]:
    """What decides the minibatches of a data name."""
    mixture = Mixture(data.name, experiment.weights_of(data))
    return {"corpus": corpus_digest, "weights": dict(mixture.weights), "split": data.split, "context": experiment.model.n_ctx}


def sample_unit(work: Work) -> tuple[Sample, ...]:
    """Sample all cells of a unit at once, on shared minibatches.

    Noise is seeded by (root, part, chain) and batches by (root, data): equal at every checkpoint, so that differences between
    checkpoints have smaller errors than their ends.

    Raises RllcError for a missing or foreign checkpoint or corpus.
    """
    started = time.perf_counter()
    experiment, unit = work.experiment, work.unit
    folder = RunFolder(work.folder)
    device = choose_device(experiment.engine.device)
    corpus = opened(folder.corpus)
    _, weights, checkpoint = load(folder.checkpoints / checkpoint_name(unit.step), experiment.model)
    dtype = getattr(torch, experiment.engine.dtype)
    params = {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()}
    objective = build_objective(experiment.model, params, unit.parts, unit.chunk)
    mixture = Mixture(unit.data.name, experiment.weights_of(unit.data))

    def batches(purpose: str, n: int) -> list[torch.Tensor]:
        size, context = experiment.sampling.batch_size, experiment.model.n_ctx
        stream = batch_stream(corpus, mixture, unit.data.split, size, context, experiment.seed, purpose, str(unit.data))
        return [torch.from_numpy(batch).to(device) for batch in islice(stream, n)]

    # The protocol is met by shape: the model's room and the sampler's do not know each other.
    target: Objective[Any] = objective
    origin = gradient_at_origin(target, objective.origin, batches("origin", experiment.sampling.origin_batches))
    noise = [[seeds.derive(experiment.seed, "noise", str(part), chain) for chain in range(experiment.sampler.chains)] for part in unit.parts]
    traces = run_chains(target, objective.origin, batches("sample", experiment.sampler.steps + 1), experiment.sampler, noise)
    results = assess(traces, origin)
    seconds = (time.perf_counter() - started) / len(unit.parts)
    samples: list[Sample] = []
    for p, (cell, result) in enumerate(zip(unit.cells, results, strict=True)):
        key = record_key(experiment, cell, checkpoint.digest, corpus.digest)
        meta = _meta(experiment, cell, result, origin, p, seconds) | {"dimension": traces.dimension, "chunk": unit.chunk}
        samples.append(Sample(cell, key, _arrays(traces.part(p)), meta))
    return tuple(samples)


@lru_cache(maxsize=1)
def opened(folder: Path) -> Corpus:
    """The corpus of a run; a worker opens it once."""
    return open_corpus(folder)


def _arrays(traces: Traces) -> dict[str, NDArray[Any]]:
    return {
        "losses": traces.losses[0],
        "baseline": traces.baseline[0],
        "dot": traces.gradient_dot[0],
        "sq_distance": traces.sq_distance[0],
        "sq_gradient": traces.sq_gradient[0],
        "noise_dot": traces.noise_dot[0],
    }


def _meta(experiment: Experiment, cell: Cell, result: Result, origin: OriginGradient, p: int, seconds: float) -> dict[str, Any]:
    sampler = experiment.sampler
    meta: dict[str, Any] = {
        "step": cell.step,
        "part": str(cell.part),
        "data": str(cell.data),
        "evaluated_on": str(cell.data),
        "sampler": sampler.sampler,
        "step_size": sampler.step_size,
        "localization": sampler.localization,
        "nbeta": sampler.nbeta,
        "chains": sampler.chains,
        "draws": sampler.draws,
        "burn_in": sampler.burn_in,
        "batch_size": experiment.sampling.batch_size,
        "context": experiment.model.n_ctx,
        "dtype": experiment.engine.dtype,
        "threads": experiment.engine.threads,
        "seed": experiment.seed,
        "estimator": ESTIMATOR,
        "seconds": seconds,
        "outcome": str(result.outcome),
        "reason": result.reason,
        "init_loss": float(origin.loss[p]),
        "sq_gradient_norm": float(origin.sq_norm[p]),
    }
    meta |= dataclasses.asdict(result.diagnostics)
    if result.estimate is not None:
        meta |= {name: getattr(result.estimate, name) for name in ("llc", "stderr", "ci_low", "ci_high", "df", "llc_unpaired")}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in meta.items()}

"""Estimating parts of one model on one kind of data in this process: where a notebook's model meets the sampler."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.model.module_objective import ModuleObjective
from rllc.model.objective import build_objective
from rllc.posterior.protocol import Originated
from rllc.posterior.result import assess_elsewhere
from rllc.posterior.sampling import Sampled, sample
from rllc.runs.doubts import doubtful
from rllc.runs.how import How
from rllc.runs.keys import ESTIMATOR
from rllc.runs.memory import found
from rllc.runs.minibatches import Source, open_samples, open_tokens
from rllc.runs.plan import chunk_within, pass_key
from rllc.runs.recording import meta_of
from rllc.runs.refined import RefinedBatches
from rllc.runs.results import Result
from rllc.runs.roads import Asked, General, Native
from rllc.runs.token_probe import shares_of


@dataclass(frozen=True)
class Group:
    """Parts that share a pass, with the chunk of it; 0 where all variants are one."""

    parts: tuple[Asked, ...]
    chunk: int


def open_data(data: Any, name: str, taken: Native | General, how: How) -> Source:
    """The data as the road of this model takes it. Raises RllcError where it is in no form that this model reads."""
    if isinstance(taken, Native):
        return open_tokens(data, name, how, taken.shape.n_ctx, taken.shape.d_vocab, native=True)
    if not taken.language:
        return open_samples(data, name, how)
    return open_tokens(data, name, how, taken.limit, taken.vocabulary)


def grouped(taken: Native | General, asked: Sequence[Asked], how: How, context: int) -> tuple[Group, ...]:
    """The parts by passes, as a run's plan has them: those of a key together, in the order in which they were asked for."""
    if isinstance(taken, General):
        return tuple(Group((part,), how.chunk) for part in asked)
    shape, chains, budget = taken.shape, how.sampler.chains, (how.memory or found(1)) * 1_000_000

    def key(one: Asked) -> str:
        assert one.part is not None
        return pass_key(shape, one.part)

    groups: list[Group] = []
    for _, members in groupby(sorted(asked, key=key), key=key):
        parts = tuple(members)
        assert parts[0].part is not None
        fitting = chunk_within(shape, parts[0].part, len(parts), chains, (how.widest, context), taken.itemsize, budget)
        groups.append(Group(parts, min(how.chunk, len(parts) * chains) or fitting))
    return tuple(groups)


def measured(
    taken: Native | General,
    group: Group,
    source: Source,
    how: How,
    step: int,
    on_step: Callable[[int, int], None] | None = None,
    elsewhere: Sequence[Source] = (),
) -> Iterator[Result]:
    """Sample a group of parts on shared minibatches: a result for each, in its order.

    Noise is seeded by (seed, part, chain) and minibatches by (seed, purpose, data), as in a run.

    Raises:
        RllcError: a part cannot be sampled, minibatches ran out, or the data is none that the model takes.
    """
    started = time.perf_counter()
    if how.share_contexts and isinstance(taken, General):
        raise RllcError("The general road has the loss of a whole batch alone, and tokens no shares of λ̂.", "Leave share_contexts out.")
    objective, narrow = _objective(taken, group, how)
    chains, data = how.sampler.chains, source.minibatches(how, taken.device, elsewhere)
    probe = source.probe(how, taken.device) if how.share_contexts else None
    sampled = sample(
        objective,
        data if probe is None else replace(data, probe=probe.batches),
        how.sampler,
        noise_seeds=[[seeds.derive(how.seed, "noise", part.label, chain) for chain in range(chains)] for part in group.parts],
        stopping=how.stopping,
        checks=how.checks,
        verdicts=how.verdicts,
        narrow=narrow,
        on_step=on_step,
    )
    seconds = (time.perf_counter() - started) / len(group.parts)
    chunk = getattr(objective, "chunk", group.chunk)
    for p, asked in enumerate(group.parts):
        doubts = () if isinstance(source.pool, RefinedBatches) else doubtful(float(sampled.traces[p].baseline.mean()), taken.vocabulary)
        notes = tuple(dict.fromkeys([*taken.notes, *asked.notes, *source.notes, *_told(objective), *doubts]))
        meta = _meta(taken, source, how, objective, sampled, p) | {"step": step, "part": asked.label, "seconds": seconds, "chunk": chunk}
        origin = None if sampled.origin is None else sampled.origin.part(p)
        others = {name: _seen(sampled, p, name, how, meta) for name in sampled.elsewhere[p]}
        shares = None
        if probe is not None:
            stretch = probe.arrays(sampled.shares[p]), sampled.shares[p].draws
            shares = shares_of(asked.label, source.name, step, meta["outcome"], probe.names, [stretch], partial(_texts, how.tokenizer))
        yield Result(sampled.traces[p], sampled.results[p], origin, meta, notes, others, shares)


def _texts(tokenizer: Any, ids: Any) -> list[str]:
    """Tokens to be read: their text where there is a tokenizer, else their numbers."""
    return [str(i) if tokenizer is None else tokenizer.decode([i], skip_special_tokens=False) for i in ids.tolist()]


def _seen(sampled: Sampled, p: int, name: str, how: How, meta: Mapping[str, Any]) -> Result:
    """The same chains evaluated on other data."""
    traces = sampled.elsewhere[p][name]
    told = assess_elsewhere(sampled.results[p], traces, how.verdicts)
    here = meta_of(traces, told, None) | {key: meta[key] for key in _SHARED} | {"evaluated_on": name}
    return Result(traces, told, None, here, (f"Sampled on {meta['data']}, evaluated on {name}: no learning coefficient of {name}.",))


# What a result has in common with its chains' evaluation on other data.
_SHARED = ("data", "fixed_contexts", "batch_size", "context", "dtype", "threads", "seed", "estimator", "road", "step", "part", "seconds", "chunk")


def _objective(taken: Native | General, group: Group, how: How) -> tuple[Originated[Any], Callable[[Sequence[int]], Originated[Any]] | None]:
    """The loss, and how to have that of some of the parts alone."""
    if isinstance(taken, General):
        module, names = taken.module, group.parts[0].names
        budget = (how.memory or found(1)) * 1_000_000
        return ModuleObjective(module, taken.loss, names, chunk=group.chunk, budget=budget, train_mode=how.train_mode), None
    shape, params, products = taken.shape, taken.params, getattr(torch, how.products)
    built: list[Any] = []

    def build(places: Sequence[int]) -> Any:
        parts = tuple(part for part in (group.parts[p].part for p in places) if part is not None)
        # memory that ran short once is short again
        chunk = min([group.chunk, *(objective.chunk for objective in built)])
        built.append(build_objective(shape, params, parts, chunk, products))
        return built[-1]

    return build(range(len(group.parts))), build


def _told(objective: Any) -> Iterator[str]:
    """What the objective of a module has to say of itself."""
    for name, others in getattr(objective, "tied", {}).items():
        yield f"{name} is one tensor with {', '.join(others)}: it is sampled once, and changes everywhere."
    if why := getattr(objective, "why", ""):
        yield f"Variants were computed by {'a loop' if objective.road == 'loop' else 'vmap'}: {why}."


def _meta(taken: Native | General, source: Source, how: How, objective: Originated[Any], sampled: Sampled, p: int) -> dict[str, Any]:
    """What a record would say of a cell, and the road."""
    origin = None if sampled.origin is None else sampled.origin.part(p)
    return meta_of(sampled.traces[p], sampled.results[p], origin) | {
        "data": source.name,
        "evaluated_on": source.name,
        "fixed_contexts": how.fixed_contexts,
        "batch_size": how.full_batch if how.sampler.sampler == "mala" else how.batch_size,
        "context": source.context,
        "dtype": str(next(iter(objective.origin.values())).dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seed": how.seed,
        "estimator": ESTIMATOR,
        "road": taken.name,
    }


def step_of(taken: Native | General, step: int | None) -> int:
    """The training step of a result: what was given, or what the model knows, or 0. Raises RllcError where it is no whole number."""
    chosen = step if step is not None else taken.step if taken.step is not None else 0
    try:
        return operator.index(chosen)
    except TypeError as error:
        raise RllcError(f"The step {chosen!r} is no whole number.", "Give the training step, such as 3000.") from error

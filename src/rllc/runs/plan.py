"""From an experiment to the work that it means: pure, printed before anything runs (ANCHORS, principle 15). Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

from rllc.core.names import Cell, DataKey, Part
from rllc.model.cost import bytes_per_variant, bytes_shared, operations
from rllc.model.shape import ModelShape
from rllc.model.slices import first_layer, size, slices, within_one_head
from rllc.runs.experiment import Experiment
from rllc.runs.forecast import GUESSED_RATE
from rllc.runs.memory import cores, found

# Numbers that a sampled cell stores for every draw of every chain.
_TRACE_NUMBERS = 9
# Rows of d numbers that one kept chain holds, and the bytes of its random streams.
_STATE_ROWS = {"sgld": 3, "leimkuhler-matthews": 3, "rmsprop-sgld": 3, "sgnht": 3, "mala": 7}
_STREAM_BYTES = 2 * 5056


@dataclass(frozen=True)
class Unit:
    """The unit of work: parts of equal shape with a common earliest changed layer, at one checkpoint on one dataset.

    Args:
        chunk: most variants computed in one pass.
        cost: floating-point operations, by counting.
        evaluate_on: names of other data on which its draws are evaluated too.
    """

    step: int
    data: DataKey
    parts: tuple[Part, ...]
    chunk: int
    cost: float
    evaluate_on: tuple[str, ...] = ()

    def bundle(self, part: Part) -> tuple[Cell, ...]:
        """The cells of one part: on its own data, and then elsewhere."""
        return tuple(Cell(self.step, self.data.at(name), part) for name in ("", *self.evaluate_on))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of record that the unit computes."""
        return tuple(cell for part in self.parts for cell in self.bundle(part))

    def __str__(self) -> str:
        parts = str(self.parts[0]) if len(self.parts) == 1 else f"{self.parts[0]} … {self.parts[-1]}"
        return f"step {self.step}, {self.data}, {parts}"


@dataclass(frozen=True)
class Plan:
    """All units of an experiment, longest first within a checkpoint, and what they will take."""

    units: tuple[Unit, ...]
    chain_steps: int  # before any chain is prolonged
    most_chain_steps: int  # with every chain prolonged to its cap
    cost: float
    record_bytes: int
    state_bytes: int  # of the chains' last states, where they are kept

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order of the units."""
        return tuple(cell for unit in self.units for cell in unit.cells)

    def hours(self, workers: int, rate: float = GUESSED_RATE) -> float:
        """Wall time at `rate` operations a second and worker."""
        return self.cost / rate / max(workers, 1) / 3600


def make_plan(experiment: Experiment, only: int | None = None) -> Plan:
    """The plan of an experiment, or of `only` one of its checkpoints; a cell that two blocks name is planned once."""
    sampler = experiment.sampler
    cells: dict[Cell, dict[str, None]] = {}  # with what each is evaluated on besides
    for block in experiment.sample:
        for step in block.checkpoints or experiment.checkpoints():
            if only not in (None, step):
                continue
            for data in map(DataKey.parse, block.data):
                others = {at: None for at in (data.at(name).elsewhere for name in block.evaluate_on) if at}
                for part in experiment.parts_of(block):
                    cells.setdefault(Cell(step, data, part), {}).update(others)

    def group_of(cell: Cell) -> tuple[int, str, str, tuple[str, ...]]:
        return cell.step, str(cell.data), pass_key(experiment.model, cell.part), tuple(sorted(cells[cell]))

    units: list[Unit] = []
    for (step, data, _, others), group in groupby(sorted(cells, key=group_of), key=group_of):
        units.append(make_unit(experiment, step, DataKey.parse(data), tuple(cell.part for cell in group), others))
    recorded = sum(len(unit.cells) for unit in units)
    units.sort(key=lambda unit: (unit.step, str(unit.data), -unit.cost))
    cap = max(sampler.draws, experiment.stopping.max_draws if experiment.stopping.target_stderr else 0)
    return Plan(
        units=tuple(units),
        chain_steps=len(cells) * sampler.chains * sampler.steps,
        most_chain_steps=len(cells) * sampler.chains * (sampler.burn_in + cap),
        cost=sum(unit.cost for unit in units),
        record_bytes=recorded * (sampler.chains * (sampler.burn_in + cap + 1) * _TRACE_NUMBERS * 8 + 8192),
        state_bytes=sum(state_bytes(experiment, cell.part) for cell in cells) if experiment.sampling.keep_state else 0,
    )


def make_unit(experiment: Experiment, step: int, data: DataKey, parts: tuple[Part, ...], evaluate_on: tuple[str, ...] = ()) -> Unit:
    """The unit of parts that can share a pass, with its chunk and cost."""
    sampler, sampling, context = experiment.sampler, experiment.sampling, experiment.model.n_ctx
    variants = len(parts) * sampler.chains
    each = operations(experiment.model, parts[0], experiment.batch_size(), context, sampler.chains)
    cost = (sampler.steps + 1) * variants * each
    # at w*: one gradient, and one a little way off for the curvature
    cost += 2 * sampling.origin_batches * len(parts) * operations(experiment.model, parts[0], sampling.batch_size, context)
    if sampler.control_variate:
        cost += (sampler.steps + 1 + sampling.control_batches) * len(parts) * each
    cost += len(evaluate_on) * (sampler.steps + 1) * variants * each / 3  # forward alone
    if sampling.fixed_contexts:
        cost += (sampler.steps + 1) * variants * operations(experiment.model, parts[0], sampling.fixed_contexts, context) / 3  # forward alone
    if experiment.shares_at(step):
        shown = experiment.behaviour.snippets * len(experiment.weights_of(data)) * min(experiment.behaviour.snippet_length, context) / context
        contexts = sampling.share_contexts + math.ceil(shown)
        cost += (sampler.draws + 1) * variants * operations(experiment.model, parts[0], contexts, context) / 3  # forward alone
    if experiment.checks.halving:
        cost += 2 * (sampler.steps + 1) * variants * each
    return Unit(step, data, parts, _chunk(experiment, parts[0], len(parts)), cost, evaluate_on)


def weight_bytes(experiment: Experiment) -> int:
    """The model's weights in memory, in the type of sampling."""
    return sum(math.prod(size) for size in experiment.model.tensors().values()) * _itemsize(experiment)


def pass_bytes(experiment: Experiment, plan: Plan) -> int:
    """The most that a pass of any unit takes beside the weights, with its chunk."""
    widest, context = experiment.widest(), experiment.model.n_ctx
    sizes = (widest, context, _itemsize(experiment))
    return (
        max(
            bytes_shared(experiment.model, unit.parts[0], len(unit.parts), *sizes)
            + unit.chunk * bytes_per_variant(experiment.model, unit.parts[0], *sizes)
            for unit in plan.units
        )
        if plan.units
        else 0
    )


def _itemsize(experiment: Experiment) -> int:
    return 8 if experiment.engine.dtype == "float64" else 4


def state_bytes(experiment: Experiment, part: Part) -> int:
    """What keeping the chains of one cell takes."""
    itemsize = _itemsize(experiment)
    each = _STATE_ROWS[experiment.sampler.sampler] * size(experiment.model, part) * itemsize + _STREAM_BYTES
    return experiment.sampler.chains * each


def pass_key(shape: ModelShape, part: Part) -> str:
    """Parts with equal keys share a pass; anything that is not within one head has a pass of its own."""
    if not within_one_head(shape, part):
        return str(part)
    pieces = ".".join(s.tensor.rsplit(".", 1)[1] for s in slices(shape, part))
    return f"layer {first_layer(shape, part):04d} {pieces}"


def chunk_within(shape: ModelShape, part: Part, n_parts: int, chains: int, contexts: tuple[int, int], itemsize: int, budget: int) -> int:
    """Most variants of a pass over `n_parts` such parts that a budget of memory allows, and at least one.

    Args:
        part: one of them; all have its shape.
        contexts: contexts of the largest minibatch, and tokens of each.
        itemsize: bytes of a number.
        budget: bytes of a pass.
    """
    variants = n_parts * chains
    each = bytes_per_variant(shape, part, *contexts, itemsize)
    shared = bytes_shared(shape, part, n_parts, *contexts, itemsize)
    return max(1, min(variants, (budget - shared) // each))


def _chunk(experiment: Experiment, part: Part, n_parts: int) -> int:
    chains, engine = experiment.sampler.chains, experiment.engine
    if engine.chunk:
        return min(engine.chunk, n_parts * chains)
    itemsize = _itemsize(experiment)
    budget = (engine.memory or found(engine.workers or cores())) * 1_000_000
    return chunk_within(experiment.model, part, n_parts, chains, (experiment.widest(), experiment.model.n_ctx), itemsize, budget)

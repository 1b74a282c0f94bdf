"""From an experiment to the work that it means: pure, printed before anything runs (ANCHORS, principle 15). Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from rllc.core.names import Cell, DataKey, Part
from rllc.model.cost import bytes_per_variant, operations
from rllc.model.shape import first_layer, slices, within_one_head
from rllc.runs.experiment import Experiment

# A guess at what one core does, in operations a second, until finished units tell the truth.
GUESSED_RATE = 4e10
# Numbers that a sampled cell stores for every draw of every chain.
_TRACE_NUMBERS = 6


@dataclass(frozen=True)
class Unit:
    """The unit of work: parts of equal shape with a common earliest changed layer, at one checkpoint on one dataset.

    Args:
        chunk: most variants computed in one pass.
        cost: floating-point operations, by counting.
    """

    step: int
    data: DataKey
    parts: tuple[Part, ...]
    chunk: int
    cost: float

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of record that the unit computes."""
        return tuple(Cell(self.step, self.data, part) for part in self.parts)

    def __str__(self) -> str:
        parts = str(self.parts[0]) if len(self.parts) == 1 else f"{self.parts[0]} … {self.parts[-1]}"
        return f"step {self.step}, {self.data}, {parts}"


@dataclass(frozen=True)
class Plan:
    """All units of an experiment, longest first within a checkpoint, and what they will take."""

    units: tuple[Unit, ...]
    chain_steps: int
    cost: float
    record_bytes: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the order of the units."""
        return tuple(cell for unit in self.units for cell in unit.cells)

    def hours(self, workers: int, rate: float = GUESSED_RATE) -> float:
        """Wall time at `rate` operations a second and worker."""
        return self.cost / rate / max(workers, 1) / 3600


def make_plan(experiment: Experiment) -> Plan:
    """The plan of an experiment; a cell that two blocks name is planned once."""
    sampler = experiment.sampler
    cells: dict[Cell, None] = {}
    for block in experiment.sample:
        for step in block.checkpoints or experiment.checkpoints():
            for data in block.data:
                for part in experiment.parts_of(block):
                    cells[Cell(step, DataKey.parse(data), part)] = None
    units: list[Unit] = []
    evaluations = sampler.steps + 1
    for (step, data, _), group in groupby(sorted(cells, key=lambda c: _group(experiment, c)), key=lambda c: _group(experiment, c)):
        parts = tuple(cell.part for cell in group)
        variants = len(parts) * sampler.chains
        cost = evaluations * variants * operations(experiment.model, parts[0], experiment.sampling.batch_size, experiment.model.n_ctx)
        units.append(Unit(step, DataKey.parse(data), parts, _chunk(experiment, parts[0], variants), cost))
    units.sort(key=lambda unit: (unit.step, str(unit.data), -unit.cost))
    return Plan(
        units=tuple(units),
        chain_steps=len(cells) * sampler.chains * sampler.steps,
        cost=sum(unit.cost for unit in units),
        record_bytes=len(cells) * (sampler.chains * evaluations * _TRACE_NUMBERS * 8 + 4096),
    )


def _group(experiment: Experiment, cell: Cell) -> tuple[int, str, str]:
    """Cells with equal groups share a pass; anything that is not within one head has a pass of its own."""
    shape, part = experiment.model, cell.part
    if not within_one_head(shape, part):
        return cell.step, str(cell.data), str(part)
    pieces = ".".join(s.tensor.rsplit(".", 1)[1] for s in slices(shape, part))
    return cell.step, str(cell.data), f"layer {first_layer(shape, part):04d} {pieces}"


def _chunk(experiment: Experiment, part: Part, variants: int) -> int:
    engine = experiment.engine
    if engine.chunk:
        return min(engine.chunk, variants)
    itemsize = 8 if engine.dtype == "float64" else 4
    each = bytes_per_variant(experiment.model, part, experiment.sampling.batch_size, experiment.model.n_ctx, itemsize)
    return max(1, min(variants, engine.memory * 1_000_000 // each))

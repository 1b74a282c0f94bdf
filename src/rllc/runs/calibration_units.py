"""The units of a calibration: what is known at a checkpoint, and one setting tried there. Rebuilt in any process from picklable work."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.core.names import Part
from rllc.posterior.calibration.grid import Setting, burn_in, sampler_at
from rllc.posterior.calibration.trial import Reading, Trial, trial
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.result import assess
from rllc.posterior.sampling import sample
from rllc.posterior.settings import ExtraChecks, Stopping
from rllc.posterior.traces import OriginGradient
from rllc.records.store import Record, Store
from rllc.runs.experiment import Experiment
from rllc.runs.keys import ESTIMATOR, data_key
from rllc.runs.mapping import plain
from rllc.runs.plan import Unit, make_plan
from rllc.runs.sampling import OpenedUnit, Work
from rllc.runs.settings import SampleSettings

KIND = "calibration"
# Raise it with every change that moves a number of a calibration.
REVISION = "calibration-1"


@dataclass(frozen=True)
class Origin:
    """What is known of P parts at a checkpoint."""

    gradient: OriginGradient
    removal: NDArray[np.float64]  # [P] rise of the loss when a part's weights are set to zero, nats per token


@dataclass(frozen=True)
class Job:
    """One unit of a calibration; `setting` None measures the checkpoint itself. Picklable."""

    folder: Path
    experiment: Experiment  # with the sampler of this setting
    unit: Unit
    key: dict[str, Any]
    setting: Setting | None = None
    gradient: OriginGradient | None = None

    @property
    def cost(self) -> float:
        """Operations, by counting: of the chains alone, or of what is done at the checkpoint."""
        at_origin = 2 * self.experiment.sampling.origin_batches
        chain = self.experiment.sampler.chains * (self.experiment.sampler.steps + 1)
        share = (at_origin if self.setting is None else chain) / (at_origin + chain)
        return self.unit.cost * share


@dataclass(frozen=True)
class Place:
    """Where a calibration looks: one kind of data and some parts of one run's checkpoints."""

    folder: Path
    experiment: Experiment
    data: str
    parts: tuple[str, ...]
    corpus: str  # digests of the text ...
    weights: dict[int | str, str]  # ... and of the checkpoints

    def units(self, step: int, experiment: Experiment) -> list[Unit]:
        """The parts in groups that share a pass, always in the same order."""
        block = SampleSettings(parts=self.parts, data=(self.data,), checkpoints=(step,))
        plan = make_plan(replace(experiment, sample=(block,)))
        return sorted(plan.units, key=lambda unit: unit.parts)

    def origins(self, step: int) -> list[Job]:
        """What is measured at a checkpoint, once for all settings."""
        bare = self._experiment(self.experiment)
        return [Job(self.folder, bare, unit, self._key(bare, unit, "origin")) for unit in self.units(step, bare)]

    def trials(self, step: int, setting: Setting, chains: int, draws: int, origins: Sequence[Origin] = (), *, control: bool = False) -> list[Job]:
        """One setting at one checkpoint; `origins` in the order of the units, none for counting costs."""
        steps = burn_in(setting, self.experiment.calibration.relaxation)
        sampler = sampler_at(setting, self.experiment.sampler, chains=chains, draws=draws, burn_in=steps, control=control)
        there = self._experiment(replace(self.experiment, sampler=sampler, stopping=Stopping()))
        return [
            Job(self.folder, there, unit, self._key(there, unit, "trial"), setting, origins[i].gradient if origins else None)
            for i, unit in enumerate(self.units(step, there))
        ]

    def _experiment(self, experiment: Experiment) -> Experiment:
        return replace(
            experiment, stopping=Stopping(), checks=ExtraChecks(), sampling=replace(experiment.sampling, keep_state=False, share_contexts=0)
        )

    def _key(self, experiment: Experiment, unit: Unit, what: str) -> dict[str, Any]:
        """All that decides the numbers of a job."""
        key = {
            "revision": [ESTIMATOR, REVISION],
            "what": what,
            "weights": self.weights[unit.step],
            "step": unit.step,
            "parts": [str(part) for part in unit.parts],
            "data": data_key(experiment, unit.data, self.weights, self.corpus),
            "sampling": plain(experiment.sampling),
            "dtype": experiment.engine.dtype,
            "seed": experiment.seed,
        }
        return key | ({"sampler": plain(experiment.sampler)} if what == "trial" else {})


def compute(job: Job) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and meta of a job's record. Raises RllcError for a missing or foreign checkpoint or corpus."""
    unit = OpenedUnit(Work(job.folder, job.experiment, job.unit))
    if job.setting is None:
        return _measure(unit, job)
    sampler = job.experiment.sampler
    # Minibatches and noise of each setting's own: shared ones would make settings agree by having the same errors.
    name = f"{sampler.step_size:.8g} {sampler.localization:.8g} {sampler.nbeta:.8g} {sampler.chains} {sampler.draws}"
    data = replace(unit.minibatches(purpose=f"calibration {name}"), origin=())
    sampled = sample(unit.objective, data, sampler, noise_seeds=unit.noise_seeds(sampler.chains, "calibration", name))
    results = [assess(traces, None if job.gradient is None else job.gradient.part(p))[0] for p, traces in enumerate(sampled.traces)]
    found = trial(job.setting, job.unit.step, sampled.traces, results)
    return {"rises": found.rises}, {"readings": [dataclasses.asdict(reading) for reading in found.readings]}


def _measure(unit: OpenedUnit, job: Job) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    batches = unit.data.batches("origin", job.experiment.sampling.origin_batches)
    gradient = gradient_at_origin(unit.objective, unit.objective.origin, batches)
    zero = {name: torch.zeros_like(tensor) for name, tensor in unit.objective.origin.items()}
    rises: list[NDArray[np.float64]] = []
    for batch in batches:
        evaluation = unit.objective.evaluate(zero, unit.objective.prepare(batch), gradients=False)
        rises.append((evaluation.losses - evaluation.baseline).detach().cpu().double().numpy())
    names = [f.name for f in dataclasses.fields(gradient) if f.name != "batches"]
    arrays = {name: np.asarray(getattr(gradient, name), np.float64) for name in names}
    return arrays | {"removal": np.mean(rises, axis=0)}, {"batches": gradient.batches}


def origin_of(store: Store, job: Job) -> Origin:
    """What was recorded of a checkpoint."""
    record = store.get(KIND, job.key)
    arrays = dict(record.arrays)
    removal = arrays.pop("removal")
    return Origin(OriginGradient(**arrays, batches=record.meta["batches"]), removal)


def trial_of(store: Store, job: Job) -> Trial:
    """What was recorded of a setting."""
    record: Record = store.get(KIND, job.key)
    if job.setting is None:
        raise ValueError("a checkpoint's own record is no trial")
    rows: list[dict[str, Any]] = [{n: math.nan if v is None else v for n, v in row.items()} for row in record.meta["readings"]]
    readings = tuple(Reading(**row) for row in rows)
    return Trial(job.setting, job.unit.step, readings, np.asarray(record.arrays["rises"], np.float64))


def parts_of(place: Place, step: int) -> tuple[Part, ...]:
    """The parts in the order of every trial's readings."""
    return tuple(part for unit in place.units(step, place.experiment) for part in unit.parts)

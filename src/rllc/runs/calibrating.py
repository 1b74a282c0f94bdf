"""Calibration: short runs over a grid of settings, longer ones where it matters, and advice (METHOD 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rllc.checkpoints.store import list_checkpoints
from rllc.core.errors import RllcError
from rllc.core.names import DataKey
from rllc.corpus.tokens import open_corpus
from rllc.posterior.calibration.advice import Advice, Finalist, Surveyed, advise, finalist, shortlist, survey
from rllc.posterior.calibration.grid import Setting, grid, setting_of
from rllc.posterior.calibration.trial import Trial, together
from rllc.posterior.settings import SamplerName
from rllc.records.store import Store
from rllc.runs.calibration_units import KIND, Job, Origin, Place, compute, origin_of, trial_of
from rllc.runs.engines.local import run_units
from rllc.runs.experiment import MIXTURE, Experiment, parse
from rllc.runs.grid import reference_weights
from rllc.runs.layout import MAP, RunFolder
from rllc.runs.memory import cores, fixed
from rllc.runs.ownership import check_folder
from rllc.runs.pipeline import override
from rllc.runs.plan import GUESSED_RATE
from rllc.runs.progress import Reporter, duration
from rllc.runs.session import session
from rllc.runs.settings import SampleSettings
from rllc.runs.streaming import fetched
from rllc.runs.unit_data import referred


@dataclass(frozen=True)
class Ask:
    """What the command line asks for; empty and None leave it to the experiment."""

    data: str = MIXTURE
    checkpoints: tuple[int, ...] = ()
    parts: tuple[str, ...] = ("heads",)
    sampler: SamplerName | None = None
    quick: bool = False
    workers: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Calibration:
    """All that was found."""

    experiment: Experiment
    place: Place
    steps: tuple[int, ...]  # checkpoints, the last one last
    surveyed: tuple[Surveyed, ...]
    finalists: tuple[Finalist, ...]
    advice: Advice
    control: Trial | None  # nβ = 0 at the recommended step size and localization
    removal: NDArray[np.float64]  # [P] at the last checkpoint
    seconds: float  # of this session


def calibrate(text: str, out: Path, ask: Ask, quiet: bool = False) -> Calibration:
    """Calibrate the sampler of the experiment in `text` on the checkpoints in `out`; what is recorded already is not computed again.

    Raises RllcError for anything that a user can mend; what was done until then is kept.
    """
    experiment = prepared(parse(text), ask)
    folder = RunFolder(out)
    place, steps = _place(experiment, folder, ask)
    check_folder(folder)
    with folder.locked(), session(folder, "calibrate", quiet, title=experiment.title) as reporter, reporter.during(stage="calibrate"):
        place = replace(place, experiment=fixed(experiment, folder))
        with _at_hand(place, steps, reporter):
            return _Session(place, steps, folder.store(), reporter).go()


def calibrate_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> Calibration | None:
    """The same as part of a run, on the mixture; None where all of it was recorded and told already. Raises RllcError as `calibrate` does."""
    ask = Ask()
    place, steps = _place(prepared(experiment, ask), folder, ask)
    with _at_hand(place, steps, reporter):
        found = _Session(place, steps, folder.store(), reporter).go()
    return found if found.seconds or not (folder.calibration / MAP).exists() else None


def prepared(experiment: Experiment, ask: Ask) -> Experiment:
    """The experiment with what was asked for."""
    experiment = override(experiment, ask.workers, ask.device)
    if ask.sampler is not None:
        experiment = replace(experiment, sampler=replace(experiment.sampler, sampler=ask.sampler))
    if ask.quick:
        experiment = replace(experiment, calibration=experiment.calibration.quick())
    setting_of(experiment.sampler)  # may refuse
    return replace(experiment, sample=(SampleSettings(parts=ask.parts, data=(ask.data,), checkpoints=ask.checkpoints),))


def spread(steps: Sequence[int]) -> tuple[int, ...]:
    """Three checkpoints: one of the first quarter, one past the middle, the last; never the untrained model if there is another.

    >>> spread([0, 10, 30, 100, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2500, 3000])
    (250, 1500, 3000)
    """
    trained = sorted(step for step in steps if step > 0) or sorted(steps)
    n = len(trained)
    return tuple(dict.fromkeys(trained[i] for i in (n // 4, 5 * n // 8, n - 1)))


def _place(experiment: Experiment, folder: RunFolder, ask: Ask) -> tuple[Place, tuple[int, ...]]:
    infos = {info.step: info for info in list_checkpoints(folder.checkpoints)}
    if not infos:
        raise RllcError(f"There are no checkpoints in {folder.checkpoints}.", "Run `rllc train` first, with the same --out.")
    steps = tuple(sorted(ask.checkpoints)) or spread([step for step in experiment.checkpoints() if step in infos] or list(infos))
    for step in steps:
        if step not in infos:
            raise RllcError(f"The checkpoint of step {step} is missing in {folder.checkpoints}.", "Run `rllc train` first, or name others.")
        if infos[step].shape != experiment.model:
            raise RllcError(
                f"The checkpoint of step {step} in {folder.checkpoints} is of another shape than the experiment's model.",
                "Choose another folder with --out, or the experiment that it was trained with.",
            )
    corpus = open_corpus(folder.corpus).digest
    weights: dict[int | str, str] = {step: infos[step].digest for step in steps}
    refinement = experiment.refinement_of(DataKey.parse(ask.data))
    if refinement is not None and refinement.refers:
        weights |= reference_weights(experiment, folder, refinement.reference)
    return Place(folder.root, experiment, ask.data, ask.parts, corpus, weights), steps


@contextmanager
def _at_hand(place: Place, steps: tuple[int, ...], reporter: Reporter) -> Iterator[None]:
    """The weights of these checkpoints, and of that which the data is held against."""
    experiment, folder = place.experiment, RunFolder(place.folder)
    refinement = experiment.refinement_of(DataKey.parse(place.data))
    with ExitStack() as stack:
        stack.enter_context(fetched(experiment, folder, steps, reporter))
        if refinement is not None and refinement.refers:
            reference = refinement.reference
            of = experiment if isinstance(reference, int) else experiment.sibling(reference)
            there, step, _ = referred(experiment, folder, reference)
            stack.enter_context(fetched(of, there, (step,), reporter))
        yield


class _Session:
    """One run over the stages. State is in the store alone: every stage first asks it what there is."""

    def __init__(self, place: Place, steps: tuple[int, ...], store: Store, reporter: Reporter) -> None:
        self.place, self.steps, self.store, self.reporter = place, steps, store, reporter
        self.settings, self.base = place.experiment.calibration, place.experiment.sampler
        self.own = setting_of(self.base)
        self.origins: dict[int, list[Origin]] = {}
        self.seconds = 0.0

    def go(self) -> Calibration:
        settings, last = self.settings, self.steps[-1]
        points = list(grid(settings))
        if not any(point.same(self.own) for point in points):
            points.append(self.own)
        operations = self._announce(points)
        jobs = {step: self.place.origins(step) for step in self.steps}
        rate = self._run([job for group in jobs.values() for job in group], "Checkpoints")
        if rate:
            self.reporter.line(f"At this rate the rest takes at most about {duration(operations / rate)}.")
        self.origins = {step: [origin_of(self.store, job) for job in group] for step, group in jobs.items()}
        removal = np.concatenate([origin.removal for origin in self.origins[last]])

        trials = self._trials("Grid", [(last, point, settings.chains, settings.draws) for point in points])
        surveyed = survey(trials, self.base, settings, removal)
        healthy = sum(s.health.healthy for s in surveyed)
        self.reporter.line(f"{healthy} of {len(surveyed)} settings are healthy at step {last}.")
        finalists = self._finals(surveyed, removal)
        advice = advise(surveyed, finalists, self.own, settings)
        control = None
        if advice.chosen is not None:
            there = advice.chosen.setting
            control = self._trials("Control", [(last, there, settings.final_chains, settings.control_draws)], control=True)[0]
        return Calibration(self.place.experiment, self.place, self.steps, surveyed, finalists, advice, control, removal, self.seconds)

    def _finals(self, surveyed: Sequence[Surveyed], removal: NDArray[np.float64]) -> tuple[Finalist, ...]:
        settings, last = self.settings, self.steps[-1]
        chosen = shortlist(surveyed, self.own, settings)
        chains, draws = settings.final_chains, settings.final_draws
        asked = [(step, setting, chains, draws) for setting in chosen for step in self.steps]
        # half the step size takes twice the steps for the same path
        asked += [(last, setting.halved(), chains, 2 * draws) for setting in chosen]
        trials = iter(self._trials("Finalists", asked))
        longer = {setting: [next(trials) for _ in self.steps] for setting in chosen}
        halved = {setting: next(trials) for setting in chosen}
        found: list[Finalist] = []
        for setting in chosen:
            there = next(s for s in surveyed if s.setting.same(setting))
            found.append(finalist(there, longer[setting], halved[setting], self.base, settings, removal))
        return tuple(found)

    def _trials(self, name: str, asked: Sequence[tuple[int, Setting, int, int]], *, control: bool = False) -> list[Trial]:
        """One trial for each (checkpoint, setting, chains, draws), from the store as far as it has them."""
        jobs = [self.place.trials(step, setting, chains, draws, self.origins[step], control=control) for step, setting, chains, draws in asked]
        self._run([job for group in jobs for job in group], name)
        return [together([trial_of(self.store, job) for job in group]) for group in jobs]

    def _run(self, jobs: Sequence[Job], name: str) -> float:
        """Compute and record what the store lacks; returns operations a second, 0 where it lacked nothing."""
        missing = sorted((job for job in jobs if not self.store.has(KIND, job.key)), key=lambda job: -job.cost)
        if not missing:
            return 0.0
        engine = self.place.experiment.engine
        with self.reporter.stage(name, sum(job.cost for job in missing), "operations") as bar:
            for job, (arrays, meta) in run_units(compute, missing, engine.workers or cores(), engine.threads):
                self.store.put(KIND, job.key, arrays, meta)
                bar.advance(job.cost, str(job.setting or f"step {job.unit.step}"))
            self.seconds += bar.seconds
        self.reporter.line(f"{name}: {len(missing)} units took {duration(bar.seconds)}.")
        return sum(job.cost for job in missing) / bar.seconds

    def _announce(self, points: Sequence[Setting]) -> float:
        """Tell the plan before anything runs; returns its operations at most."""
        settings, last = self.settings, self.steps[-1]
        parts = sum(len(unit.parts) for unit in self.place.units(last, self.place.experiment))

        def cost(step: int, setting: Setting, chains: int, draws: int) -> tuple[float, int]:
            jobs = self.place.trials(step, setting, chains, draws)
            return sum(job.cost for job in jobs), parts * chains * jobs[0].experiment.sampler.steps

        grid_cost = [cost(last, point, settings.chains, settings.draws) for point in points]
        longest = min(points, key=lambda p: p.prior_product)
        finals = [cost(step, longest, settings.final_chains, settings.final_draws) for step in self.steps]
        finals.append(cost(last, longest.halved(), settings.final_chains, 2 * settings.final_draws))
        several = 1 + settings.finalists
        operations = sum(c for c, _ in grid_cost) + several * sum(c for c, _ in finals)
        workers = self.place.experiment.engine.workers or cores()
        steps = ", ".join(map(str, self.steps))
        self.reporter.line(
            f"Plan: {len(points)} settings × {parts} parts at step {last}, {sum(n for _, n in grid_cost):,} chain-steps; "
            f"then up to {several} settings at steps {steps} and at half their step size, "
            f"at most {several * sum(n for _, n in finals):,} chain-steps. "
            f"Very roughly {duration(operations / GUESSED_RATE / workers)} on {workers} cores."
        )
        return operations

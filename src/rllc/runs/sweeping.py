"""A sweep in this process: checkpoints × data × parts, lazily, one model in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from rllc.checkpoints.series import Series
from rllc.checkpoints.sources import HubSource
from rllc.checkpoints.store import list_checkpoints
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape
from rllc.runs.estimating import grouped, measured, open_data, step_of
from rllc.runs.how import How
from rllc.runs.minibatches import Source
from rllc.runs.progress import Reporter
from rllc.runs.results import Result, Results
from rllc.runs.roads import General, Native, Parts, take_road

Opened = tuple[int | None, Callable[[], Any]]  # a training step, and what gives the model


class Sweep:
    """Cells that are measured as they are asked for, and kept.

    Iterating measures what is missing, a group of parts at a time, and yields results in order; `run` goes to the end. An interrupt keeps what is
    done in `results`, and iterating again goes on with the cells that are missing.

    Args:
        checkpoints: pairs of a step and what gives the model; opened one at a time, and again only where cells of it are missing.
        data: by name.
        parts: as `rllc.estimate` takes them.
        how: the settings of all cells.
        reporter: shows the progress.
        evaluate_on: other data by name, on which the draws of every cell are evaluated too.
    """

    def __init__(
        self,
        checkpoints: list[Opened],
        data: Mapping[str, Any],
        parts: Parts,
        how: How,
        reporter: Reporter,
        evaluate_on: Mapping[str, Any] | None = None,
    ) -> None:
        self._elsewhere = dict(evaluate_on or {})
        self._checkpoints, self._data, self._parts, self._how, self._reporter = checkpoints, dict(data), parts, how, reporter
        self._done: list[Result] = []
        self._finished: dict[int, list[Result]] = {}
        self._places: dict[tuple[int, str, int], tuple[Result, ...]] = {}
        self._sources: dict[tuple[Any, ...], Source] = {}

    @property
    def results(self) -> Results:
        """What is done so far."""
        return Results(tuple(self._done))

    def run(self) -> Results:
        """Measure what is missing and return all results."""
        for _ in self:
            pass
        return self.results

    def __iter__(self) -> Iterator[Result]:
        stages = len(self._checkpoints) * len(self._data)
        with self._reporter.stage("Sweep", float(stages)) as bar:
            for number, (given, give) in enumerate(self._checkpoints):
                if number in self._finished:
                    bar.advance(len(self._data))
                    yield from self._finished[number]
                    continue
                taken = take_road(give(), self._how)
                step = step_of(taken, given)
                for name in self._data:
                    source = self._source(taken, name, self._data[name])
                    others = [self._source(taken, other, data) for other, data in self._elsewhere.items() if other != name]
                    groups = grouped(taken, taken.parts(self._parts), self._how, source.context)
                    for place, group in enumerate(groups):
                        key = (number, name, place)
                        if key not in self._places:
                            told = bar.within(1 / len(groups), f"step {step}, {name}")
                            self._places[key] = tuple(measured(taken, group, source, self._how, step, told, others))
                            self._done += self._places[key]
                        yield from self._places[key]
                self._finished[number] = [r for key, cells in self._places.items() if key[0] == number for r in cells]

    def _source(self, taken: Native | General, name: str, data: Any) -> Source:
        """The data as this model reads it, opened once for all models that read it alike."""
        reads = (taken.shape.n_ctx, taken.shape.d_vocab) if isinstance(taken, Native) else (taken.language, taken.limit, taken.vocabulary)
        key = (name, id(data), *reads)
        if key not in self._sources:
            self._sources[key] = open_data(data, name, taken, self._how)
        return self._sources[key]

    def _repr_html_(self) -> str:
        return self.results._repr_html_()

    def __repr__(self) -> str:
        total = len(self._checkpoints) * len(self._data)
        return f"Sweep of {len(self._checkpoints)} checkpoints × {len(self._data)} kinds of data ({total}), {len(self._done)} cells done"


def listed(checkpoints: Any) -> list[Opened]:
    """The checkpoints of a sweep: one model, a folder of them, a `Series`, a mapping or an iterable of (step, model or what gives it).

    Raises RllcError where there is none, or where it is in no such form.
    """
    if _is_model(checkpoints):
        return [(None, partial(_same, checkpoints))]
    if isinstance(checkpoints, str | Path):
        root = Path(checkpoints)
        found = list_checkpoints(root)
        # a run's folder holds them one below
        found = found or list_checkpoints(root / "checkpoints")
        if found:
            return [(info.step, partial(_same, info.folder)) for info in found]
        checkpoints = Series.of(str(checkpoints))
    if isinstance(checkpoints, Series):
        return [(step, partial(_found, source)) for step, source in checkpoints]
    if not isinstance(checkpoints, Iterable):
        raise RllcError(f"The checkpoints are given as a {type(checkpoints).__name__}.", "Give one model, a folder, or pairs of step and model.")
    pairs = list(checkpoints.items() if isinstance(checkpoints, Mapping) else checkpoints)
    if not pairs:
        raise RllcError("There are no checkpoints.", "Give at least one pair of step and model.")
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise RllcError("The checkpoints are no pairs of step and model.", "Give {step: model}, or [(step, model), …].")
    return [(step, model if callable(model) and not _is_model(model) else partial(_same, model)) for step, model in pairs]


def _same(model: Any) -> Any:
    return model


def _found(source: Any) -> Any:
    """The place of a checkpoint, fetched where it is the hub's."""
    return source.fetch()[1] if isinstance(source, HubSource) else source


def _is_model(value: Any) -> bool:
    return isinstance(value, nn.Module) or isinstance(getattr(value, "shape", None), ModelShape)

"""Following a training from outside: keeps checkpoints that a schedule asks for and samples parts of them, without changing the training by a bit."""

from __future__ import annotations

import copy
import multiprocessing
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from rllc.checkpoints.importing import NotImportable, import_module
from rllc.checkpoints.reading import read_state
from rllc.checkpoints.store import checkpoint_name, save
from rllc.core.errors import RllcError
from rllc.core.files import write_aside, write_atomic
from rllc.runs.engines.local import set_threads
from rllc.runs.how import How, how_from
from rllc.runs.padding import is_padded
from rllc.runs.progress import Reporter
from rllc.runs.results import Result, Results
from rllc.runs.roads import Parts
from rllc.runs.sweeping import Sweep

When = Literal["afterwards", "now", "process"]


class Monitor:
    """Curves of some parts while a model trains.

    Call `step(number, model)` in the training loop, and `close()` at its end, which also gives all results. Nothing of the training is changed: the
    weights are read and copied, torch's, numpy's and Python's generators are put back, the module's modes stay.

    Args:
        folder: where checkpoints (`checkpoints/`) and the table of results (`curves.csv`) go.
        data: what to sample on, as `rllc.estimate` takes it, or a mapping of names to such.
        parts: as of `rllc.estimate`.
        every: keep and sample each step that this divides; 0 for none of these.
        steps: these steps too.
        when: "afterwards" samples at `close()`; "now" at each such step, while the training waits; "process" in a second process of one thread, for
            models that can be converted.
        log_to: writers that are told every λ̂ and its error: with `add_scalar(name, value, step)` as TensorBoard's SummaryWriter has, or with
            `log(values)` as a run of Weights & Biases has. The latter takes no step behind the one it is at, so that ours is a value of its own,
            "llc/step", against which its curves are drawn. A refused cell is told to none.
        settings: as of `rllc.estimate`.

    Raises:
        RllcError: there is no such `when`, nothing is scheduled, or the settings are none.
    """

    def __init__(
        self,
        folder: str | Path,
        data: Any,
        parts: Parts = "heads",
        *,
        every: int = 0,
        steps: Sequence[int] = (),
        when: When = "afterwards",
        log_to: Sequence[Any] = (),
        **settings: Any,
    ) -> None:
        if when not in get_args(When):
            raise RllcError(f"when is {when!r}.", f"Choose one of: {', '.join(get_args(When))}.")
        if every < 0 or not (every or steps):
            raise RllcError("The monitor has no step to look at.", "Give every=1000, for example, or steps.")
        self.folder, self.when, self._every, self._steps = Path(folder), when, every, frozenset(steps)
        self._data = data if isinstance(data, Mapping) and not is_padded(data) else {"data": data}
        self._parts, self._how, self._writers = parts, how_from(settings), tuple(log_to)
        self._kept: dict[int, Path] = {}
        self._template: nn.Module | None = None  # structure of a module that is sampled as it is
        self._done: list[Result] = []
        for writer in self._writers:
            if hasattr(writer, "define_metric"):
                writer.define_metric("llc/*", step_metric="llc/step")
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[Future[list[Result]]] = []

    @property
    def results(self) -> Results:
        """What has been sampled so far."""
        return Results(tuple(sorted(self._done, key=lambda r: r.step)))

    def wants(self, step: int) -> bool:
        """Whether the schedule asks for this step."""
        return step in self._steps or (self._every > 0 and step % self._every == 0)

    def step(self, step: int, model: nn.Module) -> None:
        """To be called after each update, and with 0 before the first; returns at once where the schedule does not ask for the step.

        A model inside DataParallel, DistributedDataParallel or torch.compile is taken out of it; of several processes one should call.
        Raises RllcError where the model cannot be kept or sampled, and where its weights are spread over processes.
        """
        if step in self._kept or not self.wants(step):
            return
        with _undisturbed():
            self._keep(step, _bare(model))
            if self.when == "now":
                self._record(_sampled(self._opened(step), self._data, self._parts, self._how, step))
            elif self.when == "process":
                self._start(step)

    def close(self) -> Results:
        """Sample what has not been sampled, wait for the second process, and return all results. Raises RllcError as `step` does."""
        with _undisturbed():
            try:
                for future in self._waiting:
                    self._record(future.result())
                for step in sorted(set(self._kept) - {r.step for r in self._done}):
                    self._record(_sampled(self._opened(step), self._data, self._parts, self._how, step))
            finally:
                self._waiting = []
                if self._pool is not None:
                    self._pool.shutdown(cancel_futures=True)
                    self._pool = None
        return self.results

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _keep(self, step: int, model: nn.Module) -> None:
        """Ours where the model can become one of ours, else its own tensors and, once, its structure."""
        own = self._how.loss is not None or self._how.road == "general"
        try:
            imported = None if own else import_module(model)
        except NotImportable:
            imported = None
        if imported is not None:
            self._kept[step] = save(self.folder / "checkpoints", step, imported.shape, imported.params).folder
            return
        if self.when == "process":
            raise RllcError("A second process needs a model that can be converted, and this one is sampled as it is.", 'Set when="afterwards".')
        if self._template is None:
            self._template = copy.deepcopy(model)
        place = self.folder / "checkpoints" / checkpoint_name(step) / "model.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        write_aside(place, partial(safetensors.torch.save_file, tensors))
        self._kept[step] = place

    def _opened(self, step: int) -> Any:
        place = self._kept[step]
        if self._template is None:
            return place
        module = copy.deepcopy(self._template)
        module.load_state_dict(_on(read_state(place), module))
        return module

    def _start(self, step: int) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), set_threads, (1,))
        self._waiting.append(self._pool.submit(_sampled, self._kept[step], self._data, self._parts, self._how, step))
        for future in [f for f in self._waiting if f.done()]:
            self._waiting.remove(future)
            self._record(future.result())

    def _record(self, results: list[Result]) -> None:
        self._done += results
        write_atomic(self.folder / "curves.csv", self.results.to_pandas(run=self.folder.name).to_csv(index=False))
        for r in results:
            if r.outcome.refused:
                continue
            name = f"llc/{r.data}/{r.part}"
            values = {name: r.llc, f"{name}/stderr": r.stderr}
            for writer in self._writers:
                if hasattr(writer, "add_scalar"):
                    for key, value in values.items():
                        writer.add_scalar(key, value, r.step)
                else:
                    writer.log(values | {"llc/step": r.step})


def _sampled(model: Any, data: Mapping[str, Any], parts: Parts, how: How, step: int) -> list[Result]:
    return list(Sweep([(step, lambda: model)], data, parts, how, Reporter(quiet=True)))


def _bare(model: nn.Module) -> nn.Module:
    """The model without what torch wraps around it. Raises RllcError where this process holds a share of its weights alone."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            break
    spread = next((name for name, p in model.named_parameters() if type(p.data).__name__ == "DTensor" or "_flat_param" in name), None)
    if spread is not None:
        raise RllcError(
            f"The weights are spread over processes ({spread}), and a monitor needs them whole.",
            "Save full checkpoints in the training, and give their folder to rllc.sweep.",
        )
    return model


def _on(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The tensors where the module's own lie, in their types."""
    own = module.state_dict()
    return {name: tensor.to(own[name]) for name, tensor in state.items()}


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Puts every generator back, and torch's modes of gradients."""
    numbers, python = np.random.get_state(), random.getstate()  # noqa: NPY002  # the global one is what a training may use
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            yield
    finally:
        np.random.set_state(numbers)  # noqa: NPY002
        random.setstate(python)

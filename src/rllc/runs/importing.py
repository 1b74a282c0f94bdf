"""Checkpoints of a model that was trained elsewhere: what they are, as tables of an experiment file, and their conversion in a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllc.checkpoints.importing import Imported, import_state
from rllc.checkpoints.reading import check_finite, read_config, read_state
from rllc.checkpoints.series import Series
from rllc.checkpoints.store import list_checkpoints, load, release, save
from rllc.core.errors import RllcError
from rllc.corpus.batches import Mixture, batch_stream
from rllc.corpus.tokens import open_corpus
from rllc.runs.doubts import doubtful
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.preparing import claim, exchanged_weights
from rllc.runs.progress import Reporter, duration
from rllc.runs.settings import ImportSettings

_TRIED_TOKENS = 8_192


def import_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Convert the checkpoints that the experiment names, one at a time; of those that are not kept only what they are stays.

    Raises RllcError as `fetch_checkpoints` does.
    """
    tell_exchanged(folder, reporter)
    asked = _asked(experiment)
    known = {info.step for info in list_checkpoints(folder.checkpoints) if not (asked.keep and info.released)}
    fetch_checkpoints(experiment, folder, sorted(set(asked.steps) - known), reporter, release_all=not asked.keep)


def tell_exchanged(folder: RunFolder, reporter: Reporter) -> None:
    """Tell of converted checkpoints that lie there with other weights than the run has computed with."""
    if other := exchanged_weights(folder):
        steps = ", ".join(map(str, other))
        reporter.line(f"  WARNING: the weights of steps {steps} are others than before: whatever was computed with those is computed anew.")


def fetch_checkpoints(experiment: Experiment, folder: RunFolder, steps: Sequence[int], reporter: Reporter, *, release_all: bool = False) -> None:
    """Convert checkpoints of an import into the run folder, those whose weights are not there; with `release_all` each is given back at once.

    Raises RllcError where a checkpoint cannot be read or converted, is of another shape than the experiment's model, or holds numbers that are none.
    """
    asked = _asked(experiment)
    claim(folder, {"training": experiment.training_key()})
    before = {info.step: info for info in list_checkpoints(folder.checkpoints)}
    missing = [step for step in steps if step not in before or before[step].released]
    if not missing:
        return
    series = Series.of(asked.source, tuple(sorted(missing)), asked.revision, asked.file)
    last = max(asked.steps)
    with reporter.stage("Importing", len(missing), "checkpoints") as bar:
        for step, path in series.opened(keep=0):
            found = read_model(path, experiment.model.n_ctx, asked.config)
            if found.shape != experiment.model:
                raise RllcError(
                    f"The checkpoint of step {step} is of another shape than the experiment's model: {found.shape.difference(experiment.model)}.",
                    "Take the [model] table that `rllc import` writes.",
                )
            info = save(folder.checkpoints, step, found.shape, found.params)
            if step in before and before[step].digest != info.digest:
                reporter.line(f"  {asked.source} has other weights at step {step} than before: whatever was computed with those is computed anew.")
            if step == last and step not in before:
                _check_loss(experiment, folder, found, reporter)
            if release_all:
                release(info.folder)
            bar.advance(1, f"step {step}")
    reporter.line(f"Imported {len(missing)} checkpoint{'s' * (len(missing) > 1)} from {asked.source} in {duration(bar.seconds)}.")


def _asked(experiment: Experiment) -> ImportSettings:
    if experiment.imported is None:
        raise ValueError("this experiment trains its model")
    return experiment.imported


def read_model(path: Path, n_ctx: int = 0, config: Mapping[str, Any] | None = None) -> Imported:
    """A foreign checkpoint as ours, or one of our own; what `config` says wins over what the checkpoint says of itself.

    Raises RllcError as reading and converting do, and for numbers that are not finite.
    """
    if (path / "checkpoint.json").is_file():
        shape, params, _ = load(path)
        return Imported(shape, params, "rllc", ())
    found = import_state(read_state(path), {**read_config(path), **(config or {})}, n_ctx=n_ctx)
    check_finite(found.params, f"The checkpoint {path}")
    return found


def describe_import(
    source: str, steps: tuple[int, ...] = (), revision: str = "", file: str = "", config: Mapping[str, Any] | None = None, context: int = 0
) -> str:
    """The tables [imported] and [model] of an experiment on these checkpoints, from the first of them, with what a user should know as comments.

    Source, steps, revision, file and config are as `ImportSettings` has them, but that a folder or glob need not name its steps; `context` is how
    many tokens of a context to sample on, 0 for all that the model takes.
    """
    series = Series.of(source, steps, revision, file)
    _, path = next(iter(series.opened()))
    found = read_model(path, context, config)
    every = ", ".join(map(str, series.steps))
    lines = [f"# {found.shape.n_layers} layers of {found.shape.n_heads} heads; {found.family}.", *(f"# {note}" for note in found.notes)]
    lines += ["", "[imported]", f"source = {_toml(source)}", f"steps = [{every}]"]
    lines += [f"{name} = {_toml(value)}" for name, value in (("revision", revision), ("file", file)) if value]
    lines += ["", "[imported.config]", *(f"{name} = {_toml(value)}" for name, value in config.items())] if config else []
    lines += ["", "[model]", *(f"{name} = {_toml(value)}" for name, value in found.shape.as_dict().items())]
    return "\n".join(lines) + "\n"


def _check_loss(experiment: Experiment, folder: RunFolder, found: Imported, reporter: Reporter) -> None:
    """Warn of a last checkpoint that predicts no better than chance: the tokenizer may be another model's."""
    import torch

    from rllc.model.forward import losses

    size = max(1, _TRIED_TOKENS // found.shape.n_ctx)
    corpus = open_corpus(folder.corpus)
    stream = batch_stream(corpus, Mixture(MIXTURE, experiment.mixture), "train", size, found.shape.n_ctx, experiment.seed, "import")
    with torch.no_grad():
        loss = losses(found.shape, found.params, torch.from_numpy(stream[0])).item()
    for sentence in doubtful(loss, found.shape.d_vocab):
        reporter.line(f"  WARNING: of the last checkpoint on the mixture: {sentence} Look at corpus.tokenizer.", "warning", "warning")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else str(value)

"""The sides of `peers.py`: the work, and the calls that do it by rllc, devinterp and canonical-interp. What is not installed has no call."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peers_text
import torch
from peers_plain import PlainTransformer
from peers_timing import Timed

from rllc.core.names import DataKey, Part
from rllc.model import forward as fw
from rllc.model.objective import build_objective
from rllc.model.shape import ModelShape
from rllc.posterior.chains import Chains
from rllc.posterior.settings import SamplerSettings
from rllc.runs.experiment import parse, preset
from rllc.runs.plan import make_unit
from rllc.runs.settings import EngineSettings, SamplingSettings


def found(*names: str) -> bool:
    """Whether all of these are installed."""
    return all(importlib.util.find_spec(name) is not None for name in names)


devinterp: Any = importlib.import_module("peers_language") if found("devinterp", "transformer_lens") else None
canonical: Any = importlib.import_module("peers_canonical") if found("canonical_interp") else None

Call = Callable[[int], Timed]  # of the round's number
OURS, LENS, PLAIN, CANONICAL = "rllc", "devinterp", "devinterp, plain module", "canonical-interp"
NAMES = (OURS, LENS, PLAIN, CANONICAL)
PAPER = ModelShape(n_ctx=256)
ABOUT = {
    OURS: "all heads × chains of the layer in one pass",
    LENS: "a HookedTransformer with devinterp's default loss; one chain after another",
    PLAIN: "the same by a plain module with fused attention",
    CANONICAL: "vmap of whole models, compiled; restricts to whole tensors, so this module has tensors of its own for every head",
}
MISSING = {
    LENS: "devinterp or transformer-lens is not installed here, so it was left out: pip install -c constraints.txt -e '.[peers,tl]' adds both.",
    CANONICAL: "canonical-interp is not installed here, so it was left out: pip install --no-deps --ignore-requires-python canonical-interp==0.2.7",
}


@dataclass(frozen=True)
class Work:
    """What every side does, and how often. The settings of the sampler are METHOD 2's: εγ/2 = 0.1 and εnβ/2 = 0.015."""

    shape: ModelShape = PAPER
    batch: int = 8
    chains: int = 4
    steps: int = 4  # of each chain that a round times
    rounds: int = 5
    layers: tuple[int, ...] = (0, 1)
    sampler: Mapping[str, float] = field(default_factory=lambda: {"step_size": 1e-3, "localization": 200.0, "nbeta": 30.0})
    folder: Path = peers_text.FOLDER

    def parts(self, layer: int) -> tuple[Part, ...]:
        """The heads of a layer."""
        return tuple(Part.of_head(layer, head) for head in range(self.shape.n_heads))

    def contexts(self) -> torch.Tensor:
        """The minibatches of a round's evaluations, one after another [n, T]."""
        return peers_text.real_tokens(self.shape.d_vocab, self.shape.n_ctx, (self.steps + 1) * self.batch, folder=self.folder)


def quick_work(folder: Path = peers_text.FOLDER) -> Work:
    """A toy, to see that everything runs."""
    return Work(ModelShape(2, 16, 2, 8, 300, 16), batch=2, chains=2, rounds=2, folder=folder)


def sides(work: Work, layer: int, only: Sequence[str] = NAMES) -> tuple[dict[str, Call], dict[str, dict[str, float]]]:
    """The calls that can be made here, by name, and by how much the peers' models were found to differ from ours.

    Raises RuntimeError where a peer's model, loss or mask is not ours.
    """
    params, contexts = fw.init_params(work.shape, 0), work.contexts()
    batch = contexts[: work.batch]
    calls: dict[str, Call] = {OURS: partial(by_us, work, params, contexts, layer)}
    checked: dict[str, dict[str, float]] = {}
    amount: dict[str, Any] = {"chains": work.chains, "steps": work.steps, "batch_size": work.batch}
    step_size, nbeta, own = work.sampler["step_size"], work.sampler["nbeta"], {"localization": work.sampler["localization"]}
    if devinterp is not None:
        data = devinterp.pool(contexts)
        for name, make in ((LENS, devinterp.twin), (PLAIN, PlainTransformer)):
            if name in only:
                model = make(work.shape, params)
                checked[name] = devinterp.check_equal(work.shape, params, model, batch)
                masks = [devinterp.head_masks(work.shape, model, part) for part in work.parts(layer)]
                calls[name] = partial(by_devinterp, model, data, masks, amount | {"settings": own | {"lr": step_size, "n_beta": nbeta}})
    if canonical is not None and CANONICAL in only:
        model = PlainTransformer(work.shape, params, apart=True)
        with torch.no_grad():
            checked[CANONICAL] = {"logits": (model(batch) - fw.logits(work.shape, params, batch)).abs().max().item()}
        if not checked[CANONICAL]["logits"] < 1e-4:
            raise RuntimeError(f"The module for canonical-interp does not compute what ours does: {checked[CANONICAL]}.")
        calls[CANONICAL] = partial(
            by_canonical, model, work.parts(layer)[0], contexts, amount | {"settings": own | {"learning_rate": step_size, "nbeta": nbeta}}
        )
    return {name: call for name, call in calls.items() if name in only}, checked


def by_us(work: Work, params: fw.Params, contexts: torch.Tensor, layer: int, turn: int) -> Timed:
    """All heads × chains of the layer, cut in chunks as `rllc run` cuts them where nothing is said."""
    marks: list[float] = []
    started = time.perf_counter()
    parts = work.parts(layer)
    epsilon, gamma, nbeta = (work.sampler[name] for name in ("step_size", "localization", "nbeta"))
    settings = SamplerSettings("sgld", epsilon, gamma, nbeta, work.chains, max(4, work.steps), 0)
    sampling = SamplingSettings(batch_size=work.batch)
    experiment = replace(parse(preset("quick")), model=work.shape, sampler=settings, sampling=sampling, engine=EngineSettings())
    chunk = make_unit(experiment, 0, DataKey("mixture"), parts).chunk
    objective = build_objective(work.shape, params, parts, chunk)
    noise = [[1000 * turn + len(parts) * chain + head for chain in range(work.chains)] for head in range(len(parts))]
    chains = Chains(objective, objective.origin, settings, noise)
    chains.advance(iter(contexts.split(work.batch)), work.steps + 1, lambda *_: marks.append(time.perf_counter()))
    return Timed.of(np.diff(marks), len(parts) * work.chains, time.perf_counter() - started, work.steps + 1)


def by_devinterp(model: torch.nn.Module, data: Any, masks: Sequence[Any], options: Mapping[str, Any], turn: int) -> Timed:
    """One head a round, another each time: they cost it the same."""
    return devinterp.timed(model, data, masks[turn % len(masks)], **options)


def by_canonical(model: PlainTransformer, part: Part, contexts: torch.Tensor, options: Mapping[str, Any], turn: int) -> Timed:  # noqa: ARG001
    """Always the same head, for which it was compiled in the first round."""
    return canonical.timed(model, part, contexts, **options)

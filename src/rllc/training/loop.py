"""The training loop: weights in, weights out, one item an update. Where they go is the caller's business."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.model.forward import Params, init_params, losses
from rllc.model.shape import ModelShape
from rllc.training.settings import TrainingSettings

_GROUPS = ("params", "first", "second")


class Batches(Protocol):
    """The stream of minibatches: item i is [B, T] token ids and depends on i alone, so that training resumes at any step."""

    def __getitem__(self, index: int, /) -> NDArray[np.int64]:
        """The minibatch of update i + 1."""
        ...


@dataclass(frozen=True)
class TrainingState:
    """All that training needs to go on: weights, AdamW's two moving means, and the number of updates made.

    `metrics` are those of the last update; empty at step 0.
    """

    step: int
    params: Params
    first: Params
    second: Params
    metrics: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device) -> TrainingState:
        """The state on a device, which is where training then happens."""
        groups = ({name: tensor.to(device) for name, tensor in getattr(self, group).items()} for group in _GROUPS)
        return TrainingState(self.step, *groups, metrics=dict(self.metrics))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under one flat name ("params/embed.W_E", "first/embed.W_E", …), for writing."""
        return {f"{group}/{name}": tensor for group in _GROUPS for name, tensor in getattr(self, group).items()}

    def facts(self) -> dict[str, Any]:
        """The rest as JSON-able values, for writing."""
        return {"step": self.step, "metrics": self.metrics}

    @classmethod
    def restore(cls, shape: ModelShape, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> TrainingState:
        """The inverse of `tensors` and `facts`. Raises RllcError where they are not of a model of this shape."""
        expected = {f"{group}/{name}": size for group in _GROUPS for name, size in shape.tensors().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            wrong = next(name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name))
            raise RllcError(
                f"The saved training state is of another model: {wrong} is {found.get(wrong, 'absent')}, expected {expected.get(wrong, 'absent')}.",
                "Train in a fresh folder, or give the model it was made with.",
            )
        groups = [{name: tensors[f"{group}/{name}"] for name in shape.tensors()} for group in _GROUPS]
        return cls(int(facts["step"]), *groups, metrics=dict(facts["metrics"]))


@dataclass(frozen=True)
class TrainingStep:
    """The model after `step` updates.

    `params` are the live weights: the next update changes them in place, so copy what you keep. `metrics` of the last update: "loss" (of its
    minibatch, before the update, nats per token), "grad_norm" (before clipping) and "lr"; empty at step 0.
    """

    step: int
    params: Params
    metrics: dict[str, float]
    export: Callable[[], TrainingState]  # a copy of all that training needs to go on from here; ask before the next update


def initial_state(shape: ModelShape, settings: TrainingSettings) -> TrainingState:
    """A fresh model with AdamW at rest, from the settings' seed."""
    params = init_params(shape, seeds.derive(settings.seed, "weights"), getattr(torch, settings.dtype))
    first, second = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2))
    return TrainingState(0, params, first, second)


def train(shape: ModelShape, settings: TrainingSettings, batches: Batches, state: TrainingState | None = None) -> Iterator[TrainingStep]:
    """Train up to `settings.steps` updates, yielding first where it starts and then the model after every update.

    Update t takes `batches[t - 1]`. Training from an exported state gives the same weights bit for bit as training that was never
    interrupted, on a CPU with the same number of threads. The state given is copied, and decides the device.

    Raises RllcError where the loss or its gradient is no longer finite, and where a minibatch does not fit the model.
    """
    start = state or initial_state(shape, settings)
    live = {name: torch.nn.Parameter(p.detach().clone()) for name, p in start.params.items()}
    optimizer = _adamw(live, start, settings)
    params = {name: p.detach() for name, p in live.items()}

    def item(step: int, metrics: dict[str, float]) -> TrainingStep:
        return TrainingStep(step, params, metrics, lambda: _export(step, live, optimizer, metrics))

    yield item(start.step, start.metrics)
    for step in range(start.step + 1, settings.steps + 1):
        tokens = _tokens(shape, batches[step - 1], step).to(params["embed.W_E"].device)
        yield item(step, _update(shape, live, optimizer, tokens, settings, step))


def _update(
    shape: ModelShape, live: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW, tokens: Tensor, settings: TrainingSettings, step: int
) -> dict[str, float]:
    rate = settings.rate(step)
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss = losses(shape, live, tokens)[0]
    loss.backward()
    gradients = [p.grad for p in live.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    metrics = {"loss": loss.item(), "grad_norm": norm.item(), "lr": rate}
    for value, what in ((metrics["loss"], "loss"), (metrics["grad_norm"], "gradient of the loss")):
        if not math.isfinite(value):
            raise RllcError(
                f"Training left the finite numbers: the {what} is {value} at step {step}.",
                "Lower training.learning_rate, lengthen training.warmup or set training.grad_clip.",
            )
    if settings.grad_clip:
        torch.nn.utils.clip_grads_with_norm_(live.values(), settings.grad_clip, norm)
    optimizer.step()
    return metrics


def _adamw(live: dict[str, torch.nn.Parameter], start: TrainingState, settings: TrainingSettings) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(
        list(live.values()),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    for name, p in live.items():
        optimizer.state[p] = {
            "step": torch.tensor(float(start.step), dtype=torch.float32, device=p.device),
            "exp_avg": start.first[name].detach().clone(),
            "exp_avg_sq": start.second[name].detach().clone(),
        }
    return optimizer


def _export(step: int, live: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW, metrics: dict[str, float]) -> TrainingState:
    if any(int(optimizer.state[p]["step"]) != step for p in live.values()):
        raise RuntimeError(f"the state of step {step} is gone: export it before asking for the next step")
    params, first, second = (
        {name: pick(p).detach().clone() for name, p in live.items()}
        for pick in (lambda p: p, lambda p: optimizer.state[p]["exp_avg"], lambda p: optimizer.state[p]["exp_avg_sq"])
    )
    return TrainingState(step, params, first, second, dict(metrics))


def _tokens(shape: ModelShape, batch: NDArray[np.int64], step: int) -> Tensor:
    batch = np.asarray(batch)
    if batch.ndim != 2 or not 2 <= batch.shape[1] <= shape.n_ctx:
        raise RllcError(
            f"The minibatch of step {step} has the shape {batch.shape}; the model takes sequences of 2 to {shape.n_ctx} tokens.",
            "Make the corpus's context and model.n_ctx agree.",
        )
    if batch.min() < 0 or batch.max() >= shape.d_vocab:
        raise RllcError(
            f"The minibatch of step {step} holds token {batch.max() if batch.max() >= shape.d_vocab else batch.min()}, "
            f"but the model knows tokens 0 to {shape.d_vocab - 1}.",
            "Make the corpus's vocabulary and model.d_vocab agree.",
        )
    return torch.tensor(np.asarray(batch, dtype=np.int64))

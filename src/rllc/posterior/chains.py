"""The loop over steps, written once for every sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.flat import Layout
from rllc.posterior.noise import Noise
from rllc.posterior.protocol import Context, Evaluated, Objective
from rllc.posterior.samplers import SAMPLERS
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats, Traces

if TYPE_CHECKING:
    from jaxtyping import Float

_NAMES = ("losses", "baseline", "gradient_dot", "sq_distance", "sq_gradient", "noise_dot")


def run_chains(
    objective: Objective[Context],
    origin: Mapping[str, Float[Tensor, "P ..."]],
    batches: Iterable[Any],
    settings: SamplerSettings,
    noise_seeds: Sequence[Sequence[int]],
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> Traces:
    """Sample all chains of all parts at once, from w*, on shared minibatches.

    Evaluation t takes the next minibatch, records the loss at w_t and at w*, and only then steps. There are
    `burn_in + draws + 1` evaluations and one step fewer. A chain that turns non-finite goes on as it is: variants are
    independent rows, and its cell is refused later.

    Args:
        objective: the loss.
        origin: the parts' tensors at w*, each with a leading axis P.
        batches: at least `burn_in + draws + 1` minibatches; shared by all chains.
        settings: the sampler and its settings.
        noise_seeds: one integer a chain, [P][chains]; nothing else is random here.
        on_step: told (evaluations done, evaluations in all) after each.

    Returns:
        Traces in fp64; sums over coordinates are taken in the state's dtype.

    Raises:
        RllcError: the part cannot be sampled, or the minibatches ran out.
        ValueError: the seeds or what the objective returned have the wrong shape.
    """
    layout = Layout.of(origin)
    center = layout.flatten(origin)
    parts, chains = center.shape[0], settings.chains
    seeds = [seed for row in noise_seeds for seed in row]
    if len(noise_seeds) != parts or any(len(row) != chains for row in noise_seeds):
        raise ValueError(f"noise_seeds must be {parts} parts × {chains} chains of integers.")
    noise = Noise(seeds, layout.dimension, layout.dtype, layout.device)
    sampler = SAMPLERS[settings.sampler]
    center = center.repeat_interleave(chains, dim=0)
    latest = noise.draw()
    state = sampler.init(torch.zeros_like(center), latest)
    stream, evaluations = iter(batches), settings.steps + 1
    rows: list[tuple[Tensor, ...]] = []
    for t in range(evaluations):
        context = objective.prepare(_next(stream, t, evaluations))
        evaluation = objective.evaluate(layout.views(center + state.displacement), context)
        gradient = _gradient(layout, evaluation, len(seeds))
        v = state.displacement
        # kept on the device until the end: reading them here would wait for it at every step
        rows.append(
            (
                evaluation.losses.detach(),
                evaluation.baseline.detach(),
                _dot(v, gradient),
                _dot(v, v),
                _dot(gradient, gradient),
                _dot(latest, gradient),
            )
        )
        if t < settings.steps:
            latest = noise.draw()
            state = sampler.step(state, gradient, latest, settings)
        if on_step is not None:
            on_step(t + 1, evaluations)
    recorded = {name: _numpy(column).reshape(parts, chains, evaluations) for name, column in zip(_NAMES, zip(*rows, strict=True), strict=True)}
    recorded["baseline"] = _one_baseline(recorded["baseline"])
    return Traces(settings, layout.dimension, **recorded)


def _next(stream: Iterator[Any], t: int, needed: int) -> Any:
    for batch in stream:
        return batch
    raise RllcError(
        f"The minibatches ended after {t}, but the chains need {needed}.", "Give burn_in + draws + 1 minibatches, or sample with replacement."
    )


def _gradient(layout: Layout, evaluation: Evaluated, variants: int) -> Tensor:
    if evaluation.gradients is None:
        raise ValueError("The objective returned no gradients.")
    for name, values in (("losses", evaluation.losses), ("baseline", evaluation.baseline)):
        if values.shape != (variants,) or values.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"The objective's {name} must be {variants} numbers in fp32 or fp64, not {tuple(values.shape)} in {values.dtype}.")
    return layout.flatten(evaluation.gradients)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    # five times faster on CPU than einsum or vecdot, which go through a batched matrix product of one row
    return (a * b).sum(dim=1)


def _numpy(column: Sequence[Tensor]) -> Float[Floats, "C S"]:
    """[C, S] of S tensors [C]."""
    return torch.stack(list(column), dim=1).cpu().double().numpy()


def _one_baseline(baseline: Float[Floats, "P chains S"]) -> Float[Floats, "P S"]:
    """[P, S] of [P, chains, S]: chains of a part share w* and the minibatch, so anything beyond rounding is a fault of the objective."""
    if not np.allclose(baseline, baseline[:, :1], rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ValueError("The objective's baseline differs between chains of one part, though they share w* and the minibatch.")
    return baseline[:, 0].copy()

"""The loop over steps, written once for every sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.flat import Layout
from rllc.posterior.noise import Noise
from rllc.posterior.potential import Potential
from rllc.posterior.protocol import ByToken, Context, Evaluated, Objective, Originated
from rllc.posterior.samplers.base import Draw, Point, Pull, Step, dot, log_acceptance, squared
from rllc.posterior.samplers.registry import SAMPLERS
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.shares import Shares, ShareTally
from rllc.posterior.snapshot import pack, rows, unpack
from rllc.posterior.traces import Floats, Segment, Traces

if TYPE_CHECKING:
    from jaxtyping import Float

_NAMES = ("baseline", "losses", "gradient_dot", "sq_distance", "sq_gradient", "force_dot", "stein", "log_acceptance")
_WITH_ACCEPTANCE = ("sgld", "mala")  # whose proposal is SGLD's


def run_chains(
    objective: Objective[Context],
    origin: Mapping[str, Float[Tensor, "P ..."]],
    batches: Iterable[Any],
    settings: SamplerSettings,
    noise_seeds: Sequence[Sequence[int]],
    *,
    on_step: Callable[[int, int], None] | None = None,
) -> Traces:
    """Sample all chains of all parts at once, from w*, on shared minibatches: one segment of `Chains`.

    Args:
        objective: the loss.
        origin: the parts' tensors at w*, each with a leading axis P.
        batches: at least `burn_in + draws + 1` minibatches, or the one fixed batch of MALA; shared by all chains.
        settings: the sampler and its settings.
        noise_seeds: one integer a chain, [P][chains]; nothing else is random here.
        on_step: told (evaluations done, evaluations in all) after each.

    Raises:
        RllcError: the part cannot be sampled, or the minibatches ran out.
        ValueError: the seeds or what the objective returned have the wrong shape.
    """
    return Chains(objective, origin, settings, noise_seeds).advance(iter(batches), settings.steps + 1, on_step)


class Chains:
    """All chains of P parts, to be advanced by as many evaluations at a time as one likes; the draws do not depend on how many.

    Evaluation t takes the next minibatch, records the loss at w_t and at w*, and only then steps. A chain that turns non-finite goes on as
    it is: variants are independent rows, and its cell is refused later. MALA needs one loss for both sides of its accept step, so it
    takes the first minibatch for all evaluations.

    Args:
        objective: the loss.
        origin: the parts' tensors at w*, each with a leading axis P.
        settings: the sampler and its settings.
        noise_seeds: one integer a chain, [P][chains]; nothing else is random here.
        control: ∇l_n(w*) as named tensors [P, ...], for the control variate.
        fixed: a batch on which the loss is evaluated at every draw too.
        elsewhere: minibatches of other data by name, on which it is evaluated as well; no chain moves by them.
        probe: batches on whose predictions, one by one, the kept draws are evaluated; no chain moves by them either.

    Attributes:
        shares: what the predictions of the probe add to λ̂, over the draws of the last `advance`; None without a probe.
        seen_elsewhere: by name the traces of the last `advance` with losses and baseline on that data in place of its own.

    Raises:
        RllcError: the part cannot be sampled, or what the settings ask for is missing or cannot be.
        ValueError: the seeds have the wrong shape.
    """

    def __init__(
        self,
        objective: Objective[Context],
        origin: Mapping[str, Float[Tensor, "P ..."]],
        settings: SamplerSettings,
        noise_seeds: Sequence[Sequence[int]],
        *,
        control: Mapping[str, Float[Tensor, "P ..."]] | None = None,
        fixed: Any = None,
        elsewhere: Mapping[str, Iterable[Any]] | None = None,
        probe: Sequence[Any] = (),
    ) -> None:
        self.objective: Objective[Any] = objective
        self.settings = settings
        self._layout = Layout.of(origin)
        self._origin = self._layout.flatten(origin)
        self.parts = self._origin.shape[0]
        seeds = [seed for row in noise_seeds for seed in row]
        if len(noise_seeds) != self.parts or any(len(row) != settings.chains for row in noise_seeds):
            raise ValueError(f"noise_seeds must be {self.parts} parts × {settings.chains} chains of integers.")
        if settings.control_variate and control is None:
            raise RllcError("control_variate needs the gradient at the checkpoint.", "Give minibatches for it, or leave control_variate out.")
        if fixed is not None and settings.sampler == "mala":
            raise RllcError("MALA samples one fixed batch, on which it is evaluated too.", "Leave the fixed evaluation set out.")
        if elsewhere and settings.sampler == "mala":
            raise RllcError(
                "MALA's draws are points that were evaluated earlier, on its own batch alone.", "Take another sampler to evaluate elsewhere."
            )
        if probe and settings.sampler == "mala":
            raise RllcError(
                "MALA's draws are points that were evaluated earlier, on its own batch alone.", "Take another sampler for shares of tokens."
            )
        if probe and not isinstance(objective, ByToken):
            raise RllcError("This loss does not tell its predictions apart, so that none has a share.", "Leave the shares of tokens out.")
        self._probe_batches = tuple(probe)
        self._probe: list[Any] = [objective.prepare(batch) for batch in self._probe_batches]
        self.shares: Shares | None = None
        self._elsewhere = {name: iter(stream) for name, stream in (elsewhere or {}).items()}
        self.seen_elsewhere: dict[str, Traces] = {}
        self._control = self._layout.flatten(control) if settings.control_variate and control is not None else None
        self._fixed_batch = fixed
        self._fixed: Any = None if fixed is None else objective.prepare(fixed)
        self._fixed_baseline: Tensor | None = None
        self._center = self._origin.repeat_interleave(settings.chains, dim=0)
        self._potential = Potential(settings, self._center)
        self._noise = Noise(seeds, self._layout.dimension, self._layout.dtype, self._layout.device)
        self._sampler = SAMPLERS[settings.sampler]
        self._draw: Draw = self._noise.draw()  # the randomness that led to the present point
        self._state: Any = self._sampler.init(torch.zeros_like(self._center), self._draw, settings)
        self._before: Pull | None = None  # of the draw before the present point, where a Metropolis ratio is taken
        self._only: Any = None  # MALA's prepared batch
        self.evaluations = 0

    def advance(self, batches: Iterator[Any], evaluations: int, on_step: Callable[[int, int], None] | None = None) -> Traces:
        """The traces of the next evaluations: four draws at least, and the first time w* and the burn-in before them.

        Raises:
            RllcError: the minibatches ran out.
            ValueError: what the objective returned has the wrong shape.
        """
        discarded = max(0, self.settings.burn_in + 1 - self.evaluations)
        # Filled on the device and read at the end: reading at every step would wait for it, and small tensors kept from every step would
        # keep the memory between them from being used again.
        kept = self._center.new_empty(evaluations, len(_NAMES) + (self._fixed is not None), len(self._center), dtype=torch.float64)
        other = self._center.new_empty(evaluations, 2 * len(self._elsewhere), len(self._center), dtype=torch.float64)
        at_origin = self._by_token(self._origin) if self._probe else None
        tally = None if at_origin is None else ShareTally(at_origin, self.settings.chains, self.settings.nbeta, evaluations - discarded)
        for t in range(evaluations):
            context = self._prepare(batches, t, evaluations)
            evaluation = self.objective.evaluate(self._layout.views(self._center + self._state.displacement), context)
            point = self._point(evaluation, context)
            if self._fixed is not None:
                kept[t, -1] = self._on_fixed(point)
            for i, stream in enumerate(self._elsewhere.values()):
                seen = self._loss_at(point, self.objective.prepare(_next(stream, t, evaluations)))
                other[t, 2 * i], other[t, 2 * i + 1] = seen.losses.detach(), seen.baseline.detach()
            if tally is not None and t >= discarded:
                tally.add(self._by_token(self._center + point.displacement))
            following = self._noise.draw()
            step: Step = self._sampler.step(self._state, point, following, self.settings)
            for row, values in zip(kept[t], (evaluation.baseline.detach(), *self._recorded(step, point)), strict=False):
                row.copy_(values)
            self._state, self._draw = step.state, following
            self._before = step.visited.pull if self.settings.sampler in _WITH_ACCEPTANCE else None
            self.evaluations += 1
            if on_step is not None:
                on_step(t + 1, evaluations)
        self.shares = None if tally is None else tally.result()
        traces = self._traces(kept, Segment(evaluations, discarded))
        columns = other.permute(1, 2, 0).cpu().numpy().reshape(-1, 2, self.parts, self.settings.chains, evaluations)
        self.seen_elsewhere = {
            name: replace(traces, losses=losses.copy(), baseline=_one_baseline(baseline), fixed_losses=None, fixed_baseline=None)
            for name, (losses, baseline) in zip(self._elsewhere, columns, strict=True)
        }
        return traces

    def _prepare(self, batches: Iterator[Any], t: int, needed: int) -> Any:
        if self.settings.sampler == "mala":
            self._only = self.objective.prepare(_next(batches, t, 1)) if self._only is None else self._only
            return self._only
        return self.objective.prepare(_next(batches, t, needed))

    def _point(self, evaluation: Evaluated, context: Any) -> Point:
        gradient = _gradient(self._layout, evaluation, len(self._center))
        if self._control is not None:
            at_origin = self.objective.evaluate(self._layout.views(self._origin), context)
            difference = self._control - _gradient(self._layout, at_origin, self.parts)
            gradient = gradient + difference.repeat_interleave(self.settings.chains, dim=0)
        return self._potential.at(self._state.displacement, evaluation.losses.detach(), evaluation.baseline.detach(), gradient)

    def _recorded(self, step: Step, point: Point) -> tuple[Tensor, ...]:
        """Losses and inner products of the draw, and the Metropolis ratio of the move that led to the point evaluated, each [C]."""
        drawn = step.visited
        ratio = torch.full_like(point.losses, torch.nan)
        if self._before is not None:
            ratio = log_acceptance(self._before, point.pull, self._draw.normal, self.settings)
        v, gradient = drawn.displacement, drawn.gradient
        return drawn.losses, dot(v, gradient), squared(v), squared(gradient), dot(v, drawn.force), step.stein, ratio

    def _loss_at(self, point: Point, context: Any) -> Evaluated:
        return self.objective.evaluate(self._layout.views(self._center + point.displacement), context, gradients=False)

    def _by_token(self, weights: Float[Tensor, "C d"]) -> Float[Tensor, "C n"]:
        """Of every prediction of the probe, batch after batch."""
        objective: Any = self.objective
        variants = self._layout.views(weights)
        return torch.cat([objective.token_losses(variants, context) for context in self._probe], 1)

    def _on_fixed(self, point: Point) -> Tensor:
        evaluation = self._loss_at(point, self._fixed)
        self._fixed_baseline = evaluation.baseline.detach()
        return evaluation.losses.detach()

    def _traces(self, kept: Float[Tensor, "S names C"], segment: Segment) -> Traces:
        columns = kept.permute(1, 2, 0).cpu().numpy().reshape(kept.shape[1], self.parts, self.settings.chains, len(kept))
        recorded: dict[str, Floats] = {name: column.copy() for name, column in zip(_NAMES, columns, strict=False)}
        recorded["baseline"] = _one_baseline(recorded["baseline"])
        if self._fixed_baseline is not None:
            recorded["fixed_losses"] = columns[-1].copy()
            recorded["fixed_baseline"] = _one_baseline(self._fixed_baseline.cpu().double().numpy().reshape(self.parts, self.settings.chains, 1))[:, 0]
        return Traces.of(self.settings, self._layout.dimension, recorded, [segment])

    def kept(self, objective: Originated[Any], parts: Sequence[int]) -> Chains:
        """The chains of some parts where they stand, to go on alone.

        Args:
            objective: the loss of these parts, in this order; contexts of the old one do not fit it.
            parts: their places among the parts of these chains.
        """
        one = object.__new__(Chains)
        one.__dict__ |= self.__dict__
        which = [p * self.settings.chains + c for p in parts for c in range(self.settings.chains)]
        one.objective, one.parts = objective, len(parts)
        one._layout = Layout.of(objective.origin)  # whose tensors may go by other names
        one._origin, one._center = self._origin[list(parts)], self._center[which]
        one._control = None if self._control is None else self._control[list(parts)]
        one._potential = Potential(self.settings, one._center)
        one._noise = self._noise.kept(which)
        one._draw, one._state, one._before = (rows(value, which) for value in (self._draw, self._state, self._before))
        one._only = None
        one._fixed = None if self._fixed_batch is None else objective.prepare(self._fixed_batch)
        one._probe = [objective.prepare(batch) for batch in self._probe_batches]
        return one

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Everything that the next evaluation depends on besides the loss: arrays [P, chains, ...] in the state's dtype, and bytes."""
        tensors = {f"noise.{name}": stream for name, stream in self._noise.state().items()}
        for name, value in (("state", self._state), ("draw", self._draw), ("before", self._before)):
            tensors |= pack(value, name)
        return {name: tensor.cpu().numpy().reshape(self.parts, self.settings.chains, *tensor.shape[1:]) for name, tensor in tensors.items()}

    def restore(self, snapshot: Mapping[str, NDArray[Any]], evaluations: int) -> None:
        """Go on from a snapshot that was taken after that many evaluations. Raises ValueError where it is of other chains."""
        expected = (self.parts, self.settings.chains)
        if any(array.shape[:2] != expected for array in snapshot.values()):
            raise ValueError(f"The snapshot is not of {expected[0]} parts × {expected[1]} chains.")
        tensors = {name: torch.as_tensor(array.reshape(-1, *array.shape[2:]).copy()) for name, array in snapshot.items()}
        self._noise.restore({name: tensors[f"noise.{name}"] for name in ("normal", "uniform")})
        on_device = {name: tensor.to(self._layout.device) for name, tensor in tensors.items() if not name.startswith("noise.")}
        self._state, self._draw = unpack(self._state, "state", on_device), unpack(self._draw, "draw", on_device)
        self._before = unpack(None, "before", on_device)
        self.evaluations = evaluations


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


def _one_baseline(baseline: Float[Floats, "P chains S"]) -> Float[Floats, "P S"]:
    """[P, S] of [P, chains, S]: chains of a part share w* and the minibatch, so anything beyond rounding is a fault of the objective."""
    if not np.allclose(baseline, baseline[:, :1], rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ValueError("The objective's baseline differs between chains of one part, though they share w* and the minibatch.")
    return baseline[:, 0].copy()

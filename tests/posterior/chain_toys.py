"""What the tests of chains sample: a tilted toy of two tensors with every kind of minibatch noise, and one part of it alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.quadratic import MinibatchNoise, Quadratic


def toy(parts: int = 2, dtype: torch.dtype = torch.float32) -> Quadratic:
    """Two tensors, tilted, with every kind of minibatch noise."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(parts, *shape, generator=generator, dtype=torch.float64).to(dtype)

    origin = {"a": normal(5, 4), "b": normal(7)}
    curvature = {"a": 20 * normal(5, 4).abs(), "b": 20 * normal(7).abs()}
    return Quadratic(origin, curvature, {"a": normal(5, 4)}, {"b": normal(7)}, offset_noise=0.3, stretch_noise=0.2, constant=3.0)


def seeds(parts: int, chains: int) -> list[list[int]]:
    return [[100 * p + c for c in range(chains)] for p in range(parts)]


@dataclass(frozen=True)
class OnePart:
    """A part of a toy of several, on the minibatch noise of the whole; its tensors may go by longer names, as those of a model's parts do."""

    part: Quadratic
    whole: Quadratic
    index: int

    @property
    def origin(self) -> Tensors:
        return {f"{name}[{self.index}]": tensor for name, tensor in self.part.origin.items()}

    def prepare(self, batch: int) -> MinibatchNoise:
        noise, i = self.whole.prepare(batch), slice(self.index, self.index + 1)
        return MinibatchNoise(noise.offset[i], noise.stretch[i], {name: s[i] for name, s in noise.gradient.items()})

    def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Evaluation:
        plain = {name.partition("[")[0]: tensor for name, tensor in variants.items()}
        found = replace(self.part, constant=self.whole.constant).evaluate(plain, context, gradients=gradients)
        return replace(found, gradients=dict(zip(variants, (found.gradients or {}).values(), strict=True)) if gradients else None)

"""The randomness of the chains: one stream a variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.core import seeds as seeding
from rllc.posterior.samplers.base import Draw

if TYPE_CHECKING:
    from jaxtyping import UInt8


class Noise:
    """A generator a variant, so that chain 3 draws the same whether 4 or 40 chains run (ANCHORS, principle 3).

    One call fills a variant's d coordinates. Streams are those of `torch.Generator`: equal seeds give equal noise on the same kind
    of device and dtype. Uniforms come from streams of their own, so that all samplers get the same normals.

    Args:
        seeds: one integer a variant, below 2⁶⁴.
        dimension: d.
        dtype: of the noise.
        device: where it is drawn.
    """

    def __init__(self, seeds: Sequence[int], dimension: int, dtype: torch.dtype, device: torch.device) -> None:
        self._normal = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        # on the CPU wherever the chains are: reading one number a variant back from a device would wait for it
        self._uniform = [torch.Generator().manual_seed(seeding.derive(seed, "uniform")) for seed in seeds]
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._dimension = dimension

    def draw(self) -> Draw:
        """The next normals [C, d] and uniforms [C] of every stream, in tensors of their own."""
        normal = self._like.new_empty(len(self._normal), self._dimension)
        for row, generator in zip(normal, self._normal, strict=True):
            row.normal_(generator=generator)
        uniform = [float(torch.rand((), generator=generator, dtype=torch.float64)) for generator in self._uniform]
        return Draw(normal, self._like.new_tensor(uniform))

    def state(self) -> dict[str, UInt8[Tensor, "C bytes"]]:
        """Where the streams stand, to go on from there with `restore`."""
        streams = {"normal": self._normal, "uniform": self._uniform}
        return {name: torch.stack([generator.get_state() for generator in generators]) for name, generators in streams.items()}

    def restore(self, state: Mapping[str, UInt8[Tensor, "C bytes"]]) -> None:
        """Set every stream where `state` was taken."""
        for name, generators in (("normal", self._normal), ("uniform", self._uniform)):
            for generator, row in zip(generators, state[name], strict=True):
                generator.set_state(row.clone())

    def kept(self, rows: Sequence[int]) -> Noise:
        """The streams of some variants, from where they stand, as streams of their own."""
        one = Noise([0] * len(rows), self._dimension, self._like.dtype, self._like.device)
        one.restore({name: stream[list(rows)] for name, stream in self.state().items()})
        return one

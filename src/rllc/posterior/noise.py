"""Standard normal noise: one stream a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


class Noise:
    """A generator a variant, so that chain 3 draws the same whether 4 or 40 chains run (ANCHORS, principle 3).

    One call fills a variant's d coordinates. Streams are those of `torch.Generator`: equal seeds give equal noise on the same kind
    of device and dtype.

    Args:
        seeds: one integer a variant, below 2⁶⁴.
        dimension: d.
        dtype: of the noise.
        device: where it is drawn.
    """

    def __init__(self, seeds: Sequence[int], dimension: int, dtype: torch.dtype, device: torch.device) -> None:
        self._generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._dimension = dimension

    def draw(self) -> Float[Tensor, "C d"]:
        """The next normals of every stream, in a tensor of their own."""
        out = self._like.new_empty(len(self._generators), self._dimension)
        for row, generator in zip(out, self._generators, strict=True):
            row.normal_(generator=generator)
        return out

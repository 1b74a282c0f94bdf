"""Named tensors as one flat row a variant, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.posterior.protocol import Tensors

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Layout:
    """Where each named tensor lies in a flat row. `views(flatten(x)) == x`, and views share the memory of the rows."""

    shapes: dict[str, tuple[int, ...]]  # without the leading axis
    dtype: torch.dtype  # of the sampling state
    device: torch.device

    @classmethod
    def of(cls, origin: Mapping[str, Tensor]) -> Layout:
        """The layout of a part, from tensors with a leading axis P.

        The state is kept in fp32 at least: in bf16 or fp16 small steps round away (METHOD 8). fp64 stays fp64.

        Raises:
            RllcError: there is no tensor, one is not of floating point, or leading axes or devices differ.
        """
        if not origin:
            raise RllcError("The part to sample holds no tensor.", "Name a part of the model that has weights.")
        for name, tensor in origin.items():
            if not tensor.is_floating_point():
                raise RllcError(f"Tensor {name!r} is of type {tensor.dtype}, which cannot be sampled.", "Leave it out of the part.")
        if len({(tensor.shape[:1], tensor.device) for tensor in origin.values()}) != 1:
            raise RllcError("The tensors of the parts differ in their leading axis or device.", "Stack equal parts along axis 0, on one device.")
        dtype = torch.float32
        for tensor in origin.values():
            dtype = torch.promote_types(dtype, tensor.dtype)
        device = next(iter(origin.values())).device
        return cls({name: tuple(tensor.shape[1:]) for name, tensor in origin.items()}, dtype, device)

    @property
    def dimension(self) -> int:
        """d, the number of coordinates of one variant."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "C d"]:
        """One row a variant, in the state's dtype, detached from any graph."""
        rows = [tensors[name].detach().to(self.dtype).reshape(-1, math.prod(shape)) for name, shape in self.shapes.items()]
        return torch.cat(rows, dim=1)

    def views(self, flat: Float[Tensor, "C d"]) -> Tensors:
        """Named tensors with a leading axis C, as views of the rows."""
        views: Tensors = {}
        start = 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            views[name] = flat[:, start:end].view(-1, *shape)
            start = end
        return views

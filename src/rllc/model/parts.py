"""Which weights: the one lens on a part (ANCHORS, principle 5). `select` takes it out, `insert` puts it back, for one model or for C variants."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.drawn import dealt
from rllc.model.shape import ModelShape
from rllc.model.slices import Slice, slices


def select(shape: ModelShape, params: Mapping[str, Tensor], part: Part) -> dict[str, Tensor]:
    """The tensors of a part, by slice name ("blocks.1.attn.W_Q[6]"); a head's slice loses the head axis, random weights are a vector. Copies."""
    return {str(s): _taken(shape, params[s.tensor], s).clone() for s in slices(shape, part)}


def _taken(shape: ModelShape, tensor: Tensor, s: Slice) -> Tensor:
    if s.random is not None:
        return tensor.flatten()[_places(shape, s, tensor.device)]
    return tensor if s.head is None else tensor[s.head]


def _places(shape: ModelShape, s: Slice, device: torch.device) -> Tensor:
    assert s.random is not None
    return torch.from_numpy(dealt(s.tensor, shape.tensors()[s.tensor], s.random)).to(device)


def insert(shape: ModelShape, params: Mapping[str, Tensor], part: Part, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model with the part replaced by `values`; differentiable in them, `params` untouched.

    Each value has its slice's shape, or a leading axis C of variants in front of it; then the tensor it lies in has that axis too.
    """
    result = dict(params)
    for s in slices(shape, part):
        value = values[str(s)]
        if s.whole:
            result[s.tensor] = value
            continue
        whole, sizes = result[s.tensor], params[s.tensor].shape
        axis = value.ndim - (1 if s.head is None else len(sizes) - 1)
        if axis and whole.ndim == len(sizes):
            whole = whole.expand(value.shape[0], *whole.shape)
        if s.head is None:
            flat = whole.flatten(axis).index_copy(axis, _places(shape, s, whole.device), value.to(whole.dtype))
            result[s.tensor] = flat.view(whole.shape)
            continue
        index = torch.tensor([s.head], device=whole.device)
        result[s.tensor] = whole.index_copy(axis, index, value.unsqueeze(axis).to(whole.dtype))
    return result


def stack(shape: ModelShape, params: Mapping[str, Tensor], parts: tuple[Part, ...]) -> dict[str, Tensor]:
    """The tensors of P parts of equal shape, stacked to [P, ...] under names they share: those of the first part.

    Raises RllcError where the parts do not have equal shapes.
    """
    chosen = [select(shape, params, part) for part in parts]
    shapes = [[tuple(t.shape) for t in tensors.values()] for tensors in chosen]
    if any(s != shapes[0] for s in shapes):
        raise RllcError(f"The parts {', '.join(map(str, parts))} do not have equal shapes.", "Sample them in separate units.")
    return {name: torch.stack([list(tensors.values())[i] for tensors in chosen]) for i, name in enumerate(chosen[0])}

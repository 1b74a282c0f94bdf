"""Which weights of any `nn.Module`: parameters by name, whole or a slice, as a lens (ANCHORS, principle 5).

A name is that of `module.named_parameters()`, with numbers and slices behind it where only some of the weights are meant:
"fc1.weight", "blocks.0.attn.c_attn.weight[:, 64:128]".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rllc.core.errors import RllcError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Index = tuple[int | slice, ...]
_NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")


@dataclass(frozen=True)
class Piece:
    """A parameter or a slice of one.

    Args:
        name: as it was asked for, the first time.
        tensors: every name of the parameter, more than one where weights are tied; the one asked for comes first.
        whole: the parameter at w*, in the memory of the module.
        index: what of it; () for all.
        places: the numbers of these weights in the flattened parameter; of no use where the piece is all of it.
    """

    name: str
    tensors: tuple[str, ...]
    whole: Tensor
    index: Index
    places: Int[Tensor, " places"]

    @property
    def value(self) -> Float[Tensor, "1 ..."]:
        """A copy of the weights at w*, [P = 1, ...]."""
        return self.whole[self.index][None].clone()

    def put(self, whole: Tensor, value: Tensor) -> Tensor:
        """`whole` with the piece replaced by `value`, of the piece's shape; differentiable in both, and neither is touched."""
        value = value.to(whole.dtype)
        if not self.index:
            return value
        return whole.flatten().index_copy(0, self.places, value.flatten()).view(whole.shape)


def one_by_one(named: Iterable[tuple[str, Tensor]]) -> list[tuple[tuple[str, ...], Tensor]]:
    """Every tensor once, with all of its names."""
    found: dict[int, tuple[tuple[str, ...], Tensor]] = {}
    for name, tensor in named:
        names, _ = found.get(id(tensor), ((), tensor))
        found[id(tensor)] = (*names, name), tensor
    return list(found.values())


def pieces(module: nn.Module, names: Sequence[str]) -> tuple[Piece, ...]:
    """The pieces of these names, in their order; a piece that is named again, under whichever of its names, is there once.

    Raises:
        RllcError: there is no such parameter, it cannot be sampled, the slice is none of it, or pieces overlap.
    """
    if isinstance(names, str) or not names:
        raise RllcError(f"The part is given as {names!r}, but should be a list of parameters.", _some(module))
    parameters = {name: (group, tensor) for group, tensor in one_by_one(module.named_parameters(remove_duplicate=False)) for name in group}
    found: list[Piece] = []
    taken: dict[int, Tensor] = {}  # which weights of a parameter some piece holds already
    for name in (name.strip() for name in names):
        match = _NAME.fullmatch(name)
        tensor, inside = match.groups() if match else (name, None)
        if tensor not in parameters:
            raise _unknown(module, tensor)
        group, whole = parameters[tensor]
        if not whole.is_floating_point():
            raise RllcError(f"The parameter {tensor!r} is of type {whole.dtype}, which cannot be sampled.", "Leave it out of the part.")
        index = () if inside is None else _index(name, inside, tuple(whole.shape))
        if any(piece.tensors[0] in group and piece.index == index for piece in found):
            continue
        held = taken.setdefault(id(whole), torch.zeros(whole.shape, dtype=torch.bool))
        if held[index].any():
            raise RllcError(f"{name!r} holds weights that another piece of the part holds too.", "Name every weight once.")
        held[index] = True
        places = torch.arange(whole.numel() if index else 0, device=whole.device)
        places = places.view(whole.shape)[index].flatten() if index else places
        found.append(Piece(name, (tensor, *(other for other in group if other != tensor)), whole.detach(), index, places))
    return tuple(found)


def _index(name: str, inside: str, shape: tuple[int, ...]) -> Index:
    """Read "3, :, 64:128" as an index into a tensor of that shape, an entry an axis, equal for equal weights; () for all of them."""
    items = [item.strip() for item in inside.split(",")]
    if len(items) > len(shape):
        raise RllcError(f"{name!r} has {len(items)} indices, but the parameter has {len(shape)} axes: {list(shape)}.", "Give at most one an axis.")
    index: list[int | slice] = []
    for item, size in zip(items + [":"] * (len(shape) - len(items)), shape, strict=True):
        ends = item.split(":")
        if not all(re.fullmatch(r"-?\d+", end.strip()) or (len(ends) > 1 and not end.strip()) for end in ends) or len(ends) > 3:
            raise RllcError(f"{item!r} in {name!r} is neither a number nor a slice.", "Write indices such as 3, : or 64:128.")
        start, stop, step = ([int(end) if end.strip() else None for end in ends] + [None] * 3)[:3]
        if len(ends) == 1:
            assert start is not None
            outside, chosen = not -size <= start < size, start % max(size, 1)
        else:
            if step is not None and step < 1:
                raise RllcError(f"{item!r} in {name!r} has a step of {step}.", "A step is 1 or more.")
            chosen = slice(*slice(start, stop, step).indices(size))
            outside = any(end is not None and not -size <= end <= size for end in (start, stop)) or chosen.start >= chosen.stop
        if outside:
            raise RllcError(f"{item!r} in {name!r} lies outside an axis of {size}, or holds nothing.", f"The parameter is of shape {list(shape)}.")
        index.append(chosen)
    return () if all(i == slice(0, n, 1) for i, n in zip(index, shape, strict=True)) else tuple(index)


def _unknown(module: nn.Module, name: str) -> RllcError:
    if name in dict(module.named_buffers(remove_duplicate=False)):
        return RllcError(
            f"{name!r} is a buffer of the module and no parameter: it is not trained, so it is not sampled.", "Leave it out of the part."
        )
    known = [n for n, _ in module.named_parameters(remove_duplicate=False)]
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return RllcError(f"The module has no parameter {name!r}.", f"Did you mean {near[0]!r}?" if near else _some(module))


def _some(module: nn.Module) -> str:
    known = [name for name, _ in module.named_parameters()]
    return f"Its parameters are {', '.join(known[:6])}{', …' if len(known) > 6 else ''}." if known else "The module has none at all."

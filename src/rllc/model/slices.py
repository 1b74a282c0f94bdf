"""Where a part lies in the weights: slices of named tensors, and what follows from them alone. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from rllc.core.errors import RllcError
from rllc.core.names import Atom, Part
from rllc.model.shape import HEAD_TENSORS, ModelShape


@dataclass(frozen=True, order=True)
class Slice:
    """Where a part lies: a whole named tensor, or one head's slice of it (axis 0 of attention's tensors); a group's, of K and V that are shared;
    or as many of its numbers as such a slice holds, which `drawn.dealt` chooses by a number.
    """

    tensor: str
    head: int | None = None
    random: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it is all of the tensor."""
        return self.head is None and self.random is None

    def __str__(self) -> str:
        return self.tensor + ("" if self.whole else f"[{self.head}]" if self.random is None else f"[random{self.random}]")


def slices(shape: ModelShape, part: Part) -> tuple[Slice, ...]:
    """The slices that make up a part, in the tensors' order, each number of the weights at most once.

    Raises RllcError where the model has no such part.
    """
    found: set[Slice] = set()
    for atom in part.atoms:
        found |= _atom_slices(shape, atom, part)
    whole = {s.tensor for s in found if s.whole}
    order = _order(shape)
    kept = [s for s in found if s.whole or s.tensor not in whole]
    _check_random(shape, part, kept)
    return tuple(sorted(kept, key=lambda s: (order[s.tensor], -1 if s.head is None else s.head, -1 if s.random is None else s.random)))


def size(shape: ModelShape, part: Part) -> int:
    """Number of weights in a part.

    >>> size(ModelShape(), Part.parse("1:6"))  # METHOD 1
    32864
    """
    tensors = _tensors(shape)
    return sum(math.prod(tensors[s.tensor][0 if s.whole else 1 :]) for s in slices(shape, part))


def first_layer(shape: ModelShape, part: Part) -> int:
    """The first layer whose computation the part changes; n_layers where only the final norm or the unembedding changes."""
    layers = [_tensor_layer(shape, s.tensor) for s in slices(shape, part)]
    return min(layers)


def within_one_head(shape: ModelShape, part: Part) -> bool:
    """True where the part is a head or pieces of one and changes no other head of its layer, so that it can share a pass with such parts.

    Keys that heads share are no head's; and where the norms of queries and keys run over a whole layer, those of one head scale those of all.
    """
    if shape.shares_keys and any(atom.kind == "group" for atom in part.atoms):
        return False
    found = slices(shape, part)
    if shape.qk_norm and shape.qk_norm_over == "layer" and any(s.tensor[-1] in "QK" for s in found):
        return False
    return all(s.head is not None for s in found) and len({(s.tensor.split(".")[1], s.head) for s in found}) == 1


def last_layer_head(shape: ModelShape, part: Part) -> bool:
    """True where the part lies within one head with nothing but the final norm and the unembedding behind it."""
    last = first_layer(shape, part) == shape.n_layers - 1 and (shape.parallel or not shape.d_mlp) and not shape.norms_behind
    return last and within_one_head(shape, part)


@lru_cache(maxsize=16)
def _tensors(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """The shape's tensors, which are asked for with every head of a grid; not to be changed."""
    return shape.tensors()


@lru_cache(maxsize=16)
def _order(shape: ModelShape) -> dict[str, int]:
    return {name: i for i, name in enumerate(_tensors(shape))}


def _tensor_layer(shape: ModelShape, tensor: str) -> int:
    if tensor.startswith("blocks."):
        return int(tensor.split(".")[1])
    return 0 if tensor in ("embed.W_E", "pos.W_pos") else shape.n_layers


def _atom_slices(shape: ModelShape, atom: Atom, part: Part) -> set[Slice]:
    tensors = _tensors(shape)
    prefix = f"blocks.{atom.layer}."
    if atom.kind in ("head", "group") and atom.layer < shape.n_layers and atom.head < (shape.n_heads if atom.kind == "head" else shape.groups):
        return _head_slices(shape, atom, part)
    if atom.kind == "random" and atom.layer < shape.n_layers:
        return {Slice(s.tensor, random=atom.head) for s in _head_slices(shape, Atom("head", atom.layer, 0), part)}
    if atom.kind == "full":
        return {Slice(name) for name in tensors}
    if atom.kind in ("attn", "mlp"):
        prefix += atom.kind + "."
    elif atom.kind == "embed":
        prefix = "embed."
    elif atom.kind == "unembed":
        # With tied weights the unembedding's matrix is the embedding's, sampled once.
        found = {Slice(name) for name in tensors if name.startswith("unembed.")}
        return found | {Slice("embed.W_E")} if shape.tied else found
    found = {Slice(name) for name in tensors if (name == atom.tensor if atom.kind == "tensor" else name.startswith(prefix))}
    if atom.kind in ("head", "group", "random") or not found:
        raise RllcError(
            f"The part {str(atom)!r} of {str(part)!r} does not exist in this model.",
            f"It has layers 0 to {shape.n_layers - 1}, heads 0 to {shape.n_heads - 1} in each"
            + (f", groups g0 to g{shape.groups - 1}" if shape.shares_keys else "")
            + ("" if shape.d_mlp else ", no MLP")
            + f", and the tensors {', '.join(list(tensors)[:4])}, …",
        )
    return found


def _check_random(shape: ModelShape, part: Part, found: list[Slice]) -> None:
    """Random parts of one deal share no weight; with anything else of the same tensor they might."""
    deals: dict[str, set[int | None]] = {}
    for s in found:
        if not s.whole:
            deals.setdefault(s.tensor, set()).add(None if s.random is None else s.random // _tensors(shape)[s.tensor][0])
    if any(len(of_tensor) > 1 for of_tensor in deals.values()):
        raise RllcError(
            f"The part {str(part)!r} joins random weights of a layer to others of it, which may be the same.",
            f"Sample them as two parts; random0 to random{shape.n_heads - 1} of a layer share no weight and can be joined.",
        )


def _head_slices(shape: ModelShape, atom: Atom, part: Part) -> set[Slice]:
    """Of a head, which owns its Q and O alone where K and V are shared, or of a group: K, V, and Q and O of all its heads."""
    tensors, share = _tensors(shape), shape.n_heads // shape.groups
    pieces = [atom.piece] if atom.piece else list(HEAD_TENSORS)
    if atom.kind == "head" and shape.shares_keys:
        if atom.piece in ("K", "V"):
            group = atom.head // share
            raise RllcError(
                f"The part {str(atom)!r} of {str(part)!r} is shared by heads {group * share} to {group * share + share - 1} of its layer.",
                f"Name it by the group: {atom.layer}:g{group}.{atom.piece}.",
            )
        pieces = [piece for piece in pieces if piece in ("Q", "O")]
    found: set[Slice] = set()
    for piece in pieces:
        heads = [atom.head] if atom.kind == "head" or piece in ("K", "V") else range(atom.head * share, (atom.head + 1) * share)
        names = (f"blocks.{atom.layer}.attn.{name}" for name in HEAD_TENSORS[piece])
        found |= {Slice(name, head) for name in names if name in tensors for head in heads}
    return found

"""The shape of a transformer: everything about it but the numbers. Torch-free."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rllc.core.errors import RllcError
from rllc.core.names import Atom, Head, Part

# The pieces of a head and their tensors (METHOD 1): the output bias and the norms are shared and belong to no head.
HEAD_TENSORS = {"Q": ("W_Q", "b_Q"), "K": ("W_K", "b_K"), "V": ("W_V", "b_V"), "O": ("W_O",)}


@dataclass(frozen=True)
class ModelShape:
    """A member of the transformer family of METHOD 4.

    The defaults are the language model of Wang et al.: attention-only, shortformer positions, LayerNorm, untied.

    Args:
        d_head: head dimension K; n_heads * d_head need not equal d_model.
        d_mlp: hidden width of the MLPs; 0 for an attention-only model.
        positions: "shortformer" adds learned positions to the inputs of Q and K of every layer, after the norm; "learned" adds
            them to the residual stream once; "rotary" turns queries and keys (halves convention, base 10,000).
        tied: the unembedding is the embedding's transpose.

    Raises RllcError where a size is not positive or the sizes do not fit each other.
    """

    n_layers: int = 2
    d_model: int = 256
    n_heads: int = 8
    d_head: int = 32
    d_vocab: int = 5000
    n_ctx: int = 1024
    d_mlp: int = 0
    positions: Literal["shortformer", "learned", "rotary"] = "shortformer"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = 1e-5
    tied: bool = False

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx"):
            if getattr(self, name) < 1:
                raise RllcError(f"model.{name} is {getattr(self, name)}, but must be at least 1.", "Give a positive number.")
        if self.d_mlp < 0:
            raise RllcError(f"model.d_mlp is {self.d_mlp}, but must not be negative.", "Give 0 for an attention-only model.")
        if self.positions not in ("shortformer", "learned", "rotary") or self.norm not in ("layernorm", "rmsnorm"):
            raise RllcError(
                f"model.positions {self.positions!r} with model.norm {self.norm!r} is unknown.",
                "Positions are shortformer, learned or rotary; norms are layernorm or rmsnorm.",
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise RllcError(f"Rotary positions need an even head dimension, and model.d_head is {self.d_head}.", "Give an even d_head.")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, in the order in which they act.

        >>> sum(math.prod(s) for s in ModelShape().tensors().values())  # the paper's model (METHOD 4)
        3355016
        """
        d, h, k = self.d_model, self.n_heads, self.d_head
        shapes: dict[str, tuple[int, ...]] = {"embed.W_E": (self.d_vocab, d)}
        if self.positions != "rotary":
            shapes["pos.W_pos"] = (self.n_ctx, d)
        for layer in range(self.n_layers):
            block = f"blocks.{layer}."
            shapes |= self._norm(block + "ln1")
            shapes |= {f"{block}attn.W_{x}": (h, d, k) for x in "QKV"} | {f"{block}attn.b_{x}": (h, k) for x in "QKV"}
            shapes |= {block + "attn.W_O": (h, k, d), block + "attn.b_O": (d,)}
            if self.d_mlp:
                m = self.d_mlp
                shapes |= self._norm(block + "ln2")
                shapes |= {block + "mlp.W_in": (d, m), block + "mlp.b_in": (m,), block + "mlp.W_out": (m, d), block + "mlp.b_out": (d,)}
        shapes |= self._norm("ln_final")
        if not self.tied:
            shapes["unembed.W_U"] = (d, self.d_vocab)
        shapes["unembed.b_U"] = (self.d_vocab,)
        return shapes

    def heads(self) -> tuple[Head, ...]:
        """All heads, layer by layer."""
        return tuple(Head(layer, index) for layer in range(self.n_layers) for index in range(self.n_heads))

    def as_dict(self) -> dict[str, Any]:
        """The shape as JSON-able values."""
        return asdict(self)

    def _norm(self, name: str) -> dict[str, tuple[int, ...]]:
        weight = {name + ".w": (self.d_model,)}
        return weight | {name + ".b": (self.d_model,)} if self.norm == "layernorm" else weight


@dataclass(frozen=True, order=True)
class Slice:
    """Where a part lies: a whole named tensor, or one head's slice of it (axis 0 of the tensors of attention)."""

    tensor: str
    head: int | None = None

    def __str__(self) -> str:
        return self.tensor if self.head is None else f"{self.tensor}[{self.head}]"


def slices(shape: ModelShape, part: Part) -> tuple[Slice, ...]:
    """The slices that make up a part, in the tensors' order, each number of the weights at most once.

    Raises RllcError where the model has no such part.
    """
    found: set[Slice] = set()
    for atom in part.atoms:
        found |= _atom_slices(shape, atom, part)
    whole = {s.tensor for s in found if s.head is None}
    order = {name: i for i, name in enumerate(shape.tensors())}
    kept = [s for s in found if s.head is None or s.tensor not in whole]
    return tuple(sorted(kept, key=lambda s: (order[s.tensor], -1 if s.head is None else s.head)))


def size(shape: ModelShape, part: Part) -> int:
    """Number of weights in a part.

    >>> size(ModelShape(), Part.parse("1:6"))  # METHOD 1
    32864
    """
    tensors = shape.tensors()
    return sum(math.prod(tensors[s.tensor][0 if s.head is None else 1 :]) for s in slices(shape, part))


def first_layer(shape: ModelShape, part: Part) -> int:
    """The first layer whose computation the part changes; n_layers where only the final norm or the unembedding changes."""
    layers = [_tensor_layer(shape, s.tensor) for s in slices(shape, part)]
    return min(layers)


def within_one_head(shape: ModelShape, part: Part) -> bool:
    """True where the part is a head or pieces of one, so that it can share a pass with others of its layer."""
    found = slices(shape, part)
    return all(s.head is not None for s in found) and len({(s.tensor.split(".")[1], s.head) for s in found}) == 1


def last_layer_head(shape: ModelShape, part: Part) -> bool:
    """True where the part lies within one head with nothing but the final norm and the unembedding behind it."""
    return within_one_head(shape, part) and first_layer(shape, part) == shape.n_layers - 1 and not shape.d_mlp


def _tensor_layer(shape: ModelShape, tensor: str) -> int:
    if tensor.startswith("blocks."):
        return int(tensor.split(".")[1])
    return 0 if tensor in ("embed.W_E", "pos.W_pos") else shape.n_layers


def _atom_slices(shape: ModelShape, atom: Atom, part: Part) -> set[Slice]:
    tensors = shape.tensors()
    prefix = f"blocks.{atom.layer}."
    if atom.kind == "head" and atom.layer < shape.n_layers and atom.head < shape.n_heads:
        names = HEAD_TENSORS[atom.piece] if atom.piece else [n for piece in HEAD_TENSORS.values() for n in piece]
        return {Slice(f"{prefix}attn.{name}", atom.head) for name in names}
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
    if atom.kind == "head" or not found:
        raise RllcError(
            f"The part {str(atom)!r} of {str(part)!r} does not exist in this model.",
            f"It has layers 0 to {shape.n_layers - 1}, heads 0 to {shape.n_heads - 1} in each"
            + ("" if shape.d_mlp else ", no MLP")
            + f", and the tensors {', '.join(list(tensors)[:4])}, …",
        )
    return found

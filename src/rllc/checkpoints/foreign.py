"""What every foreign layout has in common: its tensors, its settings, and the rules by which they become ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rllc.checkpoints.layouts import behind_heads, by_head
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Into = Callable[[Tensor], dict[str, Tensor]]
_WRAPPERS = re.compile(r"^((_orig_mod|module)\.)+")  # of torch.compile and of data parallel training
_LARGEST = 2**31 - 1  # of a number in a config
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class NotImportable(RllcError):  # noqa: N818
    """A model that works but is no member of our family: says which feature stands in the way, and what still works."""


def not_importable(what: str, feature: str) -> NotImportable:
    """The error for a model called `what`, whose `feature` stands in the way; the latter is what follows "because"."""
    return NotImportable(
        f"{what[0].upper()}{what[1:]} cannot be converted to the native transformer, because {feature}.",
        "It can still be sampled as it is: give the model itself, any torch module, and name the parts by its parameters.",
    )


@dataclass(frozen=True)
class Settings:
    """A foreign config.

    Args:
        values: by the names of its library.
        what: the model as sentences call it, such as "a Llama model".
    """

    values: Mapping[str, Any]
    what: str

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default where there is none or it is None."""
        value = self.values.get(name)
        return default if value is None else value

    def whole(self, name: str, default: int = 0) -> int:
        """A positive whole number. Raises RllcError where it is none, or is missing and there is no default."""
        value = self.get(name, default or None)
        if not isinstance(value, int) or not 1 <= value <= _LARGEST:
            raise RllcError(
                f"The config of {self.what} says {name} = {repr(value)[:100]}, expected a positive whole number.",
                f"Give the whole config that belongs to the weights, with {name} in it.",
            )
        return value

    def per_head(self, width: str, n_heads: str) -> int:
        """The width shared out among the heads. Raises RllcError where it does not go evenly."""
        d_head, rest = divmod(self.whole(width), self.whole(n_heads))
        if rest:
            raise RllcError(
                f"The config of {self.what} has {width} = {self.whole(width)}, which {n_heads} = {self.whole(n_heads)} does not divide.",
                "Give the whole config that belongs to the weights.",
            )
        return d_head

    def activation(self, name: str, default: str) -> Activation:
        """Our name of an activation. Raises NotImportable where we have none."""
        given = self.get(name, default)
        if given not in _ACTIVATIONS:
            raise not_importable(self.what, f"its activation is {given!r} ({name}), and the known ones are {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[given]

    def refuse(self, reasons: Mapping[str, tuple[Callable[[Any], Any], str]]) -> None:
        """Raise NotImportable for the first setting that is given and makes its test true; the reason beside it follows "because"."""
        for name, (stands_in_the_way, reason) in reasons.items():
            value = self.get(name)
            if value is not None and stands_in_the_way(value):
                raise not_importable(self.what, f"{reason} ({name} = {value!r})")

    def context(self, name: str, asked: int, window: int = 0) -> tuple[int, tuple[str, ...]]:
        """The context length, and what to know of it.

        Args:
            name: the setting that holds the model's own.
            asked: what the user wants; 0 for as much as possible.
            window: how far a query sees; 0 for all the way. Our attention sees all the way, so that longer contexts would differ.

        Raises RllcError where more is asked for than the model has.
        """
        own = self.whole(name)
        most = min(own, window or own)
        if not 0 <= asked <= most:
            limit = f"its sliding window is {most}, and longer contexts would not see everything" if most < own else f"it has {most} positions"
            raise RllcError(f"A context of {asked} tokens is asked of {self.what}, but {limit}.", f"Give an n_ctx of 1 to {most}, or 0 for all.")
        if asked or most == own:
            return asked or most, ()
        return most, (f"n_ctx is {most}, the sliding window, because longer contexts would not see everything.",)


@dataclass(frozen=True)
class Rule:
    """What becomes of one foreign tensor: its name, the size that the config asks for, and our tensors by name."""

    name: str
    size: tuple[int, ...]
    into: Into


@dataclass(frozen=True)
class Plan:
    """All of a conversion but the numbers: our shape, a rule for every tensor, and sentences that a user should know."""

    shape: ModelShape
    rules: tuple[Rule, ...]
    notes: tuple[str, ...] = ()


class Source:
    """Foreign tensors under their short names, without what wrappers and the family put in front.

    Args:
        tensors: by the names of their library; each is read when it is needed, so that a lazy mapping need not hold all at once.
        prefix: what may stand in front of the family's names, such as "model.".
        buffers: pattern of the short names of tensors that hold no weights.
    """

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, buffers: str) -> None:
        self._tensors = tensors
        self.kinds: set[str] = set()  # dtypes of all that was read
        self._full: dict[str, str] = {}
        for full, short in short_names(tensors, prefix).items():
            if re.fullmatch(buffers, short):
                continue
            if short in self._full:
                raise RllcError(f"The tensors {self._full[short]} and {full} are one and the same by their names.", "Give the tensors of one model.")
            self._full[short] = full
        self._prefix = prefix if any(full.endswith(prefix + short) for short, full in self._full.items()) else ""

    def __contains__(self, name: str) -> bool:
        return name in self._full

    def names(self) -> set[str]:
        """The short names of all that holds weights."""
        return set(self._full)

    def full(self, name: str) -> str:
        """The name as the user knows it."""
        return self._full.get(name, self._prefix + name if name != "lm_head.weight" else name)

    def read(self, name: str) -> Tensor:
        """A tensor of floating numbers. Raises RllcError where it holds something else."""
        tensor = self._tensors[self._full[name]].detach()
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise RllcError(f"The tensor {self.full(name)} holds no numbers yet (it is on the meta device).", "Load the weights first.")
        if not tensor.dtype.is_floating_point or tensor.dtype.itemsize < 2:
            raise not_importable("This model", f"its weights are quantised: the tensor {self.full(name)} holds {kind}")
        self.kinds.add(kind)
        return tensor

    def equal(self, name: str, other: str) -> bool:
        """Whether two tensors have the same content."""
        a, b = self.read(name), self.read(other)
        return a.shape == b.shape and torch.equal(a, b.to(a.device, a.dtype))

    def shared(self, name: str, other: str) -> bool:
        """Whether two tensors are one piece of memory."""
        a, b = self.read(name), self.read(other)  # both held: freed memory would be given out again
        return a.data_ptr() == b.data_ptr()


def short_names(names: Iterable[str], prefix: str = "") -> dict[str, str]:
    """The short name of each full one, without wrappers and the family's prefix."""
    return {full: _WRAPPERS.sub("", full).removeprefix(prefix) for full in names}


def convert(plan: Plan, source: Source, what: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Our tensors, copied to the CPU, in the shape's order. Raises RllcError where one is missing, unknown, or of another size."""
    named = {rule.name for rule in plan.rules}
    for wrong, trouble in ((named - source.names(), "are missing"), (source.names() - named, "are not known")):
        if wrong:
            first, more = min(wrong), len(wrong) - 1
            names = source.full(first) + (f" and {more} more" if more else "")
            raise RllcError(
                f"The weights do not fit the config of {what}: {names} {trouble if more else trouble.replace('are', 'is', 1)}.",
                "Give all the tensors and the config of one model, both as they were saved.",
            )
    params: dict[str, Tensor] = {}
    for rule in plan.rules:
        tensor = source.read(rule.name)
        if tuple(tensor.shape) != rule.size:
            raise RllcError(
                f"The weights do not fit the config of {what}: {source.full(rule.name)} is {list(tensor.shape)}, and by the config it should be "
                f"{list(rule.size)}.",
                "Give the weights and the config of one model.",
            )
        # A copy, so that the original may be trained on; each foreign tensor is let go before the next is read.
        params |= {name: value.cpu().to(dtype, copy=True, memory_format=torch.contiguous_format) for name, value in rule.into(tensor).items()}
    return {name: params[name] for name in plan.shape.tensors()}


def keep(name: str) -> Into:
    """The tensor as it is."""
    return lambda tensor: {name: tensor}


def turn(name: str) -> Into:
    """The weight [out, in] of a linear layer, as our [in, out]."""
    return lambda tensor: {name: tensor.t()}


def heads(name: str, n_heads: int) -> Into:
    """Rows of a linear layer [N K, D], or its bias [N K], head after head, as our [N, D, K] or [N, K]."""
    return lambda tensor: {name: by_head(tensor, n_heads)}


def output(name: str, n_heads: int) -> Into:
    """The weight [D, H K] of the layer behind the heads as our [H, K, D]."""
    return lambda tensor: {name: behind_heads(tensor, n_heads)}


def norm(foreign: str, ours: str, size: int, bias: bool) -> list[Rule]:
    """The weight of a norm and perhaps its bias."""
    rules = [Rule(foreign + ".weight", (size,), keep(ours + ".w"))]
    return [*rules, Rule(foreign + ".bias", (size,), keep(ours + ".b"))] if bias else rules


def unembedding(settings: Settings, source: Source, embedding: str, name: str, tied_by_default: bool) -> tuple[bool, list[str]]:
    """Whether the unembedding `name` is the embedding, and what to know of it.

    The config decides, unless the two are one piece of memory: content that happens to be equal, as at the start of a training, ties nothing.
    Raises RllcError where the config says so and the weights contradict.
    """
    says = bool(settings.get("tie_word_embeddings", tied_by_default))
    if name not in source:
        return says, []
    equal = embedding in source and source.equal(name, embedding)
    if says and not equal:
        raise RllcError(
            f"The config of {settings.what} ties the unembedding to the embedding, but {source.full(name)} differs from {source.full(embedding)}.",
            "Set tie_word_embeddings to false where the weights are right, or give the weights that belong to the config.",
        )
    if says or not equal:
        return says, []
    first, second = source.full(name), source.full(embedding)
    if source.shared(name, embedding):
        return True, [f"{first} is {second}: they are taken as one tensor, tied, whatever the config says."]
    return False, [f"{first} equals {second}, but the config does not tie them: they are taken as two tensors."]


def unembedding_rules(source: Source, name: str, shape: ModelShape) -> list[Rule]:
    """The rule of the unembedding `name` [V, D], which in a tied model may be there once more, or not at all."""
    size = (shape.d_vocab, shape.d_model)
    if not shape.tied:
        return [Rule(name, size, turn("unembed.W_U"))]
    return [Rule(name, size, lambda _: {})] if name in source else []


def sharing(n_heads: int, groups: int) -> tuple[str, ...]:
    """What to know where heads share keys and values."""
    if groups == n_heads:
        return ()
    return (
        f"Keys and values are shared by {n_heads // groups} heads each: the part of a head, such as 0:1, is its queries and its output; "
        "that of a group, such as 0:g1, holds keys and values and all that is of its heads.",
    )

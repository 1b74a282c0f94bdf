"""Which layout a live module has, and its sizes: by the type that its configuration gives and by the names and shapes of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rllc.checkpoints.head_layouts import LAYOUTS, Layout
from rllc.core.errors import RllcError
from rllc.core.names import Head

_SETTINGS = {
    "heads": ("num_attention_heads", "n_heads", "n_head", "num_heads"),
    "groups": ("num_key_value_heads", "n_key_value_heads", "n_kv_head", "n_kv_heads"),
    "d_head": ("head_dim", "d_head"),
}
_STILL = 'Name its parameters, with slices where only some of the weights are meant, such as "h.0.attn.c_attn.weight[:, 64:128]".'


@dataclass(frozen=True)
class Recognised:
    """The heads of a module.

    Args:
        layout: how it holds them.
        prefix: of the names of its stack of layers, "" or with a dot at the end.
        model_type: of transformers; empty where the module has none.
        config: of the module, or None.
        n_layers, n_heads, n_groups, d_head: its sizes; n_groups is n_heads where every head has its own keys and values.
        parameters: of the whole module, by every name.
    """

    layout: Layout
    prefix: str
    model_type: str
    config: Any
    n_layers: int
    n_heads: int
    n_groups: int
    d_head: int
    parameters: dict[str, Tensor]

    @property
    def share(self) -> int:
        """How many heads share keys and values."""
        return self.n_heads // self.n_groups

    def heads(self) -> tuple[Head, ...]:
        """All heads, layer by layer."""
        return tuple(Head(layer, index) for layer in range(self.n_layers) for index in range(self.n_heads))

    def attention(self, layer: int) -> str:
        """Start of the names of attention's tensors in a layer."""
        return self.prefix + self.layout.layer.format(layer) + self.layout.attention

    def below(self, *starts: str) -> tuple[str, ...]:
        """The parameters whose names start so, each under its first name, without those that the module does not compute with."""
        copies = {
            id(tensor) for name, tensor in self.parameters.items() if self.layout.copies and f".{self.layout.attention}{self.layout.copies}" in name
        }
        found = {id(tensor): name for name, tensor in reversed(self.parameters.items()) if name.startswith(starts) and id(tensor) not in copies}
        return tuple(reversed(found.values()))


def recognise(module: nn.Module) -> Recognised:
    """Find the heads of a transformer by the type that its configuration gives and by the names and shapes of its parameters.

    Raises:
        RllcError: the layout is unknown, the module holds several transformers, or its shapes are not those of its layout.
    """
    parameters: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    misfits: list[RllcError] = []
    for layout in LAYOUTS:
        prefixes = _prefixes(layout, parameters)
        if not prefixes:
            continue
        if len(prefixes) > 1:
            raise RllcError(
                f"The {type(module).__name__} holds several transformers, at {', '.join(repr(prefix) for prefix in prefixes)}.",
                "Give one of them, or name its parameters with slices.",
            )
        config = _config(module, prefixes[0])
        model_type = getattr(config, "model_type", "") or ""
        if model_type not in layout.types and not (layout.open or (not layout.types and not model_type)):
            continue
        try:
            return _measured(module, layout, prefixes[0], config, model_type, parameters)
        except RllcError as misfit:
            misfits.append(misfit)
    if misfits:
        raise misfits[0]
    told = getattr(getattr(module, "config", None), "model_type", "")
    known = sorted({name for layout in LAYOUTS for name in (layout.types or (layout.name,))})
    raise RllcError(
        f"Where the heads lie in a {type(module).__name__}"
        + (f" of type {told!r}" if told else "")
        + f" is not known; known are {', '.join(known)}.",
        _STILL,
    )


def _prefixes(layout: Layout, parameters: dict[str, Tensor]) -> list[str]:
    """Where a stack of layers of that layout hangs in the module; one that hangs in several places counts once."""
    weights = [places[0].tensor for places in layout.pieces.values()]
    before, after = (re.escape(text) for text in layout.layer.split("{}"))
    pattern = re.compile(rf"((?:.*\.)?){before}0{after}{re.escape(layout.attention + weights[0])}")
    found: dict[int, str] = {}
    for name, tensor in parameters.items():
        match = pattern.fullmatch(name)
        if match and all(f"{name.removesuffix(weights[0])}{weight}" in parameters for weight in weights):
            found.setdefault(id(tensor), match[1])
    return list(found.values())


def _owners(module: nn.Module, prefix: str) -> Iterable[Any]:
    """The modules that hold the stack, the innermost first."""
    path = prefix.split(".")[:-1]
    for length in range(len(path), -1, -1):
        owner: Any = module
        for step in path[:length]:
            owner = getattr(owner, step)
        yield owner


def _config(module: nn.Module, prefix: str) -> Any:
    for owner in _owners(module, prefix):
        for name in ("config", "cfg"):
            config = getattr(owner, name, None)
            if config is not None and _setting(config, "heads") is not None:
                return config
    return None


def _setting(holder: Any, name: str) -> int | None:
    values = (getattr(holder, attribute, None) for attribute in _SETTINGS[name])
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _measured(module: nn.Module, layout: Layout, prefix: str, config: Any, model_type: str, parameters: dict[str, Tensor]) -> Recognised:
    """The sizes, as the configuration gives them, or attention itself, or the tensors; and all tensors held against them."""
    start = prefix + layout.layer.format(0) + layout.attention
    out = layout.pieces["O"][0]
    attention: Any = next(iter(_owners(module, start)))
    extent = parameters[start + out.tensor].shape[out.axis]
    heads = extent if out.numbered else _setting(config, "heads") or _setting(attention, "heads")
    if heads is None:
        raise RllcError(
            f"Neither the {type(module).__name__} nor its attention says how many heads it has.",
            f"Give it an attribute config with n_head. {_STILL}",
        )
    groups = _setting(config, "groups") or _setting(attention, "groups") or heads
    width = (
        parameters[start + out.tensor].shape[1] if out.numbered else _setting(config, "d_head") or _setting(attention, "d_head") or extent // heads
    )
    before = (prefix + layout.layer).split("{}")[0]
    layers = {name[len(before) :].split(".")[0] for name in parameters if name.startswith(before)}
    found = Recognised(layout, prefix, model_type, config, len(layers), heads, groups, width, parameters)
    for layer in range(found.n_layers):
        _check_shapes(module, found, layer)
    return found


def _check_shapes(module: nn.Module, found: Recognised, layer: int) -> None:
    expected: dict[tuple[str, int], int] = {}
    for piece, places in found.layout.pieces.items():
        last = (found.n_heads if piece in "QO" else found.n_groups) - 1
        for place in places:
            key = found.attention(layer) + place.tensor, place.axis
            expected[key] = max(expected.get(key, 0), place.span(last, found.n_heads, found.n_groups, found.d_head)[1])
    for (name, axis), extent in expected.items():
        shape = list(found.parameters[name].shape) if name in found.parameters else None
        if shape is None and name.endswith(tuple(places[0].tensor for places in found.layout.pieces.values())):
            raise RllcError(f"Layer {layer} of the {type(module).__name__} has no {name!r}: its attention is of another kind than layer 0's.", _STILL)
        if shape is not None and (axis >= len(shape) or shape[axis] != extent):
            raise RllcError(
                f"The {type(module).__name__} has the names of a {found.layout.name}, but {name!r} is of shape {shape} and should be {extent} along"
                f" axis {axis}, for {found.n_heads} heads of {found.d_head} in {found.n_groups} groups.",
                _STILL,
            )

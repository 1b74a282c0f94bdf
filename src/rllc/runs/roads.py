"""Which road a model takes: the native engine where it is one of ours or can become one, any module's otherwise. The one place that chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rllc.checkpoints.store import list_checkpoints, load
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.shape import ModelShape
from rllc.model.slices import slices
from rllc.runs.device import choose_device
from rllc.runs.how import How

HEADS = "heads"
SEVERAL = (HEADS, "random")  # names of several parts
Parts = str | Part | Sequence[str | Part] | Mapping[str, str | Sequence[str]]


@runtime_checkable
class NativeModel(Protocol):
    """A model of our family: its shape, and its weights by the names of `shape.tensors()`."""

    @property
    def shape(self) -> ModelShape:
        """Everything about it but the numbers."""
        ...

    @property
    def params(self) -> dict[str, Tensor]:
        """The numbers."""
        ...


@dataclass(frozen=True)
class Asked:
    """A part that is asked for. `part` where it is of our grammar, `names` of parameters where it is of a module."""

    label: str
    part: Part | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Native:
    """A model on the native road: its weights on their device, in the type of sampling."""

    shape: ModelShape
    params: dict[str, Tensor]
    device: torch.device
    step: int | None = None  # of training, where the model knows it
    notes: tuple[str, ...] = ()
    name: str = field(default="native", init=False)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return next(iter(self.params.values())).element_size()

    @property
    def vocabulary(self) -> int:
        """Tokens V."""
        return self.shape.d_vocab

    def parts(self, asked: Parts) -> tuple[Asked, ...]:
        """The parts by their names, each once. Raises RllcError where the model has no such part."""
        if isinstance(asked, Mapping):
            raise RllcError(
                "The parts are given as a mapping of parameters, which belongs to the general road.", 'Name parts, or set road="general".'
            )
        found = [part for text in _listed(asked) for part in (self.shape.named(text) if isinstance(text, str) else [text])]
        for part in found:
            slices(self.shape, part)
        return tuple(Asked(str(part), part, notes=_notes(self.shape, part)) for part in dict.fromkeys(found))


@dataclass(frozen=True)
class General:
    """A model on the general road: a module, called as it is, and a loss."""

    module: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    language: bool  # the loss is that of a language model, so that data are token ids
    device: torch.device
    notes: tuple[str, ...] = ()
    step: int | None = None
    name: str = field(default="general", init=False)

    @property
    def vocabulary(self) -> int:
        """Tokens V of a language model; 0 where it does not say, and of any other module."""
        from rllc.checkpoints.calling import vocabulary_of

        return (vocabulary_of(self.module) or 0) if self.language else 0

    @property
    def limit(self) -> int:
        """Tokens of the longest context of a language model; 0 where it does not say."""
        config = getattr(self.module, "config", None) or getattr(self.module, "cfg", None)
        return next((n for n in (getattr(config, key, None) for key in ("max_position_embeddings", "n_ctx", "block_size")) if isinstance(n, int)), 0)

    def parts(self, asked: Parts) -> tuple[Asked, ...]:
        """The parts by their names, each once: parameters and slices of the module, one part together, or names such as "1:6", each a part.

        Raises RllcError where the module has no such part, or both kinds are mixed.
        """
        if isinstance(asked, Mapping):
            return tuple(Asked(str(label), names=(names,) if isinstance(names, str) else tuple(names)) for label, names in asked.items())
        listed = _listed(asked)
        known = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        raw = [isinstance(text, str) and (text.partition("[")[0].strip() in known or not _is_part(text)) for text in listed]
        if all(raw):  # one of these may still be no parameter: the objective says so
            names = tuple(str(text) for text in listed)
            return (Asked(" + ".join(names), names=names),)
        if any(raw):
            raise RllcError(
                f"The parts mix parameters such as {listed[raw.index(True)]!r} with names such as {str(listed[raw.index(False)])!r}.",
                "Give either, or write a parameter as =name.",
            )
        if any(text == "random" or any(atom.kind == "random" for atom in _parsed(text).atoms) for text in listed if text != HEADS):
            raise RllcError(
                "Random parts are drawn on the native road alone, and this model goes the general one.", "Name its weights, or leave them out."
            )
        found = [part for text in listed for part in (_heads(self.module) if text == HEADS else [_parsed(text)])]
        return tuple(self._resolved(part) for part in dict.fromkeys(found))

    def _resolved(self, part: Part) -> Asked:
        from rllc.checkpoints.head_slices import head_slices

        lies = head_slices(self.module, part)
        return Asked(str(part), part, tuple(lies.names), tuple(lies.notes))


def take_road(model: Any, how: How) -> Native | General:
    """The road of a model: of ours, a folder of our checkpoint, a module of another library, or any module with a loss.

    A module without a loss is a language model: it is converted and goes the native road where it can, and the general road with its own forward
    pass otherwise, or where that is asked for. Libraries lay weights out in other orders than ours, so that the same noise falls on other weights:
    the two roads then agree within the error, not draw by draw.

    Raises:
        RllcError: the model is none of these, or cannot take the road that is asked for.
    """
    told: tuple[str, ...] = ()
    if isinstance(model, str | Path):
        model = _stored(str(model))
        told = getattr(model, "notes", ())
    if not isinstance(model, nn.Module):
        return replace(_native(model, how), notes=told or tuple(getattr(model, "notes", ())))
    if how.loss is not None:
        if how.road == "native":
            raise RllcError("A loss of your own is evaluated by your own module, which the native road does not call.", "Leave loss or road out.")
        return _general(model, how, how.loss, ())
    if how.road == "general":
        return _general(model, how, None, ())
    from rllc.checkpoints.importing import NotImportable, import_module

    try:
        imported = import_module(model)
    except NotImportable as error:  # a model that contradicts its own config is an error on every road
        if how.road == "native":
            raise
        return _general(model, how, None, (f"The general road was taken: {error.problem}",))
    if how.context > (most := imported.shape.n_ctx) and how.road != "native":
        why = f"The general road was taken: a context of {how.context} tokens is asked for, and the native road of this model has {most}."
        return _general(model, how, None, (why, *(note for note in imported.notes if note.startswith("n_ctx"))))
    device = how.device if how.device != "auto" else _device_of(model)
    return replace(_native(imported, how, device), notes=tuple(getattr(imported, "notes", ())))


@dataclass(frozen=True)
class _Stored:
    shape: ModelShape
    params: dict[str, Tensor]
    step: int
    notes: tuple[str, ...] = ()


def _stored(source: str) -> _Stored:
    """A checkpoint's folder or file, of ours or of another library, a folder with one checkpoint in it, or "owner/name@revision" of the hub."""
    folder = Path(source)
    found = list_checkpoints(folder)
    if len(found) > 1:
        steps = ", ".join(str(info.step) for info in found[:8])
        raise RllcError(f"{folder} holds {len(found)} checkpoints, of steps {steps}.", "Give the folder of one, or all of them to rllc.sweep.")
    if found or (folder / "checkpoint.json").exists():
        shape, params, info = load(found[0].folder if found else folder)
        return _Stored(shape, params, info.step)
    from rllc.checkpoints.series import Series
    from rllc.runs.importing import read_model

    series = Series.from_list([source]) if not folder.exists() and "@" in source else Series.of(source)
    if len(series) > 1:
        raise RllcError(f"{source} holds {len(series)} checkpoints.", "Give the folder of one, or all of them to rllc.sweep.")
    step, path = next(series.opened())
    imported = read_model(path)
    return _Stored(imported.shape, imported.params, step, imported.notes)


def _native(model: Any, how: How, where: str | torch.device = "") -> Native:
    shape, params = getattr(model, "shape", None), getattr(model, "params", None)
    if not isinstance(shape, ModelShape) or not isinstance(params, Mapping):
        raise RllcError(
            f"The model is a {type(model).__name__}, which is no model that can be sampled.",
            "Give a torch module, the folder of a checkpoint, or an object with `shape` (a ModelShape) and `params` (tensors by name).",
        )
    if how.road == "general" or how.loss is not None:
        problem = "A model of rllc's own family is no torch module, so that it cannot go the general road or take a loss of your own."
        raise RllcError(problem, "Leave road and loss out.")
    found = {name: tuple(tensor.shape) for name, tensor in params.items()}
    expected = shape.tensors()
    if found != expected:
        wrong = next(name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name))
        raise RllcError(
            f"The weights do not fit the shape: {wrong} is {found.get(wrong, 'absent')}, expected {expected.get(wrong, 'absent')}.",
            "Give the weights and the shape of one model.",
        )
    first = next(iter(params.values()))
    device = where if isinstance(where, torch.device) else first.device if how.device == "auto" else choose_device(how.device)
    own = first.dtype if first.dtype in (torch.float32, torch.float64) else torch.float32
    dtype = own if how.dtype == "auto" else getattr(torch, how.dtype)
    with torch.no_grad():
        moved = {name: params[name].detach().to(device=device, dtype=dtype) for name in expected}
    return Native(shape, moved, device, getattr(model, "step", None))


def _general(module: nn.Module, how: How, loss: Any, notes: tuple[str, ...]) -> General:
    if how.dtype != "auto":
        raise RllcError("The general road computes in the module's own type.", f"Leave dtype out, and give module.to(torch.{how.dtype}).")
    device = _device_of(module)
    if how.device not in ("auto", device.type):
        raise RllcError(f"The module lies on {device.type}, and {how.device} was asked for.", f'Move it: module.to("{how.device}").')
    small = next((str(p.dtype) for p in module.parameters() if p.is_floating_point() and p.dtype not in (torch.float32, torch.float64)), None)
    if small is not None:
        raise RllcError(f"The module holds weights of {small.removeprefix('torch.')}, too coarse for the sampler's steps.", "Give module.float().")
    if loss is not None:
        return General(module, loss, False, device, notes)
    from rllc.checkpoints.calling import language_loss

    return General(module, language_loss, True, device, notes)


def _device_of(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _heads(module: nn.Module) -> list[Part]:
    from rllc.checkpoints.recognise import recognise

    found = recognise(module)
    return [Part.of_head(layer, head) for layer in range(found.n_layers) for head in range(found.n_heads)]


def _listed(asked: str | Part | Sequence[str | Part]) -> list[str | Part]:
    listed = [asked] if isinstance(asked, str | Part) else list(asked)
    if not listed:
        raise RllcError("No part is named.", 'Give part="1:6", or another.')
    return listed


def _parsed(text: str | Part) -> Part:
    return text if isinstance(text, Part) else Part.parse(text)


def _is_part(text: str) -> bool:
    try:
        return text in SEVERAL or bool(Part.parse(text))
    except RllcError:
        return False


def _notes(shape: ModelShape, part: Part) -> tuple[str, ...]:
    """What of a part is shared with others."""
    notes: list[str] = []
    if any(atom.kind == "random" for atom in part.atoms):
        notes.append("A control: single weights of a layer's heads, drawn at random, of each tensor as many as one head holds.")
    if shape.shares_keys and any(atom.kind == "head" for atom in part.atoms):
        notes.append("Keys and values are shared by several heads and belong to none of them: a head is its Q and O alone.")
    if shape.qk_norm and shape.qk_norm_over == "layer" and any(s.head is not None and s.tensor[-1] in "QK" for s in slices(shape, part)):
        notes.append("The norms of queries and keys run over all heads of a layer at once, so that a head's Q or K changes the scale of the others'.")
    if shape.tied and any(str(s) == "embed.W_E" for s in slices(shape, part)):
        notes.append("Embedding and unembedding are one tensor: it is sampled once, and changes in both.")
    return tuple(notes)

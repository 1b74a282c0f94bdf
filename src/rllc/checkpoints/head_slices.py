"""From "1:6" to the parameters of somebody else's transformer, as `ModuleObjective` takes them: names with slices, and what is to be told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from rllc.checkpoints.head_layouts import EMBED, LEARNED, UNEMBED, Place
from rllc.checkpoints.recognise import Recognised, recognise
from rllc.core.errors import RllcError
from rllc.core.names import Atom, Part


@dataclass(frozen=True)
class PartSlices:
    """A part of a module, by its own names.

    Args:
        names: of parameters, with slices behind them: "transformer.h.0.attn.c_attn.weight[:, 64:128]". No two hold the same weights.
        notes: what belongs to the result, as sentences: what the part shares with others and so leaves out, what of it is exactly flat.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class _Span:
    """So many numbers of a tensor along an axis; without an axis all of it."""

    tensor: str
    axis: int = -1
    start: int = 0
    stop: int = 0
    numbered: bool = False

    def __str__(self) -> str:
        if self.axis < 0:
            return self.tensor
        numbers = str(self.start) if self.numbered and self.stop == self.start + 1 else f"{self.start}:{self.stop}"
        return f"{self.tensor}[{':, ' * self.axis}{numbers}]"


def head_slices(module: nn.Module, part: Part) -> PartSlices:
    """The parameters of a part of a module, as `ModuleObjective` takes them.

    Heads `1:6`, their pieces `1:6.Q`, groups that share keys and values `1:g0`, `1.attn`, `1.mlp` (without the norms before or after them), `embed`
    (the tokens' alone), `unembed`, and unions are found where the layout is known; `full` and `=parameter.name` in every module. Under
    grouped-query attention a head is its Q and O alone.

    Args:
        module: a transformer of transformers, TransformerLens or nanoGPT, alone or as a part of another module.
        part: of the grammar of `Part`.

    Raises:
        RllcError: the module has no such part, or nobody knows where its heads lie.
    """
    spans: dict[_Span, None] = {}
    notes: dict[str, None] = {}
    found = recognise(module) if any(atom.kind != "tensor" and atom.kind != "full" for atom in part.atoms) else None
    parameters: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False)) if found is None else found.parameters
    for atom in part.atoms:
        if found is not None and atom.kind in ("head", "group"):
            own = _head(found, atom)
            notes |= dict.fromkeys(_head_notes(found, atom, own))
        elif atom.kind == "tensor" and atom.tensor not in parameters:
            raise RllcError(
                f"The {type(module).__name__} has no parameter {atom.tensor!r}.", f"Its parameters are {', '.join([*parameters][:4])}, …."
            )
        else:
            own = [_Span(name) for name in ((atom.tensor,) if atom.kind == "tensor" else _whole(module, found, atom))]
        spans |= dict.fromkeys(own)
    if found is not None and any(atom.kind in ("embed", "unembed") for atom in part.atoms):
        notes |= dict.fromkeys(_tied(found, spans))
    return PartSlices(tuple(str(span) for span in _merged(spans, parameters)), tuple(notes))


def _missing(found: Recognised, atom: Atom) -> RllcError:
    groups = f", groups g0 to g{found.n_groups - 1}" if found.share > 1 else ""
    return RllcError(
        f"The part {str(atom)!r} does not exist in this {found.layout.name}.",
        f"It has layers 0 to {found.n_layers - 1} and heads 0 to {found.n_heads - 1} in each{groups}; any parameter can be named as =parameter.name.",
    )


def _head(found: Recognised, atom: Atom) -> list[_Span]:
    """Of a head, which owns its Q and O alone where keys and values are shared, or of a group: K, V, and Q and O of all its heads."""
    if atom.layer >= found.n_layers or atom.head >= (found.n_heads if atom.kind == "head" else found.n_groups):
        raise _missing(found, atom)
    pieces = atom.piece or "QKVO"
    if atom.kind == "head" and found.share > 1:
        if atom.piece and atom.piece in "KV":
            group = atom.head // found.share
            raise RllcError(
                f"The part {str(atom)!r} is shared by {_sharers(found, group)} of layer {atom.layer}.",
                f"Name it by the group: {atom.layer}:g{group}.{atom.piece}.",
            )
        pieces = atom.piece or "QO"
    spans: list[_Span] = []
    for piece in pieces:
        single = atom.kind == "head" or piece in "KV"
        blocks = [atom.head] if single else range(atom.head * found.share, (atom.head + 1) * found.share)
        spans += [_span(found, atom.layer, place, block) for place in found.layout.pieces[piece] for block in blocks]
    return [span for span in spans if span.tensor in found.parameters]


def _span(found: Recognised, layer: int, place: Place, block: int) -> _Span:
    start, stop = place.span(block, found.n_heads, found.n_groups, found.d_head)
    return _Span(found.attention(layer) + place.tensor, place.axis, start, stop, place.numbered)


def _sharers(found: Recognised, group: int) -> str:
    return f"heads {group * found.share} to {(group + 1) * found.share - 1}"


def _whole(module: nn.Module, found: Recognised | None, atom: Atom) -> tuple[str, ...]:
    """Names of whole parameters."""
    if found is None:
        found = _known(module)
    if found is None:
        return tuple(name for name, _ in module.named_parameters())
    if atom.kind == "full":
        return found.below("")
    if atom.kind == "attn":
        names = found.below(found.attention(atom.layer))
    elif atom.kind == "mlp":
        names = found.below(found.prefix + found.layout.layer.format(atom.layer) + found.layout.mlp)
    else:
        starts = EMBED if atom.kind == "embed" else UNEMBED
        steps = found.prefix.split(".")[:-1]
        names = found.below(*("".join(f"{step}." for step in steps[:n]) + start for n in range(len(steps) + 1) for start in starts))
    if not names:
        raise _missing(found, atom)
    return names


def _known(module: nn.Module) -> Recognised | None:
    try:
        return recognise(module)
    except RllcError:
        return None


def _head_notes(found: Recognised, atom: Atom, own: list[_Span]) -> Iterable[str]:
    layer, start = atom.layer, found.attention(atom.layer)
    if found.model_type and found.model_type not in found.layout.types:
        yield f"The type {found.model_type!r} was not verified: its heads are read as those of a {found.layout.name}, whose names and shapes it has."
    if atom.kind == "head" and found.share > 1:
        group = atom.head // found.share
        others = _sharers(found, group)
        yield f"Head {layer}:{atom.head} shares keys and values with {others} (group {layer}:g{group}): they are not in it, its Q and O are."
    if not atom.piece or atom.piece == "O":
        bias = start + found.layout.pieces["O"][0].tensor.replace("weight", "bias").replace("W_O", "b_O")
        if bias in found.parameters:
            yield "The output bias of attention belongs to all heads of a layer and is in none."
    norms = [name for name in found.parameters if name.startswith(start) and re.search(r"\b[qk]_norm\b", name)]
    if norms:
        wide = [name for name in norms if found.parameters[name].numel() > found.d_head]
        yield "The norms of queries and keys belong to all heads of a layer and are in none" + (
            "; they run over all heads at once, so that a head's Q or K changes the scale of the others'." if wide else "."
        )
    biased = any(span.tensor == start + place.tensor for span in own for place in found.layout.pieces["K"][1:])
    in_it = biased and (atom.kind == "group" or not atom.piece or atom.piece == "K")
    flat = 0 if norms or not in_it else _flat(found)
    if flat:
        which = (
            "The key bias is" if flat == found.d_head else f"{flat} of the {found.d_head} numbers of the key bias, those that are not rotated, are"
        )
        yield f"{which} exactly flat: the same is added to all scores of a query, and the loss does not depend on it."


def _flat(found: Recognised) -> int:
    """How many numbers of a head's key bias the loss does not depend on: those that positions do not turn."""
    config = found.config
    kind = getattr(config, "positional_embedding_type", None)  # of TransformerLens
    if kind is not None:
        capped = (getattr(config, "attn_scores_soft_cap", -1) or -1) > 0 or getattr(config, "use_attention_sinks", False)
        turned = (getattr(config, "rotary_dim", None) or found.d_head) if kind == "rotary" else 0
        return 0 if capped else found.d_head - turned
    if found.model_type in LEARNED or found.layout.name == "nanoGPT":
        return found.d_head
    rope = getattr(config, "rope_parameters", None) or {}
    part = rope.get("partial_rotary_factor", 1.0) if found.model_type in found.layout.types else 1.0
    turned = int(found.d_head * part)
    return found.d_head - turned - turned % 2  # numbers are turned in pairs


def _tied(found: Recognised, spans: Iterable[_Span]) -> Iterable[str]:
    for span in spans:
        tensor = found.parameters.get(span.tensor)
        names = [name for name, other in found.parameters.items() if other is tensor and name.endswith("weight")]
        roles = {role for role, starts in (("embed", EMBED), ("unembed", UNEMBED)) for name in names for s in starts if f".{s}" in f".{name}"}
        if len(roles) == 2:
            yield f"Embedding and unembedding are one tensor ({', '.join(names)}): it is sampled once, and changes in both."


def _merged(spans: Iterable[_Span], parameters: dict[str, Tensor]) -> list[_Span]:
    """Every weight once, in the order of the module: slices of what is there as a whole left out, neighbours joined."""
    first = {id(tensor): name for name, tensor in reversed(parameters.items())}
    order = {name: place for place, name in enumerate(parameters)}
    renamed: dict[tuple[str, int, int, int, bool], _Span] = {}
    for span in spans:
        renamed.setdefault((first[id(parameters[span.tensor])], span.axis, span.start, span.stop, span.numbered), span)
    whole = {key[0] for key in renamed if key[1] < 0}
    kept = sorted((key for key in renamed if key[1] < 0 or key[0] not in whole), key=lambda key: (order[key[0]], *key[1:]))
    joined: list[_Span] = []
    for key in kept:
        span = renamed[key]
        last = joined[-1] if joined else None
        if last is not None and (last.tensor, last.axis, last.stop) == (span.tensor, span.axis, span.start) and span.axis >= 0:
            joined[-1] = _Span(span.tensor, span.axis, last.start, span.stop, span.numbered)
        else:
            joined.append(span)
    return joined

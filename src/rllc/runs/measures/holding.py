"""What the record of each kind of measurement holds: the names of its meta, and its arrays with their axes. Torch-free.

Whoever reads such a record takes it at its word; so what is written here is asked of it before anyone does. A measurement that gains an array gains a
line here.

An array is told by the kinds of number that it may hold ("f" floats, "i" whole numbers, "u" bytes, "b" truths) and by its axes. An axis is a
list of the meta, of which it has the length; a number, which it has; "≤" and a count of the meta, of which it has one bit each in whole bytes;
or any other word, which is equally long wherever it stands in the record. A name in braces stands for each entry of a list of the meta, and "#"
for the numbers of its entries, whose own lengths "tokens" then tells. A "?" before a name marks arrays that a record may be without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from rllc.behaviour.settings import MeasureName
from rllc.runs.experiment import MIXTURE

Arrays = Mapping[str, NDArray[Any]]
Meta = Mapping[str, Any]


def _each(names: str, what: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), what)


_SCORES = "previous_token current_token prefix_matching first_token duplicate_token"
_PAIRED = [f"{kind}{more}" for kind in "qkv" for more in ("", "_deviation", "_freedom")]
_TEXTS, _PAIRS = {"data": "texts"}, {"pairs": "pairs"}

META: Mapping[MeasureName, Mapping[str, str]] = {
    "behaviour": _TEXTS | {"snippets": "texts", "tokens": "lists of texts"},
    "composition": _PAIRS,
    "ablation": _TEXTS | {"kinds": "texts"},
    "ngrams": {"orders": "counts"},
    "tokens": _TEXTS
    | {"kind": "text", "classes": "texts", "snippets": "texts", "tokens": "lists of texts", "fractions": "numbers", "overlap": "number"},
    "paths": _TEXTS | _PAIRS | {"kind": "text", "inputs": "texts"},
    "tables": _TEXTS,
    "memorised": {"kinds": "texts", "tried": "count", "rules": "rules", "thresholds": "numbers", "withins": "counts", "examples": "examples"}
    | {"patterns": "text", "count": "count"},
    "baselines": {"names": "texts"},
}

ARRAYS: Mapping[MeasureName, Mapping[str, str]] = {
    "behaviour": {f"{what}/{name}": "f heads" for name in _SCORES.split() for what in ("score", "score_stderr")}
    | _each("losses losses_stderr icl icl_stderr", "f data")
    | {"position_losses": "f data position", "pattern/#snippets": "u heads tokens tokens"},
    "composition": dict.fromkeys(_PAIRED, "f pairs") | {"baseline": "f"},
    "ablation": _each("loss loss_stderr", "f data")
    | _each("{kinds}/effect {kinds}/stderr {kinds}/normalised {kinds}/normalised_stderr", "f heads data"),
    "ngrams": _each("bigram/score bigram/stderr bigram/floor bigram/excess bigram/excess_stderr", "f")
    | {"{orders}": "f 3", "skip": "f 3", "entropy": "f orders"},
    "tokens": _each("shares low high excess_low excess_high", "f data heads fractions classes")
    | _each("effect effect_stderr", "f data heads classes")
    | _each("overlap_heads correlation correlation_stderr", "f data heads heads")
    | _each("closer_effect closer_stderr", "f data heads depth")
    | {"base": "f data classes", "closers": "fi data depth", "snippet/#snippets": "f heads tokens", "primary/#snippets": "i tokens"}
    | {"?most/tokens": "i data heads most window", "?most/effect": "f data heads most", "?most/flags": "b data heads most classes"},
    "paths": _each("effect stderr", "f inputs pairs data") | _each("direct direct_stderr", "f heads data") | {"loss": "f data"},
    "tables": {"ov/tokens": "i heads entries 2", "ov/values": "f heads entries", "?qk/tokens": "i heads others 2", "?qk/values": "f heads others"}
    | _each("attribution attribution_stderr", "f heads data")
    | {"copying": "f heads"},
    "memorised": _each("found own", "i heads kinds") | _each("found_by own_by", "i heads thresholds withins kinds") | {"held": "u heads ≤count"},
    "baselines": _each("value/{names} stderr/{names}", "f heads"),
}


def lacks(kind: MeasureName, meta: Meta, arrays: Arrays) -> str:
    """What a record of this kind lacks that its readers need, or what does not fit the rest of it, in words; empty where nothing does."""
    for name, what in {"heads": "texts", **META[kind]}.items():
        if name not in meta or not _IS[what](meta[name]):
            return f"it does not tell its {name}"
    if "snippets" in META[kind] and len(meta["tokens"]) != len(meta["snippets"]):
        return "its tokens are not those of its snippets"
    if kind == "behaviour" and MIXTURE not in meta["data"]:
        return f"it tells nothing of the {MIXTURE}"
    free: dict[str, int] = {}
    for told, what in ARRAYS[kind].items():
        kinds, *axes = what.split()
        for name, sizes in _named(told.removeprefix("?"), meta):
            if name not in arrays:
                if told.startswith("?"):
                    continue
                return f"it holds no {name}"
            array = arrays[name]
            known = {axis: _size(axis, meta, sizes) for axis in axes}
            wanted = [free.setdefault(axis, length) if known[axis] is None else known[axis] for axis, length in zip(axes, array.shape, strict=False)]
            if array.dtype.kind not in kinds or array.ndim != len(axes) or list(array.shape) != wanted:
                return f"its array {name} is not one of {', '.join(axes) or 'one number'}"
    together = [told.removeprefix("?") in arrays for told in ARRAYS[kind] if told.startswith("?")]
    return "" if all(together) or not any(together) else "it holds some of the arrays that belong together, and not all"


def _named(told: str, meta: Meta) -> Iterator[tuple[str, dict[str, int]]]:
    """The arrays that a name stands for, with the lengths of axes that are their own."""
    before, brace, listed = told.partition("{")
    if brace:
        of, _, behind = listed.partition("}")
        yield from ((f"{before}{value}{behind}", {}) for value in meta[of])
    elif "#" in told:
        before, _, of = told.partition("#")
        yield from ((f"{before}{i}", {"tokens": len(meta["tokens"][i])}) for i in range(len(meta[of])))
    else:
        yield told, {}


def _size(axis: str, meta: Meta, own: Mapping[str, int]) -> int | None:
    """How long an axis has to be; None where only its likes tell."""
    if axis.isdigit():
        return int(axis)
    if axis.startswith("≤"):
        return -(-meta[axis[1:]] // 8)
    return own[axis] if axis in own else len(meta[axis]) if isinstance(meta.get(axis), list) else None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) < 2**63)


def _listed(one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(one, value))


def _example(value: Any) -> bool:
    """Text, kind, mean, standard error, contexts."""
    return isinstance(value, list) and len(value) == 5 and all(map(_text, value[:2])) and all(map(_number, value[2:4])) and _count(value[4])


_IS: Mapping[str, Callable[[Any], bool]] = {
    "text": _text,
    "count": _count,
    "number": _number,
    "texts": _listed(_text),
    "counts": _listed(_count),
    "numbers": _listed(_number),
    "pairs": _listed(lambda value: isinstance(value, list) and len(value) == 2 and all(map(_text, value))),
    "lists of texts": _listed(_listed(_text)),
    "rules": lambda value: isinstance(value, dict) and _number(value.get("threshold")) and _count(value.get("within")),
    "examples": _listed(_listed(_example)),
}

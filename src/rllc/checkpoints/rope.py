"""Rotary positions in configs of transformers: `rope_parameters` since release 5, `rope_theta` and `rope_scaling` before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rllc.checkpoints.foreign import Settings, not_importable
from rllc.core.errors import RllcError

FULL, SLIDING = "full_attention", "sliding_attention"


def rotary(
    settings: Settings,
    d_head: int,
    share: float = 1.0,
    base_name: str = "rope_theta",
    partial_name: str = "partial_rotary_factor",
    partial: bool = False,
    base: float = 10_000.0,
) -> dict[str, Any]:
    """The rotary fields of our shape.

    Args:
        d_head: head dimension K.
        share: the share of a head that is turned where the config does not say.
        base_name: how the family called the base before release 5.
        partial_name: how it called the share.
        partial: whether the family turns another share than all where the config says so.
        base: the base where the config does not say.

    Raises NotImportable for a stretching other than an even one and that of Llama 3.1.
    """
    given = settings.get("rope_parameters") or settings.get("rope_scaling", {})
    kinds = settings.get("layer_types", ())
    if any(isinstance(value, dict) for value in given.values()):
        if not kinds or not all(kind in (FULL, SLIDING) and given.get(kind) for kind in kinds):
            raise not_importable(settings.what, "its layers have rotary positions of several kinds (rope_parameters)")
        full, sliding = (like(settings, d_head, given[kind]) if kind in kinds else None for kind in (FULL, SLIDING))
        return by_layer(settings, full, sliding, kinds)
    general = {"rope_theta": settings.get(base_name, base), "partial_rotary_factor": settings.get(partial_name, share)}
    return like(settings, d_head, general | given, partial, partial_name)


def like(
    settings: Settings, d_head: int, given: Mapping[str, Any], partial: bool = False, partial_name: str = "partial_rotary_factor"
) -> dict[str, Any]:
    """The rotary fields of layers that are all alike, from their settings as release 5 has them.

    Raises NotImportable for a stretching other than an even one and that of Llama 3.1.
    """
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in _SCALING:
        raise not_importable(
            settings.what, f"its rotary frequencies are stretched by {kind!r} (rope_type), and the known ways are {', '.join(_SCALING)}"
        )
    share = given.get("partial_rotary_factor", 1.0)
    turned = int(d_head * share)
    if turned < 1 or (share != 1 and not partial):
        raise not_importable(settings.what, f"its rotary positions turn {turned} of a head's {d_head} numbers ({partial_name} = {share})")
    return {
        "positions": "rotary",
        "rotary_dim": 0 if turned == d_head else turned,
        "rotary_base": float(given.get("rope_theta", 10_000.0)),
        "rotary_scaling": _SCALING[kind](settings, given),
    }


def layer_kinds(settings: Settings, period: int) -> tuple[str, ...]:
    """Which layers see a window: as the config says, or all but every `period`-th."""
    given = settings.get("layer_types")
    return tuple(given) if given else tuple(FULL if (i + 1) % period == 0 else SLIDING for i in range(settings.whole("num_hidden_layers")))


def by_layer(settings: Settings, full: dict[str, Any] | None, sliding: dict[str, Any] | None, kinds: Sequence[str]) -> dict[str, Any]:
    """The rotary fields of a model whose layers may be of two kinds, from those of either; None for a kind that it has not.

    Raises NotImportable where frequencies of sliding layers are stretched, and otherwise than the others.
    """
    if full is None or sliding is None or full == sliding or len(set(kinds)) == 1:
        return (full if FULL in kinds else sliding) or {}
    if sliding["rotary_scaling"]:
        raise not_importable(settings.what, "the rotary frequencies of its sliding layers are stretched in a way of their own (rope_parameters)")
    local = tuple(layer for layer, kind in enumerate(kinds) if kind == SLIDING)
    return full | {"local_layers": local, "local_rotary_base": sliding["rotary_base"]}


def _plain(*_: Any) -> tuple[float, ...]:
    return ()


def _llama3(settings: Settings, given: Mapping[str, Any]) -> tuple[float, ...]:
    original = given.get("original_max_position_embeddings", settings.get("max_position_embeddings"))
    values = given.get("factor"), given.get("low_freq_factor"), given.get("high_freq_factor"), original
    if not all(isinstance(value, int | float) for value in values):
        raise RllcError(
            f"The rope settings of {settings.what} are {dict(given)}, without all of factor, low_freq_factor and high_freq_factor.",
            "Give the whole config that belongs to the weights.",
        )
    return tuple(float(value) for value in values if value is not None)


def _linear(settings: Settings, given: Mapping[str, Any]) -> tuple[float, ...]:
    factor = given.get("factor")
    if not isinstance(factor, int | float):
        raise RllcError(
            f"The rope settings of {settings.what} are {dict(given)}, without a factor.", "Give the whole config that belongs to the weights."
        )
    return () if factor == 1 else (float(factor),)


_SCALING = {"default": _plain, "linear": _linear, "llama3": _llama3}

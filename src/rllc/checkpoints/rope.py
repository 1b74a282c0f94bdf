"""Rotary positions in configs of transformers: `rope_parameters` since release 5, `rope_theta` and `rope_scaling` before."""

from __future__ import annotations

from typing import Any

from rllc.checkpoints.foreign import Settings, not_importable
from rllc.core.errors import RllcError


def rotary(
    settings: Settings, d_head: int, partial: float = 1.0, base_name: str = "rope_theta", partial_name: str = "partial_rotary_factor"
) -> dict[str, Any]:
    """The rotary fields of our shape.

    Args:
        d_head: head dimension K.
        partial: the share of a head that is turned where the config does not say.
        base_name: how the family called the base before release 5.
        partial_name: how it called the share.

    Raises NotImportable for a stretching other than that of Llama 3.1.
    """
    given = settings.get("rope_parameters") or settings.get("rope_scaling", {})
    if any(isinstance(value, dict) for value in given.values()):
        raise not_importable(settings.what, "its layers have rotary positions of several kinds (rope_parameters)")
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in _SCALING:
        raise not_importable(
            settings.what, f"its rotary frequencies are stretched by {kind!r} (rope_type), and the known ways are {', '.join(_SCALING)}"
        )
    share = given.get("partial_rotary_factor", settings.get(partial_name, partial))
    turned = int(d_head * share)
    if turned < 1 or (share != 1 and partial == 1):
        raise not_importable(settings.what, f"its rotary positions turn {turned} of a head's {d_head} numbers ({partial_name} = {share})")
    return {
        "positions": "rotary",
        "rotary_dim": 0 if turned == d_head else turned,
        "rotary_base": float(given.get("rope_theta") or settings.get(base_name, 10_000.0)),
        "rotary_scaling": _SCALING[kind](settings, given),
    }


def _plain(*_: Any) -> tuple[float, ...]:
    return ()


def _llama3(settings: Settings, given: dict[str, Any]) -> tuple[float, ...]:
    original = given.get("original_max_position_embeddings", settings.get("max_position_embeddings"))
    values = given.get("factor"), given.get("low_freq_factor"), given.get("high_freq_factor"), original
    if not all(isinstance(value, int | float) for value in values):
        raise RllcError(
            f"The rope settings of {settings.what} are {given}, without all of factor, low_freq_factor and high_freq_factor.",
            "Give the whole config that belongs to the weights.",
        )
    return tuple(float(value) for value in values if value is not None)


_SCALING = {"default": _plain, "llama3": _llama3}

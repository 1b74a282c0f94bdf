"""Gemma 1 to 3 as Hugging Face has them: Llama's kin whose norms weigh by 1 + w and whose embeddings are scaled; later ones norm twice and cap."""

from __future__ import annotations

from typing import Any

from rllc.checkpoints.foreign import Settings
from rllc.checkpoints.from_llama import Kin
from rllc.checkpoints.rope import by_layer, layer_kinds, like

_TANH = "gelu_pytorch_tanh"
_BIDIRECTIONAL = {"use_bidirectional_attention": (bool, "its attention looks ahead")}


def _all(settings: Settings, activation: str) -> dict[str, Any]:
    return {"embedding_scale": settings.whole("hidden_size") ** 0.5, "activation": settings.activation(activation, _TANH)}


def _first(settings: Settings) -> dict[str, Any]:
    # Gemma's first configs say "gelu" and mean its approximation, which transformers puts in its place.
    legacy = settings.get("hidden_act") == "gelu"
    return _all(settings, "hidden_act") | ({"activation": "gelu_tanh"} if legacy else {})


def _capped(settings: Settings, name: str, default: float) -> float:
    """A cap, which the config may leave out (then it is the default) or set to None (then there is none)."""
    return float(settings.values.get(name, default) or 0.0)


def _later(settings: Settings) -> dict[str, Any]:
    settings.refuse(_BIDIRECTIONAL)
    scale = float(settings.get("query_pre_attn_scalar", 256)) ** -0.5
    return _all(settings, "hidden_activation") | {"score_scale": scale}


def _second(settings: Settings) -> dict[str, Any]:
    caps = {"score_softcap": _capped(settings, "attn_logit_softcapping", 50.0), "logit_softcap": _capped(settings, "final_logit_softcapping", 30.0)}
    return _later(settings) | caps


def _third(settings: Settings) -> dict[str, Any]:
    settings.refuse({"attn_logit_softcapping": (bool, "it caps attention scores, which transformers' Gemma 3 does not")})
    found = _later(settings) | {"logit_softcap": _capped(settings, "final_logit_softcapping", 0.0)}
    if "rope_parameters" in settings.values:
        return found
    # Before release 5 of transformers; sliding layers turn by a base of their own, and are not stretched.
    d_head, stretched = settings.whole("head_dim", 256), settings.get("rope_scaling", {})
    full = like(settings, d_head, {"rope_theta": settings.get("rope_theta", 1_000_000.0), **stretched})
    sliding = like(settings, d_head, {"rope_theta": settings.get("rope_local_base_freq", 10_000.0)})
    return found | by_layer(settings, full, sliding, layer_kinds(settings, settings.whole("sliding_window_pattern", 6)))


GEMMA = Kin(unit_norm=True, tied=True, more=_first)
GEMMA2 = Kin(unit_norm=True, tied=True, norm_place="both", window=True, window_size=4096, more=_second)
GEMMA3 = Kin(unit_norm=True, tied=True, norm_place="both", window=True, window_size=4096, qk_norm="head", more=_third)

"""How queries, keys and values meet: past their norms, turned by their positions, scored, capped and attended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from rllc.model.rotary import rotate
from rllc.model.shape import ModelShape
from rllc.model.softcap import capped

if TYPE_CHECKING:
    from jaxtyping import Float

_CACHE_LINE = 16  # numbers of fp32 in 64 bytes


def attend(shape: ModelShape, q: Float[Tensor, "N H T K"], k: Float[Tensor, "N H T K"], v: Float[Tensor, "N H T K"]) -> Float[Tensor, "N H T K"]:
    """Causal attention over [N, H, T, K].

    The kernel's last bits depend on how a sequence lies in memory; with K padded to whole cache lines all lie alike, so that equal sequences
    give equal results wherever they stand in the batch. It knows no cap: capped scores are made as a whole.
    """
    if shape.score_softcap:
        return attention_weights(shape, q, k) @ v
    size = q.shape[-1]
    if rest := -size % _CACHE_LINE:
        q, k, v = (F.pad(x, (0, rest)) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=shape.scale)[..., :size]


def attention_weights(shape: ModelShape, q: Float[Tensor, "*N T K"], k: Float[Tensor, "*N T K"]) -> Float[Tensor, "*N T T"]:
    """The causal attention pattern [..., T, T] of queries and keys [..., T, K]."""
    scores = capped((q * shape.scale) @ k.mT, shape.score_softcap)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1)


def placed(shape: ModelShape, layer: int, weight: Tensor | None, x: Float[Tensor, "*#N T K"]) -> Float[Tensor, "*N T K"]:
    """Queries or keys as they meet: past their norm, where there is one with its weight, and turned by their positions.

    The weight is [K] or [C, K]; [H, K] or [C, H, K] where the norm runs over all heads of x [C, B, H, T, K].
    """
    return rotate(shape, layer, x if weight is None else _normed(shape, weight, x))


def _normed(shape: ModelShape, weight: Tensor, x: Float[Tensor, "*#N T K"]) -> Float[Tensor, "*N T K"]:
    if shape.qk_norm_over == "head":
        return F.rms_norm(x, (shape.d_head,), eps=shape.norm_eps) * (weight if weight.ndim == 1 else weight[:, None, None, None])
    weight = weight[:, None] if weight.ndim == 2 else weight[:, None, :, None]
    return x * (x.square().mean((-3, -1), keepdim=True) + shape.norm_eps).rsqrt() * weight

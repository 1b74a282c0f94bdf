"""Rotary positions: how fast each pair of numbers of a query or key turns from one position to the next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float


def frequencies(shape: ModelShape, layer: int) -> Float[Tensor, " half"]:
    """Radians a position of each pair in a layer, in float64.

    Where the shape stretches them by a factor, all are slowed down by it. As Llama 3.1 does it, pairs that turn at least `high` times within the
    original context stay as they are, those that turn at most `low` times are slowed down by the factor, and those between are interpolated.
    """
    half = shape.turned // 2
    local = layer in shape.local_layers
    plain = (shape.local_rotary_base if local else shape.rotary_base) ** (-torch.arange(half, dtype=torch.float64) / half)
    if local or not shape.rotary_scaling:
        return plain
    if len(shape.rotary_scaling) == 1:
        return plain / shape.rotary_scaling[0]
    factor, low, high, original = shape.rotary_scaling
    turns = original * plain / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / factor


def rotate(shape: ModelShape, layer: int, x: Float[Tensor, "*N T K"]) -> Float[Tensor, "*N T K"]:
    """Rotary positions on queries or keys [..., T, K] of a layer, halves convention; numbers beyond `rotary_dim` stay. The identity for others."""
    if shape.positions != "rotary":
        return x
    half = shape.turned // 2
    angles = torch.arange(x.shape[-2], dtype=torch.float64, device=x.device)[:, None] * frequencies(shape, layer).to(x.device)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)

"""Soft caps: numbers that never exceed a bound, and are nearly themselves far below it (Gemma 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def capped(x: Float[Tensor, "*N"], cap: float) -> Float[Tensor, "*N"]:
    """The bounded cap tanh(x / cap); x itself where the cap is 0."""
    return cap * torch.tanh(x / cap) if cap else x


def cap_(x: Float[Tensor, "*N"], cap: float) -> Float[Tensor, "*N"]:
    """The same in place."""
    return x.div_(cap).tanh_().mul_(cap) if cap else x


def through_cap_(gradient: Float[Tensor, "*N"], after: Float[Tensor, "*N"], cap: float) -> Float[Tensor, "*N"]:
    """The gradient before the cap, from that behind it and what came out of it; in place of the former, and the latter is used up."""
    return gradient.addcmul_(gradient, after.div_(cap).square_(), value=-1) if cap else gradient

"""Where the heads lie in the matrices of other libraries. All is in rows of a linear layer [out, in], or in its bias [out]; results are views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def by_head(rows: Float[Tensor, "NK ..."], n_heads: int) -> Float[Tensor, "{n_heads} ..."]:
    """Head after head: [N K, D] as [N, D, K], or [N K] as [N, K]."""
    split = rows.unflatten(0, (n_heads, -1))
    return split.mT if split.ndim == 3 else split


def thirds(rows: Float[Tensor, "QKV ..."], n_heads: int) -> dict[str, Float[Tensor, "{n_heads} ..."]]:
    """The queries of all heads, then their keys, then their values (GPT-2)."""
    return {piece: by_head(third, n_heads) for piece, third in zip("QKV", rows.chunk(3), strict=True)}


def interleaved(rows: Float[Tensor, "QKV ..."], n_heads: int) -> dict[str, Float[Tensor, "{n_heads} ..."]]:
    """The query, key and value of one head, then those of the next (GPT-NeoX)."""
    pieces = rows.unflatten(0, (n_heads, 3, -1)).unbind(1)
    return {piece: rows.mT if rows.ndim == 3 else rows for piece, rows in zip("QKV", pieces, strict=True)}


def behind_heads(weight: Float[Tensor, "D HK"], n_heads: int) -> Float[Tensor, "{n_heads} K D"]:
    """The layer that reads all heads, head after head in its columns: [D, H K] as [H, K, D]."""
    return weight.t().unflatten(0, (n_heads, -1))

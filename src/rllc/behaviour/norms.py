"""Baselines that need no data: the size of a part's weights, and of how many directions a head's circuits are made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rllc.core.names import Head, Part
from rllc.model.parts import select
from rllc.model.shape import ModelShape


def weight_norm(shape: ModelShape, params: Mapping[str, Tensor], part: Part) -> float:
    """The euclidean norm of all weights of a part, biases in it. Raises RllcError where the model has no such part."""
    return float(sum(t.double().square().sum() for t in select(shape, params, part).values()) ** 0.5)


def participation_ratio(spectrum: ArrayLike) -> float:
    """`(Σ|x|)² / Σx²` of a spectrum x: n where n numbers are equal and the rest zero; 0 for no spectrum or all zeros.

    Of a matrix x are the singular values; of a Hessian the eigenvalues, where those found alone count.

    >>> participation_ratio([2.0, 2.0, 0.0])
    2.0
    """
    x = np.abs(np.asarray(spectrum, np.float64))
    square = float((x**2).sum())
    return float(x.sum() ** 2 / square) if square else 0.0


def circuit_ratios(shape: ModelShape, params: Mapping[str, Tensor], head: Head) -> tuple[float, float]:
    """Participation ratios of the singular values of `W_QK = W_Q W_Kᵀ` and `W_OV = W_V W_O` of a head, from 1 to K; biases and norms left out."""
    prefix = f"blocks.{head.layer}.attn.W_"
    group = head.index // (shape.n_heads // shape.groups)
    q, k, v, o = (params[prefix + z][i].double() for z, i in (("Q", head.index), ("K", group), ("V", group), ("O", head.index)))
    return participation_ratio(_singular(q, k.T)), participation_ratio(_singular(v, o))


def _singular(left: Tensor, right: Tensor) -> ArrayLike:
    """Of a product [D, K] [K, D], from its K × K core: nothing of D × D is decomposed."""
    return torch.linalg.svdvals(torch.linalg.qr(left).R @ torch.linalg.qr(right.T).R.T).cpu().numpy()

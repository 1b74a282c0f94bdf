"""How much a head reads of what an earlier head writes, from the weights alone: composition scores of all pairs (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float

Floats = NDArray[np.float64]
_ROUNDING = 1e-9  # of the mean squared score, where turns change nothing: a head of flat spectrum as wide as the model


@dataclass(frozen=True)
class Composition:
    """Composition scores, 0 to 1, rows the earlier head, columns the later; NaN where the row's layer is not the earlier one.

    The null is each pair's own two matrices turned against each other at random, their spectra kept: heads that write or read few directions meet by
    chance far more unevenly than Gaussian matrices do.

    Args:
        q, k, v: [H, H] by input of the later head.
        baseline: root mean square of a score under random turns, `1/√D` for all spectra.
        deviation: [H, H] by input, the standard deviation of the squared score under random turns.
        freedom: [H, H] by input, the degrees of freedom of the χ² that is as skew as the squared score then.
    """

    q: Floats
    k: Floats
    v: Floats
    baseline: float
    deviation: Mapping[str, Floats]
    freedom: Mapping[str, Floats]

    def excess(self, kind: str) -> Floats:
        """Scores [H, H] of a kind, "q", "k" or "v", less the random baseline."""
        return {"q": self.q, "k": self.k, "v": self.v}[kind] - self.baseline


@torch.no_grad()
def composition(shape: ModelShape, params: Mapping[str, Tensor], *, folded: bool = True) -> Composition:
    """Q-, K- and V-composition of every pair of heads (Elhage et al. 2021), in row convention x·W, with W_QK = W_Q W_Kᵀ and W_OV = W_V W_O.

    Q: ‖W_OV1 W_QK2‖ / (‖W_OV1‖ ‖W_QK2‖), K: with W_QK2ᵀ, V: with W_OV2; Frobenius norms. A head whose matrix is zero composes with nothing: 0.

    With `folded`, what reads the stream reads it past its norm: W_Q, W_K and W_V are multiplied by the weights of the norm before them, and
    LayerNorm's subtraction of the mean is part of them, and so for W_O of a norm behind the heads; divisions are left out, as they cancel.
    Without, the tensors are taken as they are. Biases, positions (rotary turning too), norms of queries and keys, and MLPs between the heads
    are left out.

    Under a random turn of the D directions between what one head writes and the other reads, with p and r the shares of the squared singular values
    of both, the squared score is `Σ p_i r_j q_ij²` of a random orthogonal matrix q. Its mean is 1/D; its variance follows from the fourth moments of
    q, and its skewness is that of independent normal q, `8 Σp³ Σr³ / (2 Σp² Σr²)^1.5`, whose far tail is no thinner.

    No product of D × D is formed: with K the head dimension, ‖A M C‖ of A [D, K], M [K, K], C [K, D] is ‖R_A M R_Cᵀ‖ of their QR factors.

    Raises RllcError for a single layer.
    """
    if shape.n_layers < 2:
        raise RllcError("Heads compose across layers, and this model has one.", "Give a model of two layers or more.")
    pieces = {piece: torch.cat([_tensor(shape, params, layer, piece, folded) for layer in range(shape.n_layers)]) for piece in "QKVO"}
    q, k, v, o = (pieces[piece] for piece in "QKVO")
    earlier = torch.arange(shape.n_layers, device=q.device).repeat_interleave(shape.n_heads)
    outside = (earlier[:, None] >= earlier[None]).cpu().numpy()
    scores = {kind: _scores(v, o, left, right) for kind, left, right in (("q", q, k), ("k", k, q), ("v", v, o.mT))}
    for table in scores.values():
        table[outside] = np.nan
    ov, qk = _shares(v, o.mT), _shares(q, k)
    turned = {kind: _turned(ov, read, shape.d_model) for kind, read in (("q", qk), ("k", qk), ("v", ov))}
    deviation, freedom = ({kind: laws[i] for kind, laws in turned.items()} for i in (0, 1))
    return Composition(**scores, baseline=shape.d_model**-0.5, deviation=deviation, freedom=freedom)


def _tensor(shape: ModelShape, params: Mapping[str, Tensor], layer: int, piece: str, folded: bool) -> Float[Tensor, "H D K"] | Float[Tensor, "H K D"]:
    """One of Q, K, V, O of all heads of a layer, in float64; shared keys and values once for each head."""
    weight = params[f"blocks.{layer}.attn.W_{piece}"].double()
    if piece in "KV":
        weight = weight.repeat_interleave(shape.n_heads // shape.groups, 0)
    if piece != "O" and folded:
        if (scale := params.get(f"blocks.{layer}.ln1.w")) is not None:
            weight = scale.double()[:, None] * weight
        if shape.norm.startswith("layernorm") and shape.norms_before:
            weight = weight - weight.mean(1, keepdim=True)
    if piece == "O" and folded and shape.norms_behind:
        if shape.norm.startswith("layernorm"):
            weight = weight - weight.mean(2, keepdim=True)
        if (scale := params.get(f"blocks.{layer}.ln1_post.w")) is not None:
            weight = weight * scale.double()
    return weight


def _scores(v: Float[Tensor, "N D K"], o: Float[Tensor, "N K D"], near: Float[Tensor, "M D K"], far: Float[Tensor, "M D K"]) -> Float[Floats, "N M"]:
    """‖V O near farᵀ‖ / (‖V O‖ ‖near farᵀ‖) of all pairs."""
    r_v, r_o, r_near, r_far = (torch.linalg.qr(x, mode="r")[1] for x in (v, o.mT, near, far))
    sizes = torch.linalg.matrix_norm(r_v @ r_o.mT)[:, None] * torch.linalg.matrix_norm(r_near @ r_far.mT)[None]
    found = torch.empty_like(sizes)
    for i in range(len(v)):  # pair by pair of layers would save half, and costs [N, M, K, K] at once
        found[i] = torch.linalg.matrix_norm(r_v[i] @ (o[i] @ near) @ r_far.mT)
    return torch.where(sizes > 0, found / sizes.where(sizes > 0, 1), 0.0).cpu().numpy()


def _shares(left: Float[Tensor, "H D K"], right: Float[Tensor, "H D K"]) -> Float[Floats, "H R"]:
    """Shares of the squared singular values of left·rightᵀ; NaN of a matrix that is zero."""
    r_left, r_right = (torch.linalg.qr(x, mode="r")[1] for x in (left, right))
    squares = torch.linalg.svdvals(r_left @ r_right.mT).square().cpu().numpy()
    total = squares.sum(axis=1, keepdims=True)
    return squares / np.where(total > 0, total, np.nan)


def _turned(p: Float[Floats, "N K"], r: Float[Floats, "M K"], width: int) -> tuple[Float[Floats, "N M"], Float[Floats, "N M"]]:
    """Standard deviation of `Σ p_i r_j q_ij²` for a random orthogonal q of this width, and the degrees of freedom of a χ² as skew."""
    (a2, a3), (b2, b3) = ([(shares**power).sum(axis=1) for power in (2, 3)] for shares in (p, r))
    a2, a3 = a2[:, None], a3[:, None]
    same, line, apart = 3 / (width * (width + 2)), 1 / (width * (width + 2)), (width + 1) / (width * (width - 1) * (width + 2))
    squares = same * a2 * b2 + line * (a2 * (1 - b2) + (1 - a2) * b2) + apart * (1 - a2) * (1 - b2)  # E q_ij² q_kl² by what the places share
    return np.sqrt(np.maximum(squares - width**-2, (_ROUNDING / width) ** 2)), (a2 * b2) ** 3 / (a3 * b3) ** 2

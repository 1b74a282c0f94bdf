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
from rllc.core.seeds import generator
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Composition:
    """Composition scores, 0 to 1, rows the earlier head, columns the later; NaN where the row's layer is not the earlier one.

    Args:
        q, k, v: [H, H] by input of the later head.
        baseline: the mean score of random matrices of the same sizes.
        baseline_stderr: its standard error over the draws.
        baseline_deviation: the standard deviation of one random pair's score: what a pair must stand out from.
    """

    q: Floats
    k: Floats
    v: Floats
    baseline: float
    baseline_stderr: float
    baseline_deviation: float

    def excess(self, kind: str) -> Floats:
        """Scores [H, H] of a kind, "q", "k" or "v", less the random baseline."""
        return {"q": self.q, "k": self.k, "v": self.v}[kind] - self.baseline


@torch.no_grad()
def composition(shape: ModelShape, params: Mapping[str, Tensor], *, folded: bool = True, draws: int = 100, seed: int = 0) -> Composition:
    """Q-, K- and V-composition of every pair of heads (Elhage et al. 2021), in row convention x·W, with W_QK = W_Q W_Kᵀ and W_OV = W_V W_O.

    Q: ‖W_OV1 W_QK2‖ / (‖W_OV1‖ ‖W_QK2‖), K: with W_QK2ᵀ, V: with W_OV2; Frobenius norms. A head whose matrix is zero composes with nothing: 0.

    With `folded`, what reads the stream reads it past its norm: W_Q, W_K and W_V are multiplied by the weights of the norm before them, and
    LayerNorm's subtraction of the mean is part of them, and so for W_O of a norm behind the heads; divisions are left out, as they cancel.
    Without, the tensors are taken as they are. Biases, positions (rotary turning too), norms of queries and keys, and MLPs between the heads
    are left out.

    The baseline is that of Gaussian matrices of the model's sizes, `draws` pairs drawn from `seed`; it does not depend on the kind.
    No product of D × D is formed: with K the head dimension, ‖A M C‖ of A [D, K], M [K, K], C [K, D] is ‖R_A M R_Cᵀ‖ of their QR factors.

    Raises RllcError for fewer than 2 draws or a single layer.
    """
    if shape.n_layers < 2:
        raise RllcError("Heads compose across layers, and this model has one.", "Give a model of two layers or more.")
    if draws < 2:
        raise RllcError(f"The random baseline of composition takes {draws} draws, which give no error.", "Draw 2 or more.")
    pieces = {piece: torch.cat([_tensor(shape, params, layer, piece, folded) for layer in range(shape.n_layers)]) for piece in "QKVO"}
    q, k, v, o = (pieces[piece] for piece in "QKVO")
    earlier = torch.arange(shape.n_layers, device=q.device).repeat_interleave(shape.n_heads)
    outside = (earlier[:, None] >= earlier[None]).cpu().numpy()
    scores = {kind: _scores(v, o, left, right) for kind, left, right in (("q", q, k), ("k", k, q), ("v", v, o.mT))}
    for table in scores.values():
        table[outside] = np.nan
    random = _random_scores(shape, draws, seed)
    deviation = float(random.std(ddof=1))
    return Composition(**scores, baseline=float(random.mean()), baseline_stderr=deviation / draws**0.5, baseline_deviation=deviation)


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


def _random_scores(shape: ModelShape, draws: int, seed: int) -> Floats:
    rng = generator(seed, "composition")
    one = (1, shape.d_model, shape.d_head)
    scores = []
    for _ in range(draws):
        v, o, near, far = (torch.from_numpy(rng.standard_normal(one)) for _ in range(4))
        scores.append(_scores(v, o.mT, near, far)[0, 0])
    return np.array(scores)

"""One table of everything simple that one may hold beside a head's rLLC (METHOD 5, appendix): a row a head, a column a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.contexts import Contexts
from rllc.behaviour.curvature import Prior, curvature
from rllc.behaviour.fisher import fisher
from rllc.behaviour.norms import circuit_ratios, participation_ratio, weight_norm
from rllc.core.names import Head, Part
from rllc.model.shape import ModelShape

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COLUMNS = {
    "hessian_trace": "trace of the Hessian, nats per token and squared unit of weight",
    "top_eigenvalue": "its largest eigenvalue found, same unit; left out where none is asked for",
    "second_eigenvalue": "the next, same unit; left out where fewer than two are asked for",
    "spectrum_participation": "participation ratio of the eigenvalues found, 1 to their number; left out likewise",
    "curvature_twin": "½ tr[nβH(nβH + γ)⁻¹]: what the refined LLC would be on a quadratic; left out where no prior is given",
    "fisher_empirical": "trace of the empirical Fisher information, per token",
    "fisher_true": "trace of the true Fisher information, per token",
    "gradient_norm": "norm of the gradient of the mean loss, nats per token and unit of weight",
    "weight_norm": "norm of the weights",
    "qk_participation": "participation ratio of the singular values of W_Q W_Kᵀ, 1 to K",
    "ov_participation": "participation ratio of the singular values of W_V W_O, 1 to K",
}


@dataclass(frozen=True)
class Baselines:
    """Baselines of the heads of one checkpoint on one kind of data.

    Args:
        heads: H, layer by layer.
        values: [H] by name, names and units as in `COLUMNS`.
        stderr: [H] by the same names, over contexts; NaN where a number has no error because nothing was drawn (norms, ratios of weights), or
            where none is known (participation of the eigenvalues).
    """

    heads: tuple[Head, ...]
    values: Mapping[str, Float[Floats, " H"]]
    stderr: Mapping[str, Float[Floats, " H"]]


def baselines(
    shape: ModelShape,
    params: Mapping[str, Tensor],
    tokens: Int[Ints, "B T"] | Contexts,
    *,
    heads: tuple[Head, ...] = (),
    top: int = 2,
    probes: int = 2,
    draws: int = 4,
    seed: int = 0,
    prior: Prior | None = None,
) -> Baselines:
    """All baselines of the heads named, or of all, on B contexts; `top`, `probes`, `draws`, `seed` and `prior` as in `curvature` and `fisher`.

    Raises RllcError as those do.
    """
    rows = list[dict[str, tuple[float, float]]]()
    heads = heads or shape.heads()
    for head in heads:
        part = Part.of_head(head.layer, head.index)
        bent = curvature(shape, params, part, tokens, top=top, probes=probes, seed=seed, prior=prior)
        information = fisher(shape, params, part, tokens, draws=draws, seed=seed)
        qk, ov = circuit_ratios(shape, params, head)
        row = {"hessian_trace": (bent.trace.value, bent.trace.stderr)}
        if top:
            row["top_eigenvalue"] = float(bent.spectrum.eigenvalues[0]), float(bent.spectrum.stderr[0])
            if top > 1:
                row["second_eigenvalue"] = float(bent.spectrum.eigenvalues[1]), float(bent.spectrum.stderr[1])
            row["spectrum_participation"] = participation_ratio(bent.spectrum.eigenvalues), np.nan
        if bent.twin is not None:
            row["curvature_twin"] = bent.twin.value, bent.twin.stderr
        row["fisher_empirical"] = information.empirical.value, information.empirical.stderr
        row["fisher_true"] = information.true.value, information.true.stderr
        row["gradient_norm"] = bent.gradient_norm, bent.gradient_stderr
        row["weight_norm"] = weight_norm(shape, params, part), np.nan
        row["qk_participation"], row["ov_participation"] = (qk, np.nan), (ov, np.nan)
        rows.append(row)
    names = list(rows[0])
    return Baselines(heads, *({name: np.array([row[name][i] for row in rows]) for name in names} for i in range(2)))

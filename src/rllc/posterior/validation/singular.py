"""Singular losses of few parameters: the truth is quadrature, never the asymptotic value (METHOD 3.3).

SGLD's and RMSProp-SGLD's truths in one dimension hold their discretisation (`truths.discretised`); elsewhere steps are small.
Units are such that gradients are small beside RMSProp's stabilizer, as those of attention heads are: at the usual α its law is wrong
otherwise, as the last case tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.toys.singular import Cusp, NormalCrossing, Separable
from rllc.posterior.traces import Floats
from rllc.posterior.truths import discretised, quadrature
from rllc.posterior.truths.quadrature import Prior
from rllc.posterior.validation.cases import SAMPLERS, Case, Trial, settings_for

STEPS = {1: 0.3, 2: 0.04, 3: 0.02}  # ε in units of the posterior's squared width, by k: the steeper, the stiffer its flanks
STEPS_MALA = {1: 0.5, 2: 0.1, 3: 0.06}
QUICK: dict[int, tuple[SamplerName, ...]] = {1: (), 2: ("mala",), 3: ("leimkuhler-matthews",)}
HOLDING: tuple[SamplerName, ...] = ("sgld", "rmsprop-sgld")  # of first order in ε: in one dimension the truth holds that, in two the step is smaller


def cases() -> tuple[Case, ...]:
    """All of them."""
    monomials = [_monomial(k) for k in STEPS]
    return (
        *monomials,
        _homogeneous(),
        _powers(),
        _crossing((2.0, 2.0)),
        _crossing((2.0, 4.0)),
        _crossing((2.0, 2.0, 4.0)),
        _cusp(),
        _usual_rmsprop(),
    )


def _origin(sampler: SamplerName, copies: int, n: int) -> dict[str, torch.Tensor]:
    return {"w": torch.zeros(1, _copies(sampler, copies), n)}


def _copies(sampler: SamplerName, copies: int) -> int:
    """Few for MALA, whose acceptance falls with the dimension; it has more chains instead."""
    return 16 if sampler == "mala" else copies


def _length(sampler: SamplerName, draws: int, burn_in: int, mala: int = 4000) -> dict[str, Any]:
    if sampler == "mala":
        return {"chains": 40, "draws": mala, "burn_in": 600}
    return {"chains": 4, "draws": draws, "burn_in": burn_in}


def _monomial(k: int) -> Case:
    """`w^{2k}` at nβ = 10⁶, with a localization that lowers λ by a tenth to a fifth."""
    nbeta = 1e6
    width = nbeta ** (-1 / (2 * k))
    gamma = 0.5 / width**2

    def trial(sampler: SamplerName) -> Trial:
        step = (STEPS_MALA if sampler == "mala" else STEPS)[k] * width**2
        return _separable(settings_for(sampler, step, gamma, nbeta, **_length(sampler, 2000, 300)), (2.0 * k,))

    return Case(f"monomial w^{2 * k}", "monomial", "3.3", "quadrature", [trial(s) for s in SAMPLERS], quick=QUICK[k])


def _homogeneous() -> Case:
    """`nβ E[(w - w*)·ĝ]/λ̂` is the degree of a homogeneous loss, draw by draw."""
    settings = settings_for("leimkuhler-matthews", 0.02 * 1e-2, 50.0, 1e6, chains=4, draws=200, burn_in=50)
    trial = Trial(settings, lambda: Separable(_origin("leimkuhler-matthews", 100, 1), (6.0,)), lambda: 6.0)
    return Case("gradient ratio of w^6", "homogeneity", "3.2", "2k", [trial], 1e-5, ("leimkuhler-matthews",), "gradient_ratio")


def _powers() -> Case:
    def trial(sampler: SamplerName) -> Trial:
        settings = settings_for(sampler, 0.04, 0.5, 1.0, stabilizer=100.0, **_length(sampler, 2500, 400))
        return _separable(settings, (1.5, 2.0, 4.0))

    name = "separable |w|^1.5 + w² + w⁴"
    return Case(name, "separable powers", "3.3", "quadrature", [trial(s) for s in SAMPLERS], quick=("rmsprop-sgld",))


def _crossing(powers: Sequence[float]) -> Case:
    """In a box alone, which chains cross in a few thousand steps."""
    nbeta, box, copies = 100.0 if len(powers) == 2 else 30.0, 1.0, 1000 * len(powers)

    def trial(sampler: SamplerName) -> Trial:
        step = {"sgld": 0.02, "rmsprop-sgld": 0.02, "mala": 1.0 if powers == (2.0, 2.0) else 2.0}.get(sampler, 0.1) / nbeta
        settings = settings_for(
            sampler,
            step,
            0.0,
            nbeta,
            box=box,
            stabilizer=10.0,
            **_length(sampler, *((7000, 2500) if sampler in HOLDING else (2500, 1500)), mala=8000),
        )
        return Trial(
            settings,
            lambda: NormalCrossing(_origin(sampler, copies, len(powers)), powers),
            lambda: _copies(sampler, copies) * quadrature.normal_crossing(powers, nbeta, Prior(box=box)),
        )

    name = "crossing " + " ".join(f"{letter}^{power:g}" for letter, power in zip("xyz", powers, strict=False)) + " in a box"
    quick: tuple[SamplerName, ...] = ("sgnht",) if powers == (2.0, 2.0) else ()
    # MALA rejects every proposal that leaves the box anywhere, so with three factors a copy it hardly moves
    trials = [trial(s) for s in SAMPLERS if s != "mala" or len(powers) == 2]
    return Case(name, "normal crossing", "3.3", "quadrature", trials, quick=quick)


def _cusp() -> Case:
    nbeta, gamma, copies = 100.0, 10.0, 2000

    def loss(v: Floats) -> Floats:
        return np.asarray((v[:, 0] ** 2 - v[:, 1] ** 3) ** 2)

    def trial(sampler: SamplerName) -> Trial:
        step = {"sgld": 2e-4, "rmsprop-sgld": 2e-4, "mala": 8e-3}.get(sampler, 1e-3)
        settings = settings_for(
            sampler, step, gamma, nbeta, stabilizer=10.0, **_length(sampler, *((5000, 1500) if sampler in HOLDING else (2500, 800)))
        )
        return Trial(
            settings,
            lambda: Cusp(_origin(sampler, copies, 2)),
            lambda: _copies(sampler, copies) * quadrature.expected(loss, 2, nbeta, Prior(gamma)),
        )

    return Case("cusp (x² - y³)²", "potential", "3.3", "quadrature", [trial(s) for s in SAMPLERS], quick=("leimkuhler-matthews",))


def _usual_rmsprop() -> Case:
    """w⁴ at nβ = 100, where gradients are as large as the usual stabilizer of 0.1 and V follows each chain: its law is not the posterior."""
    settings = settings_for("rmsprop-sgld", 1e-3, 1.0, 100.0, chains=4, draws=2000, burn_in=500)
    trials = [_separable(settings, (4.0,))]
    return Case("RMSProp where the gradient feeds its scale", "told", "2", "quadrature", trials, tolerance=None)


def _separable(settings: SamplerSettings, powers: Sequence[float], copies: int = 1000) -> Trial:
    sampler = settings.sampler
    number = _copies(sampler, copies)

    def truth() -> float:
        if sampler in HOLDING:
            return number * discretised.separable(powers, settings)
        return number * quadrature.separable(powers, settings.nbeta, Prior(settings.localization))

    return Trial(settings, lambda: Separable(_origin(sampler, copies, len(powers)), powers), truth)

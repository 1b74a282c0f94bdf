"""Every sampler on singular losses: monomials with localization by quadrature, a cusp of two parameters by quadrature and by MALA (METHOD 3.3)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from rllc.posterior.settings import SamplerName
from rllc.posterior.validation import singular
from rllc.posterior.validation.cases import SAMPLERS, Case
from rllc.posterior.validation.validate import Row, run_trial

CASES: dict[str, Case] = {case.name: case for case in singular.cases()}


@cache
def row(name: str, sampler: SamplerName) -> Row:
    trial = CASES[name].trial(sampler)
    assert trial is not None
    return run_trial(CASES[name], trial)


@pytest.mark.parametrize("sampler", [pytest.param(name, marks=pytest.mark.soak) if name == "mala" else name for name in SAMPLERS])
def test_a_monomial_with_localization(sampler: SamplerName) -> None:
    """w⁴: not ¼, but what quadrature says under γ, and for SGLD and RMSProp-SGLD at their step size."""
    found = row("monomial w^4", sampler)
    assert found.estimate == pytest.approx(found.truth, rel=0.015)
    assert found.stderr < 0.005 * found.truth


@pytest.mark.soak
@pytest.mark.parametrize("sampler", ["leimkuhler-matthews", "sgnht"])
def test_a_cusp_is_what_quadrature_and_mala_say(sampler: SamplerName) -> None:
    """`(x² - y³)²`, neither separable nor a crossing: λ a copy, against the truth and against the reference sampler."""
    found, reference = row("cusp (x² - y³)²", sampler), row("cusp (x² - y³)²", "mala")
    assert found.estimate == pytest.approx(found.truth, rel=0.015)
    ours, theirs = (r.estimate / r.truth for r in (found, reference))
    assert ours == pytest.approx(theirs, abs=4 * float(np.hypot(found.stderr / found.truth, reference.stderr / reference.truth)))
    assert theirs == pytest.approx(1, rel=0.015)

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rllc.core.errors import RllcError
from rllc.posterior.settings import SamplerSettings

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sampler": "hmc"}, "no sampler 'hmc'.*leimkuhler-matthews"),
        ({"step_size": 0.0}, "step_size must be a finite number above zero, but 0.0"),
        ({"step_size": math.nan}, "step_size must be a finite number above zero"),
        ({"localization": -1.0}, "localization must be a finite number above zero"),
        ({"nbeta": -1.0}, "nbeta must be a finite number, zero or more"),
        ({"nbeta": math.inf}, "nbeta must be a finite number, zero or more"),
        ({"chains": 0}, "chains must be a whole number of at least 1"),
        ({"draws": 3}, "draws must be a whole number of at least 4"),
        ({"draws": 4.5}, "draws must be a whole number of at least 4, but 4.5"),
        ({"burn_in": -1}, "burn_in must be a whole number of at least 0"),
        ({"step_size": 0.02}, "cannot be stable: their product is 4.*well below 0.02"),
    ],
)
def test_bad_settings_are_told_in_sentences(change: dict[str, object], match: str) -> None:
    with pytest.raises(RllcError, match=match):
        replace(PAPER, **change)  # type: ignore[arg-type]


def test_a_step_just_inside_the_prior_s_stability_is_allowed() -> None:
    assert replace(PAPER, step_size=0.0199).steps == 200
    assert replace(PAPER, burn_in=50, nbeta=0.0).steps == 250

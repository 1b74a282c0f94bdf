from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rllc.core.errors import RllcError
from rllc.posterior.settings import ExtraChecks, SamplerSettings, Stopping

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sampler": "hmc"}, "no sampler 'hmc'.*leimkuhler-matthews"),
        ({"step_size": 0.0}, "step_size must be a finite number above zero, but 0.0"),
        ({"step_size": math.nan}, "step_size must be a finite number above zero"),
        ({"localization": -1.0}, "localization must be a finite number, zero or more"),
        ({"localization": 0.0}, "localization is 0, so nothing holds the chains"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number, zero or more"),
        ({"bounding_box": math.inf}, "bounding_box must be a finite number, zero or more"),
        ({"rmsprop_decay": 1.5}, r"rmsprop_decay must lie in 0 … 1"),
        ({"rmsprop_stabilizer": 0.0}, "rmsprop_stabilizer above 0"),
        ({"thermostat_diffusion": 1.0}, "thermostat_diffusion must lie between 0 and 1, but 1.0"),
        ({"sampler": "mala", "control_variate": True}, "MALA samples one fixed batch"),
        ({"sampler": "rmsprop-sgld", "step_size": 2e-3}, "cannot be stable: their product is 4.*well below 0.002"),
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
    assert replace(PAPER, localization=0.0, bounding_box=1.0).precision == 0
    assert replace(PAPER, sampler="mala", step_size=1.0).steps == 200  # it rejects what is too long


def test_bad_stopping_and_checks_are_told_in_sentences() -> None:
    with pytest.raises(RllcError, match="target_stderr must be a finite number"):
        Stopping(-0.1, max_draws=10)
    with pytest.raises(RllcError, match="needs max_draws"):
        Stopping(0.1)
    with pytest.raises(RllcError, match="where to give up on a target_stderr, and there is none"):
        Stopping(max_draws=100)
    with pytest.raises(RllcError, match="twin_dimension must be zero or more"):
        ExtraChecks(twin_dimension=-1)
    assert Stopping(0.05, max_draws=10).reached(100.0, 0.05)
    assert not Stopping(0.05, relative=True, max_draws=10).reached(0.9, 0.05)

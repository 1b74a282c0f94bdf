"""Chains cut, kept, taken up again, and steered: what they draw must not depend on it, or only as it should."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from chain_toys import OnePart, seeds, toy

from rllc.core.errors import RllcError
from rllc.posterior import estimate
from rllc.posterior.chains import Chains, run_chains
from rllc.posterior.origin import mean_gradient
from rllc.posterior.protocol import Tensors
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.traces import joined

SAMPLERS = get_args(SamplerName)
PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=3, draws=8, burn_in=2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_advancing_in_pieces_is_one_long_run(sampler: SamplerName) -> None:
    """Cut anywhere, kept as arrays and taken up by others: the same bits (DESIGN, segments)."""
    settings = replace(PAPER, sampler=sampler, draws=16, control_variate=sampler != "mala")
    objective = toy()
    control = mean_gradient(objective, objective.origin, range(500, 510))

    def chains(which: list[list[int]]) -> Chains:
        return Chains(objective, objective.origin, settings, which, control=control)

    batches = [0] * 19 if sampler == "mala" else range(19)  # MALA samples on one full batch
    whole = chains(seeds(2, 3)).advance(iter(batches), 19)
    begun, stream = chains(seeds(2, 3)), iter(batches)
    first = begun.advance(stream, 8)
    taken_up = chains([[7, 7, 7], [7, 7, 7]])
    taken_up.restore(begun.snapshot(), begun.evaluations)
    pieces = [first, taken_up.advance(stream, 5), taken_up.advance(stream, 6)]
    together = joined(pieces)
    assert together.segments == whole.segments
    for name, trace in whole.arrays().items():
        np.testing.assert_array_equal(together.arrays()[name], trace, err_msg=name)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_parts_that_go_on_alone_draw_what_they_would_have(sampler: SamplerName) -> None:
    settings = replace(PAPER, sampler=sampler)
    objective = toy(parts=2)
    both = Chains(objective, objective.origin, settings, seeds(2, 3))
    both.advance(iter(range(11)), 11)
    alone = both.kept(OnePart(second(objective), objective, 1), [1])
    stream = [0] * 6 if sampler == "mala" else range(11, 17)
    np.testing.assert_array_equal(alone.advance(iter(stream), 6).losses[0], both.advance(iter(stream), 6).losses[1])


def second(objective: Quadratic) -> Quadratic:
    def one(tensors: Tensors) -> Tensors:
        return {name: tensor[1:] for name, tensor in tensors.items()}

    return Quadratic(one(objective.origin), one(objective.curvature), one(objective.gradient))


def test_a_snapshot_of_other_chains_is_refused() -> None:
    objective = toy()
    begun = Chains(objective, objective.origin, PAPER, seeds(2, 3))
    begun.advance(iter(range(11)), 11)
    other = Chains(objective, objective.origin, replace(PAPER, chains=2), seeds(2, 2))
    with pytest.raises(ValueError, match="not of 2 parts × 2 chains"):
        other.restore(begun.snapshot(), 11)


def test_the_control_variate_removes_the_noise_of_the_gradient() -> None:
    """With noise that does not depend on w nothing of it is left: the chains are those of the full gradient, bit for bit almost."""
    quiet = replace(toy(dtype=torch.float64), gradient_noise={}, stretch_noise=0.0)
    noisy = replace(quiet, gradient_noise={"a": torch.full((2, 5, 4), 3.0, dtype=torch.float64)})
    settings = replace(PAPER, control_variate=True)
    control = mean_gradient(quiet, quiet.origin, range(3))
    plain = run_chains(quiet, quiet.origin, range(11), PAPER, seeds(2, 3))
    steered = Chains(noisy, noisy.origin, settings, seeds(2, 3), control=control).advance(iter(range(11)), 11)
    np.testing.assert_allclose(steered.sq_distance, plain.sq_distance, rtol=1e-10)
    assert not np.allclose(run_chains(noisy, noisy.origin, range(11), PAPER, seeds(2, 3)).sq_distance[..., 1:], plain.sq_distance[..., 1:], rtol=0.01)
    with pytest.raises(RllcError, match="control_variate needs the gradient at the checkpoint"):
        Chains(noisy, noisy.origin, settings, seeds(2, 3))


def test_a_fixed_evaluation_set_has_no_noise_of_minibatches() -> None:
    objective = toy(dtype=torch.float64)
    traces = Chains(objective, objective.origin, PAPER, seeds(2, 3), fixed=77).advance(iter(range(11)), 11)
    plain = run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3))
    np.testing.assert_array_equal(traces.losses, plain.losses)
    assert traces.fixed_losses is not None
    assert traces.fixed_baseline is not None
    np.testing.assert_array_equal(traces.fixed_losses[..., 0], np.repeat(traces.fixed_baseline[:, None], 3, axis=1))
    own = Chains(objective, objective.origin, PAPER, seeds(2, 3), fixed=0).advance(iter([0] * 11), 11)
    np.testing.assert_allclose(own.fixed_losses, own.losses)
    np.testing.assert_allclose(estimate.series(traces), 30 * (traces.fixed_losses - traces.fixed_baseline[:, None, None])[..., 3:])
    with pytest.raises(RllcError, match="MALA samples one fixed batch"):
        Chains(objective, objective.origin, replace(PAPER, sampler="mala"), seeds(2, 3), fixed=0)

"""The loop: what is recorded, when, and that no variant knows of another."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from chain_toys import OnePart, seeds, toy

from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.posterior.chains import run_chains
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.quadratic import MinibatchNoise, Quadratic
from rllc.posterior.result import assess
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.traces import Traces

SAMPLERS = get_args(SamplerName)
PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=3, draws=8, burn_in=2)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batched_chains_are_looped_chains(sampler: SamplerName, dtype: torch.dtype) -> None:
    settings = replace(PAPER, sampler=sampler)
    objective = toy(dtype=dtype)
    together = run_chains(objective, objective.origin, range(11), settings, seeds(2, 3))
    for p in range(2):

        def one(tensors: Tensors, p: int = p) -> Tensors:
            return {name: tensor[p : p + 1] for name, tensor in tensors.items()}

        alone = OnePart(Quadratic(one(objective.origin), one(objective.curvature), one(objective.gradient)), objective, p)
        for c in range(3):
            single = run_chains(alone, one(objective.origin), range(11), replace(settings, chains=1), [[100 * p + c]])
            for name, trace in single.arrays().items():
                batched = together.arrays()[name][p] if name == "baseline" else together.arrays()[name][p, c]
                np.testing.assert_array_equal(trace.squeeze(), batched, err_msg=name)


def test_chain_3_is_the_same_among_4_and_among_40() -> None:
    objective = toy(parts=1, dtype=torch.float64)
    few = run_chains(objective, objective.origin, range(11), replace(PAPER, chains=4), [range(4)])
    many = run_chains(objective, objective.origin, range(11), replace(PAPER, chains=40), [range(40)])
    np.testing.assert_allclose(many.losses[:, :4], few.losses, rtol=1e-13)
    assert len(np.unique(many.losses[0, :, -1])) == 40


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not() -> None:
    objective = toy()
    runs = [run_chains(objective, objective.origin, range(11), PAPER, [[s, s + 1, s + 2], [7, 8, 9]]) for s in (0, 0, 50)]
    for name, trace in runs[0].arrays().items():
        np.testing.assert_array_equal(trace, runs[1].arrays()[name])
    assert (runs[0].losses[0, :, 1:] != runs[2].losses[0, :, 1:]).all()
    np.testing.assert_array_equal(runs[0].losses[1], runs[2].losses[1])


def test_the_origin_is_left_as_it_was_and_views_may_not_change_the_chains() -> None:
    class Vandal(Quadratic):
        def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Evaluation:
            result = super().evaluate(variants, context, gradients=gradients)
            for tensor in variants.values():
                tensor.fill_(1e6)
            return result

    objective = toy()
    before = {name: tensor.clone() for name, tensor in objective.origin.items()}
    vandal = Vandal(**{f.name: getattr(objective, f.name) for f in fields(objective)})
    spoiled = run_chains(vandal, objective.origin, range(11), PAPER, seeds(2, 3))
    np.testing.assert_array_equal(spoiled.losses, run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3)).losses)
    assert all(torch.equal(before[name], objective.origin[name]) for name in before)


def test_float64_stays_and_half_precision_is_sampled_in_fp32() -> None:
    """METHOD 8: in bf16 small steps round away. A step of sd 3e-5 from weights of size one is below bf16's and fp16's resolution."""
    seen: list[torch.dtype] = []

    class Watched(Quadratic):
        def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Evaluation:
            seen.extend(tensor.dtype for tensor in variants.values())
            return super().evaluate(variants, context, gradients=gradients)

    settings = SamplerSettings("sgld", step_size=1e-9, localization=200.0, nbeta=30.0, chains=2, draws=4, burn_in=0)
    for given, kept in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32), (torch.float16, torch.float32)):
        seen.clear()
        objective = Watched({"w": torch.ones(1, 20_000, dtype=torch.float64).to(kept)}, {"w": torch.zeros(1, 20_000, dtype=kept)})
        traces = run_chains(objective, {"w": torch.ones(1, 20_000, dtype=given)}, range(5), settings, [[1, 2]])
        assert set(seen) == {kept}
        np.testing.assert_allclose(traces.sq_distance[0, :, -1], 4 * 1e-9 * 20_000, rtol=0.05)


@dataclass(frozen=True)
class Failing:
    """A quadratic whose variant `row` returns a NaN loss and gradient from evaluation `at` on."""

    inner: Quadratic
    row: int
    at: int

    def prepare(self, batch: int) -> tuple[int, MinibatchNoise]:
        return batch, self.inner.prepare(batch)

    def evaluate(self, variants: Tensors, context: tuple[int, MinibatchNoise], *, gradients: bool = True) -> Evaluation:
        t, noise = context
        result = self.inner.evaluate(variants, noise, gradients=gradients)
        if t >= self.at:
            result.losses[self.row] = torch.nan
            for gradient in (result.gradients or {}).values():
                gradient[self.row] = torch.nan
        return result


def test_a_chain_that_turns_nan_spoils_no_other_and_refuses_its_cell() -> None:
    """METHOD 8: peers average such a chain away, and a finite number comes out."""
    objective = toy()
    healthy = run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3))
    broken = run_chains(Failing(objective, row=1, at=5), objective.origin, range(11), PAPER, seeds(2, 3))
    np.testing.assert_array_equal(broken.losses[0, [0, 2]], healthy.losses[0, [0, 2]])
    np.testing.assert_array_equal(broken.losses[1], healthy.losses[1])
    assert np.isnan(broken.losses[0, 1, 5:]).all()
    refused, kept = assess(broken)
    assert refused.outcome == Outcome.NONFINITE
    assert refused.estimate is None
    assert "3 chains, counted from 0, these stopped being finite: 1 at step 5." in refused.reason
    expected = assess(healthy)[1].estimate
    assert kept.estimate is not None
    assert expected is not None
    assert (kept.estimate.llc, kept.estimate.stderr) == (expected.llc, expected.stderr)


def test_a_chain_that_was_not_finite_in_burn_in_or_once_only_refuses_its_cell_too() -> None:
    objective = toy()
    traces = run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3))
    for t, value in ((0, np.inf), (1, np.nan), (6, -np.inf)):
        losses = traces.losses.copy()
        losses[1, 2, t] = value
        kept, refused = assess(replace(traces, losses=losses))
        assert kept.estimate is not None
        assert (refused.outcome, refused.estimate) == (Outcome.NONFINITE, None)
        assert f"2 at step {t}." in refused.reason


def test_minibatches_may_run_out_and_none_is_wasted() -> None:
    objective = toy()
    with pytest.raises(RllcError, match=r"minibatches ended after 10, but the chains need 11"):
        run_chains(objective, objective.origin, range(10), PAPER, seeds(2, 3))
    stream = iter(range(100))
    run_chains(objective, objective.origin, stream, PAPER, seeds(2, 3))
    assert next(stream) == 11
    run_chains(objective, objective.origin, iter([0]), replace(PAPER, sampler="mala"), seeds(2, 3))  # one full batch is all that MALA takes


def test_progress_is_told_after_every_evaluation() -> None:
    told: list[tuple[int, int]] = []
    objective = toy()
    run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3), on_step=lambda done, total: told.append((done, total)))
    assert told == [(t, 11) for t in range(1, 12)]


def test_seeds_must_be_parts_by_chains() -> None:
    objective = toy()
    with pytest.raises(ValueError, match="2 parts × 3 chains"):
        run_chains(objective, objective.origin, range(11), PAPER, seeds(3, 2))


@dataclass(frozen=True)
class Wrong:
    """A quadratic that breaks the protocol in one way."""

    inner: Quadratic
    change: dict[str, Any]

    def prepare(self, batch: int) -> MinibatchNoise:
        return self.inner.prepare(batch)

    def evaluate(self, variants: Tensors, context: MinibatchNoise, *, gradients: bool = True) -> Any:
        @dataclass
        class Loose:
            losses: Any
            gradients: Any
            baseline: Any

        right = self.inner.evaluate(variants, context, gradients=gradients)
        values = {"losses": right.losses, "gradients": right.gradients, "baseline": right.baseline}
        return Loose(**(values | {name: change(values[name]) for name, change in self.change.items()}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gradients": lambda _: None}, "returned no gradients"),
        ({"losses": lambda x: x.mean()}, r"losses must be 6 numbers in fp32 or fp64, not \(\)"),
        ({"losses": lambda x: x.bfloat16()}, "losses must be 6 numbers in fp32 or fp64, not .* in torch.bfloat16"),
        ({"baseline": lambda x: x[:1]}, "baseline must be 6 numbers"),
        ({"baseline": lambda x: x + torch.arange(6)}, "baseline differs between chains of one part"),
    ],
)
def test_an_objective_that_breaks_the_protocol_is_told(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        run_chains(Wrong(toy(), change), toy().origin, range(11), PAPER, seeds(2, 3))


def test_traces_must_fit_their_settings() -> None:
    objective = toy()
    traces = run_chains(objective, objective.origin, range(11), PAPER, seeds(2, 3))
    with pytest.raises(ValueError, match="do not belong to"):
        replace(traces, settings=replace(PAPER, burn_in=3))
    unchecked = object.__new__(Traces)  # past the shape checks that tests run under and users do not
    for f in fields(traces):
        object.__setattr__(unchecked, f.name, getattr(traces, f.name)[:, :2] if f.name == "stein" else getattr(traces, f.name))
    with pytest.raises(ValueError, match="differ in shape"):
        unchecked.__post_init__()
    np.testing.assert_array_equal(traces.part(1).losses[0], traces.losses[1])


def test_probe_mode_differentiates_nothing() -> None:
    objective = toy()
    assert objective.evaluate(objective.origin, objective.prepare(0), gradients=False).gradients is None


def test_the_toy_s_gradient_is_that_of_its_loss() -> None:
    objective = toy(dtype=torch.float64)
    variants = {name: (tensor + 0.1).requires_grad_() for name, tensor in objective.origin.items()}
    result = objective.evaluate(variants, objective.prepare(3))
    for name, gradient in zip(variants, torch.autograd.grad(result.losses.sum(), list(variants.values())), strict=True):
        torch.testing.assert_close((result.gradients or {})[name].detach(), gradient)

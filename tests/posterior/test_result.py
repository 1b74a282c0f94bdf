"""Outcomes: what is refused, what is kept with a mark, and the words beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rllc.core.outcome import Outcome
from rllc.posterior import exact
from rllc.posterior.chains import run_chains
from rllc.posterior.origin import gradient_at_origin
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.result import Result, assess
from rllc.posterior.settings import SamplerName, SamplerSettings, Verdicts
from rllc.posterior.verdicts import remarks

SAMPLERS = ("sgld", "leimkuhler-matthews")
PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=200, burn_in=40)
HEAD = torch.cat([torch.full((20,), 10.0), torch.zeros(1980)])  # curved in few directions of many


def outcome_of(toy: Quadratic, settings: SamplerSettings) -> Result:
    traces = run_chains(toy, toy.origin, range(settings.steps + 1), settings, [range(settings.chains)])
    return assess(traces, gradient_at_origin(toy, toy.origin, range(5000, 5016)))[0]


def quadratic(h: torch.Tensor, **rest: object) -> Quadratic:
    return Quadratic({"w": torch.zeros(1, len(h))}, {"w": h[None]}, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_healthy_cell(sampler: SamplerName) -> None:
    result = outcome_of(quadratic(HEAD, gradient_noise={"w": torch.full((1, 2000), 0.005)}), replace(PAPER, sampler=sampler))
    assert (result.outcome, result.reason) == (Outcome.OK, Outcome.OK.text)
    assert result.estimate is not None
    assert result.estimate.ci_low < exact.llc(HEAD.numpy(), replace(PAPER, sampler=sampler)).sum() < result.estimate.ci_high
    assert abs(result.estimate.llc_unpaired - result.estimate.llc) < 0.1 * result.estimate.llc


def test_a_loss_that_does_not_depend_on_the_part_is_exactly_zero() -> None:
    """METHOD 3.6: nothing is estimated of nothing, without a warning."""
    result = outcome_of(quadratic(torch.zeros(50), offset_noise=1.0, constant=2.0), PAPER)
    assert result.outcome == Outcome.OK
    assert result.estimate is not None
    assert (result.estimate.llc, result.estimate.stderr, result.estimate.ci_low, result.estimate.ci_high) == (0.0, 0.0, 0.0, 0.0)
    assert np.isnan([result.diagnostics.rhat, result.diagnostics.ess, result.diagnostics.gradient_ratio]).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("h", [130.0, 140.0, 400.0])
def test_one_unstable_direction_among_thousands_refuses_the_cell(sampler: SamplerName, h: float) -> None:
    """εA > 4 in one direction, before it overflows: the weights are finite, and near w* in all others."""
    result = outcome_of(quadratic(torch.cat([HEAD, torch.tensor([h])])), replace(PAPER, sampler=sampler, draws=100 if h < 200 else 20, burn_in=0))
    assert result.outcome == Outcome.UNSTABLE
    assert result.estimate is None
    assert "have εA/4 = 1." in result.reason or "have εA/4 = 3." in result.reason
    assert result.reason.endswith(Outcome.UNSTABLE.text)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_quadratic_that_overflows_is_nonfinite(sampler: SamplerName) -> None:
    result = outcome_of(quadratic(torch.full((10,), 1000.0)), replace(PAPER, sampler=sampler))
    assert (result.outcome, result.estimate) == (Outcome.NONFINITE, None)


@dataclass(frozen=True)
class Bounce:
    """`Σ (h/k²) log cosh(kv)`: curvature h at w*, linear far away, so that an unstable direction bounces and stays finite."""

    h: torch.Tensor
    k: float

    def prepare(self, batch: int) -> int:
        return batch

    def evaluate(self, variants: Tensors, context: int, *, gradients: bool = True) -> Evaluation:
        del context, gradients
        v = variants["w"]
        loss = (self.h / self.k**2 * torch.log(torch.cosh(self.k * v))).sum(dim=1)
        return Evaluation(loss, {"w": self.h / self.k * torch.tanh(self.k * v)}, torch.zeros_like(loss))


def check_bounce(sampler: SamplerName) -> None:
    """Here ‖w - w*‖² is what localization allows and the series is stationary: only the stiffness tells."""
    h = torch.cat([torch.tensor([300.0]), torch.full((20,), 5.0), torch.zeros(979)]).double()
    settings = replace(PAPER, sampler=sampler)
    traces = run_chains(Bounce(h, 5.0), {"w": torch.zeros(1, 1000, dtype=torch.float64)}, range(241), settings, [range(4)])
    result = assess(traces)[0]
    assert result.outcome == Outcome.UNSTABLE
    assert result.diagnostics.distance_share < 1.5
    assert "The directions that carry the loss have εA/4 = 0.9" in result.reason


def test_a_direction_that_bounces_where_the_loss_saturates_refuses_the_cell() -> None:
    check_bounce("sgld")
    check_bounce("leimkuhler-matthews")


def test_a_chain_far_from_home_refuses_the_cell() -> None:
    """A loss that falls away from w*, steeper than the localization holds: away it goes without stiffness."""
    result = outcome_of(quadratic(torch.full((40,), -9.0)), replace(PAPER, draws=100))
    assert result.outcome == Outcome.UNSTABLE
    assert "‖w - w*‖² reached" in result.reason
    assert result.diagnostics.stiffness < 0.1


@dataclass(frozen=True)
class Plateau:
    """A loss of 0 at w* and 1 everywhere else, without slope: what a saturated network offers a chain that was thrown off."""

    def prepare(self, batch: int) -> int:
        return batch

    def evaluate(self, variants: Tensors, context: int, *, gradients: bool = True) -> Evaluation:
        del context, gradients
        v = variants["w"]
        return Evaluation(v.any(dim=1).to(v.dtype), {"w": torch.zeros_like(v)}, torch.zeros(len(v), dtype=v.dtype))


def test_a_chain_on_a_plateau_refuses_the_cell_where_it_costs_more_than_equipartition() -> None:
    check_plateau(30.0)
    check_plateau(300.0)


def check_plateau(nbeta: float) -> None:
    """λ̂ = nβ, and 50 coordinates with their margin allow 4 · (50 + 5·√100)/2 = 200."""
    origin = {"w": torch.zeros(1, 50, dtype=torch.float64)}
    traces = run_chains(Plateau(), origin, range(241), replace(PAPER, nbeta=nbeta), [range(4)])
    result = assess(traces)[0]
    assert result.diagnostics.excess_share == pytest.approx(nbeta / 50)
    assert result.diagnostics.stiffness < 0.1
    assert result.diagnostics.distance_share < 1
    assert result.outcome == (Outcome.UNSTABLE if nbeta == 300 else Outcome.OK)
    assert ("The loss rose to 6 times what equipartition allows" in result.reason) == (nbeta == 300)


def test_negative_curvature_that_localization_holds_is_kept_but_no_minimum() -> None:
    result = outcome_of(quadratic(torch.full((400,), -2.0)), PAPER)
    assert result.outcome == Outcome.TILTED
    assert result.estimate is not None
    assert result.estimate.llc < 0
    assert "is negative, which no minimum allows" in result.reason


def test_a_tilted_cell_keeps_its_number() -> None:
    """METHOD 2, Tilt: the exact answer 3.1b, marked."""
    g = torch.full((1, 2000), 0.02)
    result = outcome_of(quadratic(HEAD, gradient={"w": g}, gradient_noise={"w": torch.full_like(g, 0.01)}), PAPER)
    assert result.outcome == Outcome.TILTED
    assert result.estimate is not None
    assert result.estimate.llc == pytest.approx(exact.llc(HEAD.numpy(), PAPER, g[0].numpy()).sum(), abs=3 * result.estimate.stderr)
    assert result.diagnostics.tilt == pytest.approx(900 * 2000 * 0.02**2 / 200, rel=0.01)
    assert "The gradient at the checkpoint lowers the estimate by up to 3.59 ± 0.017" in result.reason


def test_noise_of_the_gradient_is_no_tilt() -> None:
    """The norm of the mean gradient over 16 minibatches would be a tilt of 0.28 · 2000/200 = 2.8 here."""
    result = outcome_of(quadratic(HEAD, gradient_noise={"w": torch.full((1, 2000), 0.07)}), PAPER)
    assert result.diagnostics.tilt < 1
    assert result.outcome == Outcome.OK


def test_without_a_gradient_nothing_is_said_of_the_tilt() -> None:
    toy = quadratic(HEAD, gradient={"w": torch.full((1, 2000), 0.02)})
    traces = run_chains(toy, toy.origin, range(241), PAPER, [range(4)])
    result = assess(traces)[0]
    assert np.isnan(result.diagnostics.tilt)
    assert result.estimate is not None
    assert np.isnan(result.estimate.llc_unpaired)


def test_draws_that_still_rise_are_drifting() -> None:
    """A stiff loss under a weak prior, few steps from w*: λ̂ is still on its way."""
    slow = SamplerSettings("sgld", step_size=1e-5, localization=20.0, nbeta=30.0, chains=4, draws=60, burn_in=0)
    result = outcome_of(quadratic(torch.full((400,), 5.0)), slow)
    assert result.outcome == Outcome.DRIFTING
    assert result.estimate is not None
    assert "moved by" in result.reason
    assert result.reason.endswith(Outcome.DRIFTING.text)


def test_drifting_comes_before_tilted_and_both_are_told() -> None:
    slow = SamplerSettings("sgld", step_size=1e-5, localization=20.0, nbeta=30.0, chains=4, draws=60, burn_in=0)
    result = outcome_of(quadratic(torch.full((400,), 5.0), gradient={"w": torch.full((1, 400), 1.0)}), slow)
    assert result.outcome == Outcome.DRIFTING
    assert "moved by" in result.reason
    assert "The gradient at the checkpoint lowers" in result.reason


def test_verdicts_are_settings() -> None:
    toy = quadratic(torch.full((200,), 60.0))
    traces = run_chains(toy, toy.origin, range(241), PAPER, [range(4)])
    assert assess(traces)[0].outcome == Outcome.OK
    assert assess(traces, verdicts=Verdicts(stiffness=0.4))[0].outcome == Outcome.UNSTABLE
    assert assess(traces, verdicts=Verdicts(excess=0.5))[0].outcome == Outcome.UNSTABLE
    assert assess(traces, verdicts=Verdicts(distance=0.1))[0].outcome == Outcome.UNSTABLE
    narrow, wide = (assess(traces, verdicts=Verdicts(confidence=c))[0].estimate for c in (0.9, 0.99))
    assert narrow is not None
    assert wide is not None
    assert wide.ci_high > narrow.ci_high


def test_parts_are_judged_one_by_one() -> None:
    h = torch.stack([torch.full((10,), 10.0), torch.full((10,), 140.0), torch.full((10,), 1000.0)])
    toy = Quadratic({"w": torch.zeros(3, 10)}, {"w": h})
    settings = replace(PAPER, draws=60, burn_in=0)
    traces = run_chains(toy, toy.origin, range(61), settings, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    results = assess(traces)
    assert [r.outcome for r in results] == [Outcome.OK, Outcome.UNSTABLE, Outcome.NONFINITE]
    assert [r.estimate is None for r in results] == [False, True, True]


def test_each_diagnostic_has_a_verdict_and_a_remedy() -> None:
    """Every mark and piece of advice, one by one, from a healthy cell's numbers with one of them changed."""
    toy = quadratic(HEAD)
    traces = run_chains(toy, toy.origin, range(241), PAPER, [range(4)])
    fine = assess(traces, gradient_at_origin(toy, toy.origin, range(16)))[0]
    e, limits = fine.estimate, Verdicts()
    assert e is not None
    assert {check.outcome for check in fine.checks} == {Outcome.OK}
    assert [check.text for check in fine.checks if check.text] == []
    cases: list[tuple[str, dict[str, float], Outcome, str]] = [
        ("drift", {"drift": 0.5 * e.llc, "drift_reach": 0.1}, Outcome.DRIFTING, "The estimate moved by"),
        ("drift", {"drift": -0.5 * e.llc, "drift_reach": 0.1}, Outcome.TILTED, "The loss kept falling: the chains go downhill"),
        ("drift", {"drift": 0.5 * e.llc, "drift_reach": e.llc}, Outcome.OK, ""),
        ("rhat", {"rhat": 1.5, "ess": 100.0}, Outcome.DRIFTING, "split R-hat 1.50 at 100 effective draws"),
        ("rhat", {"rhat": 1.2, "ess": 12.0}, Outcome.OK, ""),
        ("stein_ratio", {"stein_ratio": 0.69}, Outcome.DRIFTING, "Stein ratio 0.69, where 1.0"),
        ("stein_ratio", {"stein_ratio": 0.69, "stein_stderr": 0.2}, Outcome.OK, ""),
        ("distance_drift", {"distance_drift": 0.3, "stein_ratio": 1.0, "distance_drift_reach": 0.1}, Outcome.DRIFTING, "still grew, by 30 %"),
        ("distance_drift", {"distance_drift": 0.3, "stein_ratio": 1.1, "distance_drift_reach": 0.1}, Outcome.OK, ""),
        ("tilt", {"tilt": e.llc, "tilt_stderr": 0.01}, Outcome.TILTED, "The gradient at the checkpoint lowers"),
        ("ess", {"ess": 6.0}, Outcome.OK, "rests on 6 effective draws: raise draws"),
        (
            "step_limit",
            {"step_limit": 2e-3},
            Outcome.OK,
            "has εA/4 = 0.5: a quadratic of that curvature reads 2.0 times too high there. Halve step_size",
        ),
        ("step_limit", {"step_limit": 5e-4}, Outcome.OK, "is unstable there"),
        ("halving", {"halving": -0.3 * e.llc, "halving_stderr": 0.1}, Outcome.OK, "At half the step size the estimate changes by"),
        ("halving", {"halving": -0.3 * e.llc, "halving_stderr": e.llc}, Outcome.OK, ""),
    ]
    for name, change, outcome, text in cases:
        checks = {check.diagnostic: check for check in remarks(e, replace(fine.diagnostics, **change), PAPER, limits)}
        assert (checks[name].outcome, bool(checks[name].text)) == (outcome, bool(text)), (name, change, checks[name])
        assert text in checks[name].text


def test_advice_is_told_without_a_mark() -> None:
    """A steep direction that SGLD reads a third too high: the number stands, and the reason says what to do."""
    result = outcome_of(quadratic(torch.cat([HEAD, torch.full((1,), 45.0)])), PAPER)
    assert result.outcome == Outcome.OK
    assert result.reason.startswith("The steepest direction at the checkpoint has εA/4 = 0.3")
    assert result.reason.endswith("Halve step_size and compare.")

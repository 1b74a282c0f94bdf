"""λ̂ and its error from traces made by hand, and the coverage of the error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import estimate, paired, standard_error, t_quantile
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats, Traces

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=2, draws=4, burn_in=2)


def traces_of(losses: Floats, baseline: Floats, settings: SamplerSettings) -> Traces:
    zero = np.zeros_like(losses)
    return Traces(settings, 10, losses, baseline, zero, zero, zero, zero, zero, zero)


def by_hand() -> Traces:
    """One part, two chains, w* and six draws; the minibatch moves the loss by whole nats, the chains by hundredths."""
    baseline = np.array([[5.0, 3.0, 4.0, 6.0, 2.0, 5.0, 7.0]])
    excess = np.array([[[0.0, 0.50, 0.40, 0.01, 0.02, 0.03, 0.04], [0.0, 0.70, 0.60, 0.05, 0.06, 0.07, 0.08]]])
    return traces_of(baseline[:, None] + excess, baseline, PAPER)


def test_the_paired_estimate_keeps_draws_after_burn_in_and_subtracts_the_same_minibatch() -> None:
    """METHOD 2: t = 0 and burn-in are left out; nβ times the mean difference."""
    result = estimate(by_hand())[0]
    assert result.llc == pytest.approx(30 * np.mean([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]))
    assert (result.nbeta, result.chains, result.draws) == (30.0, 2, 4)
    assert result.stderr == pytest.approx(30 * 0.02)  # the chains' means are 0.025 and 0.065


def test_w_star_is_left_out_without_burn_in_too() -> None:
    traces = by_hand()
    short = traces_of(traces.losses[..., :5], traces.baseline[:, :5], replace(PAPER, burn_in=0))
    assert estimate(short)[0].llc == pytest.approx(30 * np.mean([0.50, 0.40, 0.01, 0.02, 0.70, 0.60, 0.05, 0.06]))


def test_differences_are_taken_in_fp64() -> None:
    """A loss of 10 nats and an excess of 1e-9: fp32 would give 0 or 1e-6."""
    baseline = np.full((1, 7), 10.0)
    losses = np.full((1, 2, 7), 10.0 + 1e-9)
    assert estimate(traces_of(losses, baseline, PAPER))[0].llc == pytest.approx(30e-9, rel=1e-5)


def test_the_unpaired_estimate_is_that_of_peers() -> None:
    """METHOD 2: w_burn_in … w_{burn_in+draws-1} minus one baseline of other minibatches; batch noise stays in."""
    traces = by_hand()
    result = estimate(traces, init_loss=np.array([4.5]))[0]
    assert result.llc_unpaired == pytest.approx(30 * (traces.losses[0, :, 2:6].mean() - 4.5))
    assert np.isnan(estimate(traces)[0].llc_unpaired)


def test_batch_means_by_hand() -> None:
    """Two chains that agree: 20 draws make eight batches of two, the first four draws left over."""
    series = np.arange(20.0) ** 2
    stderr, df = standard_error(np.stack([series, series]))
    batches = series[4:].reshape(8, 2).mean(axis=1)
    assert (float(stderr), int(df)) == (pytest.approx(batches.std(ddof=1) / np.sqrt(8)), 7)


def test_spread_of_chains_by_hand() -> None:
    """Three chains that never mix: batch means see nothing, the chains' means all."""
    series = np.repeat([[1.0], [2.0], [6.0]], 40, axis=1)
    stderr, df = standard_error(series)
    assert (float(stderr), int(df)) == (pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3)), 2)


def test_one_chain_and_few_draws_still_have_an_error() -> None:
    stderr, df = standard_error(np.array([[1.0, 3.0, 5.0, 7.0]]))
    assert (float(stderr), int(df)) == (pytest.approx(np.std([2, 6], ddof=1) / np.sqrt(2)), 1)


def test_the_interval_is_student_s() -> None:
    """Quantiles from a printed table of t."""
    np.testing.assert_allclose(t_quantile(np.array([1, 3, 7]), 0.90), [6.314, 2.353, 1.895], atol=1e-3)
    result = estimate(by_hand(), confidence=0.95)[0]
    assert result.df == 1
    assert result.ci_high - result.llc == pytest.approx(12.706 * result.stderr, rel=1e-4)
    assert result.llc - result.ci_low == pytest.approx(12.706 * result.stderr, rel=1e-4)


def coverage(shared: float, chains: int, draws: int = 80) -> tuple[float, float]:
    """Share of 400 runs whose nominal 90 % interval holds the truth; and of those by the spread of chains and z alone.

    Every part is a run of its own: minibatches stretch the curvature by `1 + τ_B`, equally for the chains of a part.
    """
    settings = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=chains, draws=draws, burn_in=20)
    h = torch.tensor([1.0, 2.0, 5.0, 10.0, 20.0, 30.0], dtype=torch.float64).repeat(400, 1)
    toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, offset_noise=1.0, stretch_noise=shared)
    traces = run_chains(toy, toy.origin, range(settings.steps + 1), settings, np.arange(400 * chains).reshape(400, chains).tolist())
    # v' = (1 - ε/2 (nβ(1+τ)h + γ)) v + √ε ξ has variance ε/(1 - E[(...)²]), and τ of the minibatch is independent of w_t
    nbeta_h = 30 * h[0].numpy()
    shrink = (1 - 5e-4 * (nbeta_h + 200)) ** 2 + (5e-4 * nbeta_h * shared) ** 2
    truth = float((nbeta_h / 2 * 1e-3 / (1 - shrink)).sum())
    held = np.mean([e.ci_low <= truth <= e.ci_high for e in estimate(traces, confidence=0.90)])
    means = paired(traces).mean(axis=-1)
    by_spread = np.abs(means.mean(axis=1) - truth) <= 1.645 * means.std(axis=1, ddof=1) / np.sqrt(chains) if chains > 1 else np.array([np.nan])
    return float(held), float(by_spread.mean())


def test_the_error_covers_with_shared_batch_noise() -> None:
    """METHOD 2, Error: 85–97 % of nominal 90 % intervals hold the truth; what peers report on the same draws is far from it."""
    held, by_spread = coverage(shared=0.8, chains=4)
    assert 0.85 <= held <= 0.97
    assert by_spread < 0.80


def test_the_error_covers_without_batch_noise() -> None:
    held, _ = coverage(shared=0.0, chains=4)
    assert 0.85 <= held <= 0.97


def test_the_error_covers_for_a_single_chain() -> None:
    """Here the spread of chains cannot help: the batches must outlast the autocorrelation."""
    held, _ = coverage(shared=0.0, chains=1, draws=200)
    assert 0.85 <= held <= 0.97


def test_pairing_removes_the_noise_of_the_batch() -> None:
    """The offset of a minibatch, a nat here, is common to w_t and w*: paired it cancels, unpaired it is nβ/√draws = 3.9 of sd."""
    settings = SamplerSettings("leimkuhler-matthews", step_size=1e-3, localization=200.0, nbeta=30.0, chains=2, draws=60, burn_in=0)
    h = torch.full((100, 5), 20.0, dtype=torch.float64)

    def results(offset_noise: float) -> tuple[Floats, Floats]:
        toy = Quadratic({"w": torch.zeros_like(h)}, {"w": h}, offset_noise=offset_noise)
        traces = run_chains(toy, toy.origin, range(61), settings, np.arange(200).reshape(100, 2).tolist())
        found = estimate(traces, init_loss=np.zeros(100))
        return np.array([e.llc for e in found]), np.array([e.llc_unpaired for e in found])

    (quiet, _), (noisy, unpaired) = results(0.0), results(1.0)
    np.testing.assert_allclose(noisy, quiet, rtol=1e-10)
    assert np.std(unpaired - quiet) == pytest.approx(30 / np.sqrt(60), rel=0.2)

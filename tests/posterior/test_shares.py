"""Shares of tokens: they add up to λ̂ on the probe, are exact where the loss is a sum of quadratics, and change nothing else."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rllc.core.errors import RllcError
from rllc.posterior import exact
from rllc.posterior.estimate import standard_error
from rllc.posterior.protocol import Evaluation, Tensors
from rllc.posterior.sampling import Minibatches, sample
from rllc.posterior.settings import SamplerSettings, Stopping
from rllc.posterior.shares import ShareTally, joined_shares

from .chain_toys import toy

SETTINGS = SamplerSettings("leimkuhler-matthews", step_size=4e-3, localization=50.0, nbeta=10.0, chains=3, draws=20, burn_in=5)


@dataclass(frozen=True)
class Tokens:
    """n predictions, of loss g_t·v + ½ Σ h_ti v_i² each, for P parts of d weights; a batch is which predictions it holds."""

    curvature: torch.Tensor  # [n, P, d]
    slope: torch.Tensor  # [n, P, d]
    center: float = 0.7

    @property
    def origin(self) -> Tensors:
        return {"w": torch.full(self.curvature.shape[1:], self.center, dtype=self.curvature.dtype)}

    def prepare(self, batch: list[int]) -> list[int]:
        return batch

    def token_losses(self, variants: Tensors, context: list[int]) -> torch.Tensor:
        w = variants["w"].view(self.curvature.shape[1], -1, self.curvature.shape[2])  # [P, chains, d]
        v = (w - self.center)[None]
        each = (self.slope[context][:, :, None] * v + self.curvature[context][:, :, None] * v**2 / 2).sum(-1)
        return (each + 2.0).flatten(1).T

    def evaluate(self, variants: Tensors, context: list[int], *, gradients: bool = True) -> Evaluation:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in variants.items()}
        losses = self.token_losses(leaves, context).mean(1)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return Evaluation(losses.detach(), dict(zip(leaves, found, strict=True)) if gradients else None, torch.full_like(losses, 2.0))

    def of(self, parts: list[int]) -> Tokens:
        return replace(self, curvature=self.curvature[:, parts], slope=self.slope[:, parts])


def tokens(n: int = 12, parts: int = 2, d: int = 5, tilt: float = 1.0) -> Tokens:
    generator = torch.Generator().manual_seed(3)
    # every prediction bends a direction of its own most
    curvature = 60 * torch.rand(n, parts, d, generator=generator, dtype=torch.float64) ** 4
    return Tokens(curvature, tilt * torch.randn(n, parts, d, generator=generator, dtype=torch.float64))


def seeds(settings: SamplerSettings, parts: int = 2) -> list[list[int]]:
    return [[100 * p + c for c in range(settings.chains)] for p in range(parts)]


def everything() -> list[list[int]]:
    return [list(range(7)), list(range(7, 12))]


def test_they_add_up_to_the_llc_on_the_probe() -> None:
    """Every draw on all predictions at once: the probe is then the fixed evaluation set."""
    model = tokens()
    data = Minibatches(itertools.repeat([0, 3, 5]), fixed=list(range(12)), probe=everything())
    sampled = sample(model, data, SETTINGS, noise_seeds=seeds(SETTINGS))
    for shares, traces, result in zip(sampled.shares, sampled.traces, sampled.results, strict=True):
        assert shares.share.shape == shares.stderr.shape == (1, 12)
        assert shares.draws == SETTINGS.draws
        assert result.estimate is not None
        assert abs(shares.share.sum() - result.estimate.llc) < 1e-9
        assert abs(shares.total[0] - result.estimate.llc) < 1e-9
        assert abs(shares.total_stderr[0] - result.estimate.stderr) < 1e-9
        assert traces.fixed_losses is not None
    assert np.abs(sampled.shares[0].share - sampled.shares[1].share).max() > 1e-3


def test_means_and_errors_are_those_of_the_history_that_is_not_kept() -> None:
    """23 draws: what does not fill eight batches is left out at the beginning, as in `standard_error`."""
    rng = np.random.default_rng(0)
    losses, baseline = rng.normal(size=(23, 2, 3, 4)), rng.normal(size=(2, 4))
    tally = ShareTally(torch.from_numpy(baseline), 3, 10.0, 23)
    for draw in losses:
        tally.add(torch.from_numpy(draw.reshape(6, 4)))
    found = tally.result()
    history = 10.0 / 4 * (losses - baseline[:, None]).transpose(1, 3, 2, 0)  # [P, n, chains, draws]
    np.testing.assert_allclose(found.share, history.mean((-2, -1)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.stderr, standard_error(history)[0], rtol=1e-10)
    np.testing.assert_allclose(found.total_stderr, standard_error(history.sum(1))[0], rtol=1e-10)
    more = ShareTally(torch.from_numpy(baseline), 3, 10.0, 24)
    with pytest.raises(ValueError, match="0 draws were added, and 24 promised"):
        more.result()


def test_on_quadratics_every_prediction_has_its_exact_share() -> None:
    """METHOD 3.1: with variance V_i and mean m_i of the mean loss's posterior, token t has nβ/n Σ_i (g_ti m_i + ½ h_ti (V_i + m_i²))."""
    model = tokens(parts=1)
    settings = replace(SETTINGS, chains=16, draws=1500, burn_in=60)
    shares = sample(model, Minibatches(itertools.repeat(list(range(12))), probe=everything()), settings, noise_seeds=seeds(settings, 1)).shares[0]
    h, g = model.curvature[:, 0].numpy(), model.slope[:, 0].numpy()
    mean = exact.mean(h.mean(0), settings, g.mean(0))
    variance = exact.variance(h.mean(0), settings, gradient=g.mean(0))
    truth = settings.nbeta / 12 * (g * mean + h / 2 * (variance + mean**2)).sum(1)
    z = (shares.share[0] - truth) / shares.stderr[0]
    assert np.abs(z).max() < 4.5, z
    assert np.sqrt((z**2).mean()) < 1.7, z
    assert abs(shares.total[0] - truth.sum()) < 4.5 * shares.total_stderr[0] < 0.1 * truth.sum()
    assert truth.std() > 5 * shares.stderr[0].max()  # so that swapped predictions would be seen


def test_estimates_are_the_same_to_the_bit_with_and_without() -> None:
    model, stopping = tokens(), Stopping(target_stderr=0.2, max_draws=90)
    with_probe, without = (
        sample(
            model, Minibatches(itertools.repeat([0, 3, 5]), probe=probe), SETTINGS, noise_seeds=seeds(SETTINGS), stopping=stopping, narrow=model.of
        )
        for probe in (everything(), [])
    )
    assert without.shares == ()
    for a, b in zip(with_probe.traces, without.traces, strict=True):
        for name, array in a.arrays().items():
            np.testing.assert_array_equal(array, b.arrays()[name])
    assert [r.estimate and (r.estimate.llc, r.estimate.stderr) for r in with_probe.results] == [
        r.estimate and (r.estimate.llc, r.estimate.stderr) for r in without.results
    ]
    # the first part was done after 20 draws, and its shares are of those
    assert [shares.draws for shares in with_probe.shares] == [traces.settings.draws for traces in with_probe.traces] == [20, 90]


def test_stretches_are_joined_by_their_draws() -> None:
    model = tokens()
    data = Minibatches(itertools.repeat([0, 3, 5]), fixed=list(range(12)), probe=everything())
    stopping = Stopping(target_stderr=1e-9, max_draws=60)
    longer = sample(model, data, SETTINGS, noise_seeds=seeds(SETTINGS), stopping=stopping)
    for shares, result in zip(longer.shares, longer.results, strict=True):
        assert shares.draws == 60
        assert result.estimate is not None
        assert abs(shares.share.sum() - result.estimate.llc) < 1e-9
    one = longer.shares[0]
    assert joined_shares([one]) is one
    twice = joined_shares([one, one])
    np.testing.assert_allclose(twice.share, one.share)
    np.testing.assert_allclose(twice.sq_stderr, one.sq_stderr / 2)


def test_a_loss_without_predictions_and_mala_are_refused() -> None:
    plain = toy()
    with pytest.raises(RllcError, match="does not tell its predictions apart"):
        sample(plain, Minibatches(itertools.count(), probe=[0]), SETTINGS, noise_seeds=seeds(SETTINGS))
    mala = replace(SETTINGS, sampler="mala")
    with pytest.raises(RllcError, match="MALA's draws"):
        sample(tokens(), Minibatches(itertools.repeat([0]), probe=everything()), mala, noise_seeds=seeds(mala))

"""Sampling from beginning to end: a target of precision, prolonged chains, and the checks that cost something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rllc.core.outcome import Outcome
from rllc.posterior import exact
from rllc.posterior.quadratic import MinibatchNoise, Quadratic
from rllc.posterior.sampling import Earlier, Minibatches, Sampled, sample
from rllc.posterior.settings import ExtraChecks, SamplerSettings, Stopping
from rllc.posterior.traces import Segment, stacked

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=40, burn_in=20)
H = torch.stack([torch.full((400,), 10.0), torch.full((400,), 1.0), torch.cat([torch.full((3,), 10.0), torch.zeros(397)])])
SEEDS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


class Parts(Quadratic):
    """Parts of the quadratic `H`, which carry the minibatch noise of all three."""

    def prepare(self, batch: int) -> MinibatchNoise:
        whole = Quadratic({"w": torch.zeros_like(H)}, {"w": H}, stretch_noise=0.3).prepare(batch)
        rows = [i for i in range(3) if any(torch.equal(H[i], h) for h in self.curvature["w"])]
        return MinibatchNoise(whole.offset[rows], whole.stretch[rows], {})


def of(rows: Sequence[int]) -> Parts:
    rows = list(rows)
    return Parts({"w": torch.zeros(len(rows), 400)}, {"w": H[rows]})


def run(stopping: Stopping | None = None, settings: SamplerSettings = PAPER, narrow: bool = True, **rest: object) -> Sampled:
    batches = Minibatches(iter(range(100_000)), range(200_000, 200_016), halving=iter(range(300_000, 400_000)))
    return sample(of(range(3)), batches, settings, noise_seeds=SEEDS, stopping=stopping, narrow=of if narrow else None, **rest)  # type: ignore[arg-type]


def test_chains_go_on_until_every_part_has_its_error() -> None:
    """Three parts of different difficulty: each has the relative error asked for or the draws of the cap, and the easy one has fewer draws."""
    result = run(Stopping(0.03, relative=True, max_draws=600))
    draws = [traces.settings.draws for traces in result.traces]
    estimates = [r.estimate for r in result.results]
    assert all(e is not None for e in estimates)
    for e, n in zip(estimates, draws, strict=True):
        assert e is not None
        assert e.draws == n
        assert n == 600 or e.stderr <= 0.03 * abs(e.llc)
    assert draws[0] < draws[2] == 600
    hard = estimates[2]
    assert hard is not None
    assert hard.stderr > 0.03 * hard.llc  # the cap holds
    tight = run(Stopping(0.6, max_draws=400)).results[1].estimate
    assert tight is not None
    assert tight.stderr <= 0.6


def test_parts_that_are_done_cost_nothing_and_change_nothing() -> None:
    stopping = Stopping(0.03, relative=True, max_draws=300)
    narrowed, whole = run(stopping), run(stopping, narrow=False)
    few, many = narrowed.traces[0].losses.shape[-1], whole.traces[0].losses.shape[-1]
    assert few < many
    np.testing.assert_array_equal(narrowed.traces[0].losses, whole.traces[0].losses[..., :few])
    np.testing.assert_array_equal(narrowed.traces[2].losses, whole.traces[2].losses)


def test_a_stop_at_a_target_is_the_beginning_of_the_long_run() -> None:
    stopped = run(Stopping(0.03, relative=True, max_draws=300)).traces[2]
    long = run(settings=replace(PAPER, draws=300)).traces[2]
    assert stopped.segments == long.segments == (Segment(321, 21),)
    for name, array in long.arrays().items():
        np.testing.assert_array_equal(stopped.arrays()[name], array)


def test_a_failed_part_is_not_prolonged() -> None:
    class Broken(Parts):
        def evaluate(self, variants, context, *, gradients=True):
            result = super().evaluate(variants, context, gradients=gradients)
            result.losses[0] = torch.nan
            return result

    toy = Broken({"w": torch.zeros(1, 400)}, {"w": H[2:]})
    result = sample(toy, iter(range(1000)), PAPER, noise_seeds=SEEDS[:1], stopping=Stopping(1e-9, max_draws=900))
    assert result.results[0].outcome == Outcome.NONFINITE
    assert result.traces[0].settings.draws == 40


def test_prolonged_with_its_state_it_is_one_long_run() -> None:
    """Exactly, each part by itself too."""
    begun, long = run(), run(settings=replace(PAPER, draws=90))
    snapshot = {name: np.concatenate([s[name] for s in begun.snapshots]) for name in begun.snapshots[0]}
    earlier = Earlier(stacked(begun.traces), snapshot)
    batches = Minibatches(iter(range(61, 1000)), range(200_000, 200_016))
    prolonged = sample(of(range(3)), batches, replace(PAPER, draws=90), noise_seeds=SEEDS, earlier=earlier)
    for p in range(3):
        assert prolonged.traces[p].segments == (Segment(111, 21),)
        for name, array in long.traces[p].arrays().items():
            np.testing.assert_array_equal(prolonged.traces[p].arrays()[name], array, err_msg=name)
    assert [r.estimate for r in prolonged.results] == [r.estimate for r in long.results]
    alone = Earlier(begun.traces[1], begun.snapshots[1])
    one = sample(of([1]), iter(range(61, 1000)), replace(PAPER, draws=90), noise_seeds=SEEDS[1:2], earlier=alone)
    np.testing.assert_array_equal(one.traces[0].losses, long.traces[1].losses)


def test_prolonged_without_its_state_it_starts_again_with_a_burn_in() -> None:
    begun = run()
    batches = Minibatches(iter(range(5000, 6000)), range(200_000, 200_016))
    other = [[s + 100 for s in row] for row in SEEDS]
    prolonged = sample(of(range(3)), batches, replace(PAPER, draws=90), noise_seeds=other, earlier=Earlier(stacked(begun.traces)))
    traces = prolonged.traces[0]
    assert traces.segments == (Segment(61, 21), Segment(71, 21))
    np.testing.assert_array_equal(traces.kept, [*range(21, 61), *range(82, 132)])
    np.testing.assert_array_equal(traces.sq_distance[..., 61], 0)
    np.testing.assert_array_equal(traces.losses[..., :61], begun.traces[0].losses)
    e = prolonged.results[0].estimate
    assert e is not None
    assert e.draws == 90
    assert e.llc == pytest.approx(exact.llc(H[0].numpy(), PAPER).sum(), rel=0.05)


def test_an_earlier_run_that_lacks_precision_alone_is_prolonged_by_what_its_error_wants() -> None:
    begun = run()
    snapshot = {name: np.concatenate([s[name] for s in begun.snapshots]) for name in begun.snapshots[0]}
    result = sample(
        of(range(3)), iter(range(61, 5000)), PAPER, noise_seeds=SEEDS, earlier=Earlier(stacked(begun.traces), snapshot),
        stopping=Stopping(0.03, relative=True, max_draws=200), narrow=of,
    )  # fmt: skip
    assert result.traces[2].settings.draws > 40
    assert max(t.settings.draws for t in result.traces) <= 200


def test_halving_tells_the_bias_of_the_step() -> None:
    """METHOD 3.1 at ε and ε/2."""
    result = run(settings=replace(PAPER, draws=300), checks=ExtraChecks(halving=True))
    h = H[0].numpy()
    expected = exact.llc(h, replace(PAPER, step_size=5e-4)).sum() - exact.llc(h, PAPER).sum()
    d = result.results[0].diagnostics
    assert d.halving == pytest.approx(expected, abs=3 * d.halving_stderr)
    assert d.halving_stderr < 4
    assert np.isnan(run().results[0].diagnostics.halving)


def test_the_twin_stands_beside_a_small_part() -> None:
    result = run(checks=ExtraChecks(twin_dimension=400))
    assert result.results[0].diagnostics.twin == pytest.approx(0.5 * 400 * 300 / 500, rel=0.1)  # under noise of the curvature of 30 %
    assert np.isnan(run(checks=ExtraChecks(twin_dimension=399)).results[0].diagnostics.twin)


def test_without_minibatches_at_the_origin_the_tilt_is_unknown() -> None:
    result = sample(of([0]), iter(range(100)), PAPER, noise_seeds=SEEDS[:1])
    assert result.origin is None
    assert np.isnan(result.results[0].diagnostics.tilt)

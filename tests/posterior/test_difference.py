"""Differences of two cells by hand, what of them is aligned, what many of them may claim, and the coverage of their error."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from rllc.posterior.chains import run_chains
from rllc.posterior.difference import Difference, difference, holm, joint_confidence, p_value
from rllc.posterior.estimate import standard_error
from rllc.posterior.quadratic import Quadratic
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Floats, Segment, Traces

PAPER = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=4, draws=80, burn_in=20)
NAMES = ("losses", "gradient_dot", "sq_distance", "sq_gradient", "force_dot", "stein", "log_acceptance")


def cell(values: Floats, segments: tuple[Segment, ...] = (), baseline: float = 0.0, fixed: bool = False, **change: float) -> Traces:
    """A cell whose λ̂ is the mean of `values` [chains, draws], which come after w* and a burn-in of one; a segment each where several are given."""
    chains, draws = values.shape
    segments = segments or (Segment(draws + 2, 2),)
    ends = np.cumsum([s.evaluations for s in segments])
    kept = np.concatenate([np.arange(end - s.evaluations + s.discarded, end) for end, s in zip(ends, segments, strict=True)])
    losses = np.full((1, chains, ends[-1]), 99.0)
    losses[0][:, kept] = values / 30.0
    arrays = dict.fromkeys(NAMES, losses + baseline) | {"baseline": np.full((1, ends[-1]), baseline)}
    if fixed:
        arrays |= {"fixed_losses": losses, "fixed_baseline": np.zeros(1)}
    settings = replace(PAPER, chains=chains, burn_in=1, draws=draws, **change)
    return Traces.of(settings, 10, arrays, segments)


SHARED = np.tile([0.0, 7.0, -3.0, 4.0], 4)  # what a minibatch does to every chain of both cells
A = SHARED + np.array([[1.0], [3.0]])
B = SHARED + np.array([[0.0], [1.0]])


def test_what_the_cells_share_cancels_before_the_error_is_taken() -> None:
    """METHOD 2, Error: Δ is 1 in one chain and 2 in the other, at every draw; each cell alone moves by whole units."""
    found = difference(cell(A), cell(B, baseline=5.0))
    assert (found.llc_a, found.llc_b, found.difference) == (pytest.approx(4.0), pytest.approx(2.5), pytest.approx(1.5))
    assert (found.stderr, found.df, found.aligned) == (pytest.approx(np.std([1, 2], ddof=1) / np.sqrt(2)), 1, True)
    reach = 6.314 * 0.5  # Student's t of 90 % and one degree of freedom, from a printed table
    assert (found.ci_low, found.ci_high) == (pytest.approx(1.5 - reach, rel=1e-3), pytest.approx(1.5 + reach, rel=1e-3))
    errors = [float(standard_error(x)[0]) for x in (A, B)]
    assert found.stderr_independent == pytest.approx(np.hypot(*errors))
    assert (found.draws_a, found.draws_b) == (16, 16)


def test_the_direction_is_a_minus_b() -> None:
    forth, back = difference(cell(A), cell(B)), difference(cell(B), cell(A))
    assert back.difference == pytest.approx(-forth.difference)
    assert (back.stderr, back.p, back.ci_low) == (pytest.approx(forth.stderr), pytest.approx(forth.p), pytest.approx(-forth.ci_high))


def test_without_shared_noise_the_chains_are_not_paired() -> None:
    """Chain means 2, 6 and 1, 4 (shared: 0): spreads √(8)/√2 and √(4.5)/√2 add up, though chain by chain only 1 and 2 would be seen."""
    a, b = SHARED - 2.0 + np.array([[2.0], [6.0]]), SHARED - 2.0 + np.array([[1.0], [4.0]])
    found = difference(cell(a), cell(b), shared_noise=False)
    assert (found.stderr, found.df) == (pytest.approx(np.sqrt(8 / 2 + 4.5 / 2)), 1)  # Welch: (4 + 2.25)²/(16 + 5.06) = 1.85, rounded down
    assert difference(cell(a), cell(b)).stderr == pytest.approx(np.std([1, 2], ddof=1) / np.sqrt(2))


def test_without_shared_noise_equal_spreads_have_the_degrees_of_freedom_of_both() -> None:
    means = np.array([[0.0], [1.0], [2.0], [5.0]])
    found = difference(cell(SHARED + means), cell(SHARED + means[::-1]), shared_noise=False)
    assert (found.stderr, found.df) == (pytest.approx(np.sqrt(2 * means.var(ddof=1) / 4)), 6)


def test_without_shared_noise_the_batches_still_are_paired() -> None:
    """Chains that agree: the error is that of the batch means of Δ, and a lone chain has no other."""
    wave = np.repeat([0.0, 4.0, 1.0, 3.0, 0.0, 2.0, 5.0, 1.0], 2)
    for chains in (1, 3):
        found = difference(cell(np.tile(SHARED + wave, (chains, 1))), cell(np.tile(SHARED, (chains, 1))), shared_noise=False)
        assert (found.stderr, found.df) == (pytest.approx(wave[::2].std(ddof=1) / np.sqrt(8)), 7)


def test_a_prolonged_cell_is_compared_by_the_draws_in_common() -> None:
    """The 16 draws that were added to one cell are another value altogether, and stay out of all numbers."""
    long = np.concatenate([A, A + 50.0], axis=1)
    found = difference(cell(long), cell(B))
    assert found == difference(cell(A), cell(B))
    assert (found.draws_a, found.aligned) == (16, True)


def test_chains_that_started_again_have_in_common_what_both_did_before() -> None:
    """One cell went on for 16 draws more, one started again at w* with a burn-in of its own: 16 leading draws are the same evaluations."""
    more = np.concatenate([A, A + 50.0], axis=1)
    went_on, again = cell(more), cell(more, (Segment(18, 2), Segment(18, 2)))
    assert difference(went_on, again).draws_a == 16
    assert difference(again, cell(more, (Segment(18, 2), Segment(10, 2), Segment(10, 2)))).draws_b == 24
    # places that meet again later, in other runs of evaluations, are not the same draws
    assert difference(cell(A, (Segment(6, 2), Segment(14, 2))), cell(B, (Segment(10, 2), Segment(10, 2)))).draws_a == 4
    both = difference(again, cell(np.concatenate([B, B], axis=1), (Segment(18, 2), Segment(18, 2))))
    assert (both.draws_a, both.draws_b, both.difference) == (32, 32, pytest.approx(26.5))


@pytest.mark.parametrize(
    "other", [cell(B, step_size=5e-4), cell(B, nbeta=31.0), cell(B, fixed=True), cell(np.vstack([B, B])), cell(B, (Segment(5, 2), Segment(15, 2)))]
)
def test_cells_with_nothing_in_common_have_independent_errors(other: Traces) -> None:
    """Other settings, another loss, other chains, or three draws in common."""
    found = difference(cell(A), other)
    assert not found.aligned
    assert found.stderr == found.stderr_independent
    assert found.draws_b == other.settings.draws


def test_independent_errors_by_hand() -> None:
    """Errors 2 (1 degree of freedom) and 1 (7): √5, and Welch's 5²/(16/1 + 1/7) = 1.55, rounded down; all draws enter."""
    wave = np.array([3.0, -3.0, 3.0, -3.0, 3.0, -3.0, 3.0, -3.0]) * np.sqrt(7) / 3  # batch means of sd √8
    a, b = cell(np.array([[-2.0] * 40, [2.0] * 40])), cell(np.repeat(wave, 5)[None] + 1.0, nbeta=30.0)
    found = difference(a, b)
    assert (found.stderr, found.df) == (pytest.approx(np.sqrt(5)), 1)
    assert (found.difference, found.aligned, found.draws_a) == (pytest.approx(-1.0), False, 40)


def test_independent_errors_of_equal_size_have_the_degrees_of_freedom_of_both() -> None:
    wave = np.repeat([0.0, 4.0, 1.0, 3.0, 0.0, 2.0, 5.0, 1.0], 2)[None]
    assert difference(cell(wave), cell(wave, nbeta=30.0, step_size=5e-4)).df == 14


def test_p_is_two_sided_and_student_s() -> None:
    """From a printed table of t: 1.895 (7 degrees of freedom) and 3.182 (3) are the 10 % and 5 % points, two-sided."""
    assert p_value(1.895, 1.0, 7) == pytest.approx(0.10, abs=1e-4)
    assert p_value(-2 * 3.182, 2.0, 3) == pytest.approx(0.05, abs=1e-4)
    assert (p_value(0.0, 1.0, 3), p_value(0.0, 0.0, 3), p_value(1e-9, 0.0, 3)) == (1.0, 1.0, 0.0)
    found = difference(cell(A), cell(B))
    assert found.p == pytest.approx(p_value(1.5, 0.5, 1))


def test_an_interval_that_ends_at_zero_has_p_at_the_level() -> None:
    found = difference(cell(A), cell(B))
    low, high = found.interval(1 - found.p)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == pytest.approx(3.0)


def test_holm_by_hand() -> None:
    """Four p values: 0.005·4, 0.01·3, 0.03·2, and 0.04·1 raised to the one before it."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.04])), [0.04])
    np.testing.assert_allclose(holm(np.array([0.02, 0.02])), [0.04, 0.04])


def test_joint_intervals_by_hand() -> None:
    """Ten at 90 % are 99 % each: 3.499 standard errors at seven degrees of freedom, from a printed table."""
    found = Difference(2.0, 1.0, 1.0, 0.1, 0.81, 1.19, 7, 1e-5, 0.2, 80, 80, aligned=True)
    assert found.interval(joint_confidence(0.90, 10)) == (pytest.approx(1 - 0.3499, abs=1e-4), pytest.approx(1 + 0.3499, abs=1e-4))


# Coverage. Every one of RUNS parts is a run of its own, and the minibatch stretches the curvature by 1 + τ_B; two toys on the same minibatches
# see the same τ_B, as two heads of a model do.
RUNS = 400
HEAD = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
OTHER_HEAD = (3.0, 3.0, 8.0, 8.0, 15.0, 40.0)
LATER = tuple(1.1 * h for h in HEAD)
NOISE, OTHER_NOISE, TEXT, OTHER_TEXT = 0, 10**6, 0, 10**6


@lru_cache
def toy(h: tuple[float, ...], stretch: float, noise: int, text: int) -> Traces:
    curvature = torch.tensor(h, dtype=torch.float64).repeat(RUNS, 1)
    loss = Quadratic({"w": torch.zeros_like(curvature)}, {"w": curvature}, offset_noise=1.0, stretch_noise=stretch)
    seeds = noise + np.arange(RUNS * PAPER.chains).reshape(RUNS, PAPER.chains)
    return run_chains(loss, loss.origin, range(text, text + PAPER.steps + 1), PAPER, seeds.tolist())


def truth(h: tuple[float, ...], stretch: float) -> float:
    """v' = (1 - ε/2 (nβ(1+τ)h + γ)) v + √ε ξ has variance ε/(1 - E[(...)²]), and τ of the minibatch is independent of w_t."""
    nbeta_h = 30 * np.array(h)
    shrink = (1 - 5e-4 * (nbeta_h + 200)) ** 2 + (5e-4 * nbeta_h * stretch) ** 2
    return float((nbeta_h / 2 * 1e-3 / (1 - shrink)).sum())


def covered(a: Traces, b: Traces, expected: float, *, shared_noise: bool = True) -> tuple[float, float]:
    """Share of nominal 90 % intervals that hold the truth, and the error as a share of the independent one, in the mean of squares."""
    found = [difference(a.part(p), b.part(p), shared_noise=shared_noise) for p in range(RUNS)]
    assert all(d.aligned for d in found)
    ratio = np.sqrt(np.mean([d.stderr**2 for d in found]) / np.mean([d.stderr_independent**2 for d in found]))
    return float(np.mean([d.ci_low <= expected <= d.ci_high for d in found])), float(ratio)


@pytest.mark.parametrize("shared_noise", [False, True])
def test_the_error_covers_between_heads_on_shared_minibatches(shared_noise: bool) -> None:
    """METHOD 2, Error: 85–97 % of nominal 90 % intervals, and smaller than as if the minibatches were not shared."""
    a, b = toy(HEAD, 0.8, NOISE, TEXT), toy(OTHER_HEAD, 0.8, OTHER_NOISE, TEXT)
    held, ratio = covered(a, b, truth(HEAD, 0.8) - truth(OTHER_HEAD, 0.8), shared_noise=shared_noise)
    assert 0.85 <= held <= 0.97
    assert ratio < 0.85


def test_the_error_covers_between_checkpoints_with_common_random_numbers() -> None:
    """Curvatures 10 % apart, minibatches and noise the same: a difference of 0.13 that independent errors of 0.27 could not see."""
    held, ratio = covered(toy(LATER, 0.8, NOISE, TEXT), toy(HEAD, 0.8, NOISE, TEXT), truth(LATER, 0.8) - truth(HEAD, 0.8))
    assert 0.85 <= held <= 0.97
    assert ratio < 0.10


def test_the_error_covers_between_kinds_of_data_with_the_same_noise() -> None:
    held, ratio = covered(toy(LATER, 0.3, NOISE, OTHER_TEXT), toy(HEAD, 0.3, NOISE, TEXT), truth(LATER, 0.3) - truth(HEAD, 0.3))
    assert 0.85 <= held <= 0.97
    assert ratio < 0.50


def test_where_nothing_is_shared_the_error_is_the_independent_one_and_covers() -> None:
    held, ratio = covered(toy(LATER, 0.3, OTHER_NOISE, OTHER_TEXT), toy(HEAD, 0.3, NOISE, TEXT), truth(LATER, 0.3) - truth(HEAD, 0.3))
    assert 0.85 <= held <= 0.97
    assert 0.9 < ratio < 1.1

from __future__ import annotations

import numpy as np
import pytest

from rllc.analysis.aligned import Cells, error_of
from rllc.analysis.circuit import circuit, may_be_largest
from rllc.analysis.findings import Curves
from rllc.analysis.onsets import Onset, coincidence, lag, nearest_allowed, onset
from rllc.analysis.verdicts import any_of, beyond_chance, correlation_interval, decide, effect, lacking

STEPS = np.unique(np.r_[0, np.round(np.geomspace(1, 10_000, 24)).astype(np.int64)])
X = np.log1p(STEPS.astype(np.float64))
Z = 1.6448536269514722


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def verdict(*conditions: object) -> str:
    return decide("id", "A.", "T.", conditions).verdict  # type: ignore[arg-type]


def test_an_effect_is_met_refused_or_open_by_its_interval() -> None:
    assert verdict(effect("a", 2.0, 0.5, 1.0, 0.05)) == "seen"
    assert verdict(effect("a", 0.1, 0.2, 1.0, 0.05)) == "not seen"
    assert verdict(effect("a", 0.5, 0.5, 1.0, 0.05)) == "cannot tell"
    assert verdict(effect("a", 0.2, 0.01, 1.0, 0.05)) == "not seen"  # above zero, and too small to count
    interval = effect("a", 2.0, 0.5, 1.0, 0.05).number
    assert interval.low == pytest.approx(2 - Z * 0.5)
    assert interval.high == pytest.approx(2 + Z * 0.5)


def test_the_largest_of_many_is_held_to_more_than_one_alone() -> None:
    assert effect("a", 1.0, 0.5, 0.5, 0.05).met
    assert not effect("a", 1.0, 0.5, 0.5, 0.05, tries=10).met
    assert effect("a", 0.1, 0.2, 0.5, 0.05).refused
    assert not effect("a", 0.1, 0.2, 0.5, 0.05, among=10).refused


def test_all_conditions_must_be_met_and_any_refuses() -> None:
    good, bad, unknown = effect("a", 2, 0.1, 1, 0.05), effect("b", 0, 0.1, 1, 0.05), lacking("c", "it was not measured")
    assert verdict(good, good) == "seen"
    assert verdict(good, unknown) == "cannot tell"
    assert verdict(good, unknown, bad) == "not seen"
    assert verdict() == "cannot tell"
    told = decide("id", "A.", "T.", [good, unknown])
    assert told.why == "c: it was not measured."
    assert "b is at most" in decide("id", "A.", "T.", [good, bad]).why


def test_some_of_many_is_refused_by_all_alone() -> None:
    good, bad, unknown = effect("a", 2, 0.1, 1, 0.05), effect("b", 0, 0.1, 1, 0.05), lacking("c", "nothing")
    assert any_of("some", [bad, good, unknown], "none").met
    assert any_of("some", [bad, bad], "none").refused
    assert not any_of("some", [bad, unknown], "none").refused
    assert any_of("some", [], "there is none").told == "there is none"
    assert any_of("some", [bad, good], "none").number.name == "some (a)"


def test_a_p_value_alone_does_not_show_an_effect_of_the_wrong_sign_or_too_small() -> None:
    assert beyond_chance("a", 0.8, 0.5, 0.9, 0.01, 0.5, 0.05).met
    assert not beyond_chance("a", -0.8, -0.9, 0.9, 0.01, 0.5, 0.05).met
    assert beyond_chance("a", 0.3, 0.1, 0.4, 0.01, 0.5, 0.05).refused
    assert not beyond_chance("a", 0.8, 0.5, 0.9, 0.06, 0.5, 0.05).met
    assert verdict(beyond_chance("a", float("nan"), 0, 0, 0, 0.5, 0.05)) == "cannot tell"


def test_numbers_that_are_noise_refuse_no_correlation() -> None:
    assert correlation_interval(0.0, 40, 0.05, 1.0)[1] < 0.3
    assert correlation_interval(0.0, 40, 0.05, 0.25)[1] == pytest.approx(2 * correlation_interval(0.0, 40, 0.05, 1.0)[1])
    assert correlation_interval(0.0, 40, 0.05, 0.0)[1] == 1.0
    drawn = np.array([[np.argsort(np.argsort(row)) for row in rng(1).standard_normal((500, 16))]])[0].astype(float)
    other = np.arange(16.0)
    found = np.array([np.corrcoef(row, other)[0, 1] for row in drawn])
    outside = np.mean([correlation_interval(float(r), 16, 0.05, 1.0)[1] < 0 for r in found])
    assert 0.02 < outside < 0.085  # 5 % of intervals lie below the truth, 0


def logistic(place: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(X - place) / 0.3))


def test_an_onset_is_where_half_the_way_is_crossed_between_its_checkpoints() -> None:
    found = onset("m", STEPS, logistic(6.0), np.zeros(len(STEPS)), rng())
    assert np.log1p(found.step) == pytest.approx(6.0, abs=0.05)
    assert found.interval[0] <= found.step <= found.interval[1]
    assert {*np.round(np.array(found.interval)).astype(int)} <= {*STEPS.tolist()}
    falling = onset("m", STEPS, -logistic(6.0), np.zeros(len(STEPS)), rng(), falls=True)
    assert falling.step == pytest.approx(found.step)


def test_an_estimate_that_strays_early_is_no_onset() -> None:
    values = logistic(6.0)
    values[3] = 0.7
    assert np.log1p(onset("m", STEPS, values, np.zeros(len(STEPS)), rng()).step) == pytest.approx(6.0, abs=0.05)


def test_a_mark_that_does_not_change_beyond_its_errors_has_no_onset() -> None:
    noise = np.full(len(STEPS), 1.0)
    rates = [np.isfinite(onset("m", STEPS, rng(i).standard_normal(len(STEPS)), noise, rng(i)).step) for i in range(200)]
    assert np.mean(rates) <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 200)
    few = onset("m", STEPS[:2], np.array([0.0, 1.0]), np.zeros(2), rng())
    assert np.isnan(few.step)


def test_a_lag_is_sure_only_where_a_checkpoint_tells_two_onsets_apart() -> None:
    zero = np.zeros(len(STEPS))
    early, late, near = (onset("m", STEPS, logistic(place), zero, rng()) for place in (4.0, 6.0, 6.05))
    value, low, high = lag(early, late, 0.05)
    assert value == pytest.approx(2.0, abs=0.1)
    assert 0 < low < value < high
    _, low, high = lag(late, near, 0.05)
    assert low <= 0 <= high
    assert lag(late, early, 0.05)[2] < 0
    nothing = Onset("n", np.nan, (np.nan, np.nan), 0, 0, 0, np.empty(0), np.empty(0))
    assert np.isnan(lag(early, nothing, 0.05)).all()


def test_places_at_events_are_no_chance_and_random_ones_are() -> None:
    events = np.expm1(np.array([2.0, 4.0, 6.0, 8.0]))
    assert coincidence("a", np.expm1(np.array([2.05, 4.02, 6.04, 7.97])), events, rng()).p < 0.01
    generator = rng(3)
    p = [coincidence("a", np.expm1(generator.uniform(2, 8, 3)), events, rng(i), draws=400).p for i in range(300)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 300)
    assert np.isnan(coincidence("a", np.empty(0), events, rng()).p)


def test_intervals_bring_a_place_nearer_to_an_event() -> None:
    event = onset("m", STEPS, logistic(6.0), np.zeros(len(STEPS)), rng())
    far, wide = np.expm1(np.array([8.0])), np.expm1(np.array([[7.0, 9.0]]))
    distance = np.array([2.0])
    near = nearest_allowed(distance, wide, far, [event])
    assert 0.5 < near[0] < 1.0
    assert nearest_allowed(distance, np.full((1, 2), np.nan), far, [event])[0] > 1.5


def circuit_curves(noise: float, seed: int, falls: float) -> Curves:
    heads = tuple(f"{layer}:{head}" for layer in range(2) for head in range(3))
    first = np.interp(X, [0, 6, X[-1]], [0, 10, 10 - falls])
    last = np.interp(X, [0, X[-1]], [0, 12])
    clean = np.stack([first] * 3 + [last] * 3)
    error = np.full(clean.shape, noise)
    llc = clean + noise * rng(seed).standard_normal(clean.shape)
    return Curves("circuit", heads, STEPS, llc, error, llc, llc, np.full(clean.shape, "ok"))


def test_the_circuit_tells_peak_fall_and_rise_by_layer() -> None:
    found, reason = circuit(circuit_curves(0.1, 0, 5.0), 0)
    assert found is not None
    assert reason == ""
    assert found.layers == (0, 1)
    assert found.heads.tolist() == [3, 3]
    assert np.log1p(found.peak[0]) == pytest.approx(6.0, abs=0.5)
    assert found.peak_interval[0, 0] <= found.peak[0] <= found.peak_interval[0, 1]
    assert found.fall[0] == pytest.approx(5.0, abs=0.6)
    assert found.fall_p[0] < 0.01
    assert found.later[1] > 3
    np.testing.assert_allclose(found.stderr, 0.1)  # the mean of the errors, not their mean over √H
    assert found.fall[1] == pytest.approx(0, abs=0.4)


def test_a_layer_that_stays_is_rarely_said_to_fall() -> None:
    """The largest of many noisy estimates is above the last: that alone is no fall."""
    wrong = [circuit(circuit_curves(3.0, seed, 0.0), seed, draws=400)[0].fall_p[0] <= 0.05 for seed in range(60)]  # type: ignore[union-attr]
    assert np.mean(wrong) <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 60)


def test_one_layer_or_few_checkpoints_have_no_circuit() -> None:
    found, reason = circuit(Curves("c", ("0:0",), STEPS, *[np.ones((1, len(STEPS)))] * 4, np.full((1, len(STEPS)), "ok")), 0)
    assert found is None
    assert "1 layers have heads" in reason


SHARP = np.array([0.0, 1.2, 1.65, 1.5, 1.4, 1.4, 1.35, 1.3, 1.3, 1.25, 1.2, 0.9, -0.4, -0.4])


def sharp(noise: float, seed: int) -> Cells:
    """Means of chains and of batches of a curve that is highest at its third checkpoint and falls off a cliff at its end."""
    rng = np.random.default_rng(seed)
    chains = SHARP[:, None] + noise * rng.standard_normal((len(SHARP), 4))
    batches = SHARP[:, None] + noise * np.sqrt(2.0) * rng.standard_normal((len(SHARP), 8))
    return error_of(chains, batches)


def test_the_checkpoints_of_the_peak_hold_the_largest_estimate_and_a_sharp_peak_alone() -> None:
    """A smooth curve through these swings up before the cliff, and had its largest value there."""
    errors = sharp(0.02, 0)
    assert np.flatnonzero(may_be_largest(errors.chains.mean(axis=-1), errors)).tolist() == [2]


def test_the_checkpoints_of_the_peak_miss_the_true_one_in_one_of_twenty_at_most() -> None:
    missed = 0
    for seed in range(400):
        errors = sharp(0.2, seed)
        may = may_be_largest(errors.chains.mean(axis=-1), errors)
        missed += not may[2]
        assert may[errors.chains.mean(axis=-1).argmax()]
    assert missed / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)

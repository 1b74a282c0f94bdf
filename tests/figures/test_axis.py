from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.figures.axis import StepAxis, short


def test_checkpoints_from_one_on_give_log_of_t_plus_one() -> None:
    steps = np.array([0, 1, 2, 5, 10, 100, 1000])
    axis = StepAxis.of(steps)
    assert axis.scale == 1
    np.testing.assert_allclose(axis(steps), np.log10(steps + 1.0))


def test_a_late_first_checkpoint_does_not_fill_the_axis() -> None:
    axis = StepAxis.of([0, 100, 3000])
    assert float(axis(100)) / float(axis(3000)) < 0.4
    assert float(StepAxis(1.0, 0, 3000)(100)) / float(StepAxis(1.0, 0, 3000)(3000)) > 0.55  # what log(t + 1) would do


def test_ticks_are_labelled_with_true_steps() -> None:
    axis = StepAxis.of([0, 1, 3000])
    values, labels = axis.ticks()
    assert labels == ["0", "10", "100", "300", "1k", "3k"] or labels == ["0", "3", "10", "30", "100", "300", "1k", "3k"]
    np.testing.assert_allclose(values[-1], np.log10(3001))
    assert values[0] == 0


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30), st.floats(0.05, 0.4))
def test_ticks_hold_both_ends_and_keep_their_distance(steps: list[int], closest: float) -> None:
    axis = StepAxis.of(steps)
    values, labels = axis.ticks(closest)
    low, high = axis.range
    assert len(values) == len(labels)
    assert all(b - a >= closest * (high - low) * (1 - 1e-9) for a, b in itertools.pairwise(values))
    if min(steps) < max(steps):
        assert labels[0] == short(min(steps))
        assert labels[-1] == short(max(steps))


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True))
def test_later_steps_lie_further_right(steps: list[int]) -> None:
    ordered = np.sort(np.array(steps))
    assert (np.diff(StepAxis.of(ordered)(ordered)) > 0).all()


def test_no_step_and_one_step_still_make_an_axis() -> None:
    assert StepAxis.of().range == (0.0, pytest.approx(np.log10(2)))
    low, high = StepAxis.of([500]).range
    assert low < float(StepAxis.of([500])(500)) < high
    assert StepAxis.of([0]).scale == 1

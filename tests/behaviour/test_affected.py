from __future__ import annotations

import numpy as np
import pytest

from rllc.behaviour.affected import correlations, most_affected, overlaps
from rllc.core.errors import RllcError


def planted(contexts: int = 40, places: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Heads 0 and 1 act on the same predictions, head 2 on others, head 3 nowhere."""
    rng = np.random.default_rng(0)
    counted = rng.random((contexts, places)) > 0.1
    effects = rng.normal(0, 0.01, (4, contexts, places))
    same = rng.random((contexts, places)) < 0.02
    effects[0][same] += 3
    effects[1][same] += 2
    effects[2][rng.random((contexts, places)) < 0.02] += 3
    effects[3] = 0
    return effects, counted


def test_heads_that_share_their_predictions_overlap_and_correlate():
    effects, counted = planted()
    shared = overlaps(effects, counted, 0.01)
    assert shared[0, 1] > 0.3
    assert shared[0, 0] == 1
    assert shared[0, 2] < 0.1
    assert np.isnan(shared[3]).all()
    values, errors = correlations(effects, counted)
    flat = effects[:3, counted]
    np.testing.assert_allclose(values[:3, :3], np.corrcoef(flat), atol=1e-12)
    assert values[0, 1] - 5 * errors[0, 1] > 0.5
    assert np.isnan(values[3]).all()


def test_the_error_of_a_correlation_is_that_over_contexts():
    """Contexts drawn anew many times: the spread of the correlation is the error that is stated."""
    rng = np.random.default_rng(1)
    found, stated = [], []
    counted = np.ones((30, 20), bool)
    for _ in range(300):
        common = rng.normal(size=(30, 1)) + rng.normal(size=(30, 20))  # predictions of a context go together
        effects = np.stack([common + rng.normal(size=(30, 20)) for _ in range(2)])
        values, errors = correlations(effects, counted)
        found.append(values[0, 1])
        stated.append(errors[0, 1])
    assert np.mean(stated) == pytest.approx(np.std(found), rel=0.15)


def test_the_most_affected_are_the_largest_that_count():
    effects, counted = planted(6, 7)
    context, place, rise = most_affected(effects, counted, 5)
    assert counted[context, place].all()
    np.testing.assert_array_equal(rise[0], np.sort(effects[0][counted])[::-1][:5])
    np.testing.assert_array_equal(effects[0, context[0], place[0]], rise[0])
    _, _, few = most_affected(effects[:, :1, :3], np.array([[True, False, True]]), 5)
    assert np.isneginf(few[:, 2:]).all()


def test_what_cannot_be_is_told():
    effects, counted = planted(3, 4)
    with pytest.raises(RllcError, match=r"a share of 0\.0 of all predictions"):
        overlaps(effects, counted, 0.0)
    with pytest.raises(RllcError, match="no standard error"):
        correlations(effects[:, :1], counted[:1])

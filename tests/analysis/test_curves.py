from __future__ import annotations

import numpy as np
import pytest
from planted_curves import HEADS, STEPS, curves_from, head_curves
from scipy.stats import norm

from rllc.analysis.curves import complete, curves_of, layer_of, select
from rllc.core.errors import RllcError


def columns(rows: list[tuple[int, str, str, float, str]], evaluated_on: list[str] | None = None) -> dict[str, np.ndarray]:
    step, part, data, llc, outcome = (np.array(values) for values in zip(*rows, strict=True))
    found = {"step": step, "part": part, "data": data, "llc": llc, "stderr": np.full(len(rows), 0.1), "outcome": outcome}
    found |= {"ci_low": llc - 0.2, "ci_high": llc + 0.2}
    return found | ({"evaluated_on": np.array(evaluated_on)} if evaluated_on else {})


ROWS = [
    (10, "1:10", "mix", 1.0, "ok"),
    (0, "1:2", "mix", 2.0, "tilted"),
    (10, "full", "mix", 9.0, "ok"),
    (10, "1:2", "mix", 3.0, "unstable"),
    (10, "1:2", "code", 4.0, "drifting"),
    (10, "1:2.Q", "mix", 5.0, "ok"),
]


def test_heads_and_other_parts_part_and_each_number_is_at_its_place() -> None:
    heads, others = curves_of(columns(ROWS), heads=True), curves_of(columns(ROWS), heads=False)
    assert list(heads) == ["code", "mix"]
    assert heads["mix"].parts == ("1:2", "1:10")
    assert heads["mix"].steps.tolist() == [0, 10]
    np.testing.assert_array_equal(heads["mix"].llc, [[2.0, np.nan], [np.nan, 1.0]])
    assert heads["mix"].outcome.tolist() == [["tilted", "unstable"], ["", "ok"]]
    np.testing.assert_allclose(heads["code"].ci_high, [[4 + norm.ppf(0.975) * 0.1]])
    assert others["mix"].parts == ("full", "1:2.Q")


def test_a_refused_cell_has_no_estimate_and_keeps_its_outcome() -> None:
    curve = curves_of(columns(ROWS), heads=True)["mix"]
    for numbers in (curve.llc, curve.stderr, curve.ci_low, curve.ci_high):
        assert np.isnan(numbers[0, 1])


def test_data_evaluated_elsewhere_is_a_curve_of_its_own() -> None:
    rows = [(0, "1:2", "mix", 1.0, "ok"), (0, "1:2", "mix", 2.0, "ok")]
    assert list(curves_of(columns(rows, ["mix", "code"]), heads=True)) == ["mix", "mix@code"]


def test_two_estimates_of_one_cell_are_a_sentence() -> None:
    with pytest.raises(RllcError, match=r"2 estimates of 1:2 at step 0 on mix.*Choose the rows of one setting"):
        curves_of(columns([ROWS[1], ROWS[1], ROWS[0]]), heads=True)


def test_no_rows_make_no_curves() -> None:
    assert curves_of(columns(ROWS[2:3]), heads=True) == {}


def test_parts_outside_the_grammar_are_other_parts() -> None:
    assert curves_of(columns([(0, "conv one", "mix", 1.0, "ok"), ROWS[2]]), heads=False)["mix"].parts == ("full", "conv one")


def test_the_layer_of_another_part_is_a_sentence() -> None:
    assert layer_of("1:10") == 1
    with pytest.raises(RllcError, match="'full' is not a whole head"):
        layer_of("full")


def test_select_orders_by_request() -> None:
    curves = head_curves(0.1)
    picked = select(curves, ["1:7", "0:0"])
    np.testing.assert_array_equal(picked.llc, curves.llc[[15, 0]])
    with pytest.raises(ValueError, match="not in tuple"):
        select(curves, ["7:7"])


def test_a_head_with_a_gap_is_left_out_and_named_and_nothing_is_filled_in() -> None:
    curves = head_curves(0.1)
    curves.llc[3, 5] = np.nan
    curves.stderr[4] = np.nan
    whole, left_out, steps_out = complete(curves)
    assert left_out == (HEADS[3], HEADS[4])
    assert steps_out == ()
    assert whole.parts == tuple(head for head in HEADS if head not in left_out)
    assert whole.llc.shape == (14, len(STEPS))
    assert np.isfinite(whole.llc).all()


def test_a_checkpoint_that_most_heads_lack_goes_itself() -> None:
    curves = head_curves(0.1)
    curves.llc[:9, 0] = np.nan
    whole, left_out, steps_out = complete(curves)
    assert steps_out == (0,)
    assert left_out == ()
    np.testing.assert_array_equal(whole.llc, curves.llc[:, 1:])
    assert whole.outcome.shape == whole.ci_low.shape == whole.llc.shape
    curves = head_curves(0.1)
    curves.llc[:8, 0] = np.nan
    assert complete(curves)[1:] == (HEADS[:8], ())


def test_nothing_is_complete_where_nothing_is_known() -> None:
    whole, left_out, steps_out = complete(curves_from(np.full((16, len(STEPS)), np.nan), 0.1))
    assert whole.parts == ()
    assert left_out == HEADS
    assert len(steps_out) == len(STEPS)

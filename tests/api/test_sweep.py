"""A grid, measured as it is asked for."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

import rllc
from rllc.checkpoints.store import save
from rllc.posterior.difference import difference
from rllc.runs import progress

from .toys import SHAPE, SMALL, Ours, tokens

DATA = {"a": tokens(seed=1), "b": tokens(seed=2)}


def test_a_sweep_gives_what_single_calls_give():
    found = rllc.sweep({0: Ours(0), 10: Ours(1)}, DATA, ["1:0", "0.attn"], progress=False, **SMALL).run()
    assert len(found) == 8
    for r in found.values():
        alone = rllc.estimate(Ours(r.step // 10), DATA[r.data], r.part, step=r.step, data_name=r.data, **SMALL)
        np.testing.assert_array_equal(alone.traces.losses, r.traces.losses)
    table = found.to_pandas()
    assert table[["data", "part", "step"]].to_numpy().tolist()[:3] == [["a", "1:0", 0], ["a", "1:0", 10], ["a", "0.attn", 0]]
    assert found["step 10, b, 1:0"].step == 10


def test_models_are_opened_one_at_a_time_when_their_turn_comes():
    opened = []

    def opener(seed):
        def give():
            opened.append(seed)
            return Ours(seed)

        return give

    grid = rllc.sweep([(seed, opener(seed)) for seed in range(3)], tokens(), "1:0", progress=False, **SMALL)
    assert opened == []
    results = iter(grid)
    next(results)
    assert opened == [0]
    next(results)
    assert opened == [0, 1]
    assert [r.step for r in grid.results.cells] == [0, 1]
    assert "2 cells done" in repr(grid)


def test_an_interrupt_keeps_what_is_done_and_the_sweep_goes_on():
    opened = []

    def first_model():
        opened.append(0)
        return Ours(0)

    class Stopped:
        armed = True

        def __call__(self):
            if self.armed:
                raise KeyboardInterrupt
            return Ours(1)

    second = Stopped()
    grid = rllc.sweep({0: first_model, 1: second}, tokens(), "1:0", progress=False, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        grid.run()
    assert [r.step for r in grid.results.cells] == [0]
    first = grid.results.cells[0]
    second.armed = False
    assert [r.step for r in grid.run().cells] == [0, 1]
    assert grid.results.cells[0] is first  # not measured again
    assert opened == [0]  # nor opened
    assert [r.step for r in grid] == [0, 1]


def test_differences_share_noise_between_steps_and_between_data():
    found = rllc.sweep({0: Ours(0), 10: Ours(1)}, DATA, "1:0", progress=False, **SMALL).run()
    steps = found.differences("step")
    assert steps[["what", "a", "b"]].to_numpy().tolist() == [["1:0, a", "10", "0"], ["1:0, b", "10", "0"]]
    later, earlier = found["step 10, a, 1:0"], found["step 0, a, 1:0"]
    expected = difference(later.traces, earlier.traces)
    assert (steps["difference"][0], steps["stderr"][0]) == (expected.difference, expected.stderr)
    data = found.differences("data", against="a")
    assert data[["a", "b"]].to_numpy().tolist() == [["b", "a"], ["b", "a"]]
    assert data["aligned"].all()


def test_a_folder_of_checkpoints(tmp_path):
    for seed, step in enumerate((0, 5)):
        save(tmp_path, step, SHAPE, Ours(seed).params)
    found = rllc.sweep(tmp_path, tokens(), "heads", progress=False, **SMALL).run()
    assert {(r.step, r.part) for r in found.values()} == {(s, p) for s in (0, 5) for p in ("0:0", "0:1", "1:0", "1:1")}
    figure = found.plot()
    assert len(figure.data) == 4
    assert all(len(trace.y) == 2 for trace in figure.data)


def test_a_sweep_is_evaluated_elsewhere_too():
    """The same numbers as of single calls; not once more on the data that the chains move by."""
    found = rllc.sweep({0: Ours(0), 5: Ours(1)}, DATA, "1:0", evaluate_on={"b": DATA["b"], "c": tokens(seed=9)}, progress=False, **SMALL).run()
    assert [set(cell.elsewhere) for cell in found.values()] == [{"b", "c"}, {"c"}, {"b", "c"}, {"c"}]
    alone = rllc.estimate(Ours(1), DATA["a"], "1:0", data_name="a", evaluate_on={"c": tokens(seed=9)}, progress=False, **SMALL)
    assert found["step 5, a, 1:0"].elsewhere["c"].llc == alone.elsewhere["c"].llc
    assert found["step 5, a, 1:0"].llc == alone.llc


def test_one_model_is_a_sweep_too():
    found = rllc.sweep(Ours(), DATA, "1:0", progress=False, **SMALL).run()
    assert list(found) == ["step 0, a, 1:0", "step 0, b, 1:0"]


def test_a_notebook_has_a_bar_where_it_can_draw_one(monkeypatch):
    notebook, file = Console(force_jupyter=True), Console(file=io.StringIO())
    for installed in (None, object()):
        monkeypatch.setattr(progress, "find_spec", lambda _, installed=installed: installed)
        assert progress._draws_bars(notebook) == (installed is not None)
        assert not progress._draws_bars(file)


def test_progress_is_told(capsys):
    rllc.sweep(Ours(), tokens(), "1:0", **SMALL).run()
    assert "Sweep" in capsys.readouterr().err
    rllc.sweep(Ours(), tokens(), "1:0", progress=False, **SMALL).run()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("checkpoints", "problem"),
    [({}, "no checkpoints"), ([Ours()], "no pairs"), (3, "given as a int"), ({"last": Ours()}, "'last' is no whole number")],
)
def test_what_is_no_sweep(checkpoints, problem):
    with pytest.raises(rllc.RllcError, match=problem):
        rllc.sweep(checkpoints, tokens(), "1:0", progress=False, **SMALL).run()


def test_a_wrong_setting_is_told_before_anything_runs():
    with pytest.raises(rllc.RllcError, match="Perhaps you meant 'draws'"):
        rllc.sweep(Ours(), tokens(), "1:0", drws=3)

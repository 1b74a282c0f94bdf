from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tomllib
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.training.schedule import learning_rate, linear_steps, log_steps, paper_steps
from rllc.training.settings import PAPER, PRESETS, SMALL, CheckpointSchedule, TrainingSettings


def test_the_papers_107_checkpoints():
    steps = paper_steps()
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert len(steps) == 107
    assert steps[:4] == (0, 100, 200, 400)
    assert [gaps.count(g) for g in (100, 200, 400, 1000)] == [2, 49, 25, 30]
    assert {10_000, 20_000, 50_000} <= set(steps)
    assert PAPER.checkpoint_steps() == steps


@given(st.data())
def test_log_steps_are_distinct_and_as_many_as_asked(data: st.DataObject):
    start = data.draw(st.integers(1, 200))
    total = data.draw(st.integers(start, start + 3000))
    count = data.draw(st.integers(1, min(60, total - start + 1)))
    steps = log_steps(total, count, start)
    assert len(set(steps)) == count
    assert list(steps) == sorted(steps)
    assert steps[-1] == total
    assert count == 1 or steps[0] == start


def test_log_steps_keep_their_ratio_where_there_is_room():
    steps = log_steps(100_000, 6, 100)
    ratios = [b / a for a, b in itertools.pairwise(steps)]
    assert ratios == pytest.approx([1000 ** (1 / 5)] * 5, rel=3e-3)


def test_linear_steps_end_at_the_last():
    assert linear_steps(10, 3) == (3, 7, 10)
    assert linear_steps(5, 5) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("steps", [lambda: log_steps(10, 11), lambda: linear_steps(3, 4), lambda: log_steps(20, 12, 10)])
def test_more_checkpoints_than_steps_is_told(steps):
    with pytest.raises(RllcError, match=r"distinct checkpoints do not fit between step \d+ and step \d+\. Ask for fewer"):
        steps()


def test_no_checkpoints_or_no_first_step_is_told():
    with pytest.raises(RllcError, match="0 checkpoints from step 1 were asked for"):
        linear_steps(10, 0)
    with pytest.raises(RllcError, match="2 checkpoints from step 0 were asked for"):
        log_steps(10, 2, 0)


def test_schedule_holds_both_ends_and_cuts_the_papers_list():
    assert CheckpointSchedule().steps(30) == (0, 30)
    assert CheckpointSchedule(paper=True).steps(700) == (0, 100, 200, 400, 600, 700)
    assert CheckpointSchedule(log=2, log_from=3, linear=2, extra=(5,)).steps(8) == (0, 3, 4, 5, 8)


def test_a_step_outside_training_is_told():
    with pytest.raises(RllcError, match="names step 31, but training runs from step 0 to 30"):
        CheckpointSchedule(extra=(31,)).steps(30)
    with pytest.raises(RllcError, match="must not be negative"):
        CheckpointSchedule(linear=-1)


def test_learning_rate_by_update():
    def rates(schedule: str, floor: float = 0.0) -> list[float]:
        return [learning_rate(s, peak=2.0, total=10, warmup=2, schedule=schedule, floor=floor) for s in range(1, 11)]

    assert rates("constant") == [1.0, *[2.0] * 9]
    assert rates("linear")[1:] == pytest.approx([2.0 * (10 - s) / 8 for s in range(2, 11)])
    assert rates("linear", 0.25)[-1] == pytest.approx(0.5)
    cosine = rates("cosine")
    assert cosine[5] == pytest.approx(1.0)  # half way between updates 2 and 10
    assert cosine[3] == pytest.approx(1 + math.cos(math.pi / 4))
    assert cosine[-1] == pytest.approx(0.0, abs=1e-12)


def test_no_warm_up_starts_at_the_peak():
    assert PAPER.rate(1) == PAPER.rate(50_000) == 1e-3
    assert SMALL.rate(50) == pytest.approx(2.5e-3)
    assert SMALL.rate(101) == 5e-3


def test_presets_are_the_recipes_of_the_method():
    assert PRESETS["paper"] == TrainingSettings(checkpoints=CheckpointSchedule(paper=True))
    paper = PAPER
    assert (paper.steps, paper.batch_size, paper.learning_rate, paper.weight_decay) == (50_000, 100, 1e-3, 0.05)
    assert (paper.betas, paper.schedule, paper.dtype, paper.grad_clip, paper.warmup) == ((0.9, 0.999), "constant", "float32", 0.0, 0)
    demo = tomllib.loads((resources.files("rllc") / "presets" / "demo.toml").read_text())["training"]  # measured there, so it may not drift apart
    for name in ("steps", "batch_size", "learning_rate", "warmup", "weight_decay"):
        assert getattr(SMALL, name) == demo[name]
    assert list(SMALL.betas) == demo["betas"]
    assert len(SMALL.checkpoint_steps()) == 11


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "training.steps is 0"),
        ({"batch_size": -1}, "training.batch_size is -1"),
        ({"learning_rate": 0.0}, "training.learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "training.learning_rate is nan"),
        ({"steps": 10, "warmup": 11}, "training.warmup is 11, but must lie between 0 and training.steps, which is 10"),
        ({"schedule": "step"}, "training.schedule is 'step'"),
        ({"dtype": "bfloat16"}, "training.dtype is 'bfloat16'"),
        ({"betas": (0.9, 1.0)}, r"training.betas are \(0.9, 1.0\)"),
        ({"weight_decay": -0.1}, "training.weight_decay is -0.1"),
        ({"grad_clip": math.inf}, "training.grad_clip is inf"),
        ({"floor": 1.5}, "training.floor is 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_told(change, sentence):
    with pytest.raises(RllcError, match=sentence):
        TrainingSettings(**change)


def test_settings_do_not_need_torch():
    code = "import sys, rllc.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

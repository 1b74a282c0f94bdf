"""The time left is that of units which were seen to take their time, side by side as the engine has them."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from rllc.runs.engines.job import Job
from rllc.runs.engines.waiting import LEAST_TIMEOUT, allowed
from rllc.runs.experiment import parse, preset
from rllc.runs.forecast import GUESSED_RATE, Forecast, Task
from rllc.runs.plan import make_plan
from rllc.runs.progress import Reporter


class Clock:
    """Seconds that a test turns on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def computed(tasks: list[Task], seconds: dict[str, float], at_once: int, until: int) -> tuple[Forecast, Clock, float]:
    """A forecast after `until` units have ended, with how long the whole takes from the start by doing it."""
    clock = Clock()
    forecast, waiting, running = Forecast(tasks, clock), list(tasks), list[tuple[float, Task]]()
    done, moment = 0, None
    while waiting or running:
        while waiting and len(running) < at_once:
            task = waiting.pop(0)
            if moment is None:
                forecast.begun(task.name)
            running.append((clock.now + seconds[task.name], task))
        running.sort(key=lambda pair: pair[0])
        clock.now, task = running.pop(0)
        if moment is None:
            forecast.finished(task.name, seconds[task.name])
            done += 1
            if done == until:
                moment = clock.now
                if waiting:  # the next is begun at once
                    forecast.begun(waiting[0].name)
    end, clock.now = clock.now, moment
    return forecast, clock, end - moment


# Layer 0 does 5 operations a second, layer 1 three times as many: the counted costs alone mislead.
TASKS = [Task(f"{layer}:{i}", cost, (f"layer {layer} {i % 2}", f"layer {layer}")) for i in range(6) for layer, cost in ((0, 100.0), (1, 90.0))]
SECONDS = {task.name: 20.0 if task.name.startswith("0") else 6.0 for task in TASKS}


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_the_time_left_is_exact_once_every_kind_was_seen(at_once):
    for until in (4, 7, 11):
        forecast, _, left = computed(TASKS, SECONDS, at_once, until)
        assert forecast.left(at_once) == pytest.approx(left)


def test_a_kind_that_was_not_seen_takes_as_long_as_what_is_nearest():
    first, like, other = TASKS[0], Task("x", 50.0, ("layer 0 elsewhere", "layer 0")), Task("y", 50.0, ("layer 9",))
    forecast = Forecast([first, TASKS[1], like, other], Clock())
    assert forecast.predicted(other) == 50.0 / GUESSED_RATE
    for task in (first, TASKS[1]):
        forecast.begun(task.name)
        forecast.finished(task.name, SECONDS[task.name])
    assert forecast.predicted(like) == pytest.approx(10.0)
    assert forecast.predicted(other) == pytest.approx(50 * 26 / 190)
    assert forecast.rate() == pytest.approx(190 / 26)


def test_the_longest_that_is_at_work_decides_the_end_however_many_workers_there_are():
    clock = Clock()
    forecast = Forecast([Task("seen", 1.0), Task("long", 100.0), Task("short", 1.0)], clock)
    forecast.begun("seen")
    forecast.finished("seen", 1.0)
    forecast.begun("long")
    clock.now += 30
    assert forecast.left(8) == pytest.approx(70)
    forecast.begun("long")  # it was lost and begins again
    assert forecast.left(8) == pytest.approx(100)
    clock.now += 500
    assert forecast.left(1) == pytest.approx(1)  # it should have ended long ago: only what waits is known


def test_what_was_given_up_keeps_no_worker_busy():
    clock = Clock()
    forecast = Forecast([Task(i, 1.0) for i in range(10)], clock)
    for i in range(4):
        forecast.begun(i)
        clock.now += 10
        if i == 0:
            forecast.finished(i, 10.0)
        else:
            forecast.given_up(i)
    assert forecast.left(1) == pytest.approx(60)


def test_the_whole_is_less_without_what_will_not_be_done():
    reporter = Reporter(console=Console(file=io.StringIO(), force_terminal=True, width=120))
    with reporter.stage("Sampling", 10.0, "operations") as bar:
        bar.less(4.0)
        bar.advance(6.0)
        assert bar.state()["share"] == 1.0
        assert bar.state()["total"] == 6.0


def test_bars_show_what_is_foretold(monkeypatch):
    stream = io.StringIO()
    reporter = Reporter(console=Console(file=stream, force_terminal=True, width=120))
    with reporter.stage("Sampling", 10.0) as bar:
        bar.advance(1.0, "one", left=3725.5)
        reporter.live.refresh()
    assert "1:02:05" in stream.getvalue()
    plain = io.StringIO()
    reporter = Reporter(console=Console(file=plain, force_terminal=False, width=120))
    with reporter.stage("Sampling", 10.0) as bar:
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 20)
        bar.advance(1.0, "one", left=600.0)
    assert "10 %, about 10 min left" in plain.getvalue()


def test_nobody_foretells_a_time_before_anything_is_done(monkeypatch):
    plain, clock = io.StringIO(), [0.0]
    reporter = Reporter(console=Console(file=plain, force_terminal=False, width=120))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with reporter.stage("Training", 100.0) as bar:
        clock[0] = 20.0
        bar.reach(50.0)  # of a session before
        clock[0] = 40.0
        bar.reach(75.0)
    assert "Training: 50 %.\n" in plain.getvalue()
    assert "Training: 75 %, about 40 s left." in plain.getvalue()


def test_before_anything_is_finished_the_limit_is_that_of_a_slow_machine_and_a_day_at_most():
    small, large, huge = Task("small", 1e9), Task("large", 1e12), Task("huge", 1e18)
    forecast = Forecast([small, large, huge], Clock())
    job = Job(abs, [small, large, huge], seconds=forecast.at_most)
    assert allowed(job, small) == LEAST_TIMEOUT
    assert allowed(job, large) == 4000.0
    assert allowed(job, huge) == 24 * 3600.0
    assert allowed(job, huge, 5.0) == 5.0
    forecast.begun("large")
    forecast.finished("large", 50.0)
    assert allowed(job, large) == 1000.0
    assert allowed(job, huge) == pytest.approx(20 * 50e6)  # known by now: no cap takes a unit away that is only long


def test_at_one_gigaflop_no_unit_of_the_demo_is_given_up_and_none_of_them_hangs_for_hours():
    costs = [unit.cost for unit in make_plan(parse(preset("demo"))).units]
    limits = [max(LEAST_TIMEOUT, Forecast([], Clock()).at_most(Task("it", cost))) for cost in costs]
    assert all(limit > cost / 1e9 for limit, cost in zip(limits, costs, strict=True))
    assert max(limits) < 3600.0

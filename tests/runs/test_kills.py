"""A run that is killed at any moment ends as one that nobody killed: the same records bit for bit, and nothing computed twice that was recorded."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rllc.main import main
from rllc.runs.doctor import describe, examine
from rllc.runs.engines.job import Job
from rllc.runs.engines.local import LocalEngine
from rllc.runs.layout import RunFolder
from rllc.runs.leftovers import leftovers_of
from rllc.runs.pipeline import read_timings
from rllc.runs.settings import EngineSettings

from .conftest import forget
from .faulty import (
    STAGES,
    UNITS,
    Kill,
    assert_same,
    at_work,
    begun,
    drawn,
    ended,
    events_of,
    log,
    losses,
    missing_units,
    records,
    said,
    samples,
    small_text,
    start,
    strike,
    until,
    workers_of,
)
from .faulty_units import burn

KILLS = 50  # of the long suite, in rounds of so many a folder
A_ROUND = 5


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run that is killed below, when nobody kills it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "experiment.toml").write_text(small_text(folder))
    assert ended(start(folder / "experiment.toml", folder / "run")) == 0, (folder / "run.err").read_text()[-2000:]
    return folder / "run"


def killed(kills: list[Kill], experiment: Path, out: Path) -> list[Kill]:
    """Run, be killed and run again, until it ends by itself; the kills for which it ended too early. What was recorded stays untouched."""
    kills, disturbed, struck, length, process = list(kills), 0, 0, 0, start(experiment, out)
    sizes = [missing_units(out)] if (out / "checkpoints" / "step-00000060").exists() else []
    while kills and process.poll() is None:
        before = records(out)
        if not strike(kills[0], process, out, length):
            if kills[0].who == "worker" and process.poll() is None:
                kills[0] = replace(kills[0], who="driver")  # no worker was there to be killed
                continue
            break
        kill = kills.pop(0)
        if kill.who == "worker":
            struck += 1
        else:
            code = ended(process)
            if code == 0:  # it had done everything by then, as is seen below
                assert kill.stage == "report", "it went on as if it had not heard"
                kills.insert(0, kill)
                break
            assert code in (-kill.how, 128 + kill.how)
            disturbed += 1
            if begun(out) in ("sample", "measure"):
                sizes.append(missing_units(out))
            length, process = said(out), start(experiment, out)
        assert before.items() <= records(out).items(), f"{kill} changed what was recorded"
    kept = records(out)
    assert ended(process) == 0, out.with_suffix(".err").read_text()[-2000:]
    assert kept.items() <= records(out).items()
    assert "Traceback" not in out.with_suffix(".err").read_text()
    assert losses(out) >= struck, "not every worker that was killed at a unit was told"
    text = (out / "log.jsonl").read_text()
    begins = [int(n) for n in re.findall(r"Sampling \d+ cells in (\d+) units", text)]
    assert set(begins) <= {UNITS, *sizes}, "more was begun than was missing"
    assert sorted(begins, reverse=True) == begins
    assert len(events_of(out, "unit_finished")) <= UNITS + disturbed, "units were computed again that were recorded"
    return kills


@pytest.mark.soak
@pytest.mark.parametrize("number", range(KILLS // A_ROUND))
def test_a_run_that_is_killed_at_any_moment_ends_as_one_that_was_not(undisturbed: Path, tmp_path: Path, number: int) -> None:
    """Driver, worker or all of them, by three signals, five times in every folder, over all stages; fifty times in all."""
    rng, spent = random.Random(number), read_timings(RunFolder(undisturbed))
    # Half of the kills by the time that a stage takes, and every stage in its turn.
    stages = [*rng.choices(STAGES, [spent[stage] for stage in STAGES], k=A_ROUND // 2), *(STAGES[(3 * number + i) % 6] for i in range(A_ROUND))]
    kills = sorted((drawn(rng, stage, spent[stage]) for stage in stages[:A_ROUND]), key=lambda kill: STAGES.index(kill.stage))
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / "experiment.toml").write_text((undisturbed / "experiment.toml").read_text())
        kills = killed(kills, folder / "experiment.toml", folder / "run")
        assert_same(folder / "run", undisturbed)
        found = examine(folder / "run")
        assert found.sound, describe(found)
        assert not leftovers_of(RunFolder(folder / "run"))
        if not kills:
            return
        kills = [replace(kill, delay=kill.delay / 2) for kill in kills]
    pytest.fail(f"the run ended before {kills} every time")


def test_a_killed_worker_and_a_killed_group_leave_the_numbers_alone(finished: Path, unfinished: Path, tmp_path: Path) -> None:
    """The worker's unit is tried again as it was, by the run itself; after the second kill nothing goes on by itself, and the next call ends it."""
    forget(unfinished, 12)
    path = tmp_path / "experiment.toml"
    path.write_text((finished / "experiment.toml").read_text().replace("workers = 1", "workers = 2"))
    (unfinished / ".findings.json.k3_x9w0q.tmp").write_text("half of it")
    process, there = start(path, unfinished), records(unfinished)
    until(lambda: "Sampling 20 cells" in log(unfinished) or process.poll() is not None, "the sampling")
    until(lambda: bool(workers_of(process.pid)) or process.poll() is not None, "a worker")
    assert strike(Kill("sample", 0.0, "worker", signal.SIGKILL), process, unfinished)
    until(lambda: len(records(unfinished)) >= len(there) + 5 or process.poll() is not None, "records")
    assert strike(Kill("sample", 0.0, "group", signal.SIGKILL), process, unfinished)
    assert ended(process) == -signal.SIGKILL
    before = records(unfinished)
    assert there.items() <= before.items()
    assert main(["sample", str(path), "--out", str(unfinished), "--workers", "1", "--quiet"]) == 0
    assert before.items() <= records(unfinished).items()
    assert "a worker was lost: its process died. Its unit is tried again, try 2." in log(unfinished)
    assert samples(unfinished) == samples(finished)
    assert not leftovers_of(RunFolder(unfinished))


def test_the_worker_that_is_to_be_killed_is_one_at_work() -> None:
    """Of two workers that stay between jobs one has a unit, whichever was begun first."""
    engine, found = LocalEngine(EngineSettings(workers=2)), list[int]()
    try:
        ours = {pid for _, pid in engine.run(Job(burn, [0.5] * 4))}  # other tests have workers in this group as well
        assert len(ours) == 2
        assert at_work(os.getpgrp(), ours) is None
        job = threading.Thread(target=lambda: found.extend(pid for _, pid in engine.run(Job(burn, [6.0]))))
        job.start()
        seen: list[int] = []
        until(lambda: bool(seen.extend(filter(None, [at_work(os.getpgrp(), ours)])) or seen), "a worker at work")
        job.join()
        assert found == seen
    finally:
        engine.close()

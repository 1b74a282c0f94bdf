"""The live file of a process at work: what it says, that it goes away, and what a reader makes of one that was left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rllc.runs import live
from rllc.runs.layout import RunFolder
from rllc.runs.live import LiveFile, Pulse, seen
from rllc.runs.log import iso, read_log
from rllc.runs.progress import Reporter
from rllc.runs.session import session
from rllc.runs.shards import Shard
from rllc.runs.status_text import running_lines

AT_WORK = """
import json, sys, time
from pathlib import Path
from rllc.runs import live
from rllc.runs.layout import RunFolder
from rllc.runs.session import session
from rllc.runs.shards import Shard
live.INTERVAL = 0.02
folder, shard = RunFolder(Path(sys.argv[1])), Shard.parse(sys.argv[2])
with session(folder, "sample", True, shard) as reporter, reporter.during(stage="sample"):
    with reporter.stage("Sampling", 10.0, "cells") as bar:
        bar.advance(4.0, "step 3, prose, 1:0")
        while json.loads(folder.live_of(shard).read_text())["done"] != 4.0:
            time.sleep(0.01)
        print("ready", flush=True)
        sys.stdin.read()
"""


def at_work(folder: Path, shard: str = "") -> subprocess.Popen[str]:
    """A process that is in the middle of a stage, until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", AT_WORK, str(folder), shard], stdin=-1, stdout=-1, text=True, env=os.environ.copy())
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Let it end by itself."""
    process.communicate("", timeout=60)
    assert process.returncode == 0


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def content(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.live_of(None).read_text())


def test_it_says_what_is_done_how_fast_and_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.02)
    folder = RunFolder(tmp_path)
    with session(folder, "run", True, engine="local") as reporter:
        first = content(folder)
        assert (first["command"], first["engine"], first["pid"], first["stage"], first["work"]) == ("run", "local", os.getpid(), "", None)
        with reporter.during(stage="train", sibling="seed-1"), reporter.stage("Training", 40.0, "steps") as bar:
            bar.reach(20.0)  # what an earlier session did does not count for the rate
            bar.reach(30.0, "loss 2.5")
            until(lambda: content(folder)["last"] == "loss 2.5")
            now = content(folder)
            assert (now["stage"], now["sibling"], now["work"], now["unit"]) == ("train", "seed-1", "Training", "steps")
            assert (now["done"], now["total"], now["share"]) == (30.0, 40.0, 0.75)
            assert now["seconds_left"] == pytest.approx(10 / now["rate"], rel=1e-6)
            assert 10 / now["rate"] == pytest.approx(bar.seconds, rel=0.5, abs=0.5)
            bar.count(cells=3, cells_total=8)
            bar.advance(1.0, "loss 2.4", left=600.0)
            until(lambda: content(folder)["last"] == "loss 2.4")
            now = content(folder)
            assert 590 < now["seconds_left"] <= 600
            assert now["counts"] == {"cells": 3, "cells_total": 8}
            beat = now["heartbeat"]
            until(lambda: content(folder)["heartbeat"] > beat)  # while nothing moves
            assert content(folder)["last_change"] == now["last_change"]
        with reporter.stage("Collecting text") as bar:
            bar.note("tokenizer 40 %")
            until(lambda: content(folder)["last"] == "tokenizer 40 %")
            assert (content(folder)["share"], content(folder)["rate"], content(folder)["seconds_left"]) == (None, None, None)
        until(lambda: content(folder)["work"] is None)
    assert not folder.live.exists()


def test_two_shards_are_seen_beside_each_other_and_one_that_was_killed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    one, two = at_work(tmp_path, "1/3"), at_work(tmp_path, "2/3")
    first, second = seen(folder.live)
    assert [(s.name, s.pulse, s.content["pid"]) for s in (first, second)] == [
        ("shard-1-of-3", Pulse.AT_WORK, one.pid),
        ("shard-2-of-3", Pulse.AT_WORK, two.pid),
    ]
    assert first.age < 10
    text = "\n".join(running_lines([first.as_dict(), second.as_dict()]))
    assert text.count("sample: Sampling, 40 %, 4 of 10 cells") == 2
    assert "rllc sample, shard 2/3" in text
    assert "last: step 3, prose, 1:0" in text
    end(one)
    two.send_signal(signal.SIGKILL)
    until(lambda: seen(folder.live)[0].pulse == Pulse.KILLED)  # although nobody has waited for it yet
    two.communicate()
    (left,) = seen(folder.live)
    assert (left.name, left.pulse) == ("shard-2-of-3", Pulse.KILLED)
    (text,) = running_lines([left.as_dict()])
    assert "rllc sample, shard 2/3 did not end by itself" in text
    assert "It was at: sample: Sampling, 40 %" in text
    again = at_work(tmp_path, "2/3")  # it is the next one's file by then
    assert [s.pulse for s in seen(folder.live)] == [Pulse.AT_WORK]
    end(again)
    assert not folder.live.exists()


@pytest.fixture
def left_behind(tmp_path: Path) -> Any:
    """A live file of this process, to be changed."""
    path = tmp_path / "live" / "run.json"
    with LiveFile(path, {"command": "run"}, dict, pytest.fail):
        text = path.read_text()

    def change(**changes: Any) -> list[live.Seen]:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(json.loads(text) | changes))
        return seen(path.parent)

    return change


def test_age_and_process_decide_whether_it_lives(left_behind: Any) -> None:
    long_ago = iso(time.time() - 300)
    assert [s.pulse for s in left_behind()] == [Pulse.AT_WORK]
    (silent,) = left_behind(heartbeat=long_ago)
    assert silent.pulse == Pulse.SILENT
    assert silent.age == pytest.approx(300, abs=10)
    if sys.platform == "linux":
        assert [s.pulse for s in left_behind(process_started=17)] == [Pulse.KILLED]  # its number was given to another process
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert [s.pulse for s in left_behind(pid=gone.pid, process_started=None)] == [Pulse.KILLED]
    assert [s.pulse for s in left_behind(pid=gone.pid, machine="elsewhere")] == [Pulse.AT_WORK]  # nobody here knows of its processes
    assert [s.pulse for s in left_behind(pid=gone.pid, machine="elsewhere", heartbeat=long_ago)] == [Pulse.SILENT]
    assert [s.age for s in left_behind(heartbeat=iso(time.time() + 3600))] == [0.0]  # of a machine whose clock is ahead
    assert [s.pulse for s in left_behind(machine="elsewhere", heartbeat=iso(time.time() + 10 * 3600))] == [Pulse.SILENT]


def test_what_a_live_file_says_of_itself_is_not_what_its_reader_finds(left_behind: Any) -> None:
    (one,) = left_behind(machine="elsewhere", state="killed", heartbeat_age="long", name="another")
    assert {name: one.as_dict()[name] for name in ("name", "state")} == {"name": one.name, "state": "at work"}
    assert one.as_dict()["heartbeat_age"] < 30


@pytest.mark.parametrize("changes", [{"format": 99}, {"heartbeat": "yesterday"}, {"heartbeat": 3}, {"pid": "x"}])
def test_what_is_none_of_ours_is_passed_over(left_behind: Any, changes: dict[str, Any]) -> None:
    assert left_behind(**changes) == []


def test_torn_files_and_leftovers_are_passed_over(tmp_path: Path) -> None:
    assert seen(tmp_path / "none") == []
    for name, text in {"a.json": "", "b.json": "[" * 100_000, "c.json": "[]", ".run.json.abcdefgh.tmp": "{}", "d.json": "\x00"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "e.json").mkdir()
    assert seen(tmp_path) == []


def test_any_values_have_words(left_behind: Any) -> None:
    """Whatever a file holds that says it is ours, there are words for it; what it cannot mean counts as missing."""
    hostile = {"stage": {}, "share": "much", "rate": float("inf"), "unit": 3, "seconds_left": [], "since": 4, "last": 5, "done": float("nan")}
    for counts in (7, {"cells": "all"}, {"cells": None}, {"cells": 3}):
        (one,) = left_behind(command=["x"], work="Sampling", counts=counts, **hostile)
        assert running_lines([one.as_dict()])[0].startswith("  at work  rllc ?, process ")
        assert running_lines([one.as_dict()])[1] == "           Sampling" + (", 3 of 0 cells on 1 worker" if counts == {"cells": 3} else ", 0 of 0 3")


def test_a_disk_that_refuses_is_told_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.01)
    (tmp_path / "live").write_text("a file where the folder should be")
    with session(RunFolder(tmp_path), "run", True) as reporter, reporter.stage("Sampling"):
        time.sleep(0.1)
    events = [event["event"] for event in read_log(tmp_path / "log.jsonl")]
    assert events == ["run_begun", "live_not_written", "work_begun", "work_ended", "run_ended"]


def test_a_fault_of_the_state_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.01)
    monkeypatch.setattr(Reporter, "state", lambda _: 1 / 0)
    with session(RunFolder(tmp_path), "run", True, Shard(1, 1)):
        time.sleep(0.05)
    assert [e["text"] for e in read_log(tmp_path / "log-1-of-1.jsonl") if e["event"] == "live_not_written"] == [
        "ZeroDivisionError('division by zero') The run goes on without."
    ]

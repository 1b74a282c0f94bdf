"""The log of a run: a JSON object a line, whatever it is told, whoever else writes, and whatever the disk does."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.core.exit_codes import ExitCode
from rllc.runs.layout import RunFolder
from rllc.runs.log import LogFile, read_log, warnings_heard
from rllc.runs.progress import Reporter
from rllc.runs.session import session
from rllc.runs.shards import Shard

HOSTILE = '\x1b]0;owned\x07 one\ntwo\r\u2028 \u202e {"event": "run_ended"} \x00\x7f\x9b31m %s "\\ λ̂ …'
WRITER = """
import sys
from pathlib import Path
from rllc.runs.progress import Reporter
reporter = Reporter(True, Path(sys.argv[1]))
for n in range(200):
    reporter.event("unit_finished", "x" * 9000, number=n, writer=sys.argv[2])
"""


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a log, each of which has to be JSON."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def reporter(tmp_path: Path) -> Any:
    reporter = Reporter(True, tmp_path / "log.jsonl")
    yield reporter
    reporter.close()


def test_a_line_has_time_level_event_place_and_facts(reporter: Reporter, tmp_path: Path) -> None:
    with reporter.during(stage="sample"), reporter.during(sibling="seed-1"):
        reporter.line("  refused: it left", "cell_refused", "warning", part="1:0", reason="it left")
    reporter.event("worker_rate", gflops=1.5)
    logging.getLogger("rllc").error("of another %s", "module")
    first, second, third = lines(tmp_path / "log.jsonl")
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {
        "level": "warning", "event": "cell_refused", "pid": os.getpid(), "text": "refused: it left",
        "stage": "sample", "sibling": "seed-1", "part": "1:0", "reason": "it left",
    }  # fmt: skip
    assert (second["event"], second["gflops"], "text" in second, "stage" in second) == ("worker_rate", 1.5, False, False)
    assert (third["level"], third["event"], third["text"]) == ("error", "message", "of another module")


def test_nothing_that_is_told_breaks_a_line_or_steers_a_terminal_and_nothing_is_lost(reporter: Reporter, tmp_path: Path) -> None:
    reporter.line(HOSTILE)
    reporter.event(HOSTILE, part=HOSTILE, time="never", pid="none")
    with reporter.stage(HOSTILE):
        pass
    raw = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert len(raw.splitlines()) == 4  # which takes U+2028 and its kin for ends too
    assert not set(raw) & set("\x1b\x07\x00\x7f\x9b\u202e\u2028\r")
    assert "λ̂ …" in raw
    found = read_log(tmp_path / "log.jsonl")
    assert found[0]["text"] == HOSTILE.strip()
    assert (found[1]["event"], found[1]["part"], found[1]["level"]) == (HOSTILE, HOSTILE, "info")
    assert (found[1]["time"] != "never", found[1]["pid"]) == (True, os.getpid())
    assert found[2]["work"] == found[3]["work"] == HOSTILE


def test_half_of_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    """Straight to the file: what pytest hears itself it sends between its processes, and those cannot send it."""
    half = "a lone \ud800 half"
    handler = LogFile(tmp_path / "log.jsonl")
    handler.emit(logging.LogRecord("rllc", logging.INFO, __file__, 1, "%s", (half,), None))
    handler.close()
    assert [event["text"] for event in read_log(tmp_path / "log.jsonl")] == [half]


def test_two_processes_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=os.environ.copy()) for name in "ab"]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    found = lines(path)
    assert {(event["writer"], event["number"]) for event in found} == {(name, n) for name in "ab" for n in range(200)}
    assert len(found) == 400


def test_a_line_is_one_write(reporter: Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda _, content: written.append(content) or len(content))
    reporter.event("long", "x" * 100_000)
    assert len(written) == 1
    assert written[0].endswith(b"\n")


def test_a_torn_line_is_ended_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"time": "t", "level": "info", "event": "first"}\n{"time": "t", "lev')
    reporter = Reporter(True, path)
    reporter.event("second")
    reporter.close()
    assert [event["event"] for event in read_log(path)] == ["first", "second"]
    path.write_bytes(b'[1]\n{"event": 3}\n' + b"[" * 100_000 + b'\n\xff\n{"time": "t", "level": "info", "event": "last"}\n')
    assert [event["event"] for event in read_log(path)] == ["last"]
    assert [event["event"] for event in read_log(path, most=60)] == ["last"]
    assert read_log(tmp_path / "none.jsonl") == []


def test_a_disk_that_refuses_loses_lines_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Reporter(True, tmp_path / "log.jsonl")
    write = os.write

    def full(handle: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    reporter.event("before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        reporter.event("lost")
        reporter.event("lost")
        patch.setattr(os, "write", lambda handle, content: write(handle, content[:20]))
        reporter.event("torn")
    reporter.event("after")
    reporter.close()
    found = read_log(tmp_path / "log.jsonl")
    assert [event["event"] for event in found] == ["before", "lines_lost", "after"]
    nowhere = Reporter(True, tmp_path / "log.jsonl" / "below-a-file.jsonl")
    nowhere.event("lost")
    nowhere.close()


def test_python_warnings_are_logged_and_shown(reporter: Reporter, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown: list[str] = []
        warnings.showwarning = lambda message, *_: shown.append(str(message))
        with warnings_heard(lambda text, **where: reporter.event("python_warning", text, "warning", **where)):
            warnings.warn("it is small", RuntimeWarning, stacklevel=1)
        warnings.warn("not heard", RuntimeWarning, stacklevel=1)
    (event,) = lines(tmp_path / "log.jsonl")
    assert (event["event"], event["text"], event["category"]) == ("python_warning", "it is small", "RuntimeWarning")
    assert event["place"].startswith("test_log.py:")
    assert shown == ["it is small", "not heard"]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (None, "done", ExitCode.DONE),
        (RllcError("The disk is full.", "Free some space."), "stopped", ExitCode.MISTAKE),
        (MemoryError("17 GB"), "stopped", ExitCode.MISTAKE),
        (KeyboardInterrupt(), "interrupted", ExitCode.INTERRUPTED),
        (SystemExit(143), "terminated", ExitCode.TERMINATED),
        (ZeroDivisionError(HOSTILE), "failed", ExitCode.FAULT),
    ],
)
def test_however_a_session_ends_the_log_says_so_and_nothing_is_left(
    tmp_path: Path, error: BaseException | None, outcome: str, code: ExitCode
) -> None:
    folder = RunFolder(tmp_path)
    with (
        pytest.raises(type(error)) if error is not None else nullcontext(),
        session(folder, "sample", True, Shard(2, 3), title="Mine") as reporter,
        reporter.stage("Sampling", 2.0, "cells"),
    ):
        assert folder.live_of(Shard(2, 3)).is_file()
        if error is not None:
            raise error
    assert not folder.live.exists()
    begun, *_, work, ended = lines(tmp_path / "log-2-of-3.jsonl")
    assert (begun["event"], begun["command"], begun["shard"], begun["title"]) == ("run_begun", "sample", "2/3", "Mine")
    assert (work["event"], work["outcome"]) == ("work_ended", "stopped" if error else "done")
    assert (ended["event"], ended["outcome"], ended["exit_code"]) == ("run_ended", outcome, code)
    if code == ExitCode.MISTAKE:
        assert ended["reason"] == str(error)
    assert ("traceback" in ended) is (code == ExitCode.FAULT)
    if code == ExitCode.FAULT:
        assert ended["exception"] == "ZeroDivisionError"
        assert "test_log.py" in ended["traceback"]

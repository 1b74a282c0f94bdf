"""`rllc status`: while a run is at work, of one that failed or was killed, for eyes and for programs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rllc.cli import watching
from rllc.main import main
from rllc.records.index import opened
from rllc.records.store import key_digest
from rllc.runs import live
from rllc.runs.cells_recorded import planned_records
from rllc.runs.doctor import describe, examine
from rllc.runs.experiment import load
from rllc.runs.grid import keyed_units
from rllc.runs.layout import existing
from rllc.runs.log import iso, read_log
from rllc.runs.pipeline import run_experiment
from rllc.runs.progress import Reporter
from rllc.runs.sampling import Work, sample_unit
from rllc.runs.selecting import said
from rllc.runs.session import session
from rllc.runs.status import DISK, disk_use, running_of, status_of
from rllc.runs.status_text import render

KEYS = {"format", "title", "folder", "running", "stages", "siblings", "refused", "damaged", "sessions", "disk", "page"}
RUNNING = {
    "name", "state", "heartbeat_age", "command", "version", "title", "engine", "workers", "device", "shard", "log", "pid", "since", "heartbeat",
    "stage", "sibling", "work", "work_since", "unit", "done", "total", "share", "rate", "seconds_left", "last", "last_change", "counts",
}  # fmt: skip


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Any:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_status_while_a_run_is_at_work(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Some of the grid is computed anew, and each unit asks how far the run is when it begins."""
    for path in sorted((copy / "records" / "sample").iterdir())[::8]:
        path.unlink()
    monkeypatch.setattr(live, "INTERVAL", 0.02)
    seen: list[dict[str, Any]] = []
    watched: list[str] = []

    def asking(work: Work) -> Any:
        if len(seen) == 2:
            assert main(["status", str(copy)]) == 0
            watched.append(capsys.readouterr().out)
        (one,) = running_of(copy)
        now, deadline = iso(time.time()), time.monotonic() + 30
        while one["heartbeat"] <= now and time.monotonic() < deadline:
            (one,) = running_of(copy)
        seen.append(one)
        return sample_unit(work)

    def units(folder: Path) -> list[dict[str, Any]]:
        events = read_log(folder / "log.jsonl")
        last = max(n for n, event in enumerate(events) if event["event"] == "run_begun")
        return [event for event in events[last:] if event["event"] == "unit_finished"]

    monkeypatch.setattr("rllc.runs.grid.sample_unit", asking)
    run_experiment((copy / "experiment.toml").read_text(), copy, "sample", None, None, quiet=True)
    assert [one["state"] for one in seen] == ["at work"] * len(seen)
    assert set(seen[0]) == RUNNING
    shares = [one["share"] for one in seen]
    assert shares[0] == 0
    assert all(earlier < later for earlier, later in pairwise(shares))
    assert {(one["command"], one["stage"], one["work"], one["unit"]) for one in seen} == {("sample", "sample", "Sampling", "operations")}
    assert seen[-1]["seconds_left"] is not None
    finished = units(copy)
    assert len(finished) == len(seen)
    assert seen[-1]["last"] == finished[-2]["text"].removeprefix("recorded ")
    assert seen[-1]["counts"]["cells"] == sum(event["cells"] for event in finished[:-1])
    assert {"step", "data", "layer", "parts", "cells", "seconds", "worker", "outcomes", "stage"} <= set(finished[0])
    assert finished[0]["worker"] == str(seen[0]["pid"])
    (text,) = watched
    assert "at work  rllc sample, process" in text
    assert "sample: Sampling, " in text
    assert " cells on 1 worker, " in text
    found = status_of(copy)
    assert found["running"] == []
    assert [(s["log"], s["command"], s["outcome"], s["exit_code"]) for s in found["sessions"]] == [("log.jsonl", "sample", "done", 0)]
    stages = [(event["event"], event.get("stage")) for event in read_log(copy / "log.jsonl")]
    assert stages.index(("stage_begun", "corpus")) < stages.index(("stage_ended", "train")) < stages.index(("stage_begun", "sample"))


def test_all_of_it_for_a_program(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == KEYS
    assert found["format"] == 1
    assert list(found["stages"]) == ["corpus", "train", "sample", "measure", "analyse", "report"]
    assert all(stage["done"] and stage["seconds"] > 0 for stage in found["stages"].values())
    assert found["stages"]["train"]["checkpoints"] == found["stages"]["train"]["planned"] == 5
    assert {"recorded": 45, "planned": 45, "other_settings": 0}.items() <= found["stages"]["sample"].items()
    assert sum(found["stages"]["sample"]["outcomes"].values()) == 45
    (last,) = found["sessions"]
    assert set(last) == {"log", "command", "begun", "ended", "outcome", "exit_code", "reason", "retried", "warnings"}
    assert (last["command"], last["outcome"], last["exit_code"], last["retried"]) == ("run", "done", 0, [])
    assert found["page"] == str(finished / "report.html")
    assert found["disk"]["total"] == sum(path.stat().st_size for path in finished.rglob("*") if path.is_file())
    assert found["disk"]["total"] == sum(found["disk"][name] for name in DISK)
    for name, folder in {"checkpoints": "checkpoints", "corpus": "corpus", "samples": "records/sample", "copies": "records/compacted"}.items():
        assert found["disk"][name] == sum(path.stat().st_size for path in (finished / folder).rglob("*") if path.is_file()) > 0
    assert found["disk"]["measurements"] > 0
    assert found["disk"]["logs"] == (finished / "log.jsonl").stat().st_size


def sampled(root: Path) -> tuple[int, int, bool]:
    stage = status_of(root)["stages"]["sample"]
    return stage["recorded"], stage["other_settings"], stage["done"]


def test_a_planned_cell_is_recorded_where_the_sampling_would_find_it(copy: Path) -> None:
    experiment, folder = load(copy / "experiment.toml"), existing(copy)
    keys = [key for _, keys in keyed_units(experiment, folder) for key in keys]
    assert set(planned_records(experiment, folder)) == {key_digest("sample", key) for key in keys}
    text = folder.experiment.read_text()
    for told in ("origin_batches = 4\nfixed_contexts = 4", "origin_batches = 5"):
        folder.experiment.write_text(text.replace("origin_batches = 4", told))
        assert sampled(copy) == (0, 45, False)
        assert "45 of 45 planned cells are not recorded" in describe(examine(copy))
    folder.experiment.write_text(text)
    assert sampled(copy) == (45, 0, True)


def test_cells_of_other_weights_are_not_this_run_s(copy: Path) -> None:
    """As where two runs keep their records at one place."""
    path = copy / "checkpoints" / "step-00000012" / "checkpoint.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"digest": "0" * 64}))
    recorded, others, done = sampled(copy)
    assert recorded + others == 45
    assert others == sum(record["step"] == 12 for record in said(opened(existing(copy).store(), "sample"))) > 0
    assert not done


def test_checkpoints_that_are_planned_are_counted_and_no_others(copy: Path) -> None:
    for step in (3, 6):
        (copy / "checkpoints" / f"step-{step:08d}").rename(copy / "checkpoints" / f"step-old{step}")
    found = status_of(copy)["stages"]["train"]
    assert (found["checkpoints"], found["planned"], found["done"]) == (3, 5, False)
    assert sampled(copy) == (45, 0, True)  # the provenance tells of what they were
    (copy / "provenance.json").unlink()
    assert sampled(copy) == (35, 10, False)


def test_the_status_needs_no_torch(finished: Path) -> None:
    code = "import sys, pathlib, rllc.runs.status as s\ns.status_of(pathlib.Path(sys.argv[1]))\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(finished)], check=True)


def test_what_was_set_aside_is_no_measurement(copy: Path) -> None:
    before = disk_use(existing(copy))
    (copy / "records" / "damaged").mkdir()
    (copy / "records" / "damaged" / "sample-x-0.npz").write_bytes(b"torn")
    after = disk_use(existing(copy))
    assert (after["damaged"], after["measurements"]) == (4, before["measurements"])


def test_disk_of_siblings_counts_as_what_it_is(copy: Path) -> None:
    before = disk_use(existing(copy))
    shutil.copytree(copy / "checkpoints", copy / "siblings" / "seed-1" / "checkpoints")
    (copy / "notes.txt").write_text("12345")
    (copy / "elsewhere").symlink_to(copy / "records")
    after = disk_use(existing(copy))
    assert after["checkpoints"] == 2 * before["checkpoints"]
    assert after["other"] - before["other"] == 5 + len(str(copy / "records"))
    assert after["samples"] == before["samples"]


def test_refused_cells_are_told_by_reason(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rllc.runs import status

    said = status.said

    def changed(index: Any) -> list[dict[str, Any]]:
        records = said(index)
        for n, record in enumerate(records[:7]):
            far = {"outcome": "unstable", "reason": f"Chain {n} went {n}.5e-3 far. Lower the step size."}
            gone = {"outcome": "nonfinite", "reason": f"Chain {n} was not finite at draw 3."}
            record.update(gone if n < 2 else far)
        return records

    monkeypatch.setattr(status, "said", changed)
    found = status_of(copy)
    assert [(group["outcome"], group["count"]) for group in found["refused"]] == [("unstable", 5), ("nonfinite", 2)]
    assert all(set(cell) == {"step", "data", "part", "reason"} for group in found["refused"] for cell in group["cells"])
    assert len({cell["reason"] for cell in found["refused"][0]["cells"]}) == 5
    text = render(found)
    assert "refused  5 unstable, such as: Chain 2 went 2.5e-3 far. Lower the step size." in text
    assert "; and 1 more, named by `rllc status --json`" in text
    cell = found["refused"][1]["cells"][0]
    assert f"step {cell['step']}, {cell['data']}, {cell['part']}" in text


def test_what_ended_the_last_session_and_what_was_tried_again(copy: Path) -> None:
    folder = existing(copy)

    def sample(reporter: Reporter) -> None:
        reporter.event("unit_retried", "", "warning", why="its process died")
        reporter.event("unit_retried", "", "warning", why="its process died")
        reporter.line("  WARNING: it predicts no better than chance.", "warning", "warning")
        raise ZeroDivisionError("a fault of the program")

    with pytest.raises(ZeroDivisionError), session(folder, "sample", True) as reporter:
        sample(reporter)
    (last,) = status_of(copy)["sessions"]
    assert (last["outcome"], last["exit_code"], last["reason"]) == ("failed", 70, "a fault of the program")
    assert last["retried"] == [{"reason": "its process died", "count": 2}]
    text = render(status_of(copy))
    assert "with exit code 70: a fault of the program" in text
    assert "retried  2 units whose worker was lost: its process died" in text
    assert "warned   WARNING: it predicts no better than chance." in text
    reporter = Reporter(True, folder.log)  # and one that was killed: neither an end nor a live file of its own
    reporter.event("run_begun", command="run")
    reporter.close()
    found = status_of(copy)
    assert found["sessions"][0]["outcome"] == "killed"
    assert "killed   rllc run did not end by itself" in render(found)
    for n, when in {1: "2000-01-01T00:00:00.000Z", 2: "9999-01-01T00:00:00.000Z"}.items():  # one shard ended before the whole run, one after
        end = {"time": when, "level": "error", "event": "run_ended", "outcome": "stopped", "exit_code": 2, "reason": f"of shard {n}"}
        (copy / f"log-{n}-of-2.jsonl").write_text(f"{json.dumps(end)}\n")
    text = render(status_of(copy))
    assert "exit code 2: of shard 2" in text
    assert "of shard 1" not in text


def test_watching_is_for_people_and_json_for_programs(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(copy), "--watch", "1", "--json"]) == 2
    assert "Leave one of them out" in capsys.readouterr().err


def test_watching_ends_with_the_run(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(copy), "--watch", "0.01"]) == 2
    assert "Give --watch half a second or more." in capsys.readouterr().err
    at_work = session(existing(copy), "run", True)
    at_work.__enter__()
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            at_work.__exit__(None, None, None)

    monkeypatch.setattr(watching.time, "sleep", sleep)
    assert main(["status", str(copy), "--watch", "2"]) == 0
    assert looks == [2.0] * 3
    out = capsys.readouterr().out
    assert out.count("at work  rllc run, process") == 3
    assert out.rstrip().endswith("report.html")

"""What somebody may put in the place of a run folder's files: links that lead elsewhere, pipes, tables within tables without end."""

from __future__ import annotations

import json
import logging
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.core.files import make_folder, open_own, open_regular, remove, write_atomic
from rllc.records.index import opened, path_of
from rllc.records.store import Store
from rllc.runs.doctor import examine
from rllc.runs.examining import Chart, checkpoints, leftovers, products
from rllc.runs.examining_records import records
from rllc.runs.experiment import load
from rllc.runs.layout import RunFolder
from rllc.runs.leftovers import sweep
from rllc.runs.live import FORMAT, LiveFile, seen
from rllc.runs.log import LogFile, iso, read_log
from rllc.runs.memory import _kept
from rllc.runs.ownership import check_folder
from rllc.runs.pipeline import read_timings
from rllc.runs.provenance import known_weights, read_provenance
from rllc.runs.shards import Shard
from rllc.runs.status import _noted

NESTED = "[" * 200_000
LEFTOVER = ".table.csv.abcdefgh.tmp"


@pytest.mark.parametrize("content", [NESTED, "{" + '"a":{' * 100_000, "", "[]", "\x00", '{"format": 1e999}', "9" * 5000])
def test_small_files_of_any_content_are_told_of(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.provenance, folder.measured, folder.timings, folder.budget, folder.training, folder.checkpoints / "resume.json"):
        write_atomic(path, content)
    chart = Chart(folder, repair=True)
    checkpoints(chart, None)
    products(chart)
    assert read_provenance(folder) is None
    assert known_weights(folder) == {}
    assert read_timings(folder) == {}
    told = " ".join(finding.what for finding in chart.findings if finding.wrong)
    assert "provenance.json is damaged" in told
    assert "resume.json is damaged" in told


def test_files_larger_than_any_are_told_of_and_not_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    store = Store(folder.records)
    name = store.put("other", {"i": 1}, {"x": np.zeros(3)}, {})
    opened(store, "other")
    small = [folder.experiment, folder.provenance, folder.measured, folder.timings, folder.budget, folder.training, folder.findings]
    for path in (*small, folder.checkpoints / "resume.json", tmp_path / "records" / path_of("other"), tmp_path / "records" / "store.json"):
        make_folder(path.parent)
        with path.open("ab") as stream:
            stream.truncate(600_000_000)
    os.truncate(tmp_path / "records" / "other" / f"{name}-0.npz", 600_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(RllcError, match="does not tell the format"):
            folder.store()
        assert _noted(folder) == ""
        assert read_timings(folder) == {}
        with pytest.raises(RllcError, match=r"budget\.json is damaged"):
            _kept(folder.budget)
        chart = Chart(folder, repair=True)
        checkpoints(chart, None)
        records(chart)
        products(chart)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    told = " ".join(finding.what for finding in chart.findings if finding.wrong and not finding.open)
    for damaged in (*small[1:], f"other/{name}-0.npz", path_of("other"), "store.json", "resume.json"):
        assert str(damaged).rpartition("/")[2] in told or damaged == folder.training


def test_an_experiment_nested_without_end_is_a_sentence(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_atomic(folder.experiment, "a = " + "[" * 5000)
    assert folder.records == tmp_path / "records"
    with pytest.raises(RllcError, match="is not valid TOML"):
        load(folder.experiment)


@pytest.mark.parametrize("text", ["1/" + "9" * 5000, "9" * 10 + "/" + "9" * 10, "1/٣"])
def test_a_shard_of_too_many_is_a_sentence(text: str) -> None:
    with pytest.raises(RllcError, match="A shard is called"):
        Shard.parse(text)


def live(**changes: object) -> str:
    return json.dumps({"format": FORMAT, "pid": os.getpid(), "heartbeat": iso(time.time()), "command": "sample", **changes})


@pytest.mark.parametrize("name", ["done", "total", "process_started", "workers"])
def test_a_number_beyond_all_floats_in_a_live_file_counts_as_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.json").write_text(live(**{name: 10**400}))
    (found,) = seen(tmp_path)
    assert name not in found.content
    assert found.content["command"] == "sample"


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.live.mkdir()
    for path in (folder.live / "run.json", folder.log, folder.provenance, folder.timings, folder.experiment, tmp_path / ".lock"):
        os.mkfifo(path)
    assert seen(folder.live) == []
    assert read_log(folder.log) == []
    assert read_provenance(folder) is None
    assert read_timings(folder) == {}
    assert folder.records == tmp_path / "records"
    with pytest.raises(RllcError, match="no file of bytes"), folder.locked():
        pass
    handler = LogFile(folder.log)
    handler.handle(logging.makeLogRecord({"msg": "lost"}))
    handler.close()
    with pytest.raises(OSError, match="no file of bytes"):
        open_regular(folder.log)


def test_nothing_is_written_where_a_link_leads(tmp_path: Path) -> None:
    """Neither the log nor a lock nor what is told of a run at work."""
    outside = tmp_path / "outside"
    outside.mkdir()
    mine = outside / "mine"
    mine.write_text("mine")
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    for path in (folder.log, folder.root / ".lock"):
        path.symlink_to(mine)
    handler = LogFile(folder.log)
    handler.handle(logging.makeLogRecord({"msg": "theirs"}))
    handler.close()
    with pytest.raises(RllcError, match="is a link, and nothing is written where it leads"), folder.locked():
        pass
    folder.live.symlink_to(outside)
    told: list[str] = []
    with LiveFile(folder.live_of(None), {}, dict, told.append):
        assert "is a link" in told[0]
        assert [path.name for path in outside.iterdir()] == ["mine"]
    assert mine.read_text() == "mine"
    with pytest.raises(OSError, match="symbolic link"):
        open_own(folder.log)


@pytest.mark.parametrize("way", ["sweep", "doctor"])
def test_a_link_named_like_a_leftover_is_removed_and_what_it_leads_to_stays(tmp_path: Path, way: str) -> None:
    folder, outside = RunFolder(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    write_atomic(folder.experiment, "")
    link = folder.root / LEFTOVER
    link.symlink_to(outside)
    if way == "sweep":
        assert sweep(folder) == 1
    else:
        chart = Chart(folder, repair=True)
        leftovers(chart)
        assert chart.findings[0].mended == "They were removed."
    assert not link.is_symlink()
    assert (outside / "mine").read_text() == "mine"
    remove(folder.root / LEFTOVER)  # what is gone already is no error


def test_only_what_a_run_wrote_aside_is_taken_away(tmp_path: Path) -> None:
    """What others write aside below a run folder, in whatever folder, in other runs and behind links, has the same form of name."""
    folder, step, mine = RunFolder(tmp_path / "run"), "checkpoints/step-00000003", tmp_path / "mine"
    record, half = f".{'0' * 64}-0.npz.abcdefgh.tmp", b"half"
    ours = [
        LEFTOVER,
        f"corpus/{LEFTOVER}",
        f"{step}/.checkpoint.json.abcdefgh.tmp",
        f"records/sample/{record}",
        f"siblings/named/records/sample/{record}",
    ]
    state = f"checkpoints/resume-{'a' * 16}.safetensors"
    theirs = [
        ".thesis.docx.abcdefgh.tmp",
        "sub/.x.abcdefgh.tmp",
        f"siblings/other/{LEFTOVER}",
        f"records/sample/{LEFTOVER}",
        "checkpoints/resume-mine.safetensors",
    ]
    theirs += [
        f"figures/{LEFTOVER}",
        "figures/experiment.toml",
        "damaged/.x.abcdefgh.tmp",
        f"siblings/run/{LEFTOVER}",
        "siblings/run/experiment.toml",
    ]
    behind = [LEFTOVER, f"checkpoints/{LEFTOVER}", state]
    for path in (*(folder.root / name for name in (*ours, *theirs, state)), *(mine / name for name in behind)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(half)
    (folder.root / f"sub/{LEFTOVER}").mkdir()
    (folder.root / ".findings.json.abcdefgh.tmp").mkdir()
    for name in ("calibration", "live", "siblings/linked"):
        (folder.root / name).symlink_to(mine)
    assert sweep(folder, ["named", "linked", "run"]) == 0, "no experiment was begun here"
    write_atomic(folder.experiment, "")
    assert sweep(folder, ["named", "linked", "run"]) == len(ours) + 1
    assert not any((folder.root / name).exists() for name in (*ours, state))
    assert all((folder.root / name).read_bytes() == half for name in theirs)
    assert all((mine / name).read_bytes() == half for name in behind)
    assert (folder.root / f"sub/{LEFTOVER}").is_dir()
    assert (folder.root / ".findings.json.abcdefgh.tmp").is_dir()


def test_a_run_begins_in_no_folder_whose_files_it_would_write_over(tmp_path: Path) -> None:
    out = tmp_path / "project"
    for name in ("notes.txt", "report.md", "corpus/mine.tokens.npy", "checkpoints/resume.json"):
        write_atomic(out / name, "mine")
    with pytest.raises(RllcError, match=r"is no run's folder, and what it holds would be written over: checkpoints, corpus, report\.md"):
        check_folder(RunFolder(out))
    with pytest.raises(RllcError, match="is no run's folder"):
        examine(out, repair=True)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "corpus", "notes.txt", "report.md"]
    (tmp_path / "other").mkdir()
    write_atomic(tmp_path / "other" / "notes.txt", "mine")
    check_folder(RunFolder(tmp_path / "other"))
    check_folder(RunFolder(tmp_path / "new"))
    write_atomic(out / "experiment.toml", "")
    check_folder(RunFolder(out))


@pytest.mark.parametrize(
    "name", ["damaged", "figures", "calibration", "records/sample", "records/compacted", "records/damaged", "siblings", "siblings/one"]
)
def test_a_folder_that_a_run_makes_itself_is_no_link(tmp_path: Path, name: str) -> None:
    link = tmp_path / "run" / name
    write_atomic(tmp_path / "run" / "experiment.toml", "")
    link.parent.mkdir(exist_ok=True)
    (tmp_path / "mine" / "one").mkdir(parents=True)
    link.symlink_to(tmp_path / "mine")
    with pytest.raises(RllcError, match=f"{name} is a link, and a run writes nothing where it leads"):
        check_folder(RunFolder(tmp_path / "run"), ["one"])


def test_the_folder_itself_and_what_is_large_in_it_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    for name in ("corpus", "checkpoints", "records"):
        (tmp_path / f"large {name}").mkdir()
        (tmp_path / "disk" / name).symlink_to(tmp_path / f"large {name}")
    folder = RunFolder(tmp_path / "run")
    check_folder(folder)
    folder.store().put("sample", {"a": 1}, {}, {})
    assert (tmp_path / "large records" / "sample").is_dir()
    (folder.root / "siblings").symlink_to(tmp_path)  # none of which the experiment names
    check_folder(folder)


def test_a_live_file_behind_a_link_is_not_taken_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    write_atomic(tmp_path / "mine" / "run.json", "mine")
    folder.root.mkdir()
    folder.live.symlink_to(tmp_path / "mine")
    with LiveFile(folder.live_of(None), {}, dict, lambda _: None):
        pass
    assert (tmp_path / "mine" / "run.json").read_text() == "mine"

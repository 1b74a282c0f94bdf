"""What an earlier version has computed is told before it is computed anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rllc.main import main
from rllc.records.store import Store
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_plan
from rllc.runs.pipeline import run_experiment


@pytest.fixture
def older(finished: Path, tmp_path: Path) -> RunFolder:
    """The finished run, its cells of step 12 on echo as an earlier estimator recorded them, and n-gram scores of an earlier revision at two steps."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(finished, folder.root)
    store = Store(folder.records)
    for record in list(store.records("sample")):
        if (record.meta["step"], record.meta["data"]) == (12, "echo/heldout"):
            _replace(folder, "sample", record.digest)
            store.put("sample", {**record.key, "estimator": "paired-3"}, record.arrays, record.meta)
    for record in list(store.records("ngrams")):
        if record.meta["step"] in (3, 6):
            _replace(folder, "ngrams", record.digest)
            store.put("ngrams", {**record.key, "revision": "ngrams-1"}, record.arrays, record.meta)
    return folder


def _replace(folder: RunFolder, kind: str, digest: str) -> None:
    for path in (folder.records / kind).glob(f"{digest}-*.npz"):
        path.unlink()


CELLS = "5 of 45 cells are recorded by an earlier estimator (paired-3) and will be sampled anew by this version's, paired-4; the old records stay."
MEASURES = "Measurements of earlier revisions will be made anew: ngrams at 2 checkpoints."


def test_the_plan_tells_what_is_computed_anew(
    older: RunFolder, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = parse(older.experiment.read_text())
    for root in (None, finished, older.root / "nowhere"):
        assert "anew" not in describe_plan(experiment, root=root)
    told = describe_plan(experiment, root=older.root)
    assert f"  in {older.root}: {CELLS}\n  in {older.root}: {MEASURES}" in told
    files = sorted(older.records.rglob("*"))
    path = older.root.parent / "run.toml"
    path.write_text(older.experiment.read_text())
    assert main(["plan", str(path), "--out", str(older.root)]) == 0
    assert CELLS in capsys.readouterr().out
    monkeypatch.chdir(older.root.parent)
    os.makedirs("runs")  # noqa: PTH103
    older.root.rename("runs/run")
    assert main(["plan", str(path)]) == 0  # of a folder that is called as the experiment
    assert f"in runs/run: {CELLS}" in capsys.readouterr().out
    assert len(sorted(Path("runs/run/records").rglob("*"))) == len(files)


def test_sampling_tells_it_and_then_it_is_done(older: RunFolder) -> None:
    text = older.experiment.read_text()
    run_experiment(text, older.root, "sample", None, None, quiet=True)
    assert CELLS in older.log.read_text()
    length = len(older.log.read_text())
    told = describe_plan(parse(text), root=older.root)
    assert CELLS not in told
    assert MEASURES in told
    run_experiment(text, older.root, "sample", None, None, quiet=True)
    assert "anew" not in older.log.read_text()[length:]

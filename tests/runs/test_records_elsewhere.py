"""A run whose records lie where fsspec reaches, and not in its folder: sampled, measured, read, verified and examined there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rllc.core.errors import RllcError
from rllc.records.store import Store
from rllc.runs.doctor import describe, examine
from rllc.runs.experiment import load, parse
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_status, export_table
from rllc.runs.pipeline import run_experiment
from rllc.runs.verifying import verify_run

URL = "memory://bucket/mine"


@pytest.fixture
def elsewhere(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the finished run without its records, whose experiment names a URL for them and a grid of four cells."""
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("records", "provenance.json"))
    text = (finished / "experiment.toml").read_text()
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    text = text.replace(grid, '[[sample]]\nparts = ["heads"]\ndata = ["mixture"]\ncheckpoints = [12]\n')
    (tmp_path / "run" / "experiment.toml").write_text(text.replace("[engine]\n", f'[engine]\nrecords = "{URL}"\n'))
    yield tmp_path / "run"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_a_run_keeps_its_records_at_a_url(elsewhere: Path, finished: Path) -> None:
    text = (elsewhere / "experiment.toml").read_text()
    run_experiment(text, elsewhere, "sample", None, None, quiet=True)
    run_experiment(text, elsewhere, "measure", None, None, quiet=True)
    assert not (elsewhere / "records").exists()
    there = {record.digest: record for record in Store(URL).records("sample")}
    assert len(there) == 4
    for digest, record in there.items():  # the place has no say in any number
        assert Store(finished / "records").get("sample", digest).arrays["losses"].tolist() == record.arrays["losses"].tolist()
    assert "4 cells recorded, 4 planned" in describe_status(elsewhere)
    assert export_table(elsewhere, "csv").count(b"\n") == 5
    assert verify_run(elsewhere, cells=2, workers=1, quiet=True).passed
    assert "bucket" not in (elsewhere / "provenance.json").read_text()

    fs, root = fsspec.url_to_fs(URL)
    victim = f"{root}/sample/{min(there)}-0.npz"
    fs.pipe_file(victim, fs.cat_file(victim)[:-40])
    found = examine(elsewhere)
    assert not found.sound
    assert f"{URL}/sample/{min(there)}" in describe(found)
    assert fs.exists(victim)
    assert examine(elsewhere, repair=True).sound
    assert not fs.exists(victim)
    run_experiment(text, elsewhere, "sample", None, None, quiet=True)
    assert sorted(Store(URL).digests("sample")) == sorted(there)


def test_siblings_lie_beside_each_other(elsewhere: Path, finished: Path) -> None:
    folder = RunFolder(elsewhere)
    assert folder.records == URL
    assert folder.sibling("seed-1").records == f"{URL}/sibling-seed-1"
    folder.sibling("seed-1").store().put("sample", {}, {}, {})
    folder.store().put("sample", {"i": 1}, {}, {})
    assert folder.store().kinds() == ["sample"]
    assert len(folder.store().digests("sample")) == 1
    assert RunFolder(finished).records == finished / "records"
    assert RunFolder(finished / "siblings" / "a").records == finished / "siblings" / "a" / "records"


def test_where_records_lie_decides_no_number(elsewhere: Path, finished: Path) -> None:
    assert load(elsewhere / "experiment.toml").training_key() == load(finished / "experiment.toml").training_key()
    text = (elsewhere / "experiment.toml").read_text()
    with pytest.raises(RllcError, match=r"engine\.records is 'bucket/mine', which is no URL"):
        parse(text.replace(URL, "bucket/mine"))
    (elsewhere / "experiment.toml").write_text("not toml")
    assert RunFolder(elsewhere).records == elsewhere / "records"

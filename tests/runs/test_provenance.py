from __future__ import annotations

import getpass
import json
import platform
import shutil
import socket
from pathlib import Path

import pytest

from rllc.checkpoints.store import list_checkpoints
from rllc.corpus.tokens import open_corpus
from rllc.runs import provenance
from rllc.runs.experiment import load
from rllc.runs.layout import RunFolder
from rllc.runs.pipeline import run_experiment
from rllc.runs.provenance import note_provenance, read_provenance


def test_a_run_tells_what_made_it(finished: Path) -> None:
    folder = RunFolder(finished)
    told = read_provenance(folder)
    assert told is not None
    assert told["corpus"] == open_corpus(folder.corpus).digest
    assert told["checkpoints"] == {str(info.step): info.digest for info in list_checkpoints(folder.checkpoints)}
    assert told["seeds"]["experiment"] == 3
    assert told["training"] == load(folder.experiment).training_key()
    assert (told["engine"]["threads"], told["engine"]["dtype"], told["engine"]["memory"]) == (1, "float32", 1000)
    (session,) = told["environments"]
    assert session["stages"] == ["corpus", "train", "sample", "measure", "analyse", "report"]
    assert session["versions"]["python"] == platform.python_version()
    assert {"rllc", "torch", "numpy", "tokenizers"} <= session["versions"].keys()
    assert session["machine"]["instructions"]


def test_nothing_private_is_told(finished: Path) -> None:
    text = (finished / "provenance.json").read_text()
    private = {socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd()), str(finished), str(finished.parent)}
    assert "/" not in text.replace("N/A", "")
    words = set(text.replace('"', " ").replace(",", " ").split())
    assert not {name for name in private if name in words or (len(name) > 5 and name in text)}


def test_another_environment_is_kept_beside_the_first(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    text = (finished / "experiment.toml").read_text()
    run_experiment(text, copy, "sample", None, None, quiet=True)
    told = read_provenance(RunFolder(copy))
    assert told is not None
    assert len(told["environments"]) == 1
    machine = provenance.machine()
    monkeypatch.setattr(provenance, "machine", lambda: machine | {"processor": "another"})
    run_experiment(text, copy, "sample", None, None, quiet=True)
    told = read_provenance(RunFolder(copy))
    assert told is not None
    first, second = told["environments"]
    assert second["machine"]["processor"] == "another"
    assert second["stages"] == ["corpus", "train", "sample"]
    assert first["machine"] == machine


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "digest": "0"}'])
def test_a_damaged_one_is_not_believed_and_begun_anew(finished: Path, tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.provenance.write_text(text)
    assert read_provenance(folder) is None
    note_provenance(load(finished / "experiment.toml"), folder, "corpus")
    told = read_provenance(folder)
    assert told is not None
    assert told["checkpoints"] == {}
    assert "corpus" not in told
    altered = json.loads(folder.provenance.read_text())
    altered["seeds"]["experiment"] = 4
    folder.provenance.write_text(json.dumps(altered))
    assert read_provenance(folder) is None


def test_the_commit_of_a_checkout_is_told_and_that_of_others_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = provenance.source.__wrapped__
    found = ask()
    if found:
        assert len(found["commit"]) == 40
        assert found.keys() <= {"commit", "changed", "difference"}
    package = tmp_path / "src" / "rllc"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    assert ask() == {}

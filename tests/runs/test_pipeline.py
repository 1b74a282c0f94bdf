from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rllc.analysis.stored import from_json
from rllc.core.errors import RllcError
from rllc.main import main
from rllc.records.store import Store
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_status, export_table
from rllc.runs.pipeline import read_timings, run_experiment

from .conftest import experiment_text

COLUMNS = [
    "run",
    "step",
    "part",
    "data",
    "evaluated_on",
    "sampler",
    "step_size",
    "localization",
    "nbeta",
    "chains",
    "draws",
    "burn_in",
    "estimator",
    "llc",
    "stderr",
    "ci_low",
    "ci_high",
    "llc_unpaired",
    "tilt",
    "rhat",
    "ess",
    "stein_ratio",
    "outcome",
    "seconds",
    "key",
]


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(export_table(folder, "csv")), keep_default_na=True)


def numbers(folder: Path) -> dict[tuple, tuple]:
    """What must not depend on how often a run was interrupted."""
    table = rows(folder)
    return {(r.step, r.part, r.data): (r.llc, r.stderr, r.tilt, r.outcome) for r in table.itertuples()}


def test_a_run_ends_in_a_table_findings_and_a_page(finished):
    table = rows(finished)
    assert set(COLUMNS) <= set(table.columns)
    assert len(table) == 5 * 5 + 2 * 2 * 5
    ok = table[table.outcome != "nonfinite"]
    assert np.isfinite(ok.llc).all()
    assert (ok.stderr > 0).all()
    assert (ok.ci_low < ok.llc).all()
    assert (ok.llc < ok.ci_high).all()
    findings = from_json((finished / "findings.json").read_text())
    assert set(findings.curves) == {"mixture", "prose", "echo/heldout"}
    assert findings.curves["mixture"].parts == ("0:0", "0:1", "1:0", "1:1")
    assert findings.full["mixture"].parts == ("full",)
    assert set(findings.full["prose"].parts) == {"0.attn"}
    assert findings.behaviour.data == ("mixture", "echo", "prose")
    assert findings.planted_share == 0.25
    page = (finished / "report.html").read_text()
    assert "A tiny run" in page
    assert set(read_timings(RunFolder(finished))) == {"corpus", "train", "sample", "measure", "analyse", "report"}
    pytest.importorskip("matplotlib")
    written = {path.name for path in (finished / "figures").iterdir()}
    assert {name.rpartition(".")[2] for name in written} == {"png", "svg", "html", "js", "json"}
    told = json.loads((finished / "figures" / "captions.json").read_text())
    assert {f"{name}.{kind}" for name in told["drawn"] for kind in ("png", "svg", "html")} | {"captions.json", "plotly.min.js"} == written
    assert {"heads", "refined-by-data", "attention-scores", "attention-maps"} <= set(told["drawn"])
    assert told["lacking"]["edges"] == "It needs path ablation."
    assert "Figures that this run does not have" in page


def test_status_says_what_is_there(finished):
    text = describe_status(finished)
    assert "45 cells recorded, 45 planned" in text
    assert text.count("done") == 5


def test_status_counts_what_today_s_experiment_asks_for(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = copy / "experiment.toml"
    path.write_text(path.read_text().replace("nbeta = 30", "nbeta = 20"))
    assert "0 cells recorded, 45 planned; 45 more of other settings" in describe_status(copy)


def test_running_again_computes_nothing(finished, tmp_path, monkeypatch, no_pictures):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    before = {
        path: path.stat().st_mtime_ns for folder in ("checkpoints", "records/sample", "records/behaviour") for path in (copy / folder).rglob("*")
    }
    monkeypatch.setattr("rllc.runs.grid.sample_unit", lambda work: pytest.fail(f"{work.unit} was computed twice"))
    run_experiment((finished / "experiment.toml").read_text(), copy, "report", None, None, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_damaged_record_is_named_and_computed_anew(finished, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    victim = sorted((copy / "records" / "sample").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-200])
    run_experiment((finished / "experiment.toml").read_text(), copy, "sample", None, None, quiet=False)
    assert "was damaged" in capsys.readouterr().err.replace("\n", "")
    assert numbers(copy) == numbers(finished)


def test_a_changed_grid_adds_its_cells_and_another_training_is_refused(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    text = (finished / "experiment.toml").read_text()
    run_experiment(text.replace("checkpoints = [0, 12]", "checkpoints = [0, 6, 12]"), copy, "sample", None, None, quiet=True)
    assert len(rows(copy)) == 45 + 2 * 5
    with pytest.raises(RllcError, match="trained with another model, mixture or training settings"):
        run_experiment(text.replace("learning_rate = 3e-3", "learning_rate = 2e-3"), copy, "sample", None, None, quiet=True)


def test_a_checkpoint_of_another_shape_is_refused(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = copy / "checkpoints" / "step-00000006" / "checkpoint.json"
    facts = json.loads(path.read_text())
    facts["shape"]["n_heads"] = 4
    path.write_text(json.dumps(facts))
    shutil.rmtree(copy / "records")
    with pytest.raises(RllcError, match=r"step 6 .* is of another shape"):
        run_experiment((finished / "experiment.toml").read_text(), copy, "sample", None, None, quiet=True)


def test_a_step_that_diverges_is_a_refused_cell_in_sight(finished, tmp_path, no_pictures):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    text = (finished / "experiment.toml").read_text()
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    text = text.replace(grid, '[[sample]]\nparts = ["1:0", "1:1"]\ndata = ["mixture"]\ncheckpoints = [9, 12]\n').replace("nbeta = 30", "nbeta = 3e8")
    run_experiment(text, copy, "report", None, None, quiet=True)
    findings = from_json((copy / "findings.json").read_text())
    last = findings.curves["mixture"]
    refused = np.isin(last.outcome, ["unstable", "nonfinite"])
    assert refused.any()
    assert np.isnan(last.llc[refused]).all()
    assert "refused" in describe_status(copy)
    assert "Lower the step size" in (copy / "report.html").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_ctx = 24", "n_ctx = 24\nd_vocab = 300", "The corpus has a vocabulary of 280, but model.d_vocab is 300"),
        ("n_ctx = 24", "n_ctx = 40000", "fewer than one context of 40000"),
        ("vocabulary = 280", "vocabulary = 50000", "50000"),
        ('paths = ["', 'paths = ["/nowhere', "nowhere"),
        ("draws = 16", "drwas = 16", "Perhaps you meant 'draws'"),
    ],
)
def test_mistakes_end_in_a_sentence_and_exit_code_2(tmp_path, capsys, old, new, message):
    text = experiment_text(tmp_path)
    path = tmp_path / "experiment.toml"
    path.write_text(text.replace(old, new))
    assert main(["run", str(path), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rllc: ")
    assert message in error
    assert "Traceback" not in error


def test_a_domain_without_text(tmp_path, capsys):
    text = experiment_text(tmp_path)
    for path in (tmp_path / "text").iterdir():
        path.write_text("")
    (tmp_path / "experiment.toml").write_text(text)
    assert main(["corpus", str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "text" in capsys.readouterr().err


def test_a_full_disk_loses_nothing(finished, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for path in sorted((copy / "records" / "sample").iterdir())[:4]:
        path.unlink()
    kept = {path.name for path in (copy / "records" / "sample").iterdir()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.parent.name == "sample":
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert main(["sample", str(finished / "experiment.toml"), "--out", str(copy), "--quiet"]) == 2
    assert "The disk is full" in capsys.readouterr().err
    assert {path.name for path in (copy / "records" / "sample").iterdir()} == kept
    assert main(["sample", str(finished / "experiment.toml"), "--out", str(copy), "--quiet"]) == 0
    assert numbers(copy) == numbers(finished)


def test_a_page_without_measurements_and_a_device_that_is_not_there(finished, tmp_path, capsys, no_pictures):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    shutil.rmtree(copy / "records" / "behaviour")
    assert main(["report", str(copy), "--quiet"]) == 2
    assert "holds no measurement of behaviour" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["measure", str(finished / "experiment.toml"), "--out", str(copy), "--quiet", "--device", "cuda"]) == 2
        assert "torch finds none here" in capsys.readouterr().err
    assert main(["measure", str(finished / "experiment.toml"), "--out", str(copy), "--quiet"]) == 0
    assert main(["report", str(copy), "--quiet"]) == 0


def test_a_store_of_a_newer_version_is_left_alone(finished, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "records" / "store.json").write_text('{"format": 99}\n')
    assert main(["sample", str(finished / "experiment.toml"), "--out", str(copy), "--quiet"]) == 2
    assert "format 99" in capsys.readouterr().err


def test_two_runs_on_one_folder(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    with RunFolder(copy).locked(), pytest.raises(RllcError, match="Another run is at work"):
        run_experiment((finished / "experiment.toml").read_text(), copy, "report", None, None, quiet=True)


def _start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    # A shell starts what runs in the background deaf to interrupts, and children inherit that: these must hear them however the tests were started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "rllc.main", "run", str(path), "--out", str(out), "--quiet"], start_new_session=True, stderr=subprocess.PIPE
    )


def _wait_for(process: subprocess.Popen[bytes], ready) -> None:
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def _wait_until_gone(group: int) -> None:
    """Workers end soon after the run that started them, however that ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("workers were left behind")


def test_a_killed_run_goes_on_where_it_was(finished, tmp_path, no_pictures):
    """Kill it in the training and in the sampling with two workers, in both ways, then let it end: the numbers of a run that nobody disturbed."""
    path, out = tmp_path / "experiment.toml", tmp_path / "run"
    path.write_text((finished / "experiment.toml").read_text().replace("workers = 1", "workers = 2"))

    def recorded() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (out / "records" / "sample").glob("*.npz")}

    moments = [
        (signal.SIGINT, (out / "checkpoints" / "step-00000003").exists),
        (signal.SIGKILL, (out / "checkpoints" / "step-00000009").exists),
        (signal.SIGKILL, lambda: len(recorded()) >= 7),
        (signal.SIGINT, lambda: len(recorded()) >= 20),
    ]
    for how, moment in moments:
        before = recorded()
        process = _start(path, out)
        _wait_for(process, moment)
        assert process.poll() is None, "the run ended before it could be killed"
        process.send_signal(how)
        _, error = process.communicate(timeout=60)
        assert process.returncode == (-9 if how is signal.SIGKILL else 130)
        assert b"Traceback" not in error
        _wait_until_gone(process.pid)
        assert before.items() <= recorded().items()
    kept = recorded()
    assert 20 <= len(kept) < 45
    assert main(["run", str(path), "--out", str(out), "--workers", "1", "--quiet"]) == 0
    assert kept.items() <= recorded().items()
    assert numbers(out) == numbers(finished)
    checkpoints = Path("checkpoints") / "step-00000012" / "weights.safetensors"
    assert (out / checkpoints).read_bytes() == (finished / checkpoints).read_bytes()
    assert Store(out / "records").check() == ()

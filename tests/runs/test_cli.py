from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from rllc.main import VERBS, main


def test_help_names_every_verb_and_imports_no_torch():
    code = "import sys, rllc.main\ntry:\n rllc.main.main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert verb in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"Example: rllc {verb}" in capsys.readouterr().out


def test_an_unknown_verb_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["smaple"])
    assert ended.value.code == 2
    assert "smaple" in capsys.readouterr().err


def test_plan_prints_cells_steps_and_bytes(tiny, tmp_path, capsys):
    path = tmp_path / "experiment.toml"
    path.write_text(tiny)
    assert main(["plan", str(path)]) == 0
    text = capsys.readouterr().out
    assert "45 in 27 units: " in text
    assert "mixture 25" in text
    assert "chain-steps 1,800" in text


@pytest.mark.parametrize("verb", ["status", "table", "report"])
def test_a_folder_without_a_run(verb, tmp_path, capsys):
    assert main([verb, str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_missing_experiment_file(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "There is no experiment file" in capsys.readouterr().err


def test_table_writes_json(finished, capfdbinary):
    assert main(["table", str(finished), "--format", "json"]) == 0
    rows = json.loads(capfdbinary.readouterr().out)
    assert len(rows) == 45
    assert {"step", "part", "llc", "stderr", "outcome"} <= set(rows[0])


def test_status_and_report_of_a_finished_run(finished, capsys):
    assert main(["status", str(finished)]) == 0
    assert "45 cells recorded, 45 planned" in capsys.readouterr().out


def test_interruption_is_exit_code_130(monkeypatch, capsys, tmp_path, tiny):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rllc.runs.pipeline.run_experiment", interrupt)
    (tmp_path / "e.toml").write_text(tiny)
    assert main(["run", str(tmp_path / "e.toml"), "--out", str(tmp_path / "run")]) == 130
    assert "goes on where it was" in capsys.readouterr().err


def test_doctor_and_verify_answer_with_sentences_and_exit_codes(finished, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    assert main(["doctor", str(copy)]) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    assert main(["verify", str(copy), "--cells", "1", "--quiet"]) == 0
    assert "1 of 45 recorded cells were chosen" in capsys.readouterr().out
    for path in (copy / "records" / "sample").iterdir():
        path.write_bytes(b"torn")
    assert main(["doctor", str(copy)]) == 1
    assert "45 things are wrong" in capsys.readouterr().out
    assert main(["verify", str(copy), "--cells", "1", "--quiet"]) == 1
    assert "is damaged" in capsys.readouterr().out
    assert main(["doctor", str(copy), "--repair"]) == 0
    assert "is mended (45)" in capsys.readouterr().out
    assert main(["verify", str(copy)]) == 2
    assert "Run `rllc sample` first" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err

"""Shares of a run: every unit in one of them, several at work in one folder, and a call without a share that does the rest."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rllc.cli.arguments import Where
from rllc.core.errors import RllcError
from rllc.main import VERBS
from rllc.records.store import Store
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.pipeline import check_shard, run_experiment
from rllc.runs.plan import make_plan
from rllc.runs.provenance import read_provenance
from rllc.runs.settings import EngineSettings
from rllc.runs.shards import Shard

ROOT = Path(__file__).resolve().parents[2]
SHARD = """
import sys
from pathlib import Path
from rllc.runs.pipeline import run_experiment
run_experiment(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), "report", None, None, False, {"shard": sys.argv[3]})
"""


def test_every_unit_is_in_one_shard_and_the_shares_cost_alike(tiny):
    units = make_plan(parse(tiny)).units
    shares = [Shard(i, 3).share(units, lambda unit: unit.cost) for i in (1, 2, 3)]
    assert sorted(str(unit) for share in shares for unit in share) == sorted(map(str, units))
    costs = [sum(unit.cost for unit in share) for share in shares]
    assert max(costs) - min(costs) <= max(unit.cost for unit in units)
    assert Shard(2, 3).share(units[::-1], lambda unit: unit.cost) == shares[1]  # however the plan lists them
    assert Shard(28, 30).share(units, lambda unit: unit.cost) == []


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(RllcError, match="i from 1 to n"):
        EngineSettings(shard=text)


def test_a_shard_of_what_is_not_sampled_or_not_kept_is_refused(tiny):
    experiment = parse(tiny)
    check_shard(experiment, "report")
    with pytest.raises(RllcError, match="up to the stage train"):
        check_shard(experiment, "train")
    before, rest = tiny.split("[training]")
    imported = before + '[imported]\nsource = "elsewhere"\nsteps = [0, 12]\n[sampler]' + rest.split("[sampler]", 1)[1]
    with pytest.raises(RllcError, match="imported one at a time"):
        check_shard(parse(imported), "sample")
    check_shard(parse(imported.replace("steps =", "keep = true\nsteps =")), "sample")


def test_shards_hold_a_folder_together_and_whole_runs_hold_it_alone(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(Shard(1, 2)), folder.locked(Shard(2, 2)):
        with pytest.raises(RllcError, match="The shard 2/2 is at work"), folder.locked(Shard(2, 2)):
            pass
        with pytest.raises(RllcError, match="Another run is at work"), folder.locked():
            pass
    with folder.locked(), pytest.raises(RllcError, match="A run of all shards is at work"), folder.locked(Shard(1, 2)):
        pass


def test_shards_of_another_number_are_refused_while_one_is_at_work(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(Shard(1, 2)), folder.locked(Shard(2, 2)):
        for other in (Shard(1, 4), Shard(2, 4), Shard(1, 1)):
            with pytest.raises(RllcError, match=f"The shard 1/2 is at work in .*, and {other} shares the units out otherwise"), folder.locked(other):
                pass
    with folder.locked(Shard(2, 4)), folder.locked(Shard(1, 4)):  # those that were refused hold nothing
        pass
    with folder.locked():
        pass


def test_turns_come_one_after_the_other(tmp_path):
    folder, seen, waiting = RunFolder(tmp_path), list[str](), threading.Event()

    def second() -> None:
        with folder.turn("work", waiting.set):
            seen.append("second")

    with folder.turn("work"):
        other = threading.Thread(target=second)
        other.start()
        assert waiting.wait(10)
        seen.append("first")
    other.join(10)
    assert seen == ["first", "second"]


def test_two_shards_at_once_and_a_call_that_gathers_have_the_numbers_of_one_run(finished, tmp_path):
    """From nothing: both want the text and the model, one makes them; then each samples its own share, and the rest is done by a call for all."""
    path, out = tmp_path / "experiment.toml", tmp_path / "run"
    text = (finished / "experiment.toml").read_text()
    path.write_text(text)
    shards = [
        subprocess.Popen([sys.executable, "-c", SHARD, str(path), str(out), f"{i}/3"], stderr=subprocess.PIPE, text=True, env=os.environ.copy())
        for i in (1, 3)
    ]
    said = [shard.communicate(timeout=300)[1] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], said
    assert sorted("Trained 12 steps" in text for text in said) == [False, True]
    units, whole = make_plan(parse(text)).units, Store(finished / "records")
    done = {str(cell) for i in (1, 3) for unit in Shard(i, 3).share(units, lambda unit: unit.cost) for cell in unit.cells}
    there = {f"{r.meta['step']} {r.meta['data']} {r.meta['part']}" for r in Store(out / "records").records("sample")}
    assert len(there) == len(done) < 45
    known = read_provenance(RunFolder(out))
    assert known is not None
    assert known["environments"][0]["stages"] == ["corpus", "train", "sample"]
    kept = {file: file.stat().st_mtime_ns for file in (out / "records" / "sample").iterdir()}
    run_experiment(text, out, "sample", None, None, quiet=True)
    assert kept.items() <= {file: file.stat().st_mtime_ns for file in (out / "records" / "sample").iterdir()}.items()
    gathered = Store(out / "records")
    assert gathered.digests("sample") == whole.digests("sample")
    for digest in whole.digests("sample"):
        np.testing.assert_array_equal(gathered.get("sample", digest).arrays["losses"], whole.get("sample", digest).arrays["losses"])


def test_a_damaged_record_is_found_by_a_shard_of_other_units(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    victim = sorted((copy / "records" / "sample").iterdir())[0]
    victim.write_bytes(b"spoilt")
    text = (finished / "experiment.toml").read_text()
    run_experiment(text, copy, "sample", None, None, True, {"shard": "30/30"})  # has no unit
    assert not victim.exists()
    assert (copy / "log-30-of-30.jsonl").read_text().count("was damaged") == 1
    run_experiment(text, copy, "sample", None, None, quiet=True)
    assert Store(copy / "records").digests("sample") == Store(finished / "records").digests("sample")


@pytest.mark.parametrize("script", sorted((ROOT / "examples" / "slurm").glob("*.sh")), ids=lambda path: path.name)
def test_job_scripts_can_be_read_and_name_verbs_and_flags_that_there_are(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    asked = re.findall(r"\$rllc (\w+)(.*)", script.read_text())
    assert asked
    for verb, rest in asked:
        names = set(inspect.signature(VERBS[verb]).parameters)
        taken = {name.replace("_", "-") for name in names | ({field.name for field in fields(Where)} if "where" in names else set())}
        assert set(re.findall(r" --([a-z-]+)", rest)) <= taken


def test_the_job_array_gives_every_job_its_workers_and_takes_any_path(tmp_path):
    """A queue that runs what it is given at once, by sh as Slurm does, and a program that writes down how it was called."""
    (tmp_path / "bin").mkdir()
    for name, body in {
        "sbatch": """
            for argument; do case $argument in
                --wrap=*) sh -c "${argument#--wrap=}" >&2 ;;
                --output=*) echo "${argument#*=}" >>"$CALLS" ;;
            esac; done
            echo 7""",
        "rllc": '{ echo call; printf "<%s>\\n" "$@"; } >>"$CALLS"',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    out = tmp_path / 'it\'s $(touch broken) `touch broken` 100%j "it" é'
    experiment = tmp_path / "o'ne; touch broken #.toml"
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "LC_ALL": "C"}
    environment |= {"SLURM_CPUS_PER_TASK": "4", "SLURM_ARRAY_TASK_ID": "2", "CPUS": "4"}
    script = [str(ROOT / "examples" / "slurm" / "array.sh"), str(experiment), str(out), "3"]
    subprocess.run(script, check=True, env=environment, cwd=tmp_path)
    logs, *calls = (tmp_path / "calls").read_text().split("call\n")
    assert f"{out}/slurm-".replace("%", "%%") in logs
    assert out.is_dir()
    assert not (tmp_path / "broken").exists()
    asked = [[word.removeprefix("<") for word in call.split(">\n")[:-1]] for call in calls]
    common = [str(experiment), "--out", str(out)]
    assert asked[0] == ["train", *common]
    assert asked[1] == ["sample", *common, "--workers", "4", "--shard", "2/3"]
    assert asked[2] == ["run", *common, "--workers", "4"]

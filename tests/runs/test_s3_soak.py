"""A run whose records lie in an S3: sampled by two processes, killed, gone on with, examined; as one in a folder, bit for bit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from rllc.records.store import Store
from rllc.runs.doctor import describe, examine
from rllc.runs.verifying import verify_run

from ..s3 import s3_served
from .faulty import until

pytestmark = pytest.mark.soak


def rllc(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "rllc.main", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_in_an_s3_is_killed_and_ends_as_one_in_a_folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("records", "provenance.json"))
    whole = Store(finished / "records")
    with s3_served(monkeypatch) as bucket:
        experiment = tmp_path / "experiment.toml"
        experiment.write_text((finished / "experiment.toml").read_text().replace("[engine]\n", f'[engine]\nrecords = "{bucket}/mine"\n'))
        objects = fsspec.filesystem("s3")

        def recorded() -> dict[str, str]:
            objects.invalidate_cache()
            found = objects.ls(f"{bucket}/mine/sample", detail=True) if objects.exists(f"{bucket}/mine/sample") else []
            return {str(entry["name"]): str(entry["ETag"]) for entry in found}

        sampling = rllc("sample", experiment, "--out", run, "--workers", "2")
        until(lambda: len(recorded()) >= 3 or sampling.poll() is not None, "records in the bucket")
        sampling.send_signal(signal.SIGKILL)
        sampling.communicate()
        assert sampling.returncode == -signal.SIGKILL
        before = recorded()
        again = rllc("sample", experiment, "--out", run, "--workers", "2")
        assert "Sampling" in again.communicate()[0]
        assert again.returncode == 0
        assert before.items() <= recorded().items()  # none was computed or written again
        store = Store(f"{bucket}/mine")
        assert store.digests("sample") == whole.digests("sample")
        for digest in whole.digests("sample"):
            assert store.get("sample", digest).arrays["losses"].tolist() == whole.get("sample", digest).arrays["losses"].tolist()
        status = rllc("status", run)
        assert f"{len(whole.digests('sample'))} cells recorded" in status.communicate()[0]
        assert verify_run(run, cells=1, workers=1, quiet=True).passed

        victim = min(recorded())
        objects.pipe_file(victim, objects.cat_file(victim)[:-40])
        assert not examine(run).sound
        assert examine(run, repair=True).sound
        mended = rllc("sample", experiment, "--out", run, "--workers", "1")
        assert "Sampling" in mended.communicate()[0]
        found = examine(run)
        assert found.sound, describe(found)
        assert Store(f"{bucket}/mine").digests("sample") == whole.digests("sample")

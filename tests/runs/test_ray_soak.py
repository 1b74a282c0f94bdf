"""The engine ray where things go wrong that take long to go wrong: whole nodes, the driver, a worker that is alive and does nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rllc.records.store import Store
from rllc.runs.engines import on_ray, pulse, ray_worker
from rllc.runs.engines.job import Job
from rllc.runs.engines.on_ray import RayEngine
from rllc.runs.pipeline import run_experiment
from rllc.runs.settings import EngineSettings

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore")]  # Ray's own processes and sockets

RUN = """
import json, sys
from pathlib import Path
from rllc.runs.pipeline import run_experiment
machine = json.loads(sys.argv[3])
run_experiment(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), "sample", machine.pop("workers"), None, True, machine)
"""


def driver_of(experiment: Path, out: Path, **machine: Any) -> subprocess.Popen[bytes]:
    """A process that samples with the engine ray."""
    command = [sys.executable, "-c", RUN, str(experiment), str(out), json.dumps({"kind": "ray", **machine})]
    return subprocess.Popen(command, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that computes nothing; nodes are added by the tests. Each has an identity of its own, as if it were another machine."""
    pytest.importorskip("ray")
    folder = tempfile.mkdtemp()  # where nodes have their copies; Ray's sockets have no room for the longer name of tmp_path
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    from ray.cluster_utils import Cluster

    there = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False})
    yield there
    there.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def add(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def until(true: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.05)


def recorded(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "records" / "sample").glob("*.npz")}


def assert_same_numbers(one: Path, two: Path) -> None:
    there, here = Store(one / "records"), Store(two / "records")
    assert there.digests("sample") == here.digests("sample")
    for digest in here.digests("sample"):
        for name, array in here.get("sample", digest).arrays.items():
            np.testing.assert_array_equal(there.get("sample", digest).arrays[name], array, strict=True)


def without_records(finished: Path, copy: Path) -> Path:
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("records", "log.jsonl"))
    return copy


def test_nodes_come_and_go_and_the_numbers_stay(finished, tmp_path, cluster):
    """Workers are on machines that get the files from Ray; one machine is lost in the middle, and others come."""
    copy = without_records(finished, tmp_path / "run")
    first = add(cluster)
    driver = driver_of(finished / "experiment.toml", copy, workers=0, address=cluster.address)

    def computing(records: int) -> None:
        until(lambda: len(recorded(copy)) >= records or driver.poll() is not None, f"a record of number {records}")
        assert driver.poll() is None

    computing(6)
    copies = [path.name for path in ray_worker.node_folder("").iterdir()]
    assert len(copies) == 1  # of the run's files, for the one node that there was
    cluster.remove_node(first, allow_graceful=False)
    add(cluster)
    computing(20)
    add(cluster)
    assert driver.wait(300) == 0
    log = (copy / "log.jsonl").read_text()
    assert "a worker was lost" in log
    assert "workers now; it had for" in log
    assert_same_numbers(copy, finished)
    assert [path.name for path in ray_worker.node_folder("").iterdir()] in ([], copies)  # the lost node's may be left, for nobody is there to take it


def test_chains_are_prolonged_on_a_machine_that_does_not_see_the_folder(finished, tmp_path, cluster):
    add(cluster)
    text = (finished / "experiment.toml").read_text().replace("[sampling]\n", "[sampling]\nkeep_state = true\n")
    text = (
        text[: text.index("[[sample]]")] + '[[sample]]\nparts = ["heads"]\ndata = ["prose"]\ncheckpoints = [12]\n' + text[text.index("[behaviour]") :]
    )
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder, machine in zip(folders, ({}, {"kind": "ray", "address": cluster.address}), strict=True):
        without_records(finished, folder)
        for more in (text, text.replace("draws = 16", "draws = 24")):
            run_experiment(more, folder, "sample", None, None, True, machine)
    records = list(Store(folders[1] / "records").records("sample"))
    assert {(record.segments, record.meta["draws"]) for record in records} == {(2, 24)}
    assert_same_numbers(folders[1], folders[0])


def test_a_killed_driver_takes_ray_with_it_and_the_next_call_goes_on(finished, tmp_path):
    pytest.importorskip("ray")
    copy, path = without_records(finished, tmp_path / "run"), finished / "experiment.toml"
    driver = driver_of(path, copy, workers=2)
    until(lambda: len(recorded(copy)) >= 6 or driver.poll() is not None, "a sixth record")
    assert driver.poll() is None
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) > 3
    driver.send_signal(signal.SIGKILL)
    driver.wait(30)
    kept = recorded(copy)
    assert len(kept) < 45
    until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family), "the end of Ray")
    assert driver_of(path, copy, workers=2).wait(300) == 0
    assert kept.items() <= recorded(copy).items()  # nothing that was recorded was computed again
    assert_same_numbers(copy, finished)


def sleepy(work: tuple[int, Path]) -> int:
    """A unit that tells which process it is in, the first one of which is then stopped."""
    number, folder = work
    (folder / f"{number}-{os.getpid()}").touch()
    time.sleep(0.5)
    return number


@pytest.mark.parametrize(("unit_timeout", "why"), [(4, "no answer within 4 s"), (0, "no sign of life for")])
def test_a_stopped_process_is_given_up(tmp_path, cluster, monkeypatch, unit_timeout, why):
    import ray

    monkeypatch.setattr(pulse, "SILENCE", 4.0)
    monkeypatch.setattr(pulse, "SIGN", 0.0)  # these units only sleep: an answer is sign enough
    monkeypatch.setattr(on_ray, "_ASK", 0.5)

    add(cluster)
    add(cluster)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["_"]))
    stopped: list[int] = []

    def stop() -> None:
        until(lambda: bool(list(tmp_path.glob("0-*"))), "the first unit")
        stopped.append(int(next(tmp_path.glob("0-*")).name.split("-")[1]))
        os.kill(stopped[0], signal.SIGSTOP)

    stopping = threading.Thread(target=stop)
    stopping.start()
    engine, told = RayEngine(EngineSettings(kind="ray", unit_timeout=unit_timeout, device="cpu")), list[str]()
    done = [result for _, result in engine.run(Job(sleepy, [(n, tmp_path) for n in range(6)], tell=told.append))]
    stopping.join(10)
    assert sorted(done) == list(range(6))
    assert any(why in text for text in told)
    tries = [path.name for path in tmp_path.glob("0-*")]
    assert len(tries) == 2
    engine.close()
    ray.shutdown()
    if psutil.pid_exists(stopped[0]):
        os.kill(stopped[0], signal.SIGKILL)

"""The engine ray: the numbers of the engine local, whatever happens to its workers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.records.store import Store
from rllc.runs.engines import cluster, pulse
from rllc.runs.engines import on_ray as on_ray_module
from rllc.runs.engines.job import Job
from rllc.runs.engines.on_ray import RayEngine
from rllc.runs.pipeline import run_experiment
from rllc.runs.settings import EngineSettings

from .faulty import assert_same_records

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own processes and sockets
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of two workers; nothing of it is left behind."""
    pytest.importorskip("ray")
    ray, joined = cluster.connect(EngineSettings(kind="ray", workers=2))
    assert joined
    ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["_"]))  # this file is no module of the workers
    yield ray
    ray.shutdown()


def moody(work: tuple[str, Path]) -> str:
    """A unit that goes wrong the first time."""
    name, folder = work
    if name == "hopeless":
        raise MemoryError("there is none")
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return f"{name} again"
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hung":
        time.sleep(600)
    if name == "busy":
        until = time.process_time() + 8
        while time.process_time() < until:
            pass
    if name == "short":
        raise MemoryError
    if name == "wrong":
        raise RllcError("This unit has a fault of its own.", "Mend it.")
    if name == "bug":
        raise ZeroDivisionError("a fault of the program")
    return name


def test_what_a_killed_or_hung_worker_was_at_is_tried_again_and_nothing_else(ray, tmp_path):
    engine = RayEngine(EngineSettings(kind="ray", workers=2, unit_timeout=2, device="cpu"))
    engine.back_off = 0.1
    told: list[str] = []
    begun: list[str] = []
    works = [(name, tmp_path) for name in ("killed", "hung", "a", "b", "c")]
    done = dict(engine.run(Job(moody, works, tell=told.append, begun=lambda work: begun.append(work[0]))))
    assert {name: text for (name, _), text in done.items()} == {"killed": "killed again", "hung": "hung again", "a": "a", "b": "b", "c": "c"}
    assert sorted(begun) == ["a", "b", "c", "hung", "hung", "killed", "killed"]
    assert len(told) == 2
    assert "its process died. Its unit is tried again, try 2" in " ".join(told)
    assert "no answer within 2 s. Its unit is tried again, try 2" in " ".join(told)
    told.clear()
    lost: list[str] = []
    works = [(name, tmp_path) for name in ("short", "hopeless", "f")]
    done = [result for _, result in engine.run(Job(moody, works, tell=told.append, failed=lambda work, error: lost.append(f"{work[0]}: {error}")))]
    assert sorted(done) == ["f", "short again"]
    assert len(told) == 4
    assert all("memory did not suffice" in text for text in told)
    assert len(lost) == 1
    assert lost[0].startswith("hopeless: It was tried 4 times")
    with pytest.raises(RllcError, match="a fault of its own") as raised:
        list(engine.run(Job(moody, [("wrong", tmp_path), ("d", tmp_path)])))
    assert type(raised.value) is RllcError
    assert raised.value.remedy == "Mend it."
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        list(engine.run(Job(moody, [("bug", tmp_path)])))
    assert [result for _, result in engine.run(Job(moody, [("e", tmp_path)]))] == ["e"]
    engine.close()
    assert ray.is_initialized()  # it was there before the engine


def test_a_worker_without_a_sign_of_life_is_lost_long_before_any_limit_and_one_that_computes_is_not(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(pulse, "SILENCE", 6.0)
    monkeypatch.setattr(pulse, "SIGN", 0.1)  # a busy machine gives a worker little in six seconds
    monkeypatch.setattr(on_ray_module, "_ASK", 1.0)
    engine, told = RayEngine(EngineSettings(kind="ray", workers=2, device="cpu")), list[str]()
    engine.back_off = 0.1
    done = [result for _, result in engine.run(Job(moody, [("hung", tmp_path), ("busy", tmp_path)], tell=told.append))]
    engine.close()
    assert sorted(done) == ["busy", "hung again"]
    assert len(told) == 1
    assert "no sign of life for" in told[0]


def on_ray(run: Path) -> str:
    """The experiment of a run, on two workers of a cluster."""
    text = (run / "experiment.toml").read_text().replace("[engine]\n", '[engine]\nkind = "ray"\n').replace("workers = 1", "workers = 2")
    assert 'kind = "ray"' in text
    return text


def test_a_grid_has_the_numbers_of_the_local_engine_bit_for_bit(ray, finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    local, other = Store(finished / "records"), Store(copy / "records")
    last = [record.digest for record in local.records("sample") if record.meta["step"] == 12]
    assert len(last) == 15
    for path in (path for digest in last for path in other.files("sample", digest)):
        path.unlink()
    run_experiment(on_ray(finished), copy, "sample", None, None, quiet=True)
    assert other.digests("sample") == local.digests("sample")
    assert_same_records(local, other, [("sample", digest) for digest in last])


def test_measurements_are_those_of_the_local_engine_bit_for_bit(ray, finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    local, other = Store(finished / "records"), Store(copy / "records")
    named = [(kind, record.digest) for kind in ("behaviour", "ngrams") for record in local.records(kind)]
    assert len(named) == 10
    for path in (path for kind, digest in named for path in other.files(kind, digest)):
        path.unlink()
    run_experiment(on_ray(finished), copy, "measure", None, None, quiet=True)
    assert_same_records(local, other, named)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EngineSettings(kind="ray", threads=64), "no node of the cluster has that: at most 2 CPUs and 0 GPUs"),
        (EngineSettings(kind="ray", device="cuda"), "1 CPU and 1 GPU, and no node"),
    ],
)
def test_what_no_node_has_is_refused_at_once(ray, settings, message):
    with pytest.raises(RllcError, match=message):
        list(RayEngine(settings).run(Job(moody, [])))

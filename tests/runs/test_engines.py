"""What the engines decide without a cluster: names, retries, room, limits."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.core.exit_codes import ExitCode
from rllc.main import main
from rllc.runs.engines import cluster, on_ray, ray_worker, registry
from rllc.runs.engines.cluster import Room, check_versions
from rllc.runs.engines.job import Job
from rllc.runs.engines.local import LocalEngine
from rllc.runs.engines.ray_worker import Hello
from rllc.runs.engines.waiting import TRIES, Item, Waiting
from rllc.runs.experiment import parse
from rllc.runs.pipeline import run_experiment
from rllc.runs.settings import EngineSettings


def test_engines_have_names_and_stay_open(tiny, monkeypatch):
    with pytest.raises(RllcError, match=r"There is no engine 'slurm'\. Choose one of: local, ray"):
        parse(tiny.replace("[engine]", '[engine]\nkind = "slurm"'))
    here = registry.engine(EngineSettings(workers=3))
    assert isinstance(here, LocalEngine)
    assert here.at_once == 3
    assert registry.engine(EngineSettings(workers=3)) is here
    registry.close()
    assert registry.engine(EngineSettings(workers=3)) is not here
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RllcError, match=r"needs Ray, which is not installed here. pip install 'rllc\[ray\]'"):
        registry.engine(EngineSettings(kind="ray"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "slurm"], "There is no engine 'slurm'. Choose one of: local, ray."),
        (["--address", "auto"], 'Give engine.kind = "ray" with them, or --engine ray.'),
        (["--engine", "ray", "--gpus-per-worker", "3"], "a unit is computed on one device"),
        (["--shard", "9/8"], "A shard is called '9/8'."),
    ],
)
def test_wrong_flags_end_in_a_sentence(flags, message, tiny, tmp_path, capsys):
    (tmp_path / "experiment.toml").write_text(tiny)
    for verb in ("run", "sample"):
        assert main([verb, str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run"), *flags]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus_per_worker": 2, "kind": "ray"}, "a unit is computed on one device"),
        ({"gpus_per_worker": 0.5}, "are for the engine ray"),
        ({"address": "auto"}, "are for the engine ray"),
        ({"unit_timeout": -1}, "unit_timeout is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(RllcError, match=message):
        EngineSettings(**settings)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def half(work: int) -> int:
    if work <= 1:
        raise RllcError("There is nothing smaller.", "")
    return work // 2


def test_what_is_lost_waits_longer_every_time_and_is_smaller_from_the_second_on():
    clock = Clock()
    waiting = Waiting([8, 5], clock, back_off=1.0)
    item = waiting.next()
    assert item == Item(8)
    again = waiting.lost(item, "why", "n1", half)
    assert (again.work, again.tries, again.after, again.avoid) == (8, 1, 1.0, "n1")
    assert waiting.soonest() == 0.0
    assert waiting.next() == Item(5)
    assert waiting.next() is None
    assert waiting.soonest() == 1.0
    clock.now = 1.0
    item = waiting.next()
    assert item == again
    assert len(waiting) == 0
    again = waiting.lost(item, "why", "n1", half)
    assert (again.work, again.after) == (4, 3.0)
    again = waiting.lost(again, "why", "n1", half)
    assert (again.work, again.after) == (2, 5.0)
    with pytest.raises(RllcError, match=f"tried {TRIES} times.*The last time: the end"):
        waiting.lost(again, "the end", "n1", half)


def test_what_was_lost_for_want_of_memory_is_smaller_at_once_and_told_where_it_cannot_be():
    waiting = Waiting([2], Clock())
    again = waiting.lost(waiting.next(), "memory", "n", half, memory=True)
    assert again.work == 1
    with pytest.raises(RllcError, match="nothing smaller"):
        waiting.lost(again, "memory", "n", half, memory=True)


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("settings", "nodes", "workers", "gpus"),
    [
        ({}, [node(4), node(3)], 7, 0.0),
        ({"threads": 2}, [node(4), node(3)], 3, 0.0),  # no worker is on two nodes
        ({}, [node(4), node(8, alive=False)], 4, 0.0),
        ({}, [node(16, 4), node(16)], 4, 1.0),  # there are GPUs: they are used
        ({"device": "cpu"}, [node(16, 4)], 16, 0.0),
        ({"gpus_per_worker": 0.25}, [node(16, 2)], 8, 0.25),
        ({"gpus_per_worker": 0.25, "threads": 4}, [node(16, 2)], 4, 0.25),
        ({"device": "cuda"}, [node(16)], 0, 1.0),
        ({}, [], 0, 0.0),
    ],
)
def test_room_is_what_whole_workers_fit_into(settings, nodes, workers, gpus):
    room = Room.of(EngineSettings(kind="ray", **settings), nodes)
    assert (room.workers, room.options["num_gpus"]) == (workers, gpus)


def test_more_workers_than_there_is_room_for_are_told():
    told: list[str] = []
    settings = EngineSettings(kind="ray", workers=9)
    Room.of(settings, [node(4)]).check(settings, told.append)
    assert told == ["9 workers of 1 CPU were asked for; the cluster has room for 4."]
    with pytest.raises(RllcError, match="at most 0 CPUs"):
        Room.of(settings, []).check(settings, told.append)


def test_a_node_with_another_version_is_refused():
    hello = Hello("n", "far", 1, {"rllc": "1", "torch": "2", "estimator": "e"})
    check_versions(hello, {"rllc": "1", "torch": "2"})
    with pytest.raises(RllcError, match="far has torch 2, and others 3"):
        check_versions(hello, {"rllc": "1", "torch": "3"})


def test_a_cluster_that_is_gone_is_told_at_once(monkeypatch, tmp_path):
    """Ray itself tries for minutes, and tells the terminal of each time."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    for given in (address, "auto"):
        with pytest.raises(RllcError, match=f"no Ray cluster to join at '{given}'"):
            cluster.connect(EngineSettings(kind="ray", address=given))


def test_the_signal_that_ray_turns_into_its_own_exit_ends_as_ours():
    with pytest.raises(SystemExit) as ended, cluster._own_sigterm():
        sys.exit(signal.SIGTERM)
    assert ended.value.code == ExitCode.TERMINATED


def test_a_cluster_and_a_place_of_records_that_do_not_answer_are_told_before_the_training(tiny, tmp_path, monkeypatch):
    tried = list[str]()
    monkeypatch.setattr("rllc.runs.pipeline._run_stage", lambda stage, *_: tried.append(stage))
    monkeypatch.setitem(registry.ENGINES, "ray", f"{__name__}:NoEngine")
    with pytest.raises(RllcError, match="no cluster"):
        run_experiment(tiny, tmp_path / "one", "sample", 1, None, True, {"kind": "ray"})
    with pytest.raises(RllcError):
        run_experiment(tiny.replace("[engine]", '[engine]\nrecords = "no://place"'), tmp_path / "two", "sample", 1, None, True)
    assert tried == []


class NoEngine:
    def __init__(self, _: EngineSettings) -> None:
        raise RllcError("There is no cluster.", "Start one.")


@pytest.mark.parametrize("address", ["ray://host:10001", "nowhere"])
def test_an_address_that_is_none_is_told_before_anything_starts(address):
    pytest.importorskip("ray")
    with pytest.raises(RllcError, match=r"address is 'ray://|no Ray cluster to join at 'nowhere'"):
        cluster.connect(EngineSettings(kind="ray", address=address))


def test_a_ray_that_does_not_start_is_tried_again_and_then_told(monkeypatch):
    ray, calls = pytest.importorskip("ray"), list[str]()

    def init(**_: Any) -> None:
        calls.append("init")
        raise Exception("The current node timed out during startup. It may be busy.")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    with pytest.raises(RllcError, match="Ray did not start on this machine: The current node timed out"):
        cluster.connect(EngineSettings(kind="ray"))
    assert calls == ["init", "shutdown"] * 3


def test_a_unit_s_own_error_comes_home_as_it_is(tmp_path: Path):
    def wrong(work: str) -> None:
        raise RllcError(work, "Mend it.")

    answer = ray_worker.Worker("n", 1).compute(wrong, "a fault", None, None)
    assert isinstance(answer, RllcError)
    assert (answer.problem, answer.remedy) == ("a fault", "Mend it.")


def test_the_local_engine_tells_what_it_begins_and_who_has_finished_it():
    begun: list[int] = []
    heard: list[dict[str, Any]] = []
    job = Job(abs, [-3, 2], begun=begun.append, hear=lambda event, **facts: heard.append({"event": event, **facts}))
    done = dict(LocalEngine(EngineSettings(workers=1)).run(job))
    assert done == {-3: 3, 2: 2}
    assert begun == [-3, 2]
    assert heard == [{"event": "work_finished", "work": work, "worker": os.getpid()} for work in (-3, 2)]


def whose(work: int) -> int:
    """The process that computes it."""
    time.sleep(0.2)  # so that the other worker takes its share
    return os.getpid()


def test_workers_stay_for_the_next_job_but_one_that_an_ended_job_was_still_at():
    engine = LocalEngine(EngineSettings(workers=2))
    try:
        first = {pid for _, pid in engine.run(Job(whose, range(4)))}
        assert len(first) == 2
        assert {pid for _, pid in engine.run(Job(whose, range(4)))} == first
        results = engine.run(Job(whose, range(4)))
        next(results)
        results.close()  # nobody wants the rest: at least one worker was at a unit then
        assert len(first & {pid for _, pid in engine.run(Job(whose, range(8)))}) <= 1
        alive = {pid for _, pid in engine.run(Job(whose, range(4)))}
    finally:
        engine.close()
    assert not [pid for pid in first | alive if Path(f"/proc/{pid}").exists()]


class FakeRay:
    """Workers that say hello at once; of their works only `a` ever comes home the first time, everything the second. Waiting turns the clock on."""

    class exceptions:  # noqa: N801
        RayError = ConnectionError

    def __init__(self, clock: Clock) -> None:
        self.clock, self.sent = clock, list[tuple[str, Any]]()

    def nodes(self) -> list[dict[str, Any]]:
        return [node(2)]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def put(self, piece: Any) -> Any:
        return piece

    def remote(self, **_: Any) -> Any:
        def send(kind: str, what: Any) -> int:
            self.sent.append((kind, what))
            return len(self.sent) - 1

        hello = SimpleNamespace(remote=lambda: send("hello", Hello("here", "host", 1, ray_worker.versions())))
        compute = SimpleNamespace(remote=lambda function, work, moved, delivery: send("work", work))  # noqa: ARG005
        used = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: send("used", self.clock.now)))  # it computes all the time
        actor = SimpleNamespace(hello=hello, compute=compute, used=used)
        return lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: actor))

    def wait(self, references: list[int], num_returns: int = 1, timeout: float = 0) -> tuple[list[int], list[int]]:  # noqa: ARG002
        for reference in references:
            kind, what = self.sent[reference]
            if kind in ("hello", "used") or what == "a" or self.sent.index((kind, what)) < reference:
                return [reference], []
        self.clock.now += max(timeout, 0.01)
        assert self.clock.now < 5000, "the limit of the beginning was kept"
        return [], []

    def get(self, reference: int) -> Any:
        return self.sent[reference][1]

    def kill(self, actor: Any) -> None:
        pass


def test_on_ray_the_limit_of_a_unit_follows_what_others_have_taken_since(monkeypatch):
    clock, told, done = Clock(), list[str](), list[str]()
    ray = FakeRay(clock)
    monkeypatch.setattr(cluster, "connect", lambda settings: (ray, False))  # noqa: ARG005
    monkeypatch.setattr(on_ray, "time", SimpleNamespace(monotonic=clock, sleep=lambda seconds: setattr(clock, "now", clock.now + seconds)))
    monkeypatch.setattr(on_ray.RayEngine, "back_off", 0.0)
    engine = on_ray.RayEngine(EngineSettings(kind="ray", workers=2))
    job = Job(str, ["hangs", "a"], tell=told.append, seconds=lambda work: 900.0 if done else 1e9)  # noqa: ARG005
    for work, _ in engine.run(job):
        done.append(work)
    assert done == ["a", "hangs"]
    assert told == ["a worker was lost on host: no answer within 900 s. Its unit is tried again, try 2."]
    assert 900 <= clock.now < 905

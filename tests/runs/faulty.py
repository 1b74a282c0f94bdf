"""Helpers of the fault tests: the smallest run that has every stage, as a process of its own that can be killed, and what must not depend on that."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllc.records.store import COMPACTED, DAMAGED, Store
from rllc.runs import sampling
from rllc.runs.engines.pulse import processor_seconds
from rllc.runs.experiment import parse
from rllc.runs.grid import keyed_units
from rllc.runs.keys import KIND
from rllc.runs.layout import RunFolder
from rllc.runs.pipeline import run_experiment

from .conftest import experiment_text

STAGES = ("corpus", "train", "sample", "measure", "analyse", "report")
UNITS = 8  # of the experiment below
_SEEN, _BUSY = 0.3, 0.02  # seconds in which a worker is watched, and those of the processor that it uses then where it computes
PATIENCE = 600.0  # seconds for anything to come about, on a busy machine


def small_text(folder: Path, workers: int = 2) -> str:
    """An experiment of three checkpoints, eight units on two workers, a measurement, an analysis and a page."""
    text = experiment_text(folder, workers)
    text = text.replace("extra = [0, 3, 6, 9, 12]", "extra = [0, 30, 60]").replace("steps = 12\n", "steps = 60\n")
    grid = text[text.index("[[sample]]") : text.index("[behaviour]")]
    small = '[[sample]]\nparts = ["heads"]\ndata = ["mixture"]\n[[sample]]\nparts = ["heads"]\ndata = ["prose"]\ncheckpoints = [60]\n'
    return text.replace(grid, small).replace("contexts = 4\n", 'contexts = 4\nmeasures = ["behaviour"]\n')


def records(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every record's file by name, with when it was written and what it holds; copies for fast reading are none."""
    found = [path for path in (folder / "records").glob("*/*-*.npz") if path.parent.name not in (COMPACTED, DAMAGED)]
    return {f"{path.parent.name}/{path.name}": (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def numbers(folder: Path) -> dict[str, Any]:
    """What a run has found, by record: arrays and meta as they were stored, but for how long it took."""
    store, found = Store(folder / "records"), dict[str, Any]()
    for kind in store.kinds():
        for record in store.records(kind):
            found[f"{kind}/{record.digest}"] = (
                {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in record.arrays.items()},
                {name: value for name, value in record.meta.items() if name != "seconds"},
            )
    return found


def assert_same(one: Path, two: Path) -> None:
    """The same records bit for bit, the same findings, and weights of the same bytes."""
    assert numbers(one) == numbers(two)
    weights = [{path.parent.name: path.read_bytes() for path in (folder / "checkpoints").glob("step-*/*.safetensors")} for folder in (one, two)]
    assert weights[0] == weights[1]
    assert (one / "findings.json").read_bytes() == (two / "findings.json").read_bytes()


def assert_same_records(one: Store, two: Store, named: Sequence[tuple[str, str]]) -> None:
    """These records, by kind and digest, are the same in two stores, bit for bit but for how long they took."""
    for kind, digest in named:
        first, second = one.get(kind, digest), two.get(kind, digest)
        assert second.key == first.key
        assert second.meta | {"seconds": 0} == first.meta | {"seconds": 0}
        assert second.arrays.keys() == first.arrays.keys()
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(second.arrays[name], array, strict=True)


def missing_units(folder: Path) -> int:
    """Planned units of which a cell is not recorded."""
    place = RunFolder(folder)
    store = place.store()
    units = keyed_units(parse(place.experiment.read_text(encoding="utf-8")), place)
    return sum(not all(store.has(KIND, key) for key in keys) for _, keys in units)


def begun(folder: Path) -> str:
    """The stage that a run has come to, by what lies there."""
    if (folder / "findings.json").exists():
        return "report"
    if (folder / "measured.json").exists():
        return "analyse"
    if (folder / "records" / "sample").is_dir() and len(list((folder / "records" / "sample").glob("*.npz"))) >= 2 * UNITS:
        return "measure"
    if (folder / "checkpoints" / "step-00000060").exists():
        return "sample"
    return "train" if (folder / "corpus" / "corpus.json").exists() else "corpus"


@dataclass(frozen=True)
class Kill:
    """Who is killed how, so many seconds after a stage has begun."""

    stage: str
    delay: float
    who: str  # "driver", "worker" or "group"
    how: signal.Signals


def drawn(rng: random.Random, stage: str, seconds: float) -> Kill:
    """A kill at a random moment of a stage that lasts about so many seconds."""
    who = rng.choice(["driver", "worker", "group"] if stage == "sample" else ["driver", "group"])
    how = signal.SIGKILL if who == "worker" else rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    return Kill(stage, rng.uniform(0.0, seconds), who, how)


def start(experiment: Path, out: Path) -> subprocess.Popen[bytes]:
    """`rllc run` in a process group of its own."""
    # A shell starts what runs in the background deaf to interrupts, and children inherit that: these must hear them however the tests were started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "rllc.main", "run", str(experiment), "--out", str(out), "--quiet"]
    with out.with_suffix(".err").open("ab") as stream:
        return subprocess.Popen(command, start_new_session=True, stderr=stream)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.02)


def family(group: int) -> list[int]:
    """The processes of a group that are alive."""
    lines = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split() for line in lines]
    return [int(pid) for pid, of, state in found if int(of) == group and not state.startswith("Z")]


def workers_of(group: int) -> list[int]:
    """The worker processes of a run: what multiprocessing has started but for its own helper."""
    lines = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,pgid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split(None, 2) for line in lines]
    return [int(pid) for pid, of, command in found if int(of) == group and "spawn_main" in command]


def at_work(group: int, among: Container[int] | None = None) -> int | None:
    """The worker of a run that computes now: of those that use the processor, the one that does so most; None where all (`among` some) wait."""
    before = {pid: processor_seconds(pid) for pid in workers_of(group) if among is None or pid in among}
    time.sleep(_SEEN)
    used = {pid: (processor_seconds(pid) or 0.0) - seconds for pid, seconds in before.items() if seconds is not None}
    busiest = max(used, key=lambda pid: used[pid], default=None)
    return busiest if busiest is not None and used[busiest] >= _BUSY else None


def events_of(out: Path, event: str) -> list[dict[str, Any]]:
    """What the log of a run has of that name; the last line may be half-written."""
    found: list[dict[str, Any]] = []
    for line in log(out).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [one for one in found if one.get("event") == event]


def losses(out: Path) -> int:
    """How often a run has told that the process of a worker died with a unit."""
    return sum(one["why"] == "its process died" for one in events_of(out, "unit_retried"))


def kill_worker(pid: int, how: signal.Signals, process: subprocess.Popen[bytes], out: Path) -> bool:
    """Kill a worker that was at work; whether a unit was lost with it. The run has to tell of that, or of the unit that came home just before."""

    def finished() -> int:
        return sum(one["worker"] == str(pid) for one in (*events_of(out, "unit_finished"), *events_of(out, "measured")))

    lost, done = losses(out), finished()
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    until(lambda: losses(out) > lost or finished() > done or process.poll() is not None, "the word of a lost worker")
    return losses(out) > lost


def said(out: Path) -> int:
    """How long a run's log is."""
    return (out / "log.jsonl").stat().st_size if (out / "log.jsonl").exists() else 0


def strike(kill: Kill, process: subprocess.Popen[bytes], out: Path, before: int = 0) -> bool:
    """Wait for the moment and kill; whether there was anything to kill by then. `before` is how long the log was when the process was started."""
    reached = STAGES.index(kill.stage)
    until(lambda: said(out) > before or process.poll() is not None, "a word of the run")
    until(lambda: STAGES.index(begun(out)) >= reached or process.poll() is not None, kill.stage)
    if kill.who == "worker":
        until(lambda: bool(workers_of(process.pid)) or STAGES.index(begun(out)) > reached or process.poll() is not None, "a worker")
    deadline = time.monotonic() + kill.delay
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        return False
    if kill.who == "worker":
        while process.poll() is None:
            worker = at_work(process.pid)  # none is between two units
            if worker is not None and kill_worker(worker, kill.how, process, out):
                return True
        return False
    (os.killpg if kill.who == "group" else os.kill)(process.pid, kill.how)
    return True


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a run to end, and see that nothing of it goes on."""
    code = process.wait(PATIENCE)
    until(lambda: not family(process.pid), f"the end of the workers of {process.pid}")
    return code


def sampled(text: str, out: Path) -> None:
    """Everything up to and with the sampling, in this process."""
    run_experiment(text, out, "sample", None, None, quiet=True)


def samples(folder: Path) -> dict[str, Any]:
    """As `numbers`, of the sampled cells alone."""
    return {name: found for name, found in numbers(folder).items() if name.startswith("sample/")}


def log(folder: Path) -> str:
    """What a run has told so far."""
    return (folder / "log.jsonl").read_text()


def in_between(monkeypatch: pytest.MonkeyPatch, what: Callable[[], None]) -> None:
    """Something happens once, after the plan and before the first unit."""
    compute, pending = sampling.sample_unit, [what]

    def computed(work: sampling.Work) -> Any:
        if pending:
            pending.pop()()
        return compute(work)

    monkeypatch.setattr("rllc.runs.grid.sample_unit", computed)

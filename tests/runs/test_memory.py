"""The memory budget: given or found, kept in the run; passes that shrink where memory runs short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.model.cost import bytes_per_variant, bytes_shared
from rllc.runs import memory
from rllc.runs.engines.local import LocalEngine, run_units
from rllc.runs.experiment import Experiment, parse, preset
from rllc.runs.layout import RunFolder
from rllc.runs.memory import available_bytes, fixed, found, total_bytes
from rllc.runs.plan import make_plan
from rllc.runs.sampling import OpenedUnit, Work

DEMO = parse(preset("demo"))


def with_memory(megabytes: int, experiment: Experiment = DEMO) -> Experiment:
    return replace(experiment, engine=replace(experiment.engine, memory=megabytes))


def test_a_given_budget_is_taken_and_nothing_is_written(tmp_path: Path) -> None:
    assert fixed(DEMO, RunFolder(tmp_path)) is DEMO
    assert not list(tmp_path.iterdir())


def test_a_found_budget_is_kept_for_the_run_whatever_is_free_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 6_000_000_000)
    experiment = replace(DEMO, engine=replace(DEMO.engine, memory=0, workers=2))
    first = fixed(experiment, RunFolder(tmp_path))
    assert first.engine.memory == 900  # half of it, shared by two, less what a process takes
    monkeypatch.setattr(memory, "available_bytes", lambda: 60_000_000_000)
    assert fixed(experiment, RunFolder(tmp_path)) == first
    assert found(2) == 4000
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000_000)
    assert found(2) == 100
    RunFolder(tmp_path).budget.write_text("{")
    with pytest.raises(RllcError, match="damaged"):
        fixed(experiment, RunFolder(tmp_path))


def test_what_is_free_is_the_least_of_machine_and_control_group(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    for folder in (group, tmp_path / "proc"):
        folder.mkdir(parents=True)
    assert total_bytes(tmp_path) >= available_bytes(tmp_path) > 0  # of the machine as a whole, where nothing tells
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    3000 kB\n")
    assert available_bytes(tmp_path) == 3000 * 1024
    (group / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == 3000 * 1024
    for name, text in (("max", "2000000"), ("current", "1500000"), ("stat", "anon 3\ninactive_file 100000")):
        (group / f"memory.{name}").write_text(text)
    assert available_bytes(tmp_path) == 600_000
    assert total_bytes(tmp_path) == 2_000_000
    (group / "memory.max").write_text("max\n")
    assert total_bytes(tmp_path) == 9000 * 1024
    assert available_bytes() > 0


@pytest.mark.parametrize("text", ["0:0", "1:0", "1:0.Q", "full"])
def test_the_plan_keeps_its_budget(text: str) -> None:
    part, parts = Part.parse(text), 8 if ":" in text else 1
    wide = replace(DEMO, sample=(replace(DEMO.sample[0], parts=tuple(text.replace(":0", f":{h}") for h in range(parts)), checkpoints=(0,)),))
    sizes = [fn(DEMO.model, part, *n, DEMO.batch_size(), DEMO.model.n_ctx) for fn, n in ((bytes_per_variant, ()), (bytes_shared, (parts,)))]
    chunks = []
    for megabytes in (1, 40, 100, 1000):
        (unit,) = make_plan(with_memory(megabytes, wide)).units
        chunks.append(unit.chunk)
        assert unit.chunk == 1 or sizes[1] + unit.chunk * sizes[0] <= megabytes * 1_000_000
    assert chunks == sorted(chunks)
    assert chunks[0] == 1
    assert chunks[-1] > 1


def test_a_smaller_work_remembers_the_plan() -> None:
    unit = make_plan(DEMO).units[0]
    work = Work(Path("run"), DEMO, replace(unit, chunk=5))
    half = work.smaller()
    assert (half.unit.chunk, half.planned_chunk) == (2, 5)
    quarter = half.smaller()
    assert (quarter.unit.chunk, quarter.planned_chunk) == (1, 5)
    with pytest.raises(RllcError, match="one variant at a time"):
        quarter.smaller()


def test_a_model_larger_than_its_device_is_refused_before_it_is_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = parse((finished / "experiment.toml").read_text())
    work = Work(finished, experiment, make_plan(experiment).units[0])
    monkeypatch.setattr("rllc.runs.device.total_bytes", lambda: 1000)
    monkeypatch.setattr("rllc.runs.sampling.load", lambda *_: pytest.fail("it was read"))
    with pytest.raises(RllcError, match=r"this machine has 0\.0 GB: a unit is computed on one device.*more GPUs do not help"):
        OpenedUnit(work)


def shy(size: int) -> int:
    """A worker that the system kills if it takes too much."""
    if size > 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return size


def test_what_a_lost_worker_was_at_is_tried_again_and_then_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "back_off", 0.01)
    tried: list[int] = []
    heard: list[tuple[str, int]] = []

    def half(size: int) -> int:
        tried.append(size)
        return size // 2

    def hear(event: str, work: int, **facts: Any) -> None:
        heard.append((event, work))

    assert dict(run_units(shy, [1, 6, 2], 2, 1, half, hear)) == {1: 1, 3: 3, 2: 2}
    assert tried == [6]  # after it was lost twice, and the one beside it went on
    assert [work for event, work in heard if event == "unit_retried"] == [6, 3]
    assert {work for event, work in heard if event == "work_finished"} == {1, 2, 3}


def test_a_lost_worker_is_told_where_nothing_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "back_off", 0.01)

    def stubborn(size: int) -> int:
        raise RllcError(f"{size} is the least.", "")

    with pytest.raises(RllcError, match=r"tried 4 times, and each time its worker was lost.*The last time: its process died"):
        list(run_units(shy, [1, 12], 2, 1, stubborn))


PEAK = """
import pathlib, resource
import torch
from rllc.core.names import DataKey, Part
from rllc.model.forward import init_params
from rllc.model.objective import build_objective
from rllc.posterior.chains import run_chains
from rllc.runs.experiment import parse, preset
from rllc.runs.engines.local import set_threads
from rllc.runs.plan import make_unit
from dataclasses import replace

set_threads(1)
demo = parse(preset("demo"))
settings = replace(demo.sampler, draws=20, burn_in=0)
for layer in (1, 0):
    parts = tuple(Part.of_head(layer, h) for h in range(demo.model.n_heads))
    unit = make_unit(demo, 0, DataKey("mixture"), parts)
    objective = build_objective(demo.model, init_params(demo.model, 0), parts, unit.chunk)
    data = (torch.randint(0, demo.model.d_vocab, (demo.sampling.batch_size, demo.model.n_ctx)) for _ in range(21))
    run_chains(objective, objective.origin, data, settings, [list(range(settings.chains))] * len(parts))
# On Linux a child's ru_maxrss begins at its parent's size; the high-water mark of its own memory does not. Of it, pages of files (the code of
# torch) are the same pages in every process.
status = pathlib.Path("/proc/self/status")
sizes = dict(line.split(":") for line in status.read_text().splitlines()) if status.exists() else {}
kilobytes = [int(sizes[name].split()[0]) for name in ("VmHWM", "RssFile") if name in sizes]
print(*([1024 * size for size in kilobytes] if len(kilobytes) == 2 else [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0]))
"""


def test_the_demo_samples_in_less_than_1_5_gigabytes() -> None:
    """Two workers as large as this one, with the demo's chunks, and the process that hands out their work: torch and a third of a gigabyte.

    Pages of files that both workers have are in memory once. How many there are depends on the machine: torch's code, 190 MB on one.
    """
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak, shared = map(int, done.stdout.split())
    assert 2 * (peak - shared) + shared + 350_000_000 < 1_500_000_000

"""Memory that is short, and workers that die, hang or are stopped: the others go on, and what was given up is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rllc.core.errors import RllcError
from rllc.runs import sampling
from rllc.runs.engines import pulse
from rllc.runs.engines.job import Job
from rllc.runs.engines.local import LocalEngine
from rllc.runs.experiment import parse
from rllc.runs.grid import missing_work
from rllc.runs.layout import RunFolder
from rllc.runs.settings import EngineSettings

from .faulty import log, records, sampled, samples
from .faulty_units import moody, smaller


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")])
def test_memory_that_does_not_suffice_for_one_unit_costs_that_unit_alone(finished: Path, unfinished: Path, text: str, error: Exception) -> None:
    """It is tried with ever fewer variants, then left out; the others are recorded, and the next call takes it up."""
    compute, chunks = sampling.sample_unit, list[int]()

    def computed(work: sampling.Work) -> Any:
        if work.unit.step == 9 and len(work.unit.parts) == 1:
            chunks.append(work.unit.chunk)
            raise error
        return compute(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rllc.runs.grid.sample_unit", computed)
        patch.setattr(LocalEngine, "back_off", 0.01)
        with pytest.raises(RllcError, match=r"1 of \d+ units could not be computed, and the others are recorded\. step 9, mixture, full: "):
            sampled(text, unfinished)
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[-1] == 1
    assert "a unit failed: memory did not suffice" in log(unfinished)
    assert "not computed: step 9, mixture, full: " in log(unfinished)
    lacking = samples(finished).keys() - samples(unfinished).keys()
    assert len(lacking) == 1
    before = records(unfinished)
    sampled(text, unfinished)
    assert before.items() <= records(unfinished).items()
    assert samples(unfinished) == samples(finished)


def test_memory_that_suffices_for_none_ends_the_run_soon(unfinished: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def computed(work: sampling.Work) -> Any:
        tried.append(str(work.unit))
        raise MemoryError

    monkeypatch.setattr("rllc.runs.grid.sample_unit", computed)
    monkeypatch.setattr(LocalEngine, "back_off", 0.01)
    with pytest.raises(RllcError, match=r"does not fit the memory with one variant|memory did not suffice"):
        sampled(text, unfinished)
    assert len(set(tried)) == 3
    assert len(missing_work(parse(text), RunFolder(unfinished), RunFolder(unfinished).store())) == 3


def test_the_local_engine_gives_up_no_unit_but_the_hopeless_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies, one that sleeps, one that is stopped, memory that is short once and memory that is short always."""
    monkeypatch.setattr(LocalEngine, "back_off", 0.01)
    told, begins, lost = list[str](), list[str](), list[tuple[str, str]]()
    works = [(name, tmp_path, 8) for name in ("killed", "hung", "stopped", "short", "hopeless", "a", "b")]
    job = Job(
        moody,
        works,
        smaller,
        begun=lambda work: begins.append(work[0]),
        tell=told.append,
        failed=lambda work, error: lost.append((work[0], error.problem)),
    )
    done = sorted(result for _, result in LocalEngine(EngineSettings(workers=2, unit_timeout=4)).run(job))
    assert done == ["a, 8", "b, 8", "hung again, 8", "killed again, 8", "short again, 4", "stopped again, 8"]
    assert lost == [("hopeless", "It was tried 4 times, and each time its worker was lost or its memory did not suffice. The last time: memory did "
                     "not suffice (there is none).")]  # fmt: skip
    assert sorted(begins) == sorted(["a", "b", "hopeless", "hopeless", "hopeless", "hopeless", *(2 * ["hung", "killed", "short", "stopped"])])
    assert sum("a worker was lost: its process died. Its unit is tried again, try 2." in text for text in told) == 1
    assert sum("a worker was lost: no answer within" in text for text in told) == 2
    assert sum("a unit failed: memory did not suffice. It is tried again, try 2." in text for text in told) == 1


def test_a_worker_without_a_sign_of_life_is_lost_long_before_any_limit_and_one_that_computes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "SILENCE", 6.0)
    monkeypatch.setattr(pulse, "SIGN", 0.1)  # a busy machine gives a worker that begins no second in six
    told = list[str]()
    works = [(name, tmp_path, 8) for name in ("hung", "stopped", "busy")]
    engine = LocalEngine(EngineSettings(workers=3))
    try:
        assert sorted(result for _, result in engine.run(Job(moody, works, tell=told.append))) == ["busy, 8", "hung again, 8", "stopped again, 8"]
    finally:
        engine.close()
    assert len(told) == 2
    assert all("a worker was lost: no sign of life for" in text for text in told)


@pytest.mark.parametrize("settings", [{"unit_timeout": 4}, {"unit_timeout": 60, "shard": "1/1"}, {"shard": "1/1"}])
def test_one_worker_that_is_watched_is_killed_or_ended_without_the_run(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEngine, "back_off", 0.01)
    told = list[str]()
    names = ("killed", "hung", "a") if settings.get("unit_timeout") == 4 else ("killed", "a")
    engine = LocalEngine(EngineSettings(workers=1, **settings))
    try:
        done = [result for _, result in engine.run(Job(moody, [(name, tmp_path, 8) for name in names], tell=told.append))]
    finally:
        engine.close()
    assert sorted(done) == ["a, 8", *sorted(f"{name} again, 8" for name in names[:-1])]
    assert len(told) == len(names) - 1

"""The local engine: units on worker processes of this machine, one thread each, results in the order in which they finish.

Two processes with one thread each do more here than one with two, and the numbers do not depend on how many there are. What is lost with a worker is
tried again as with the engine `ray`, first as it was, so that its numbers are those of a run that nobody disturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from rllc.runs.engines.attempt import Short, attempt
from rllc.runs.engines.job import Job, Result, Work
from rllc.runs.engines.pulse import Pulse, processor_seconds
from rllc.runs.engines.waiting import BACK_OFF, LEAST_TIMEOUT, Item, Waiting, allowed
from rllc.runs.memory import cores
from rllc.runs.settings import EngineSettings

_LOOK = 1.0  # seconds between looks at workers that may have taken too long
_GRACE = 5.0  # seconds that a worker has to end, before it is ended


class LocalEngine:
    """The engine `local`."""

    back_off = BACK_OFF

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.at_once = settings.workers or cores()
        self._idle: list[ProcessPoolExecutor] = []  # workers that wait for the next job, with what they have loaded

    def run(self, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (work, result) as works finish, on `workers` processes.

        In this process where that is 1, and then nobody watches the time; unless it is asked for by `unit_timeout`, or nobody is there to look, as
        at a shard.

        Raises RllcError as the job's function does, and where a work was tried often enough and nobody is told of those that are given up.
        """
        waiting = Waiting(job.works, back_off=self.back_off)
        if self.at_once <= 1 and not self._settings.unit_timeout and not self._settings.shard:
            set_threads(self._settings.threads)
            yield from _here(job, waiting)
        else:
            yield from _side_by_side(job, waiting, self.at_once, self._settings, self._idle)

    def close(self) -> None:
        """End the workers."""
        _stop(self._idle)
        self._idle.clear()


def run_units(
    function: Callable[[Work], Result],
    works: Iterable[Work],
    workers: int,
    threads: int,
    smaller: Callable[[Work], Work] | None = None,
    hear: Callable[..., None] = lambda event, **facts: None,  # noqa: ARG005
) -> Iterator[tuple[Work, Result]]:
    """Yield (work, function(work)) as they finish, on `workers` processes of this machine, however long they take.

    Args:
        smaller: a work that needs less memory, for what was under way when a worker was lost for the second time; it is tried in its place.
        hear: is told what happens, as `Job.hear`; a worker is known by the number of its process.

    Raises RllcError where a worker was lost again and again, for instance for want of memory; and whatever `function` raises.
    """
    engine = LocalEngine(EngineSettings(workers=workers, threads=threads))
    try:
        yield from engine.run(Job(function, tuple(works), smaller=smaller, hear=hear))
    finally:
        engine.close()


def _here(job: Job[Any, Any], waiting: Waiting) -> Iterator[tuple[Any, Any]]:
    while waiting:
        item = waiting.next()
        if item is None:
            time.sleep(waiting.soonest())
            continue
        job.begun(item.work)
        result = attempt(job.function, item.work)
        if isinstance(result, Short):
            waiting.again(item, job, result.why, memory=True, worker=os.getpid())
        else:
            job.hear("work_finished", work=item.work, worker=os.getpid())
            yield item.work, result


@dataclass
class _Busy:
    """A worker, which is a pool of one process so that it can be ended alone, and what it is at since when; it has begun once it said hello."""

    pool: ProcessPoolExecutor
    hello: Future[Any]
    item: Item
    since: float
    pulse: Pulse
    begun: bool = False

    @property
    def worker(self) -> int | str:
        """The number of its process; "" of one that never said hello."""
        known = self.hello.done() and not self.hello.cancelled() and self.hello.exception() is None
        return self.hello.result() if known else ""

    def lost(self, now: float, seconds: float, watched: bool) -> str:
        """Why it is taken for lost, because it takes longer than it may or, where that is watched, shows no sign of life; empty where it is not."""
        if self.hello.done() and not self.begun:
            self.begun, self.since, self.pulse.heard = True, now, now
        if now - self.since > (seconds if self.begun else max(seconds, LEAST_TIMEOUT)):
            return f"no answer within {now - self.since:.0f} s"
        process = next(iter(getattr(self.pool, "_processes", None) or ()), None)  # of one that has not said hello too
        self.pulse.told(None if process is None else processor_seconds(process), now)
        return self.pulse.silent(now) if watched else ""


def _side_by_side(
    job: Job[Any, Any], waiting: Waiting, workers: int, settings: EngineSettings, idle: list[ProcessPoolExecutor]
) -> Iterator[tuple[Any, Any]]:
    busy: dict[Future[Any], _Busy] = {}
    now = 0.0  # seconds that this process was awake: one that is stopped and goes on does not find its workers late
    try:
        while waiting or busy:
            # No more is handed out than is being worked on, so that an interruption loses little.
            while len(busy) < workers and (item := waiting.next()) is not None:
                pool, hello, future = _submitted(idle, settings.threads, job, item)
                busy[future] = _Busy(pool, hello, item, now, Pulse(now))
                job.begun(item.work)
            patience = min(_LOOK, waiting.soonest()) if waiting and len(busy) < workers else _LOOK
            started = time.monotonic()
            if not busy:
                time.sleep(patience)
                continue
            done = wait(busy, timeout=patience, return_when=FIRST_COMPLETED).done
            now += min(time.monotonic() - started, patience + _LOOK)
            for future in done:
                one = busy[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    del busy[future]
                    _stop([one.pool])
                    waiting.again(one.item, job, "its process died", worker=one.worker)
                    continue
                del busy[future]
                idle.append(one.pool)
                if isinstance(result, Short):
                    waiting.again(one.item, job, result.why, memory=True, worker=one.worker)
                else:
                    job.hear("work_finished", work=one.item.work, worker=one.worker)
                    yield one.item.work, result
            for future, one in list(busy.items()):
                if future.done():
                    continue
                # Whoever says how long a unit may take may know why it waits: then that alone counts.
                if why := one.lost(now, allowed(job, one.item.work, settings.unit_timeout), watched=not settings.unit_timeout):
                    del busy[future]
                    _stop([one.pool], grace=0.0)
                    waiting.again(one.item, job, why, worker=one.worker)
    finally:
        _stop([one.pool for one in busy.values()])  # where the job ends early; the idle ones wait for the next


def _submitted(idle: list[ProcessPoolExecutor], threads: int, job: Job[Any, Any], item: Item) -> tuple[ProcessPoolExecutor, Future[Any], Future[Any]]:
    """A work at a worker that waits for one, or a new one, behind its hello. Those that died while they waited are no loss."""
    while True:
        context = multiprocessing.get_context("spawn")
        pool = idle.pop() if idle else ProcessPoolExecutor(1, context, _begin_worker, (os.getpid(), threads))
        # What is started here does not hear an interrupt of the whole group from its first instruction on: this process ends it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool, pool.submit(os.getpid), pool.submit(attempt, job.function, item.work)
        except BrokenProcessPool:
            _stop([pool])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def set_threads(threads: int) -> None:
    """Fix the threads of this process' matrix products; their number decides the order of sums."""
    import torch

    torch.set_num_threads(threads)


def _stop(pools: Iterable[ProcessPoolExecutor], grace: float = _GRACE) -> None:
    """End pools at once: a unit that nobody waits for any more is not worth finishing."""
    processes: list[Any] = []
    for pool in pools:
        processes += (getattr(pool, "_processes", None) or {}).values()
        pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    until = time.monotonic() + grace
    for process in processes:
        process.join(max(until - time.monotonic(), 0.0))
        if process.exitcode is None:  # one that is stopped, or stuck, does not hear
            process.kill()
            process.join()


def _begin_worker(parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    set_threads(threads)


def _end_with_parent(parent: int) -> None:
    """A killed run must not leave workers behind that hold cores and memory."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)

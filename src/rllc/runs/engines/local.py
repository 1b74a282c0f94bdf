"""The local engine: units on worker processes of this machine, one thread each, results in the order in which they finish.

Two processes with one thread each do more here than one with two, and the numbers do not depend on how many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rllc.core.errors import RllcError
from rllc.runs.engines.job import Job, Result, Work
from rllc.runs.memory import cores
from rllc.runs.settings import EngineSettings


class LocalEngine:
    """The engine `local`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.at_once = settings.workers or cores()

    def run(self, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (work, result) as works finish. Raises RllcError as `run_units` does."""
        yield from run_units(job.function, job.works, self.at_once, self._settings.threads, job.smaller, job.begun, job.hear)

    def close(self) -> None:
        """Its workers end with every job."""


def run_units(
    function: Callable[[Work], Result],
    works: Iterable[Work],
    workers: int,
    threads: int,
    smaller: Callable[[Work], Work] | None = None,
    begun: Callable[[Work], None] = lambda work: None,  # noqa: ARG005
    hear: Callable[..., None] = lambda event, **facts: None,  # noqa: ARG005
) -> Iterator[tuple[Work, Result]]:
    """Yield (work, function(work)) as they finish, on `workers` processes; in this process where workers is 1.

    Args:
        smaller: a work that needs less memory, for what was under way when a worker was lost; it is tried in its place.
        begun: is told of each work as it is handed to a worker.
        hear: is told what happens, as `Job.hear`; a worker is known by the number of its process.

    Raises RllcError where a worker was lost, for instance for want of memory, and nothing is smaller; and whatever `function` raises.
    """
    if workers <= 1:
        set_threads(threads)
        for work in works:
            begun(work)
            result = function(work)
            hear("work_finished", work=work, worker=os.getpid())
            yield work, result
        return
    queue = deque(works)
    workers = min(workers, max(len(queue), 1))
    pool = _pool(workers, threads)
    running: dict[Future[tuple[int, Result]], Work] = {}
    try:
        while queue or running:
            try:
                # No more is handed out than is being worked on, so that an interruption loses little.
                while queue and len(running) < workers:
                    future = pool.submit(_signed, function, queue[0])
                    begun(queue[0])
                    running[future] = queue.popleft()
                for work, worker, result in _finished(running):
                    hear("work_finished", work=work, worker=worker)
                    yield work, result
            except BrokenProcessPool as error:
                _stop(pool)
                for work in running.values():
                    queue.appendleft(_again(work, smaller, error))
                    hear("unit_retried", work=work, why="its process died, or another one of the pool")
                running.clear()
                pool = _pool(workers, threads)
    finally:
        _stop(pool)


def _pool(workers: int, threads: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (os.getpid(), threads))


def _again(work: Work, smaller: Callable[[Work], Work] | None, error: BrokenProcessPool) -> Work:
    try:
        if smaller is not None:
            return smaller(work)
    except RllcError:
        pass
    raise RllcError(
        "A worker process was lost, perhaps for want of memory.",
        "Run the same command again, it goes on where it was; with fewer engine.workers or a smaller engine.memory if it happens again.",
    ) from error


def set_threads(threads: int) -> None:
    """Fix the threads of this process' matrix products; their number decides the order of sums."""
    import torch

    torch.set_num_threads(threads)


def _signed(function: Callable[[Work], Result], work: Work) -> tuple[int, Result]:
    """The result with the process that it is of."""
    return os.getpid(), function(work)


def _finished(running: dict[Future[Any], Any]) -> Iterator[tuple[Any, int, Any]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        worker, result = future.result()  # what was lost stays in `running`
        yield running.pop(future), worker, result


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the pool at once: a unit that nobody waits for any more is not worth finishing."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
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

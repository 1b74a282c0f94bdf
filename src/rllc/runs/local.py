"""The local engine: units on worker processes of this machine, one thread each, results in the order in which they finish.

Two processes with one thread each do more here than one with two, and the numbers do not depend on how many there are.
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
from typing import Any, TypeVar

from rllc.core.errors import RllcError

Work = TypeVar("Work")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_units(function: Callable[[Work], Result], works: Iterable[Work], workers: int, threads: int) -> Iterator[tuple[Work, Result]]:
    """Yield (work, function(work)) as they finish, on `workers` processes; in this process where workers is 1.

    A worker that is lost takes its unit with it: that unit, and the ones not begun, are what the next run computes.

    Raises RllcError where a worker was killed, for instance for want of memory, and whatever `function` raises.
    """
    pending = list(works)
    if workers <= 1:
        set_threads(threads)
        for work in pending:
            yield work, function(work)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, max(len(pending), 1)), context, _begin_worker, (os.getpid(), threads))
    try:
        running: dict[Future[Result], Work] = {}
        queue = iter(pending)
        # No more is handed out than is being worked on, so that an interruption loses little.
        for work in queue:
            running[pool.submit(function, work)] = work
            if len(running) < workers:
                continue
            yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool as error:
        raise RllcError(
            "A worker process was lost, perhaps for want of memory.",
            "Run the same command again, it goes on where it was; with fewer engine.workers or a smaller engine.memory if it happens again.",
        ) from error
    finally:
        _stop(pool)


def set_threads(threads: int) -> None:
    """Fix the threads of this process' matrix products; their number decides the order of sums."""
    import torch

    torch.set_num_threads(threads)


def _finished(running: dict[Future[Any], Any]) -> Iterator[tuple[Any, Any]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        work = running.pop(future)
        yield work, future.result()


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

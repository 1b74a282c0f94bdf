"""Works that wait for a worker, and those that come back because theirs was lost: again later, smaller, or never. Knows of no cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rllc.core.errors import RllcError
from rllc.runs.engines.job import Job

TRIES = 4
LEAST_TIMEOUT = 600.0  # seconds; no unit is given up sooner, unless the settings say so
BACK_OFF = 1.0  # seconds before the second try; each further one waits twice as long


@dataclass(frozen=True)
class Item:
    """A work with what became of it so far.

    Args:
        tries: how often it was lost.
        after: it is not tried again before that time.
        avoid: the node that it was lost on.
    """

    work: Any
    tries: int = 0
    after: float = 0.0
    avoid: str = ""


class Waiting:
    """Works in the order in which they should begin; those that were lost go first, once they have waited.

    Args:
        clock: tells the seconds.
        back_off: seconds before the second try.
    """

    def __init__(self, works: Iterable[Any], clock: Callable[[], float] = time.monotonic, back_off: float = BACK_OFF) -> None:
        self._fresh: deque[Item] = deque(Item(work) for work in works)
        self._lost: list[Item] = []
        self._clock, self._back_off = clock, back_off

    def __len__(self) -> int:
        return len(self._fresh) + len(self._lost)

    def next(self) -> Item | None:
        """The work to begin now; None where none is ready."""
        now = self._clock()
        for item in self._lost:
            if item.after <= now:
                self._lost.remove(item)
                return item
        return self._fresh.popleft() if self._fresh else None

    def soonest(self) -> float:
        """Seconds until a work is ready; 0 where one is."""
        if self._fresh or not self._lost:
            return 0.0
        return max(min(item.after for item in self._lost) - self._clock(), 0.0)

    def lost(self, item: Item, why: str, node: str, smaller: Callable[[Any], Any] | None, memory: bool = False) -> Item:
        """Its worker was lost. A second time, or where it was for want of memory, something smaller is tried in its place.

        Raises RllcError where it was tried often enough.
        """
        tries = item.tries + 1
        if tries >= TRIES:
            raise RllcError(
                f"It was tried {tries} times, and each time its worker was lost or its memory did not suffice. The last time: {why}.",
                "Run the same command again, it goes on where it was; with a smaller engine.memory or fewer workers if it happens again.",
            )
        work = item.work
        if smaller is not None and (memory or tries > 1):
            try:
                work = smaller(work)
            except RllcError:
                if memory and tries > 1:
                    raise
        again = Item(work, tries, self._clock() + self._back_off * 2 ** (tries - 1), node)
        self._lost.append(again)
        return again

    def again(self, item: Item, job: Job[Any, Any], why: str, node: str = "", where: str = "", memory: bool = False, worker: int | str = "") -> None:
        """As `lost`, and told in words; what was tried often enough is given up where the job wants to hear of that. Raises RllcError otherwise."""
        try:
            item = self.lost(item, f"{why}{f' (on {where})' if where else ''}", node, job.smaller, memory)
        except RllcError as error:
            if job.failed is None:
                raise
            job.failed(item.work, error)
            return
        job.hear("unit_retried", work=item.work, why=why, worker=worker, tries=item.tries)
        where = f" on {where}" if where else ""
        what = f"a unit failed{where}" if memory else f"a worker was lost{where}"
        job.tell(f"{what}: {why}. {'It' if memory else 'Its unit'} is tried again, try {item.tries + 1}.")


def allowed(job: Job[Any, Any], work: Any, timeout: float = 0.0) -> float:
    """Seconds after which a work's worker is taken for lost: those of `timeout` unless that is 0. They change as others finish: ask again."""
    return timeout or max(LEAST_TIMEOUT, job.seconds(work))

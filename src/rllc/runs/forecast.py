"""How long the rest of a grid takes: counted operations, put right by the units that are finished. Torch-free."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

# A guess at what one core does, in operations a second, until finished units tell the truth.
GUESSED_RATE = 4e10
# What the slowest does, of whose workers none has finished anything yet.
_SLOWEST = 2.5e8
# Seconds after which a worker counts as lost, where nothing is finished that would foretell how long it takes: a day.
MOST_UNTOLD = 24 * 3600.0
# A unit counts as lost when it has taken so many times as long as the finished ones foretell.
PATIENCE = 20.0


@dataclass(frozen=True)
class Task:
    """A unit as the forecast sees it.

    Args:
        name: what tells it from the others.
        cost: operations, by counting.
        kinds: what it is like, the most telling first: a unit takes as long an operation as finished ones of its first kind that has some.
    """

    name: Hashable
    cost: float
    kinds: tuple[str, ...] = ()


class Forecast:
    """Seconds that units take, and that all of them still take together.

    Args:
        tasks: the units in the order in which they are begun.
        clock: tells the seconds.
    """

    def __init__(self, tasks: Sequence[Task], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = {task.name: task for task in tasks}
        self._begun: dict[Hashable, tuple[Task, float]] = {}
        self._spent: dict[str, tuple[float, float]] = {}  # operations and seconds, by kind; "" for all
        self._clock = clock

    def begun(self, name: Hashable) -> None:
        """A worker has it now, perhaps once more."""
        task = self._waiting.pop(name, None) or self._begun[name][0]
        self._begun[name] = (task, self._clock())

    def finished(self, name: Hashable, seconds: float) -> None:
        """It took so long, without the waiting."""
        task = self._begun.pop(name)[0]
        for kind in ("", *task.kinds):
            cost, spent = self._spent.get(kind, (0.0, 0.0))
            self._spent[kind] = (cost + task.cost, spent + seconds)

    def given_up(self, name: Hashable) -> None:
        """Nobody computes it any more."""
        self._begun.pop(name, None)

    def rate(self) -> float:
        """Operations a second and worker, of all that is finished; the guess where nothing is."""
        cost, seconds = self._spent.get("", (0.0, 0.0))
        return cost / seconds if cost and seconds else GUESSED_RATE

    def predicted(self, task: Task) -> float:
        """How long a unit takes a worker, in seconds."""
        for kind in (*task.kinds, ""):
            cost, seconds = self._spent.get(kind, (0.0, 0.0))
            if cost:
                return task.cost * seconds / cost
        return task.cost / GUESSED_RATE

    def at_most(self, task: Task) -> float:
        """Seconds after which a unit counts as lost: twenty times `predicted`; before anything is finished, what a slow machine takes, or a day."""
        return PATIENCE * self.predicted(task) if self._spent else min(task.cost / _SLOWEST, MOST_UNTOLD)

    def left(self, at_once: int) -> float:
        """Seconds until the last unit ends, where `at_once` are computed side by side and the next begins when one ends."""
        now = self._clock()
        ends = [max(self.predicted(task) - (now - since), 0.0) for task, since in self._begun.values()]
        ends += [0.0] * max(at_once - len(ends), 0)
        heapq.heapify(ends)
        for task in self._waiting.values():
            if not ends:
                break
            heapq.heapreplace(ends, ends[0] + self.predicted(task))
        return max(ends, default=0.0)

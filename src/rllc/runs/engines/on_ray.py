"""The engine `ray`: units on the workers of a Ray cluster, which may come and go. This process hands out and gathers; it alone writes records.

A worker is an actor that computes one unit at a time. What is lost with a worker is tried again elsewhere, after a while; what fails for a reason of
its own ends the run, as with the engine `local`. Seeds come from the cell, so that nothing depends on who computes what.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rllc.core.errors import RllcError
from rllc.runs.engines import cluster
from rllc.runs.engines.attempt import Short
from rllc.runs.engines.job import Job
from rllc.runs.engines.placing import Placing
from rllc.runs.engines.pulse import Pulse
from rllc.runs.engines.ray_worker import WATCH, Hello, Worker, versions
from rllc.runs.engines.waiting import Item, Waiting, allowed
from rllc.runs.settings import EngineSettings

PATIENCE = 600.0  # seconds without any worker, before the run gives up
_LOOK = 5.0  # seconds between looks at what nodes there are
_PAUSE = 1.0  # seconds of waiting for a worker, before the others are looked at
_ASK = 10.0  # seconds between questions to a worker that computes
_STARTS = 5  # workers that may fail to begin, one after the other


@dataclass(eq=False)
class _Hand:
    """A worker as this process sees it; it is known by where it runs once it has said hello."""

    actor: Any
    hello: Hello | None = None

    @property
    def node(self) -> str:
        return self.hello.node if self.hello else ""

    @property
    def name(self) -> str:
        """Its node and process, for the log; Ray's name of a node tells no host."""
        return f"{self.hello.node[:12]}/{self.hello.pid}" if self.hello else ""


@dataclass
class _Busy:
    """A worker and what it is at since when."""

    hand: _Hand
    item: Item
    since: float
    pulse: Pulse
    asked: Any = None  # the question how much it has used, as long as it is open
    asked_at: float = 0.0

    def lost(self, now: float, seconds: float, watched: bool) -> str:
        """Why it is taken for lost, because it takes longer than it may or, where that is watched, shows no sign of life; empty where it is not."""
        if now - self.since >= seconds:
            return f"no answer within {now - self.since:.0f} s"
        return self.pulse.silent(now) if watched else ""

    def listen(self, now: float, ray: Any) -> None:
        """Ask it for a sign of life, and hear its answer where there is one; one that is stopped has none."""
        if self.asked is None:
            if now - self.asked_at >= _ASK:
                self.asked, self.asked_at = self.hand.actor.used.options(concurrency_group=WATCH).remote(), now
        elif ray.wait([self.asked], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # it is gone, of which its unit tells
                self.pulse.told(ray.get(self.asked), now)
            self.asked = None


class RayEngine:
    """The engine `ray`, on a cluster that is there or one that is started here. Raises RllcError as `cluster.connect` and `Room.check` do."""

    back_off = 1.0

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._ray, self._joined = cluster.connect(settings)
        self._room = cluster.Room.of(settings, self._ray.nodes())
        self._room.check(settings)
        self._placing = Placing(self._ray.get_runtime_context().get_node_id(), self._ray.put)
        self._starting: dict[Any, _Hand] = {}
        self._idle: list[_Hand] = []
        self._busy: dict[Any, _Busy] = {}
        self._agreed = {name: version for name, version in versions().items() if name in ("rllc", "estimator")}
        self._failed_starts, self._looked, self._seen = 0, time.monotonic(), time.monotonic()
        self._now = 0.0  # seconds that this process was awake: one that is stopped and goes on does not find its workers late

    @property
    def at_once(self) -> int:
        """How many units are computed side by side, by those workers that there are or will be."""
        return min(self._settings.workers or self._room.workers, self._room.workers)

    def run(self, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (work, result) as works finish. Raises RllcError as the job's function does, and where workers are lost again and again."""
        self._room = cluster.Room.of(self._settings, self._ray.nodes())
        self._room.check(self._settings, job.tell)
        waiting = Waiting(job.works, back_off=self.back_off)
        self._seen = time.monotonic()
        try:
            while waiting or self._busy:
                self._look(job)
                self._hire(len(waiting))
                self._hand_out(waiting, job)
                yield from self._gather(waiting, job)
        finally:
            for busy in self._busy.values():  # nobody waits for these any more
                self._placing.end(busy.hand.node, job.files, busy.item.work, arrived=False)
                self._dismiss(busy.hand)
            self._busy.clear()

    def close(self) -> None:
        """Take copies of files away, end the workers, and leave the cluster; one that was started here ends with that."""
        hands = {hand.node: hand for hand in self._idle}
        leaving = [hands[node].actor.leave.remote(self._placing.folder(node)) for node in self._placing.nodes if node in hands]
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=10)
        for hand in (*self._idle, *self._starting.values()):
            self._dismiss(hand)
        self._idle.clear()
        self._starting.clear()
        if self._joined:
            self._ray.shutdown()

    def _look(self, job: Job[Any, Any]) -> None:
        """See how many workers the cluster has room for by now, and give up where there is none for long."""
        now = time.monotonic()
        if self._idle or self._busy:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise RllcError(
                f"No node of the cluster has had room for a worker for {PATIENCE / 60:.0f} minutes.",
                "See `ray status`: add nodes, or end what holds them. Run the same command again, it goes on where it was.",
            )
        if now - self._looked > _LOOK:
            self._looked, before = now, self._room.workers
            self._room = cluster.Room.of(self._settings, self._ray.nodes())
            if self._room.workers != before:
                job.tell(f"the cluster has room for {self._room.workers} workers now; it had for {before}.")
                job.hear("room_changed", workers=self._room.workers, before=before)

    def _hire(self, waiting: int) -> None:
        """Start workers for what waits, as far as there is room."""
        there = len(self._starting) + len(self._idle)
        for _ in range(min(waiting - there, self.at_once - there - len(self._busy))):
            actor = self._ray.remote(concurrency_groups={WATCH: 1})(Worker).options(**self._room.options).remote("", self._settings.threads)
            hand = _Hand(actor)
            self._starting[actor.hello.remote()] = hand

    def _hand_out(self, waiting: Waiting, job: Job[Any, Any]) -> None:
        while self._idle and (item := waiting.next()) is not None:
            hand = next((hand for hand in self._idle if hand.node != item.avoid), self._idle[0])
            self._idle.remove(hand)
            delivery = self._placing.begin(hand.node, job.files, item.work)
            moved = job.files.moved if job.files is not None else None
            reference = hand.actor.compute.remote(job.function, item.work, moved, delivery)
            self._busy[reference] = _Busy(hand, item, self._now, Pulse(self._now))
            job.begun(item.work)

    def _gather(self, waiting: Waiting, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Wait a little for a worker; take what has come, and give up what takes too long."""
        references, timeout = [*self._starting, *self._busy], self._settings.unit_timeout
        left = (busy.since + allowed(job, busy.item.work, timeout) - self._now for busy in self._busy.values())
        patience = min([_PAUSE, *(max(seconds, 0.0) for seconds in left)])
        if self._idle and len(waiting):
            patience = min(patience, waiting.soonest())
        if not references:
            time.sleep(patience)
            return
        started = time.monotonic()
        ready, _ = self._ray.wait(references, num_returns=1, timeout=patience)
        self._now += min(time.monotonic() - started, patience + _PAUSE)
        for reference in ready:
            if reference in self._starting:
                self._greet(reference, job)
            else:
                yield from self._take(reference, waiting, job)
        for reference, busy in list(self._busy.items()):
            if not timeout:  # whoever says how long a unit may take may know why it waits: then that alone counts
                busy.listen(self._now, self._ray)
            if why := busy.lost(self._now, allowed(job, busy.item.work, timeout), watched=not timeout):
                del self._busy[reference]
                self._lose(busy, why, waiting, job)

    def _take(self, reference: Any, waiting: Waiting, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        busy = self._busy.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.RayTaskError) and not isinstance(error.cause, self._ray.exceptions.RayError):
                self._idle.append(busy.hand)
                raise  # the function's own, a fault of the program
            self._lose(busy, cluster.reason(error), waiting, job, memory=cluster.was_memory(error))
            return
        self._idle.append(busy.hand)
        self._placing.end(busy.hand.node, job.files, busy.item.work, arrived=True)
        if isinstance(result, RllcError):
            raise result
        if isinstance(result, Short):
            where = busy.hand.hello.host if busy.hand.hello else "?"
            waiting.again(busy.item, job, result.why, busy.hand.node, where, memory=True, worker=busy.hand.name)
            return
        job.hear("work_finished", work=busy.item.work, worker=busy.hand.name)
        yield busy.item.work, result

    def _lose(self, busy: _Busy, why: str, waiting: Waiting, job: Job[Any, Any], memory: bool = False) -> None:
        """A worker is gone, or is taken for gone: its unit is tried again."""
        self._dismiss(busy.hand)
        self._placing.end(busy.hand.node, job.files, busy.item.work, arrived=False)
        where = busy.hand.hello.host if busy.hand.hello else "?"
        waiting.again(busy.item, job, why, busy.hand.node, where, memory, worker=busy.hand.name)

    def _greet(self, reference: Any, job: Job[Any, Any]) -> None:
        hand = self._starting.pop(reference)
        try:
            hello: Hello = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._dismiss(hand)
            self._failed_starts += 1
            if self._failed_starts >= _STARTS or getattr(error, "actor_init_failed", False):
                raise RllcError(
                    f"Workers do not start on the cluster: {cluster.reason(error)}.",
                    "Install the same rllc, with its extra ray, on every node; `ray logs` has the rest.",
                ) from error
            return
        hand.hello, self._failed_starts = hello, 0
        cluster.check_versions(hello, self._agreed)
        self._agreed["torch"] = hello.versions["torch"]  # that of the first; this process computes nothing
        self._idle.append(hand)
        job.hear("worker_begun", worker=hand.name)

    def _dismiss(self, hand: _Hand) -> None:
        try:
            self._ray.kill(hand.actor)
        except Exception as error:  # it may be gone already, with the node or the whole cluster
            logging.getLogger("rllc").debug("a worker could not be ended: %s", error)

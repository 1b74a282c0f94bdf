"""What runs in a worker process of a Ray cluster. Knows of Ray only that references can be read."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError
from rllc.core.files import write_aside
from rllc.runs.engines.attempt import attempt
from rllc.runs.engines.local import set_threads
from rllc.runs.engines.pulse import processor_seconds

WATCH = "watch"  # the concurrency group of what is asked of a worker that computes
_STALE = 7 * 24 * 3600.0  # seconds; what a killed run left on a node longer ago is taken away by the next


@dataclass(frozen=True)
class Hello:
    """What a worker says of itself when it has begun."""

    node: str
    host: str
    pid: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Delivery:
    """Files for a node that are to lie in its own folder before a unit begins.

    Args:
        folder: name of that folder, below the node's place for temporary files.
        inside: where in it the files of the unit's run folder lie.
        number: deliveries are numbered in the order in which they were made up; workers may receive them in another.
        files: those that may be missing, by their path in the folder, with references to their pieces.
        drop: those that nobody on the node read any more when it was made up; one that a later delivery has brought again stays.
    """

    folder: str
    inside: str
    number: int
    files: tuple[tuple[str, Sequence[Any]], ...] = ()
    drop: tuple[str, ...] = ()


class Worker:
    """A worker process, for one unit after another."""

    def __init__(self, node: str, threads: int) -> None:
        set_threads(threads)  # here too, so that what has to be loaded counts as beginning
        self._node, self._threads = node, threads

    def hello(self) -> Hello:
        """Who and where it is."""
        import ray

        node = self._node or ray.get_runtime_context().get_node_id()
        return Hello(node, socket.gethostname(), os.getpid(), versions())

    def compute(self, function: Callable[[Any], Any], work: Any, moved: Callable[[Any, Path], Any] | None, delivery: Delivery | None) -> Any:
        """function(work), on files of this node where there is a delivery; an RllcError is returned, so that it comes home as it is.

        So is `Short` where memory did not suffice.
        """
        set_threads(self._threads)  # in the thread that computes, which is not the one in which a worker begins
        try:
            if delivery is not None and moved is not None:
                work = moved(work, place(delivery))
            return attempt(function, work)
        except RllcError as error:
            return error

    def used(self) -> float | None:
        """The processor time of this process, seconds; asked for in the group `WATCH`, while it computes."""
        return processor_seconds(os.getpid())

    def leave(self, folder: str) -> None:
        """Take the node's copies of files away."""
        shutil.rmtree(node_folder(folder), ignore_errors=True)


def versions() -> dict[str, str]:
    """What decides the numbers that a machine computes."""
    import rllc
    from rllc.runs.keys import ESTIMATOR

    return {"rllc": rllc.__version__, "estimator": ESTIMATOR, "torch": importlib.metadata.version("torch")}


def node_folder(name: str) -> Path:
    """Where this machine keeps copies of a run's files."""
    return Path(tempfile.gettempdir()) / f"rllc-{os.getuid()}" / name


def place(delivery: Delivery) -> Path:
    """Have the files on this machine, each written once by whichever worker comes first; the folder that they lie in."""
    import ray

    folder = node_folder(delivery.folder)
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder)
    os.utime(folder)
    with (folder / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        for name in delivery.drop:
            if _brought(folder / name) < delivery.number:
                (folder / name).unlink(missing_ok=True)
        for name, pieces in delivery.files:
            number = max(_brought(folder / name), delivery.number)
            if not (folder / name).exists():
                write_aside(folder / name, lambda path, pieces=pieces: _write(path, pieces, ray.get))
            os.utime(folder / name, (number, number))
    return folder / delivery.inside


def _brought(path: Path) -> int:
    """The number of the latest delivery that has brought a file, which stands for its time; 0 where it is not there."""
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0


def _write(path: Path, pieces: Sequence[Any], get: Callable[[Any], Any]) -> None:
    with path.open("wb") as stream:
        for piece in pieces:
            stream.write(memoryview(get(piece)))


def _sweep(folder: Path) -> None:
    for other in folder.parent.iterdir():
        if other != folder and time.time() - other.stat().st_mtime > _STALE:
            shutil.rmtree(other, ignore_errors=True)

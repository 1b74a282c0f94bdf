"""A Ray cluster: joining one or starting one, what room it has, and its errors in words. The one place that imports ray."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllc.core.errors import RllcError
from rllc.core.exit_codes import ExitCode
from rllc.runs.engines.ray_worker import Hello
from rllc.runs.memory import cores
from rllc.runs.settings import EngineSettings

_STORE = 200 * 2**20  # bytes of the object store of a cluster that is started here; results are small

_ATTEMPTS = 3
_LISTENS = 10.0  # seconds that a cluster has to take a connection


def connect(settings: EngineSettings) -> tuple[Any, bool]:
    """The module ray, joined to the cluster of `settings`, or to one that it starts here; and whether it was not joined to any before.

    Raises RllcError where Ray is not installed, or there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers unless told not to
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise RllcError("The engine ray needs Ray, which is not installed here.", "pip install 'rllc[ray]', or take --engine local.") from error
    if ray.is_initialized():
        return ray, False
    common = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if not settings.address:
        with _own_sigterm():
            _start(ray, common | {"num_cpus": (settings.workers or cores()) * settings.threads})
        return ray, True
    if "://" in settings.address:
        raise RllcError(f"The address is {settings.address!r}.", 'Start rllc on a node of the cluster, and give "auto" or "host:port".')
    try:
        _answers(settings.address)
        del common["include_dashboard"]
        with _own_sigterm():
            ray.init(address=settings.address, **common)
    except (OSError, RuntimeError, ValueError) as error:
        raise RllcError(
            f"There is no Ray cluster to join at {settings.address!r}: {reason(error)}.",
            "Start one with `ray start --head` and give its host:port, or leave --address out to start one here.",
        ) from error
    return ray, True


def _answers(address: str) -> None:
    """Somebody listens where the cluster is to be; Ray itself would try for minutes. Raises OSError where nobody does, and ValueError for no address.

    What "auto" means is Ray's to say: its variable, or the file in which the last cluster that was started on this machine left its address.
    """
    if address == "auto":
        try:
            address = os.environ.get("RAY_ADDRESS") or (Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster").read_text(encoding="utf-8")
        except OSError:
            return  # Ray has its own sentence for that
    host, _, port = address.strip().rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("it is neither host:port nor auto")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS).close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray takes the handler of SIGTERM for itself, and ends this process with another exit code than it has: whoever set one keeps it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # what Ray's own handler raises
            raise SystemExit(ExitCode.TERMINATED) from error
        raise
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, options: dict[str, Any]) -> None:
    """Ray gives its own processes half a minute, which a busy machine may not keep to: it is tried again."""
    for attempt in range(_ATTEMPTS):
        try:
            ray.init(address="local", object_store_memory=_STORE, **options)
            return
        except Exception as error:  # Ray raises just that
            ray.shutdown()
            if attempt == _ATTEMPTS - 1:
                raise RllcError(
                    f"Ray did not start on this machine: {reason(error)}.",
                    "Run the same command again, on a less busy machine; or take --engine local.",
                ) from error


@dataclass(frozen=True)
class Room:
    """How many workers a cluster has room for, were it free.

    Args:
        workers: that many at a time.
        options: what Ray is asked for each of them.
        largest: the most CPUs and GPUs that a node has.
    """

    workers: int
    options: Mapping[str, Any] = field(default_factory=dict)
    largest: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, settings: EngineSettings, nodes: Sequence[Mapping[str, Any]]) -> Room:
        """The room on those nodes, as `ray.nodes()` tells of them, that are alive."""
        found = [(float(r.get("CPU", 0)), float(r.get("GPU", 0))) for r in (node["Resources"] for node in nodes if node["Alive"])]
        gpus = settings.gpus_per_worker
        if not gpus and settings.device != "cpu" and any(gpu for _, gpu in found):
            gpus = 1.0
        if settings.device == "cuda":
            gpus = gpus or 1.0
        workers = sum(int(min(cpu / settings.threads, gpu / gpus + 1e-9 if gpus else cpu)) for cpu, gpu in found)
        largest = (max((cpu for cpu, _ in found), default=0.0), max((gpu for _, gpu in found), default=0.0))
        return cls(workers, {"num_cpus": settings.threads, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}, largest)

    def check(self, settings: EngineSettings, tell: Callable[[str], None] = lambda _: None) -> None:
        """Tell how many workers there will be. Raises RllcError where no node has room for one: Ray itself would wait for ever."""
        gpus = self.options["num_gpus"]
        asked = f"{settings.threads} CPU{'s' * (settings.threads > 1)}" + (f" and {gpus:g} GPU" if gpus else "")
        if not self.workers:
            raise RllcError(
                f"A worker wants {asked}, and no node of the cluster has that: at most {self.largest[0]:g} CPUs and {self.largest[1]:g} GPUs.",
                "Lower engine.threads or --gpus-per-worker, take --device cpu, or add nodes.",
            )
        if settings.workers > self.workers:
            tell(f"{settings.workers} workers of {asked} were asked for; the cluster has room for {self.workers}.")


def check_versions(hello: Hello, agreed: Mapping[str, str]) -> None:
    """Raises RllcError where a worker has other versions than were agreed on: it would compute other numbers."""
    for name, version in agreed.items():
        if hello.versions[name] != version:
            raise RllcError(
                f"The node {hello.host} has {name} {hello.versions[name]}, and others {version}: their numbers would not be of one run.",
                "Install the same versions on all nodes, and where the run was started.",
            )


def reason(error: BaseException) -> str:
    """The gist of Ray's error, on one line: its last where that names an exception, else its first sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if getattr(error, "actor_init_failed", False):
        return lines[-1].rstrip(".")
    if "its node has died" in text:
        return "its node is gone"
    if "worker process has died" in text or "died unexpectedly" in text:
        return "its process died"
    if type(error).__name__ == "ActorUnavailableError":
        return "it could not be reached"
    return lines[0].rstrip(".")


def was_memory(error: BaseException) -> bool:
    """Whether Ray ended the worker for want of memory."""
    return type(error).__name__ == "OutOfMemoryError" or "running low on memory" in str(error)

"""What a process at work on a run is doing now: a small file in the run folder that it keeps up to date, and what others read out of it.

    live/run.json, live/shard-3-of-8.json

A thread writes it every two seconds, so that its time is a heartbeat even where a unit takes an hour. It goes away with the process that wrote it,
unless that was killed: then it stays, and its reader finds out by the age of the heartbeat and, on the same machine, by the process itself.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import disk_error, is_leftover, open_regular, parse_json, write_atomic
from rllc.runs.log import iso

FORMAT = 1
INTERVAL = 2.0  # seconds between heartbeats
SILENT = 30.0  # seconds without one after which something is amiss; clocks of machines differ, and network disks show changes late
_AHEAD = 2 * 3600.0  # seconds that the clock of another machine may be ahead of this one's
_LARGEST = 2**20
_MOST = 1e300  # beyond, sums and products of numbers overflow
_NUMBERS = ("process_started", "done", "total", "share", "rate", "seconds_left")


class LiveFile:
    """Keeps the file of this process up to date while it is entered.

    Args:
        path: of the file; nobody else may write it, which is for the lock of the folder to see to.
        facts: what does not change: command, version and the like.
        state: what is being done now, as JSON-able values by name; asked from another thread.
        complain: is told once where the file cannot be written. That never ends the run.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], state: Callable[[], Mapping[str, Any]], complain: Callable[[str], None]) -> None:
        pid = os.getpid()
        own = {"pid": pid, "process_started": process_started(pid), "machine": machine(), "since": iso(time.time())}
        self._path, self._facts, self._state, self._complain = path, {"format": FORMAT, **facts, **own}, state, complain
        self._end, self._complained = threading.Event(), False
        self._thread = threading.Thread(target=self._beat_on, name="rllc heartbeat", daemon=True)

    def __enter__(self) -> LiveFile:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._path.parent.is_symlink():
            return  # nothing was written there, and what is there is somebody's
        try:
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()
        except OSError:
            pass  # another shard's file is there, or the disk refuses: its reader sees that the process is gone

    def beat(self) -> None:
        """Write the file anew."""
        try:
            if self._path.parent.is_symlink():
                raise disk_error(self._path.parent, OSError(errno.ELOOP, "it is a link"))
            content = {**self._facts, "heartbeat": iso(time.time()), **self._state()}
            write_atomic(self._path, json.dumps(content, default=str) + "\n", durable=False)
        except Exception as error:  # whatever it is, the run is more important
            if not self._complained:
                self._complained = True
                self._complain(error.problem if isinstance(error, RllcError) else repr(error))

    def _beat_on(self) -> None:
        while not self._end.wait(INTERVAL):
            self.beat()


class Pulse(StrEnum):
    """Whether the process that wrote a live file is still at work."""

    AT_WORK = "at work"
    SILENT = "silent"  # no heartbeat for long: its disk or machine is in trouble, or it was killed on another machine
    KILLED = "killed"  # it is gone, and did not end by itself


@dataclass(frozen=True)
class Seen:
    """A live file as its reader finds it.

    Args:
        name: of the file, without its ending: "run", or a shard's.
        content: what the process wrote.
        pulse: whether it is still there.
        age: seconds since the last heartbeat.
    """

    name: str
    content: Mapping[str, Any]
    pulse: Pulse
    age: float

    def as_dict(self) -> dict[str, Any]:
        """All of it in one table; what tells machines apart is left out."""
        content = {name: value for name, value in self.content.items() if name not in ("format", "machine", "process_started")}
        found = {"name": self.name, "state": str(self.pulse), "heartbeat_age": round(self.age, 1)}
        return found | content | found  # in this order, and whatever the file says of these


def seen(folder: Path, now: float | None = None) -> list[Seen]:
    """Everything that is at work, or was when it was killed, by the live files in `folder`; what is torn or none of ours is passed over."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not is_leftover(path.name))
    except OSError:
        return []
    found = [_read(path, time.time() if now is None else now) for path in paths]
    return [one for one in found if one is not None]


def _read(path: Path, now: float) -> Seen | None:
    try:
        with open_regular(path) as stream:
            content = parse_json(stream.read(_LARGEST).decode())
        if content["format"] != FORMAT or not isinstance(content["pid"], int):
            return None
        age = now - datetime.fromisoformat(content["heartbeat"]).timestamp()
        age = max(age, 0.0) if age > -_AHEAD else -age  # one far ahead would be new for as long as it lies ahead
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    content = {name: value for name, value in content.items() if _fits(name, value)}
    return Seen(path.stem, content, _pulse(content, age), age)


def _fits(name: str, value: Any) -> bool:
    """Whether a value is of the kind that its reader reckons with; one that is not counts as missing."""
    if name == "counts":
        return isinstance(value, dict) and all(_is_number(count) for count in value.values())
    if name in _NUMBERS:
        return value is None or _is_number(value)
    return value is None or isinstance(value, str) or (isinstance(value, int) and -_MOST < value < _MOST)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -_MOST < value < _MOST


def _pulse(content: Mapping[str, Any], age: float) -> Pulse:
    if content.get("machine") == machine() and not _lives(content["pid"], content.get("process_started")):
        return Pulse.KILLED
    return Pulse.AT_WORK if age <= SILENT else Pulse.SILENT


def _lives(pid: int, started: int | None) -> bool:
    """Whether the process is there, and is not another one with its number."""
    found = process_started(pid)
    if found is not None and started is not None:
        return found == started
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def process_started(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where that cannot be told, or it has ended and nobody has noticed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def machine() -> str:
    """What tells this machine, since it was started, and this space of process numbers from others; nobody can read a name out of it."""
    try:
        facts = [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"), str(Path("/proc/self/ns/pid").readlink())]
    except (OSError, ValueError):
        facts = [platform.node(), str(uuid.getnode())]
    return digest.of_json(facts)[:16]

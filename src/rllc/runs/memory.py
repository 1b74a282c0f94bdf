"""How much memory a pass may take: given, or found and then kept. Torch-free."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text, write_atomic
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder

# What a process takes before its first pass: torch, the weights, the text.
_BASE = 600_000_000
_SHARE = 0.5  # of the free memory that is planned with; others want some too
_LEAST, _MOST = 100, 4000  # megabytes; passes larger than the caches and the device's queue gain nothing


def fixed(experiment: Experiment, folder: RunFolder) -> Experiment:
    """The experiment with a budget of its own: where none is given, half the free memory is shared among the workers.

    What was found is kept in the run folder, since chunks depend on it: the run is the same when it is taken up again.
    """
    if experiment.engine.memory:
        return experiment
    budget = _kept(folder.budget)
    if budget is None:
        budget = found(experiment.engine.workers or cores())
        write_atomic(folder.budget, json.dumps({"memory": budget}) + "\n")
    return replace(experiment, engine=replace(experiment.engine, memory=budget))


def found(workers: int) -> int:
    """Megabytes of a pass, of `workers` side by side, from what is free now."""
    each = _SHARE * available_bytes() / max(workers, 1) - _BASE
    return int(min(max(each / 1_000_000, _LEAST), _MOST))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that can be had without swapping: of the machine, and of the control group where that allows less."""
    numbers = [_meminfo(root / "proc/meminfo"), _group(root / "sys/fs/cgroup")]
    known = [number for number in numbers if number is not None]
    return min(known) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def total_bytes(root: Path = Path("/")) -> int:
    """Memory of the machine, or of the control group where that is less."""
    numbers = [_meminfo(root / "proc/meminfo", "MemTotal"), _limit(root / "sys/fs/cgroup")]
    known = [number for number in numbers if number is not None]
    return min(known) if known else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limit(folder: Path) -> int | None:
    try:
        return int((folder / "memory.max").read_text())
    except (OSError, ValueError):
        return None


def _meminfo(path: Path, name: str = "MemAvailable") -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        return int(lines[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _group(folder: Path) -> int | None:
    """What the control group has left; file pages count as free."""
    try:
        limit, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
        pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no group, or no limit ("max")
        return None
    return max(limit - used + int(pages.get("inactive_file", 0)), 0)


def _kept(path: Path) -> int | None:
    try:
        return int(parse_json(read_text(path))["memory"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RllcError(f"{path} is damaged.", "Delete it: the memory budget is then found anew.") from error

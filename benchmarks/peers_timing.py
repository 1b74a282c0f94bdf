"""What a side of `peers.py` measures of one call: its steps, what is around them, and how much memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt


@dataclass(frozen=True)
class Timed:
    """One call of one side."""

    step: float  # seconds a chain-step: the median interval between evaluations, over the chains that it advanced
    setup: float  # seconds of the call that its evaluations do not explain, at the median interval

    @classmethod
    def of(cls, intervals: NDArray[np.float64], at_once: int, seconds: float, evaluations: int) -> Timed:
        """From seconds between evaluations, each of `at_once` chains, of a call with so many evaluations.

        >>> Timed.of(np.array([2.0, 9.0, 2.0]), 4, 10.0, 4)
        Timed(step=0.5, setup=2.0)
        """
        median = float(np.median(intervals))
        return cls(median / at_once, max(0.0, seconds - median * evaluations))


def keep_pages() -> bool:
    """Ask glibc to keep freed memory, for all sides alike; False where there is no glibc.

    Otherwise every tensor of the size of the logits is mapped anew, page by page, which cost devinterp a third of its time on the machine where this
    was written. A user can have the same by MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 in the environment.
    """
    mallopt: Any = getattr(_libc(), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def peak_of(call: Callable[[], object]) -> float:
    """Megabytes (10⁶) by which a call raises this process's resident memory at its highest, when made a second time; NaN where that cannot be seen.

    The first time compiles, imports and fills caches. In a process of its own, by Linux's high-water mark, reset before the call.
    """
    call()
    gc.collect()
    with contextlib.suppress(AttributeError):
        _libc().malloc_trim(0)
    try:
        CLEAR.write_text("5")
        before = _kilobytes("VmRSS")
        call()
        return (_kilobytes("VmHWM") - before) * 1024 / 1e6
    except OSError:
        return float("nan")


def _kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))


def _libc() -> Any:
    return ctypes.CDLL(None)


def machine() -> dict[str, Any]:
    """What was run on."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load before": round(load, 2),
        "system": platform.system(),
        "python": platform.python_version(),
    }

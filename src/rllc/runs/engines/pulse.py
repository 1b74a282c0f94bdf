"""Signs of life: a worker that computes uses the processor; one that waits for ever, is stopped or stuck does not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SILENCE = 600.0  # seconds in which a worker that computes shows a sign of life
SIGN = 1.0  # seconds of processor time that are one; a worker that waits uses some hundredths in that time


@dataclass
class Pulse:
    """When a worker last showed a sign of life, and the processor time that it had used by then."""

    heard: float
    used: float = 0.0

    def told(self, used: float | None, now: float) -> None:
        """The processor time that it has used by now; None where it is there and that cannot be told."""
        if used is None or used - self.used >= SIGN:
            self.used, self.heard = used or self.used, now

    def silent(self, now: float) -> str:
        """Why it is taken for lost, where it was silent for too long; else empty."""
        return f"no sign of life for {now - self.heard:.0f} s" if now - self.heard > SILENCE else ""


def processor_seconds(pid: int) -> float | None:
    """The processor time that a process has used, in seconds; None where that cannot be told, as on systems without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None

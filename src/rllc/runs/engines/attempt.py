"""What a worker of any engine does with a work: compute it, or tell that memory was short for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Short:
    """What comes home in place of a result where memory did not suffice, and what was said of that."""

    why: str


def attempt(function: Callable[[Any], Any], work: Any) -> Any:
    """function(work), or that memory was short for it; this process goes on either way. Raises whatever else `function` raises."""
    try:
        return function(work)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError):
            from rllc.model.evaluation import out_of_memory

            if not out_of_memory(error):
                raise
        said = str(error).strip().splitlines()
        why = f"memory did not suffice ({said[0].rstrip('.')})" if said else "memory did not suffice"
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the failed pass held is free by now, and may be wanted in other pieces
    return Short(why)

"""What an engine is asked, and what it is. An engine knows nothing of what it computes: works go in, results come out as they finish."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rllc.core.errors import RllcError

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Files(Generic[Work]):
    """What works read from the disk of whoever asks, for engines whose workers may be on other machines.

    Args:
        root: the folder that they all lie in.
        of: the files of a work.
        moved: a work that reads them from another folder, in which they lie as in `root`.
    """

    root: Path
    of: Callable[[Work], Sequence[Path]]
    moved: Callable[[Work, Path], Work]


@dataclass(frozen=True)
class Job(Generic[Work, Result]):
    """Works to be computed, in the order in which they should begin; all of it may be sent to another process but the callables for whoever asks.

    Args:
        function: computes a work; a module's own function, so that it has a name elsewhere. An RllcError of it ends the job.
        smaller: a work that needs less memory, for what was under way when a worker was lost again, or memory was short; raises RllcError where
            there is none.
        files: what works read; None where they carry everything along.
        seconds: how long a work may take before its worker counts as lost, asked again as others finish; without end where nobody knows.
        begun: is told of each work as it is handed to a worker, again where it is tried again.
        tell: is told in words what the user should know.
        failed: is told of each work that is given up because workers were lost with it, or memory did not suffice, and why; the others go on.
            None ends the job with the first one.
        hear: is told for the log what happens, as the name of an event and named facts: `work_finished` with `work` and `worker`, before the result
            is yielded; `unit_retried` with `work` and `why`, where its worker was lost; `worker_begun`, `room_changed`.
    """

    function: Callable[[Work], Result]
    works: Sequence[Work]
    smaller: Callable[[Work], Work] | None = None
    files: Files[Work] | None = None
    seconds: Callable[[Work], float] = lambda work: math.inf  # noqa: ARG005
    begun: Callable[[Work], None] = lambda work: None  # noqa: ARG005
    tell: Callable[[str], None] = lambda text: None  # noqa: ARG005
    failed: Callable[[Work, RllcError], None] | None = None
    hear: Callable[..., None] = lambda event, **facts: None  # noqa: ARG005


class Engine(Protocol):
    """An engine, made from `EngineSettings`."""

    @property
    def at_once(self) -> int:
        """How many works are computed side by side now, or will be."""
        ...

    def run(self, job: Job[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (work, result) as works finish; the work is the one that was computed, smaller perhaps than the one that was given.

        Raises RllcError as the function does, and where workers are lost for good and the job does not want to be told of it.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...

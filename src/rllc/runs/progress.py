"""Progress that a person can follow: bars with rate and time left on a terminal, plain lines elsewhere, and events for the log of the run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rllc.core.streams import Forgiving
from rllc.figures.text import on_terminal
from rllc.runs.log import MESSAGE, LogFile, iso

_LOG = logging.getLogger("rllc")
# Without a terminal a line is printed at most this often, in seconds.
_PLAIN_INTERVAL = 15.0


# What a bar says of its work, where there is none.
_KEYS = ("work", "work_since", "unit", "done", "total", "share", "rate", "seconds_left", "last", "last_change", "counts")
_IDLE: dict[str, Any] = dict.fromkeys(_KEYS)


class Bar:
    """One stage's progress; `advance` as work gets done.

    Args:
        unit: what the total counts, "" where a share of it says nothing.
    """

    def __init__(self, reporter: Reporter, name: str, total: float, unit: str, task: TaskID | None) -> None:
        self._reporter, self._name, self._total, self._unit, self._task = reporter, name, total, unit, task
        self._done, self._started, self._since = 0.0, time.monotonic(), time.time()
        self._shown, self._offset, self._begun = self._started, 0.0, False
        self._ends: float | None = None
        self._last, self._changed, self._counts = "", self._since, dict[str, Any]()

    @property
    def seconds(self) -> float:
        """Wall time since the stage began."""
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """Tell what is being done, without progress."""
        self._last, self._changed = text, time.time()
        if self._task is not None:
            self._reporter.live.update(self._task, note=_plain(text))

    def reach(self, done: float, note: str = "") -> None:
        """Tell how much of the total is done; what was there before this session does not count for the rate."""
        if not self._begun:
            self._begun, self._offset = True, done
            if self._task is not None:
                self._reporter.live.reset(self._task, completed=int(done))
        self.advance(done - self._done, note)

    def advance(self, amount: float, note: str = "", left: float | None = None) -> None:
        """Tell that `amount` more of the total is done, perhaps what was last, and the seconds left where one knows better than by proportion."""
        self._done += amount
        now = time.monotonic()
        self._ends = None if left is None else now + left
        self._last, self._changed = note, time.time()
        if self._task is not None:
            self._reporter.live.update(self._task, completed=self._done, note=_plain(note), ends=self._ends)
            return
        if now - self._shown >= _PLAIN_INTERVAL and self._done < self._total:
            gained = self._done - self._offset
            if left is None and gained > 0:
                left = (now - self._started) / gained * (self._total - self._done)
            rest = "" if left is None else f", about {duration(left)} left"  # nobody knows before the first is done
            self._reporter.line(f"  {self._name}: {100 * self._done / self._total:.0f} %{rest}. {note}".rstrip(), "progress")
            self._shown = now

    def less(self, amount: float) -> None:
        """Tell that so much of the total will not be done."""
        self._total -= amount
        if self._task is not None:
            self._reporter.live.update(self._task, total=self._total)

    def count(self, **counts: float) -> None:
        """Tell numbers that the bar itself does not show, for whoever looks at the run from outside."""
        self._counts = self._counts | counts

    def state(self) -> dict[str, Any]:
        """How far it is now, as the live file of a run has it."""
        gained, spent = self._done - self._offset, max(self.seconds, 1e-9)
        left = None if self._ends is None else max(self._ends - time.monotonic(), 0.0)
        if left is None and self._unit and gained > 0:
            left = spent / gained * max(self._total - self._done, 0.0)
        return {
            "work": self._name,
            "work_since": iso(self._since),
            "unit": self._unit,
            "done": self._done,
            "total": self._total,
            "share": min(self._done / self._total, 1.0) if self._unit and self._total else None,
            "rate": gained / spent if self._unit and gained > 0 else None,
            "seconds_left": left,
            "last": self._last,
            "last_change": iso(self._changed),
            "counts": self._counts,
        }

    def within(self, share: float, note: str = "") -> Callable[[int, int], None]:
        """What turns (done, total) of a piece of work, which is `share` of the bar, into advances of it.

        Chains that are prolonged count again from zero: the bar does not go back.
        """
        seen = 0.0

        def told(done: int, total: int) -> None:
            nonlocal seen
            now = min(done / total, 1.0) * share
            self.advance(max(now - seen, 0.0), note)
            seen = max(now, seen)

        return told


class _Remaining(TimeRemainingColumn):
    """Time left as the stage foretells it, and by the bar's own speed where it does not."""

    def render(self, task: Task) -> Text:
        ends = task.fields.get("ends")
        if ends is None or task.finished:
            return super().render(task)
        seconds = max(int(ends - time.monotonic()), 0)
        return Text(f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}", style="progress.remaining")


class _Console(Console):
    """Standard error. Where nobody reads it any more, or its disk is full, it is silent, and the run goes on: rich alone would end it."""

    @property
    def file(self) -> IO[str]:  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody sets it
        """Where it writes."""
        return cast("IO[str]", Forgiving(super().file))


class Reporter:
    """Says what a run does. `quiet` says nothing but errors; the log file hears everything.

    Args:
        log: the run folder's log file, appended to; None for no log.
    """

    def __init__(self, quiet: bool = False, log: Path | None = None, console: Console | None = None) -> None:
        self.quiet, self.console = quiet, console or _Console(stderr=True, highlight=False)
        self.live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            _Remaining(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self._bars: list[Bar] = []
        self._place: dict[str, str] = {}
        self._handler: logging.Handler | None = None
        if log is not None:
            self._handler = LogFile(log)
            _LOG.addHandler(self._handler)
            _LOG.setLevel(logging.INFO)
            _LOG.propagate = False

    def close(self) -> None:
        """Let go of the log file."""
        if self._handler is not None:
            _LOG.removeHandler(self._handler)
            self._handler.close()
            self._handler = None

    def event(self, event: str, text: str = "", level: str = "info", **facts: Any) -> None:
        """Write one happening to the log alone: its name, a sentence where there is one, and its named facts."""
        if self._handler is None:
            return  # logging would print what is no mere information
        _LOG.log(logging.getLevelNamesMapping()[level.upper()], "%s", text, extra={"event": event, "facts": self._place | facts})

    def line(self, text: str, event: str = MESSAGE, level: str = "info", **facts: Any) -> None:
        """Print one line and log it."""
        self.event(event, text.strip(), level, **facts)
        if not self.quiet:
            self.console.print(on_terminal(text), markup=False, soft_wrap=True)

    @contextmanager
    def during(self, **place: str) -> Iterator[None]:
        """What log and live file say of where the run is while this lasts: its stage, and of which sibling."""
        before = self._place
        self._place = before | place
        try:
            yield
        finally:
            self._place = before

    def state(self) -> dict[str, Any]:
        """What is being done now, as the live file of a run has it."""
        place, bars = self._place, self._bars[-1:]
        return {"stage": place.get("stage", ""), "sibling": place.get("sibling", ""), **(bars[0].state() if bars else _IDLE)}

    @contextmanager
    def stage(self, name: str, total: float = 1.0, unit: str = "") -> Iterator[Bar]:
        """A stage with a bar of `total` units of work; `unit` names what is counted, in the plural, where a share of it means something."""
        self.event("work_begun", work=name, total=total, unit=unit)
        shown = self.draws_bars
        task = self.live.add_task(_plain(name), total=total, note="") if shown else None
        if shown:
            self.live.start()
        elif not self.quiet:
            self.console.print(f"{on_terminal(name)} …", markup=False)
        bar, outcome = Bar(self, name, total, unit, task), "stopped"
        self._bars.append(bar)
        try:
            yield bar
            outcome = "done"
        finally:
            self._bars.remove(bar)
            if task is not None:
                self.live.remove_task(task)
                self.live.stop()
            self.event("work_ended", work=name, seconds=round(bar.seconds, 2), outcome=outcome)

    @property
    def draws_bars(self) -> bool:
        """Whether somebody is looking at a bar that can move in place."""
        return not self.quiet and _draws_bars(self.console)


def _draws_bars(console: Console) -> bool:
    """Whether a bar can move in place: on a terminal, and in a notebook that has the widgets which rich needs there."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def _plain(text: str) -> str:
    """Text in a column of the bar, which would read markup and steer the terminal."""
    return escape(on_terminal(text))


def duration(seconds: float) -> str:
    """A time span in words.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

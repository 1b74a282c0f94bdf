"""Progress that a person can follow: bars with rate and time left on a terminal, plain lines elsewhere, and a log in the run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rllc.figures.text import on_terminal

_LOG = logging.getLogger("rllc")
# Without a terminal a line is printed at most this often, in seconds.
_PLAIN_INTERVAL = 15.0


class Bar:
    """One stage's progress; `advance` as work gets done."""

    def __init__(self, reporter: Reporter, name: str, total: float, task: TaskID | None) -> None:
        self._reporter, self._name, self._total, self._task = reporter, name, total, task
        self._done, self._started = 0.0, time.monotonic()
        self._shown, self._offset, self._begun = self._started, 0.0, False

    @property
    def seconds(self) -> float:
        """Wall time since the stage began."""
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """Tell what is being done, without progress."""
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
        if self._task is not None:
            ends = None if left is None else now + left
            self._reporter.live.update(self._task, completed=self._done, note=_plain(note), ends=ends)
            return
        if now - self._shown >= _PLAIN_INTERVAL and self._done < self._total:
            if left is None:
                left = (now - self._started) / max(self._done - self._offset, 1e-9) * (self._total - self._done)
            self._reporter.line(f"  {self._name}: {100 * self._done / self._total:.0f} %, about {duration(left)} left. {note}".rstrip())
            self._shown = now

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


class Reporter:
    """Says what a run does. `quiet` says nothing but errors; the log file hears everything.

    Args:
        log: the run folder's log file, appended to; None for no log.
    """

    def __init__(self, quiet: bool = False, log: Path | None = None, console: Console | None = None) -> None:
        self.quiet, self.console = quiet, console or Console(stderr=True, highlight=False)
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
        self._handler: logging.Handler | None = None
        if log is not None:
            self._handler = logging.FileHandler(log, encoding="utf-8")
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            _LOG.addHandler(self._handler)
            _LOG.setLevel(logging.INFO)
            _LOG.propagate = False

    def close(self) -> None:
        """Let go of the log file."""
        if self._handler is not None:
            _LOG.removeHandler(self._handler)
            self._handler.close()
            self._handler = None

    def log(self, text: str) -> None:
        """Write one line to the log alone."""
        _LOG.info(on_terminal(text))

    def line(self, text: str) -> None:
        """Print one line and log it."""
        _LOG.info(on_terminal(text.strip()))
        if not self.quiet:
            self.console.print(on_terminal(text), markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: float = 1.0) -> Iterator[Bar]:
        """A stage with a bar of `total` units of work."""
        _LOG.info("%s: begin", on_terminal(name))
        shown = self.draws_bars
        task = self.live.add_task(_plain(name), total=total, note="") if shown else None
        if shown:
            self.live.start()
        elif not self.quiet:
            self.console.print(f"{on_terminal(name)} …", markup=False)
        bar = Bar(self, name, total, task)
        try:
            yield bar
        finally:
            if task is not None:
                self.live.remove_task(task)
                self.live.stop()
        _LOG.info("%s: end", on_terminal(name))

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

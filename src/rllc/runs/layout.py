"""Where things lie in a run folder, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rllc.core.errors import RllcError
from rllc.core.files import LARGEST_SETTINGS, disk_error, open_own, open_regular, parse_toml, read_text
from rllc.records.store import Store
from rllc.runs.contents import CHECKS
from rllc.runs.contents_of_rows import ROWS
from rllc.runs.shards import Shard

SIBLINGS = "siblings"
_SHARD_LOCK = ".lock-"
MAP = "map.json"  # in the folder of a calibration: what its figure shows


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The experiment file that the run was started with."""
        return self.root / "experiment.toml"

    @property
    def corpus(self) -> Path:
        """Tokens and tokenizer; a sibling reads those of its main run."""
        return self.main.root / "corpus"

    @property
    def main(self) -> RunFolder:
        """The run that this one is a sibling of; itself otherwise."""
        return RunFolder(self.root.parent.parent) if self.root.parent.name == SIBLINGS else self

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.root / "checkpoints"

    @property
    def training(self) -> Path:
        """What the checkpoints were trained from."""
        return self.root / "checkpoints" / "training.json"

    @property
    def records(self) -> Path | str:
        """Where the records lie: in the folder, or at the URL that its experiment names as engine.records, a sibling's below it."""
        url = _records_url(self.main.experiment)
        if not url:
            return self.root / "records"
        return url if self.main is self else f"{url.rstrip('/')}/sibling-{self.root.name}"

    def store(self, *, sets_aside: bool = True) -> Store:
        """The records, whose content is asked to be what it says; `sets_aside` as `Store` has it.

        Raises RllcError where they were written by a newer version, or lie where nothing here can reach.
        """
        return Store(self.records, sets_aside=sets_aside, checks=CHECKS, rows=ROWS)

    @property
    def provenance(self) -> Path:
        """What made this run: versions, machine, seeds, digests."""
        return self.root / "provenance.json"

    @property
    def damaged(self) -> Path:
        """Where `rllc doctor --repair` puts what is damaged."""
        return self.root / "damaged"

    @property
    def findings(self) -> Path:
        """What the analysis found."""
        return self.root / "findings.json"

    @property
    def measured(self) -> Path:
        """For which settings every measurement is recorded."""
        return self.root / "measured.json"

    @property
    def table(self) -> Path:
        """The tidy table."""
        return self.root / "table.csv"

    @property
    def timings(self) -> Path:
        """Seconds of wall time by stage, summed over sessions."""
        return self.root / "timings.json"

    @property
    def figures(self) -> Path:
        """Figures as PNG, SVG and pages, with their captions."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def calibration(self) -> Path:
        """What `rllc calibrate` wrote."""
        return self.root / "calibration"

    @property
    def words(self) -> Path:
        """The page's words as Markdown."""
        return self.root / "report.md"

    @property
    def budget(self) -> Path:
        """The memory budget that was found."""
        return self.root / "budget.json"

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that a run writes right into its folder, but logs and locks."""
        of_all = (self.experiment, self.provenance, self.measured, self.timings, self.budget)
        return (*of_all, self.findings, self.table, self.report, self.words)

    @property
    def log(self) -> Path:
        """The log of all sessions but those of shards."""
        return self.root / "log.jsonl"

    def log_of(self, shard: Shard | None) -> Path:
        """The log of one shard, or of whole runs. Each has its own: a network disk may mix what two machines append to one file."""
        return self.log if shard is None else self.root / f"log-{shard.index}-of-{shard.of}.jsonl"

    @property
    def live(self) -> Path:
        """What processes at work here are doing now, a file each."""
        return self.root / "live"

    def live_of(self, shard: Shard | None) -> Path:
        """What one shard, or a whole run, is doing now."""
        return self.live / ("run.json" if shard is None else f"shard-{shard.index}-of-{shard.of}.json")

    def sibling(self, name: str) -> RunFolder:
        """The folder of a model trained beside this one."""
        return RunFolder(self.root / SIBLINGS / name)

    @contextmanager
    def locked(self, shard: Shard | None = None) -> Iterator[None]:
        """Hold the folder for one run, or beside other shards for one shard; the lock goes with the process, however it ends.

        Raises RllcError where another run, the same shard or one of another n holds it, or where the folder cannot be written or locked.
        """
        if shard is None:
            with self._held(".lock", fcntl.LOCK_EX, f"Another run is at work in {self.root}."):
                yield
            return
        with self._held(".lock", fcntl.LOCK_SH, f"A run of all shards is at work in {self.root}."), ExitStack() as stack:
            with self.turn("shards"):  # no two look for each other at once
                taken = f"The shard {shard} is at work in {self.root} already."
                stack.enter_context(self._held(f"{_SHARD_LOCK}{shard.index}-of-{shard.of}", fcntl.LOCK_EX, taken))
                self._check_division(shard)
            yield

    def busy(self) -> bool:
        """Whether a run or a shard holds the folder; nothing is written to find out.

        Each shard has a lock of its own: the folder's is asked for as shards ask for it, so that none that begins now is turned away.
        """
        return any(_is_taken(path) for path in (self.root / ".lock", *self.root.glob(f"{_SHARD_LOCK}*-of-*")))

    def _check_division(self, shard: Shard) -> None:
        """Raises RllcError where a shard of another n is at work: the same unit would be in shares of both."""
        for path in sorted(self.root.glob(f"{_SHARD_LOCK}*-of-*")):
            index, _, of = path.name.removeprefix(_SHARD_LOCK).partition("-of-")
            if of != str(shard.of):
                with self._opened(path.name) as stream:
                    if not _locked(stream, fcntl.LOCK_EX, self.root):
                        raise RllcError(
                            f"The shard {index}/{of} is at work in {self.root}, and {shard} shares the units out otherwise.",
                            f"Wait until no shard of {of} is at work, or call it i/{of}.",
                        )

    @contextmanager
    def turn(self, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """What only one shard at a time may do; others wait for their turn, and `waiting` is called where there is something to wait for."""
        with self._opened(f".lock-{name}") as stream:
            if not _locked(stream, fcntl.LOCK_EX, self.root):
                waiting()
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _held(self, name: str, kind: int, taken: str) -> Iterator[None]:
        with self._opened(name) as stream:
            if not _locked(stream, kind, self.root):
                raise RllcError(taken, "Wait for it, or choose another folder with --out.")
            yield

    def _opened(self, name: str) -> IO[str]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return os.fdopen(open_own(self.root / name), "r+")
        except OSError as error:
            raise disk_error(self.root / name, error) from error


def _locked(stream: IO[str], kind: int, root: Path) -> bool:
    """Whether the lock could be had at once. Raises RllcError where the file system has none."""
    try:
        fcntl.flock(stream, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RllcError(
            f"The file system of {root} cannot lock files: {error.strerror or error}.", "Choose a folder on another one (Lustre wants -o flock)."
        ) from error
    return True


def _is_taken(path: Path) -> bool:
    """Whether somebody holds a lock for himself alone."""
    try:
        with open_regular(path) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _records_url(experiment: Path) -> str:
    """What an experiment file names as engine.records; reading it as an experiment tells of what is wrong with it."""
    try:
        engine = parse_toml(read_text(experiment, LARGEST_SETTINGS)).get("engine", {})
    except (OSError, ValueError):
        return ""
    url = engine.get("records", "") if isinstance(engine, dict) else ""
    return url if isinstance(url, str) else ""


def existing(root: Path) -> RunFolder:
    """The folder of a run that has been started. Raises RllcError where there is none."""
    folder = RunFolder(root)
    if not folder.experiment.exists():
        raise RllcError(f"{root} holds no run.", "Give the folder that `rllc run` was given with --out.")
    return folder

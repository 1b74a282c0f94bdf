"""Where things lie in a run folder, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rllc.core.errors import RllcError
from rllc.core.files import disk_error
from rllc.records.store import Store

SIBLINGS = "siblings"
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

    def store(self) -> Store:
        """The records. Raises RllcError where they were written by a newer version, or lie where nothing here can reach."""
        return Store(self.records)

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
    def log(self) -> Path:
        """The log of all sessions."""
        return self.root / "log.txt"

    def sibling(self, name: str) -> RunFolder:
        """The folder of a model trained beside this one."""
        return RunFolder(self.root / SIBLINGS / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run; the lock goes with the process, however it ends.

        Raises RllcError where another run holds it, or where the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            stream = (self.root / ".lock").open("a")
        except OSError as error:
            raise disk_error(self.root, error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RllcError(f"Another run is at work in {self.root}.", "Wait for it, or choose another folder with --out.") from error
            yield


def _records_url(experiment: Path) -> str:
    """What an experiment file names as engine.records; reading it as an experiment tells of what is wrong with it."""
    try:
        engine = tomllib.loads(experiment.read_text(encoding="utf-8")).get("engine", {})
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

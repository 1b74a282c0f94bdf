"""Where things lie in a run folder, and the lock that keeps two runs apart."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rllc.core.errors import RllcError
from rllc.core.files import disk_error

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
        main = self.root.parent.parent if self.root.parent.name == SIBLINGS else self.root
        return main / "corpus"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.root / "checkpoints"

    @property
    def training(self) -> Path:
        """What the checkpoints were trained from."""
        return self.root / "checkpoints" / "training.json"

    @property
    def records(self) -> Path:
        """The store."""
        return self.root / "records"

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


def existing(root: Path) -> RunFolder:
    """The folder of a run that has been started. Raises RllcError where there is none."""
    folder = RunFolder(root)
    if not folder.experiment.exists():
        raise RllcError(f"{root} holds no run.", "Give the folder that `rllc run` was given with --out.")
    return folder

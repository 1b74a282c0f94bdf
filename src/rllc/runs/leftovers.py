"""What interrupted writes left behind in a run folder: found, and taken away when a run begins. Torch-free.

A name alone makes nothing a leftover: it is looked for only where a run itself writes, so that what others write aside stays theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rllc.core.files import RESUMED, disk_error, is_leftover, remove
from rllc.records.store import COMPACTED, DAMAGED, MARKER
from rllc.runs.layout import SIBLINGS, RunFolder
from rllc.runs.ownership import entries

_ANY = re.compile(r".+")
_RECORD = re.compile(r"[0-9a-f]{64}-[0-9]+\.npz")
_STEP = re.compile(r"step-[0-9]+")


def leftovers_of(folder: RunFolder) -> list[Path]:
    """Files and folders that are nobody's work, in the places of a folder that its run writes to; none where no experiment was begun.

    What lies behind a link, in a run of its own or among the siblings is not looked at.
    """
    if not folder.main.experiment.is_file():
        return []
    return [path for place, targets, folders in _places(folder) for path in _left(place, targets, folders)] + _states(folder.checkpoints)


def sweep(folder: RunFolder, siblings: Iterable[str] = ()) -> int:
    """Take away what killed runs left in a folder, which must be held, and in those of its `siblings`; how many.

    Whoever reads beside a run writes nothing but copies of records, and does without where one is taken away half-written.

    Raises RllcError where the disk refuses.
    """
    beside = [folder.sibling(name) for name in siblings if _enters(folder.root / SIBLINGS) and _enters(folder.sibling(name).root)]
    found = [path for place in (folder, *beside) for path in leftovers_of(place)]
    for path in found:
        try:
            remove(path)
        except OSError as error:
            raise disk_error(path, error) from error
    return len(found)


def _places(folder: RunFolder) -> Iterator[tuple[Path, re.Pattern[str], bool]]:
    """Where a run writes: the folder, what the things that it writes there are called, and whether some of them are folders."""
    yield folder.root, re.compile("|".join(re.escape(path.name) for path in folder.written)), False
    for place in (folder.figures, folder.calibration, folder.live, *([folder.corpus] if folder.main is folder else [])):
        if _enters(place):
            yield place, _ANY, False
    if _enters(folder.checkpoints):
        yield folder.checkpoints, _ANY, True
        for path in entries(folder.checkpoints):
            if _STEP.fullmatch(path.name) and _enters(path):
                yield path, _ANY, False
    if isinstance(folder.records, Path) and _enters(folder.records):
        yield folder.records, re.compile(re.escape(MARKER)), False
        for path in entries(folder.records):
            if path.name != DAMAGED and _enters(path):
                copies = path.name == COMPACTED
                yield path, _ANY if copies else _RECORD, copies


def _left(place: Path, targets: re.Pattern[str], folders: bool) -> list[Path]:
    found = [path for path in entries(place) if is_leftover(path.name) and targets.fullmatch(path.name[1:].rsplit(".", 2)[0])]
    return [path for path in found if folders or path.is_symlink() or not path.is_dir()]


def _states(checkpoints: Path) -> list[Path]:
    """Resume states that no `resume.json` names."""
    return sorted(checkpoints.glob(RESUMED)) if _enters(checkpoints) and not os.path.lexists(checkpoints / "resume.json") else []


def _enters(path: Path) -> bool:
    """Whether it is a folder that belongs to the run: no link, and no run of its own."""
    return path.is_dir() and not path.is_symlink() and not os.path.lexists(path / "experiment.toml")

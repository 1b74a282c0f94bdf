"""What interrupted writes left behind in a run folder: found, and taken away when a run begins. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rllc.core.files import disk_error, is_leftover, remove
from rllc.runs.layout import SIBLINGS, RunFolder


def leftovers_of(folder: RunFolder) -> list[Path]:
    """Files and folders that are nobody's work, anywhere in a run's folder but among its siblings and in `damaged`."""
    found = list(_leftovers(folder.root)) if folder.root.is_dir() else []
    there = folder.checkpoints
    if there.is_dir() and not (there / "resume.json").exists():
        found += sorted(there.glob("resume-*.safetensors"))
    return found


def sweep(folder: RunFolder) -> int:
    """Take away what killed runs left in a folder, which must be held, and in its siblings'; how many.

    Whoever reads beside a run writes nothing but copies of records, and does without where one is taken away half-written.

    Raises RllcError where the disk refuses.
    """
    siblings = folder.root / SIBLINGS
    names = sorted(path.name for path in siblings.iterdir() if path.is_dir()) if siblings.is_dir() else []
    found = [path for place in (folder, *map(folder.sibling, names)) for path in leftovers_of(place)]
    for path in found:
        try:
            remove(path)
        except OSError as error:
            raise disk_error(path, error) from error
    return len(found)


def _leftovers(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if is_leftover(path.name):
            yield path
        elif path.is_dir() and not path.is_symlink() and path.name not in (SIBLINGS, "damaged"):
            yield from _leftovers(path)

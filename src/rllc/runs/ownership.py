"""Whose a folder is, asked before a run writes anything into it. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rllc.core.errors import RllcError
from rllc.runs.layout import SIBLINGS, RunFolder

_KIND = re.compile(r"[a-z][a-z0-9_]*")
MAY_LINK = "Only the run folder itself, and corpus, checkpoints and records in it, may lie behind a link."


def check_folder(folder: RunFolder, siblings: Iterable[str] = ()) -> None:
    """Let a run begin in a folder that is new, or a run's, or holds nothing that it would write over.

    Args:
        siblings: those that it would write to.

    Raises RllcError where other things have the names of what a run writes, or a folder that a run makes itself is a link.
    """
    check_owner(folder)
    found, beside = linked(folder), folder.root / SIBLINGS
    for name in siblings:
        found += [beside] if beside.is_symlink() else linked(folder.sibling(name))
    if found:
        raise link_error(found[0])


def check_owner(folder: RunFolder) -> None:
    """Raises RllcError where nothing tells of a run, and other things have the names of what one writes."""
    taken = [] if _of_a_run(folder) else sorted(path.name for path in _ours(folder) if _filled(path))
    if taken:
        what = ", ".join(taken[:3]) + (f" and {len(taken) - 3} more" if len(taken) > 3 else "")
        raise RllcError(
            f"{folder.root} is no run's folder, and what it holds would be written over: {what}.",
            "Choose another folder with --out; of a run that was copied without its experiment.toml, copy that too.",
        )


def linked(folder: RunFolder) -> list[Path]:
    """The folders that a run or a sibling makes itself, and that are links here; `live` is not among them, which a run does without."""
    paths = [folder.damaged, folder.figures, folder.calibration] if folder.main is folder else [folder.root, folder.damaged]
    if isinstance(folder.records, Path):
        paths += [path for path in entries(folder.records) if _KIND.fullmatch(path.name)]
    return [path for path in paths if path.is_symlink()]


def link_error(path: Path) -> RllcError:
    """The sentence for a folder that is a link and must be none."""
    return RllcError(f"{path} is a link, and a run writes nothing where it leads.", f"Remove the link. {MAY_LINK}")


def _of_a_run(folder: RunFolder) -> bool:
    """Whether anything tells that a run was here: its experiment, its lock, or what one of its stages wrote of itself."""
    told = (folder.experiment, folder.root / ".lock", folder.corpus / "corpus.json", folder.training, folder.root / "records" / "store.json")
    return any(map(os.path.lexists, told))


def _ours(folder: RunFolder) -> list[Path]:
    """Everything in a folder that has the name of what a run writes."""
    made = (folder.corpus, folder.checkpoints, folder.root / "records", folder.figures, folder.calibration, folder.damaged, folder.live)
    return [*folder.written, folder.log, *made, folder.root / SIBLINGS]


def _filled(path: Path) -> bool:
    """Whether something is there, an empty folder aside."""
    return os.path.lexists(path) and (not path.is_dir() or bool(entries(path)))


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where it cannot be looked into, of which whoever needs it tells."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []

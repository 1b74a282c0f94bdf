"""What `rllc doctor` looks at: one function a kind of thing in a run folder, each telling what is wrong in sentences, and mending it where asked.

Mending moves a damaged thing into `damaged/` of the run folder, so that the next run makes it anew, and takes away what an interrupted write left
behind. Nothing else is ever removed, and nothing that a user made is moved.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rllc.analysis.stored import LARGEST, from_json
from rllc.checkpoints.resume import load_resume
from rllc.checkpoints.store import FORMAT as CHECKPOINT_FORMAT
from rllc.checkpoints.store import checkpoint_name, load, read_info
from rllc.core.errors import RllcError
from rllc.core.files import LARGEST as SMALL
from rllc.core.files import RESUMED, disk_error, make_folder, open_regular, parse_json, read_regular, read_text, remove, write_atomic
from rllc.corpus.tokens import DamagedCorpusError, open_corpus
from rllc.runs.experiment import Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.leftovers import leftovers_of
from rllc.runs.ownership import link_error, linked
from rllc.runs.provenance import known_weights, read_provenance


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        what: what is there, as a sentence.
        remedy: what to do about it, as a sentence.
        mended: what was done about it, as a sentence; empty where nothing was.
        wrong: False for a remark, which needs nothing done.
    """

    what: str
    remedy: str = ""
    mended: str = ""
    wrong: bool = True

    @property
    def open(self) -> bool:
        """Whether something is still wrong."""
        return self.wrong and not self.mended


@dataclass
class Chart:
    """The findings on one run folder, and how things in it are mended.

    Args:
        folder: of the run, or of a sibling.
        repair: mend what can be mended; otherwise only tell.
    """

    folder: RunFolder
    repair: bool
    findings: list[Finding] = field(default_factory=list)

    def remark(self, what: str) -> None:
        """Tell of something that is not wrong."""
        self.findings.append(Finding(what, wrong=False))

    def wrong(self, what: str, remedy: str, mend: Callable[[], str] | None = None) -> None:
        """Tell of something that is wrong, and mend it where that is asked for and `mend`, which says what it did, can."""
        finding = Finding(what, remedy)
        if mend is not None and not self.repair:
            finding = replace(finding, remedy=f"{remedy} `rllc doctor --repair` does so." if remedy else "`rllc doctor --repair` mends it.")
        elif mend is not None:
            try:
                finding = replace(finding, mended=mend())
            except OSError as error:
                finding = replace(finding, remedy=f"It could not be mended: {disk_error(self.folder.root, error)}")
            except RllcError as error:
                finding = replace(finding, remedy=f"It could not be mended: {error}")
        self.findings.append(finding)

    def aside(self, *paths: Path) -> str:
        """Move files or folders to `damaged/`; what lies there already stays."""
        if self.folder.damaged.is_symlink():
            raise link_error(self.folder.damaged)
        make_folder(self.folder.damaged)
        moved: list[str] = []
        for path in paths:
            name = str(path.relative_to(self.folder.root)).replace(os.sep, "-")
            target = next(t for n in range(10**6) if not os.path.lexists(t := self.folder.damaged / (f"{name}.{n}" if n else name)))
            path.replace(target)
            moved.append(f"damaged/{target.name}")
        return f"It was moved to {' and '.join(moved)}."


def links(chart: Chart) -> None:
    """Folders that a run makes itself and that are links: a run would write where they lead."""
    for path in linked(chart.folder):
        error = link_error(path)
        chart.wrong(error.problem, error.remedy)


def leftovers(chart: Chart) -> None:
    """What interrupted writes left behind where a run writes; siblings are looked at by themselves."""
    found = leftovers_of(chart.folder)
    if not found:
        return

    def mend() -> str:
        for path in found:
            remove(path)
        return "They were removed."

    parts = (part for path in found for part in (path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]))
    size = sum(part.lstat().st_size for part in parts if part.is_file())
    places = ", ".join(sorted({str(path.parent.relative_to(chart.folder.root)) for path in found}))
    chart.wrong(f"{len(found)} leftovers of interrupted writes take {size / 1e6:.1f} MB, in {places}.", "They are nobody's work.", mend)


def corpus(chart: Chart) -> None:
    """Tokens and tokenizer, by their digests."""
    folder = chart.folder.corpus
    if not folder.is_dir() or not any(folder.iterdir()):
        chart.remark("There is no corpus yet.")
        return
    if not (folder / "corpus.json").exists():
        chart.remark("The corpus was not finished; the next run builds it.")
        return
    try:
        open_corpus(folder)
    except DamagedCorpusError as error:
        remedy = "The next run builds it from its text; where that has changed, the checkpoints are another corpus's, and the run says so."
        chart.wrong(error.problem, remedy, lambda: chart.aside(folder))
    except RllcError as error:
        chart.wrong(error.problem, error.remedy)


def checkpoints(chart: Chart, experiment: Experiment | None) -> None:
    """Weights, by their digests; what they were trained from; the state that training goes on from."""
    folder = chart.folder.checkpoints
    known, told = read_provenance(chart.folder) or {}, known_weights(chart.folder)
    there = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for path in there:
        try:
            info = read_info(path) if read_info(path).released else load(path)[2]
        except RllcError as error:
            if isinstance(error.__cause__, PermissionError) or _newer(path / "checkpoint.json"):
                chart.wrong(error.problem, error.remedy)
            else:
                chart.wrong(error.problem, "Set aside, it is trained or imported again by the next run.", lambda path=path: chart.aside(path))
            continue
        if told.get(info.step, info.digest) != info.digest:
            chart.wrong(
                f"The weights of step {info.step} are not those that provenance.json names.",
                "Put them back from a copy, or delete the folder of that step: the next run makes it again.",
            )
    if experiment is not None and (missing := [s for s in experiment.checkpoints() if folder / checkpoint_name(s) not in there]):
        chart.remark(f"{len(missing)} of {len(experiment.checkpoints())} checkpoints are not there yet.")
    _origin(chart, known, bool(there))
    _resume(chart)


def _origin(chart: Chart, known: dict[str, Any], needed: bool) -> None:
    path = chart.folder.training
    try:
        if isinstance(parse_json(read_text(path)), dict):
            return
    except FileNotFoundError:
        if not needed:
            return
    except (OSError, ValueError):
        pass
    what = f"{path} does not tell what the checkpoints were trained from."
    facts = {name: known[name] for name in ("training", "corpus") if name in known}
    if chart.folder.main is not chart.folder or "training" not in facts or not needed:
        chart.wrong(what, "Restore it from a copy, or move the folder `checkpoints` away: the next run then trains again.")
        return

    def restore() -> str:
        write_atomic(path, json.dumps(facts, indent=1) + "\n")
        return "It was written again from provenance.json."

    chart.wrong(what, "provenance.json tells it too.", restore)


def _resume(chart: Chart) -> None:
    folder = chart.folder.checkpoints
    try:
        load_resume(folder)
    except RllcError as error:
        if isinstance(error.__cause__, PermissionError) or _newer(folder / "resume.json"):
            chart.wrong(error.problem, error.remedy)
            return
        paths = [folder / "resume.json", *folder.glob(RESUMED)]
        remedy = "Set aside, training starts from the beginning, and the checkpoints are kept."
        chart.wrong(error.problem, remedy, lambda: chart.aside(*(path for path in paths if path.exists())))


def _newer(path: Path) -> bool:
    """Whether a checkpoint's description is of a newer version, and so no damage."""
    try:
        return parse_json(read_text(path))["format"] > CHECKPOINT_FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def products(chart: Chart) -> None:
    """What the analysis and the report wrote, and the small files beside them."""
    folder = chart.folder
    if folder.findings.exists():
        try:
            from_json(_content(folder.findings, LARGEST).decode("utf-8", errors="replace"))
        except RllcError as error:
            newer = "newer version" in error.problem
            mend = None if newer else lambda: chart.aside(folder.findings)
            chart.wrong(f"{folder.findings}: {error.problem}", error.remedy if newer else "Set aside, it is made anew by `rllc analyse`.", mend)
    for path, made_by in ((folder.measured, "measure"), (folder.timings, "run")):
        if path.exists() and not _is_table(path):
            chart.wrong(f"{path} is damaged.", f"Set aside, it is begun anew by `rllc {made_by}`.", lambda path=path: chart.aside(path))
    if folder.provenance.exists() and read_provenance(folder) is None:
        remedy = "Set aside, it is begun anew by the next run, which cannot know what earlier sessions ran on."
        chart.wrong(f"{folder.provenance} is damaged.", remedy, lambda: chart.aside(folder.provenance))
    if folder.budget.exists() and not _is_table(folder.budget):
        _mend_budget(chart)
    if folder.report.exists() and not _content(folder.report).rstrip().endswith(b"</html>"):
        chart.wrong(f"{folder.report} is not whole.", "Set aside, it is made anew by `rllc report`.", lambda: chart.aside(folder.report))
    if folder.table.exists() and not _begins(folder.table, b"run,step,part,"):
        chart.wrong(f"{folder.table} is not whole.", "Set aside, it is made anew by `rllc analyse`.", lambda: chart.aside(folder.table))


def _mend_budget(chart: Chart) -> None:
    folder = chart.folder
    memory = (read_provenance(folder) or {}).get("engine", {}).get("memory", 0)

    def mend() -> str:
        done = chart.aside(folder.budget)
        if not memory:
            return f"{done} The budget is found anew: cells still to come may differ in their last bits from a run that was left alone."
        write_atomic(folder.budget, json.dumps({"memory": memory}) + "\n")
        return f"{done} The budget was written again from provenance.json."

    chart.wrong(f"{folder.budget} is damaged.", "It holds the memory budget, by which chunks are chosen.", mend)


def _content(path: Path, most: int = SMALL) -> bytes:
    """The content of a file; nothing of what cannot be read, or is larger than any such file."""
    try:
        return read_regular(path, most)
    except OSError:
        return b""


def _begins(path: Path, start: bytes) -> bool:
    try:
        with open_regular(path) as stream:
            return stream.read(len(start)) == start
    except OSError:
        return False


def _is_table(path: Path) -> bool:
    try:
        return isinstance(parse_json(read_text(path)), dict)
    except (OSError, ValueError):
        return False

"""A run folder looked over from end to end: what is wrong in it, in sentences, and what of that was mended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rllc.core.errors import RllcError
from rllc.core.files import unreadable
from rllc.runs import examining
from rllc.runs.examining import Chart, Finding
from rllc.runs.examining_records import records
from rllc.runs.experiment import Experiment, load
from rllc.runs.grid import keyed_units
from rllc.runs.keys import KIND
from rllc.runs.layout import SIBLINGS, RunFolder
from rllc.runs.ownership import check_owner


@dataclass(frozen=True)
class Examination:
    """The findings, by the name of the folder that they are of: "" for the run itself, else a sibling."""

    root: Path
    repair: bool
    findings: tuple[tuple[str, Finding], ...]

    @property
    def sound(self) -> bool:
        """Nothing is wrong any more."""
        return not any(finding.open for _, finding in self.findings)


def examine(root: Path, repair: bool = False) -> Examination:
    """Look at everything in a run folder and its siblings: experiment, corpus, checkpoints, records and their copies, findings, leftovers.

    Siblings that the experiment does not name are looked at and left alone; what is wrong in them is a remark.

    Args:
        root: folder of the run.
        repair: set damaged things aside, so that the next run makes them anew, and remove what interrupted writes left behind.

    Raises RllcError where the folder holds no run, or where another run is at work in a folder that is to be repaired.
    """
    folder = RunFolder(root)
    if not root.is_dir() or not any(path.exists() for path in (folder.experiment, folder.corpus, folder.checkpoints, root / "records")):
        raise RllcError(f"{root} holds no run.", "Give the folder that `rllc run` was given with --out.")
    found: list[tuple[str, Finding]] = []
    with ExitStack() as stack:
        if repair:
            check_owner(folder)
            stack.enter_context(folder.locked())
        busy = not repair and folder.busy()
        chart = Chart(folder, repair)
        if busy:
            chart.remark("A run is at work here: what it is writing now was not judged.")
        experiment = _experiment(chart)
        _look(examining.corpus, chart)
        found += [("", finding) for finding in (*chart.findings, *_one(Chart(folder, repair), experiment, busy))]
        for name in sorted(path.name for path in (root / SIBLINGS).glob("*") if path.is_dir()):
            found += [(name, finding) for finding in _sibling(folder, name, experiment, repair, busy)]
    return Examination(root, repair, tuple(found))


def _sibling(folder: RunFolder, name: str, experiment: Experiment | None, repair: bool, busy: bool) -> list[Finding]:
    """A sibling; nothing is mended in one that the experiment does not name, nor where a link leads to it."""
    place = folder.sibling(name)
    if experiment is None or name in experiment.siblings:
        ours = experiment is not None and not place.root.is_symlink() and not place.root.parent.is_symlink()
        return _one(Chart(place, repair and ours), experiment.sibling(name) if experiment is not None else None, busy)
    chart = Chart(place, repair=False)
    chart.remark("The experiment names no such sibling; what lies here is left alone.")
    return [Finding(finding.what, wrong=False) for finding in _one(chart, None, busy)]


def _one(chart: Chart, experiment: Experiment | None, busy: bool) -> list[Finding]:
    """What a run and a sibling have in common."""
    examining.links(chart)
    if not busy:
        _look(examining.leftovers, chart)
    _look(examining.checkpoints, chart, experiment)
    _look(records, chart)
    _look(examining.products, chart)
    if experiment is not None:
        _look(_progress, chart, experiment)
    return chart.findings


def _look(look: Callable[..., None], chart: Chart, *rest: Experiment | None) -> None:
    """Look at one kind of thing. What may not be read is told, and all else is looked at all the same."""
    try:
        look(chart, *rest)
    except OSError as error:
        told = unreadable(error.filename or chart.folder.root, error)
        chart.wrong(told.problem, told.remedy)
    except RllcError as error:
        chart.wrong(error.problem, error.remedy)


def _experiment(chart: Chart) -> Experiment | None:
    path = chart.folder.experiment
    if not path.exists():
        chart.wrong(f"{path} is missing.", "Run `rllc run EXPERIMENT --out` on the folder with the file that it was started with.")
        return None
    try:
        return load(path)
    except RllcError as error:
        chart.wrong(f"{path} cannot be used. {error.problem}", f"{error.remedy} `rllc run EXPERIMENT --out` on the folder writes it anew.")
        return None


def _progress(chart: Chart, experiment: Experiment) -> None:
    """How many planned cells are not recorded: no fault, but what the next run has to do."""
    try:
        store = chart.folder.store()
        keys = [key for _, keys in keyed_units(experiment, chart.folder) for key in keys]
        missing = sum(not store.has(KIND, key) for key in keys)
    except RllcError:
        return  # a missing corpus or checkpoint was told of
    if missing:
        chart.remark(f"{missing} of {len(keys)} planned cells are not recorded; the next run computes them.")


def describe(found: Examination) -> str:
    """The findings in sentences, what is wrong first, and a last line that sums them up."""
    lines: list[str] = []
    for name, finding in sorted(found.findings, key=lambda item: not item[1].wrong):
        what = f"{name}: {finding.what}" if name else finding.what
        if not finding.wrong:
            lines.append(f"  note    {what}")
        else:
            lines.append(f"  {'mended' if finding.mended else 'WRONG '}  {what}")
            lines.append(f"          {finding.mended or finding.remedy}")
    wrong, mended = (sum(test(f) for _, f in found.findings) for test in (lambda f: f.open, lambda f: bool(f.mended)))
    if not wrong and not mended:
        last = f"Nothing is wrong in {found.root}."
    elif not wrong:
        last = f"All that was wrong in {found.root} is mended ({mended}). Run the experiment again: it makes what was set aside anew."
    else:
        last = f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong in {found.root}" + (f", and {mended} mended." if mended else ".")
    return "\n".join([*lines, last]) + "\n"

"""How far a run is, what is at work on it, what failed and why, and what it takes on the disk: one table of plain values, for eyes and programs.

`docs/howto/watch.md` documents its keys, which stay.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rllc.core.files import parse_json, read_text
from rllc.core.outcome import Outcome
from rllc.records.index import opened
from rllc.records.store import COMPACTED, DAMAGED, Store
from rllc.runs.cells_recorded import planned_checkpoints, planned_records
from rllc.runs.experiment import Experiment, load
from rllc.runs.keys import KIND, SHARES, STATE
from rllc.runs.layout import SIBLINGS, RunFolder, existing
from rllc.runs.live import Pulse, Seen, seen
from rllc.runs.log import read_log
from rllc.runs.measures.cost import one_checkpoint, plan_measuring
from rllc.runs.measures.steps import asked_digest, planned_steps
from rllc.runs.pipeline import read_timings
from rllc.runs.plan import GUESSED_RATE, make_plan
from rllc.runs.selecting import data_name, said

FORMAT = 1
# What lies where in a run folder, for the disk it takes; records by their kind, and all else is "other".
_PLACES = {
    **dict.fromkeys(("checkpoints",), "checkpoints"),
    **dict.fromkeys(("corpus",), "corpus"),
    **dict.fromkeys(("figures", "report.html", "report.md", "table.csv", "findings.json"), "report"),
    **dict.fromkeys(("calibration",), "calibration"),
    **dict.fromkeys(("damaged",), "damaged"),
}
_RECORDS = {KIND: "samples", STATE: "samples", SHARES: "samples", "calibration": "calibration", COMPACTED: "copies", DAMAGED: "damaged"}
DISK: tuple[str, ...] = ("checkpoints", "corpus", "samples", "measurements", "copies", "calibration", "report", "logs", "damaged", "other")


def status_of(root: Path) -> dict[str, Any]:
    """Everything that `rllc status` tells. Raises RllcError where the folder holds no run."""
    folder = existing(root)
    experiment = load(folder.experiment)
    store, live = folder.store(), seen(folder.live)
    index = opened(store, KIND)
    records, cells = said(index), len(make_plan(experiment).cells)
    asked = planned_records(experiment, folder)
    ours = [record for digest, record in zip(index.newest()[0], records, strict=True) if digest in asked]
    seconds = read_timings(folder)
    stages: dict[str, dict[str, Any]] = {
        "corpus": {"done": (folder.corpus / "corpus.json").exists()},
        "train": _training(experiment, folder),
        "sample": {
            "done": len(ours) >= cells,
            "recorded": len(ours),
            "planned": cells,
            "other_settings": len(records) - len(ours),
            "outcomes": dict(sorted(Counter(str(record["outcome"]) for record in ours).items())),
        },
        "measure": _measuring(experiment, folder, store),
        "analyse": {"done": folder.findings.exists()},
        "report": {"done": folder.report.exists()},
    }
    return {
        "format": FORMAT,
        "title": experiment.title,
        "folder": str(root),
        "running": [one.as_dict() for one in live],
        "stages": {name: stage | {"seconds": seconds.get(name)} for name, stage in stages.items()},
        "siblings": {name: _sibling(experiment.sibling(name), folder.sibling(name)) for name in experiment.siblings},
        "refused": _refused(ours),
        "damaged": [str(problem) for problem in index.problems],
        "sessions": [_session(path, live) for path in _logs(folder)],
        "disk": disk_use(folder, [folder.sibling(name) for name in experiment.siblings]),
        "page": str(folder.report) if folder.report.exists() else None,
    }


def running_of(root: Path) -> list[dict[str, Any]]:
    """What of the status changes by the second: who is at work. Raises RllcError where the folder holds no run."""
    return [one.as_dict() for one in seen(existing(root).live)]


def _training(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    there, planned = len(planned_checkpoints(experiment, folder)), len(experiment.checkpoints())
    return {"done": there >= planned, "checkpoints": there, "planned": planned}


def _sibling(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    recorded = planned_records(experiment, folder).keys() & set(opened(folder.store(), KIND).newest()[0])
    return {"train": _training(experiment, folder), "sample": {"recorded": len(recorded), "planned": len(make_plan(experiment).cells)}}


def _measuring(experiment: Experiment, folder: RunFolder, store: Store) -> dict[str, Any]:
    """Whether every measurement is done; else at how many checkpoints those are that are not, and how long the rest may take."""
    behind, left, guessed = dict[str, list[int]](), 0.0, list[str]()
    planned = plan_measuring(experiment)
    for name in planned.steps:
        steps, found = planned_steps(experiment, folder, name), {record["step"]: record for record in said(opened(store, name))}
        if number := len(set(steps) - set(found)):
            behind[name] = [len(steps) - number, len(steps)]
            taken = [record["seconds"] for record in found.values() if record.get("seconds") is not None]
            each = median(taken) if taken else one_checkpoint(experiment, name) / GUESSED_RATE
            left += number * each / planned.workers
            guessed += [] if taken else [name]
    as_asked = _noted(folder) == asked_digest(experiment)
    return {"done": not behind and as_asked, "behind": behind, "seconds_left": left if behind else None, "guessed": guessed, "as_asked": as_asked}


def _noted(folder: RunFolder) -> str:
    """The settings for which all is measured."""
    try:
        return str(parse_json(read_text(folder.measured))["asked"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _refused(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells without a number, those together whose reasons differ in numbers alone, the most frequent first."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if Outcome(record["outcome"]).refused:
            cell = {"step": record["step"], "data": data_name(record), "part": record["part"], "reason": record["reason"]}
            kind = re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?|\b(inf|nan)\b", "#", str(record["reason"]))
            groups.setdefault((str(record["outcome"]), kind), []).append(cell)
    found = [{"outcome": outcome, "reason": cells[0]["reason"], "count": len(cells), "cells": cells} for (outcome, _), cells in groups.items()]
    return sorted(found, key=lambda group: -group["count"])


def _logs(folder: RunFolder) -> list[Path]:
    return sorted(folder.root.glob("log*.jsonl"))


def _session(path: Path, live: Sequence[Seen]) -> dict[str, Any]:
    """The last session that a log tells of: what it was, how it ended, what went wrong on the way."""
    events = read_log(path)
    begins = [n for n, event in enumerate(events) if event["event"] == "run_begun"]
    events = events[begins[-1] :] if begins else events
    begun = events[0] if begins else {}
    ended = next((event for event in reversed(events) if event["event"] == "run_ended"), None)
    pulse = next((one.pulse for one in live if one.content.get("log") == path.name and one.content.get("pid") == begun.get("pid")), None)
    state = ended.get("outcome", "") if ended else str(pulse or Pulse.KILLED)
    retried = Counter(str(event.get("why", "")) for event in events if event["event"] == "unit_retried")
    warned = [
        event for event in events if event["event"] in ("warning", "python_warning", "live_not_written", "memory_short", "unit_halved", "unit_failed")
    ]
    return {
        "log": path.name,
        "command": begun.get("command"),
        "begun": begun.get("time"),
        "ended": ended["time"] if ended else None,
        "outcome": state,
        "exit_code": ended.get("exit_code") if ended else None,
        "reason": ended.get("reason") if ended else None,
        "retried": [{"reason": why, "count": count} for why, count in retried.most_common()],
        "warnings": [str(event.get("text", "")) for event in warned][-20:],
    }


def disk_use(folder: RunFolder, siblings: Sequence[RunFolder] = ()) -> dict[str, int]:
    """Bytes of the run folder by what they are, those of its siblings with them; of records elsewhere what their listing says."""
    bytes_of: dict[str, int] = dict.fromkeys(DISK, 0)
    for path, size in _files(folder.root, ()):
        place = path[2:] if path[0] == SIBLINGS and len(path) > 2 else path
        bytes_of[_sort(place)] += size
    for one in (folder, *siblings):
        if not isinstance(one.records, Path):
            store = one.store()
            for kind in store.kinds():
                bytes_of[_RECORDS.get(kind, "measurements")] += sum(size for size, _ in store.listing(kind).values())
    return {"total": sum(bytes_of.values())} | bytes_of


def _sort(path: tuple[str, ...]) -> str:
    if path[0] == "records":
        return _RECORDS.get(path[1], "measurements") if len(path) > 2 else "other"
    if path[0].startswith("log"):
        return "logs"
    return _PLACES.get(path[0], "other")


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every file below a folder by the names on its way, with its size; what goes away meanwhile is passed over."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        names = (*above, entry.name)
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), names)
            else:
                yield names, entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue

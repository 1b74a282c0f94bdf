"""What made a run: versions, machine, seeds and digests, in one `provenance.json` beside it, and nothing that tells whose machine it was."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text, write_atomic
from rllc.corpus.tokens import HEADER, read_header
from rllc.runs.experiment import Experiment
from rllc.runs.keys import ESTIMATOR
from rllc.runs.layout import RunFolder

FORMAT = 1
_PACKAGES = ("rllc", "torch", "numpy", "scipy", "tokenizers", "safetensors", "scikit-learn", "arviz-stats", "pandas", "xarray", "zarr", "fsspec")
_OPTIONAL = ("transformers", "datasets", "huggingface-hub")
_PACKAGE = Path(__file__).resolve().parent.parent


def note_provenance(experiment: Experiment, folder: RunFolder, stage: str) -> None:
    """Write down what a stage of the run was made with. Of several sessions each environment is kept once, with when it was first and last at work.

    A damaged file is replaced: what it told is lost, and the run is not. Raises RllcError where the disk refuses.
    """
    known = read_provenance(folder) or {}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    here = environment()
    sessions = [session for session in known.get("environments", []) if isinstance(session, dict)]
    session = next((one for one in sessions if {name: one.get(name) for name in here} == here), None)
    if session is None:
        session = here | {"first": now, "stages": []}
        sessions.append(session)
    session["last"] = now
    session["stages"] = [*session["stages"], stage] if stage not in session["stages"] else session["stages"]
    found = facts(experiment, folder)
    if stage == "corpus":  # what lies there was not looked at yet
        found |= {name: known[name] for name in ("checkpoints", "siblings") if name in known}
    content = {"format": FORMAT, **found, "environments": sessions}
    write_atomic(folder.provenance, json.dumps({**content, "digest": digest.of_json(content)}, indent=1) + "\n")


def read_provenance(folder: RunFolder) -> dict[str, Any] | None:
    """What was written down; None where there is nothing, or it is not what was written."""
    try:
        content = parse_json(read_text(folder.provenance))
        known = content.pop("digest") == digest.of_json(content) and content["format"] <= FORMAT
        return content if known and _shaped(content) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _shaped(content: dict[str, Any]) -> bool:
    """Whether what others read in it is of the shape in which it is written: a right digest does not say by whom."""
    tables = [content.get(name, {}) for name in ("engine", "siblings")]
    tables += tables[-1].values() if isinstance(tables[-1], dict) else ()
    weights = [table.get("checkpoints", {}) for table in (content, *tables) if isinstance(table, dict)]
    stages = [one["stages"] for one in content.get("environments", []) if isinstance(one, dict)]
    return (
        all(isinstance(table, dict) for table in (*tables, *weights))
        and all(step.isdecimal() and len(step) < 20 and isinstance(name, str) for table in weights for step, name in table.items())
        and all(isinstance(one, list) for one in stages)
        and type(content.get("engine", {}).get("memory", 0)) is int
    )


def known_weights(folder: RunFolder) -> dict[int, str]:
    """The digests of the checkpoints of a run, or of a sibling, by step as they were written down; none where that is damaged or missing."""
    known = read_provenance(folder.main) or {}
    if folder.main is not folder:
        known = known.get("siblings", {}).get(folder.root.name, {})
    return {int(step): digest for step, digest in known.get("checkpoints", {}).items()}


def facts(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    """What decides the numbers of a run: seeds, digests and how they are computed. What is not there yet is left out."""
    settings = experiment.as_dict()
    engine = settings.pop("engine")
    found: dict[str, Any] = {
        "experiment": digest.of_json(settings),  # how it is computed apart
        "estimator": ESTIMATOR,
        "seeds": _seeds(experiment),
        "engine": {name: engine[name] for name in ("threads", "training_threads", "device", "dtype", "products", "chunk", "memory")},
        "training": experiment.training_key(),
    }
    if (folder.corpus / HEADER).is_file():
        header = read_header(folder.corpus)
        domains = {name: entry["digest"] for name, entry in header["domains"].items()}
        found |= {"corpus": header["digest"], "tokenizer": header["tokenizer"]["digest"], "domains": domains}
    found["checkpoints"] = _checkpoints(folder)
    found["siblings"] = {
        name: {"training": experiment.sibling(name).training_key(), "checkpoints": _checkpoints(folder.sibling(name))} for name in experiment.siblings
    }
    return found


def environment() -> dict[str, Any]:
    """The installation and machine of now, without names of people, machines or places."""
    return {"versions": versions(), "machine": machine(), "source": source()}


def versions() -> dict[str, str]:
    """Of Python and of every package that has a say in a number."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *_OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name not in _OPTIONAL:
                found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """The kind of machine: system, processor, cores, memory, and the accelerators that torch sees where it is at work."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found: dict[str, Any] = {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(), "cores": os.cpu_count()}
    found["memory"] = f"{pages / 2**30:.0f} GiB"
    if torch := sys.modules.get("torch"):
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        if torch.cuda.is_available():
            found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


@cache
def source() -> dict[str, Any]:
    """The commit of a source checkout and whether files differed from it; empty for an installed package."""
    try:
        if not (_PACKAGE.parent.parent / ".git").exists() or _git("ls-files", "--error-unmatch", "core/errors.py") is None:
            return {}
        commit, changed = _git("rev-parse", "HEAD"), _git("diff", "HEAD", "--", str(_PACKAGE))
    except (OSError, subprocess.SubprocessError):
        return {}
    if commit is None:
        return {}
    return {"commit": commit.strip(), "changed": bool(changed)} | ({"difference": digest.of_json(changed)} if changed else {})


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _seeds(experiment: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = {"experiment": experiment.seed, "corpus": experiment.corpus.seed}
    if experiment.training is not None:
        found["training"] = experiment.training.seed
    return found | {"siblings": {name: experiment.sibling(name).seed for name in experiment.siblings}}


def _checkpoints(folder: RunFolder) -> dict[str, str]:
    from rllc.checkpoints.store import list_checkpoints  # which loads torch: whoever only reads a provenance does without

    try:
        return {str(info.step): info.digest for info in list_checkpoints(folder.checkpoints)}
    except RllcError:
        return {}  # a damaged one has its sentence where it is used

"""What an interrupted training goes on from: optimizer state and weights, the latest only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from rllc.checkpoints.store import FORMAT, damaged, digest, read_json, read_tensors
from rllc.core.files import RESUMED, disk_error, is_leftover, write_atomic

_JSON = "resume.json"


@dataclass(frozen=True)
class Resume:
    """A saved state: its tensors by flat names, and the facts that came with them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_resume(root: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replace the resume state under `root`. A kill at any moment leaves the old state or the new one, whole.

    The tensors go to a file of their own; `resume.json` names it with its digest and is replaced last; then older files go.
    `facts` are JSON-able and come back as they were: the step, and whatever tells that the state belongs to this run.

    Raises RllcError where the disk refuses; the state before stays.
    """
    content = digest(tensors)
    name = f"resume-{content[:16]}.safetensors"
    text = json.dumps({"format": FORMAT, "file": name, "digest": content, "facts": dict(facts)}, indent=2) + "\n"
    write_atomic(root / name, safetensors.torch.save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}))
    write_atomic(root / _JSON, text)
    try:
        for old in (*root.glob(RESUMED), *(path for path in root.glob(".resume*.tmp") if is_leftover(path.name))):
            if old.name != name:
                old.unlink()
    except OSError as error:
        raise disk_error(root, error) from error


def load_resume(root: Path) -> Resume | None:
    """The latest resume state under `root`, or None where there is none. Raises RllcError where it is damaged or newer than this program."""
    path = root / _JSON
    if not path.exists():
        return None
    remedy = f"Delete {path}; training then starts from the beginning, and the checkpoints are kept."
    saved = read_json(path, remedy)
    name, facts = str(saved.get("file")), saved.get("facts")
    if Path(name).name != name or not isinstance(facts, dict):
        raise damaged(path, "it does not name the file beside it", remedy)
    return Resume(read_tensors(root / name, str(saved.get("digest")), remedy), facts)


def drop_resume(root: Path) -> None:
    """Forget the resume state, once training is done."""
    for path in (root / _JSON, *root.glob(RESUMED)):
        path.unlink(missing_ok=True)

"""Checkpoints on disk: a folder each, `weights.safetensors` beside a readable `checkpoint.json`. Nothing from a file is ever executed."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rllc.core import digest as digests
from rllc.core.errors import RllcError
from rllc.core.files import disk_error, is_leftover, parse_json, read_regular, read_text, remove, sync_folder, unreadable, write_atomic
from rllc.model.shape import ModelShape

FORMAT = 1
_WEIGHTS, _JSON = "weights.safetensors", "checkpoint.json"
_NAME = re.compile(r"^step-(\d{8,})$")


@dataclass(frozen=True)
class CheckpointInfo:
    """What `checkpoint.json` says: enough to plan with, without reading weights."""

    folder: Path
    step: int
    shape: ModelShape
    digest: str  # of the weights, as `digest` gives it
    dtype: str  # of the weights: "float32" or "float64"
    metrics: dict[str, float]
    released: bool = False  # its weights were given back after their use


def digest(params: Mapping[str, Tensor]) -> str:
    """The name of a set of weights by content: names, types, shapes and bytes, wherever they live."""
    return digests.of_arrays({name: tensor.detach().cpu().numpy() for name, tensor in params.items()})


def checkpoint_name(step: int) -> str:
    """The folder of a step.

    >>> checkpoint_name(100)
    'step-00000100'
    """
    return f"step-{step:08d}"


def save(root: Path, step: int, shape: ModelShape, params: Mapping[str, Tensor], metrics: Mapping[str, float] | None = None) -> CheckpointInfo:
    """Put a checkpoint under `root`, whole or not at all.

    The folder is written aside and then renamed. A checkpoint of this step with the same weights is left as it is; one with other weights, as a
    resumed run on another number of threads may bring, is replaced.

    Raises RllcError where the weights do not fit the shape or the disk refuses; checkpoints already there stay untouched.
    """
    folder = root / checkpoint_name(step)
    dtype = _check_tensors(shape, params, f"The checkpoint of step {step}")
    info = CheckpointInfo(folder, step, shape, digest(params), dtype, {name: float(value) for name, value in (metrics or {}).items()})
    if folder.exists() and _same(folder, info):
        return info
    finite = {name: value if math.isfinite(value) else None for name, value in info.metrics.items()}
    facts = {"format": FORMAT, "step": step, "digest": info.digest, "dtype": dtype, "metrics": finite, "shape": shape.as_dict()}
    weights = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in params.items()})
    try:
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(f".{folder.name}.*.tmp"):
            if is_leftover(stale.name):  # what a kill left behind
                remove(stale)
        aside = Path(tempfile.mkdtemp(dir=root, prefix=f".{folder.name}.", suffix=".tmp"))
    except OSError as error:
        raise disk_error(folder, error) from error
    try:
        aside.chmod(0o755)
        write_atomic(aside / "new" / _WEIGHTS, weights)
        write_atomic(aside / "new" / _JSON, json.dumps(facts, indent=2) + "\n")
        if folder.exists():
            folder.replace(aside / "old")
        (aside / "new").replace(folder)
        sync_folder(root)
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        if (aside / "old").exists() and not folder.exists():
            (aside / "old").replace(folder)
        shutil.rmtree(aside, ignore_errors=True)
    return info


def release(folder: Path) -> None:
    """Give back the disk that a checkpoint's weights take; what it is, with their digest, stays, and `save` puts them there again.

    A folder that is a link leads to somebody's own weights, and is left as it is. Raises RllcError where there is no checkpoint, or the disk refuses.
    """
    if folder.is_symlink():
        return
    if read_info(folder).released and not (folder / _WEIGHTS).exists():
        return
    facts = read_json(folder / _JSON, _remedy(folder))
    try:
        write_atomic(folder / _JSON, json.dumps(facts | {"released": True}, indent=2) + "\n")
        (folder / _WEIGHTS).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error


def load(folder: Path, expected: ModelShape | None = None) -> tuple[ModelShape, dict[str, Tensor], CheckpointInfo]:
    """Read a checkpoint's folder: shape, weights on the CPU in the shape's order, and what is known of them.

    Raises RllcError where there is none, where it is damaged or newer than this program, and where its shape is not `expected`.
    """
    info = read_info(folder)
    if expected is not None and info.shape != expected:
        raise RllcError(
            f"The checkpoint {folder} is of another shape than expected: {info.shape.difference(expected)}.",
            "Give the model's shape as it was trained, or another checkpoint.",
        )
    if info.released:
        raise RllcError(f"The weights of the checkpoint {folder} were given back after their use.", "Import it again, with imported.keep = true.")
    params = read_tensors(folder / _WEIGHTS, info.digest, _remedy(folder))
    _check_tensors(info.shape, params, f"The checkpoint {folder}")
    return info.shape, {name: params[name] for name in info.shape.tensors()}, info


def read_info(folder: Path) -> CheckpointInfo:
    """Read `checkpoint.json` alone. Raises RllcError where it is missing, damaged or newer than this program."""
    path = folder / _JSON
    try:
        there = path.exists()
    except OSError as error:
        raise unreadable(folder, error) from error
    if not there:
        raise RllcError(f"There is no checkpoint at {folder}.", "Check the folder, or train first.")
    facts = read_json(path, _remedy(folder))
    try:
        metrics = {name: math.nan if value is None else float(value) for name, value in facts["metrics"].items()}
        shape = ModelShape(**facts["shape"])
        return CheckpointInfo(folder, int(facts["step"]), shape, str(facts["digest"]), str(facts["dtype"]), metrics, bool(facts.get("released")))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RllcError) as error:
        raise damaged(path, f"it does not say what a checkpoint must ({type(error).__name__}: {error})", _remedy(folder)) from error


def list_checkpoints(root: Path) -> tuple[CheckpointInfo, ...]:
    """All checkpoints under `root` by step; empty where the folder is missing. Raises RllcError where one of them cannot be read."""
    if not root.is_dir():
        return ()
    try:
        folders = [folder for folder in root.iterdir() if _NAME.match(folder.name) and folder.is_dir()]
    except OSError as error:
        raise unreadable(root, error) from error
    return tuple(sorted((read_info(folder) for folder in folders), key=lambda info: info.step))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object at `path`, of a format that this program knows. Raises RllcError otherwise."""
    try:
        facts = parse_json(read_text(path))
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, ValueError) as error:
        raise damaged(path, str(error), remedy) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise damaged(path, "it does not name its format", remedy)
    if facts["format"] > FORMAT:
        raise RllcError(
            f"{path} was written in format {facts['format']}; this version of rllc reads up to format {FORMAT}.", "Upgrade rllc to read it."
        )
    return facts


def read_tensors(path: Path, content: str, remedy: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises RllcError where it is missing, or its content's digest is not `content`."""
    try:
        tensors = safetensors.torch.load(read_regular(path, most=None))
        found = digest(tensors)
    except FileNotFoundError as error:
        raise damaged(path, "it is missing", remedy) from error
    except PermissionError as error:
        raise unreadable(path, error) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:  # the last of tensors that numpy does not know
        raise damaged(path, str(error), remedy) from error
    if found != content:
        raise damaged(path, "its content is not what was written", remedy)
    return tensors


def damaged(path: Path, reason: str, remedy: str) -> RllcError:
    """The sentence for a file that cannot be used."""
    return RllcError(f"{path} is damaged: {reason}.", remedy)


def _remedy(folder: Path) -> str:
    return f"Delete {folder} and train again; the other checkpoints are kept."


def _check_tensors(shape: ModelShape, params: Mapping[str, Tensor], what: str) -> str:
    """The one dtype of all tensors, which have the names and sizes of the shape."""
    expected = shape.tensors()
    found = {name: tuple(tensor.shape) for name, tensor in params.items()}
    if found != expected:
        wrong = next(name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name))
        raise RllcError(
            f"{what} does not fit its shape: {wrong} is {found.get(wrong, 'absent')}, expected {expected.get(wrong, 'absent')}.",
            "Give the weights and the shape of one model.",
        )
    dtypes = {tensor.dtype for tensor in params.values()}
    if len(dtypes) != 1 or dtypes - {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise RllcError(f"{what} holds weights of {names}.", "Convert all of them to float32 or all to float64.")
    return str(dtypes.pop()).removeprefix("torch.")


def _same(folder: Path, info: CheckpointInfo) -> bool:
    """Whether the folder holds this checkpoint, readable."""
    try:
        _, _, found = load(folder)
    except RllcError:
        return False
    return (found.shape, found.digest) == (info.shape, info.digest)

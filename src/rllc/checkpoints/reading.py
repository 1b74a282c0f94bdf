"""Weights that others have written: safetensors or pickles, whole or in shards. Nothing from a file is ever executed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rllc.core.errors import RllcError

SAFE, PICKLED = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt")
# Of a folder, what is read first: safetensors before pickles, one file before shards.
_USUAL = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_NESTED = ("model", "state_dict", "model_state_dict")
_LFS = b"version https://git-lfs"


def read_state(path: Path, names: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """The tensors of a file or of a folder in the layout of Hugging Face, on the CPU in their own dtype.

    A state dict nested under a usual key is found. `names` chooses which are read: of safetensors nothing else is.

    Raises RllcError where there are no weights, a download is not finished, or a file holds more than numbers.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        for name, tensor in _read_file(file, names):
            if name in tensors:
                raise RllcError(f"{file} and another shard both hold the tensor {name}.", "Download the folder again.")
            tensors[name] = tensor
    return tensors


def weight_files(path: Path) -> list[Path]:
    """The file itself, or the files of weights in a folder: one, or the shards that an index names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RllcError(f"There are no weights at {path}.", "Give a file or folder of weights.")
    for name in _USUAL:
        if (path / name).is_file():
            return [path / name] if not name.endswith(".json") else _shards(path, path / name)
    single = sorted(f for f in path.iterdir() if f.suffix in (*SAFE, *PICKLED) and f.is_file())
    if len(single) == 1:
        return single
    found = ", ".join(sorted(f.name for f in path.iterdir())[:8]) or "nothing"
    if single:
        raise RllcError(f"{path} holds several files of weights and no index: {', '.join(f.name for f in single)}.", "Name the file itself.")
    raise RllcError(
        f"{path} holds no weights. It holds {found}.", "Give a folder with model.safetensors, pytorch_model.bin, or the shards and their index."
    )


def read_config(path: Path) -> dict[str, Any]:
    """What is said of a model beside its weights: `config.json`, or a pickle's own `model_args`; empty where nothing is.

    Raises RllcError where the config cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    config = folder / "config.json"
    if config.is_file():
        return _json(config)
    if path.is_file() and path.suffix in PICKLED:
        content = _unpickled(path)
        for name in ("model_args", "config", "cfg"):
            if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
                return dict(content[name])
    return {}


def step_of(path: Path) -> int | None:
    """The step that a checkpoint says of itself, in `checkpoint.json`, `trainer_state.json` or a pickle's `iter_num`; None where it says none."""
    folder = path if path.is_dir() else path.parent
    for file, name in (("checkpoint.json", "step"), ("trainer_state.json", "global_step")):
        if path.is_dir() and (folder / file).is_file():
            return int(_json(folder / file)[name])
    if path.is_file() and path.suffix in PICKLED:
        content = _unpickled(path)
        for name in ("iter_num", "global_step", "step"):
            if isinstance(content, Mapping) and isinstance(content.get(name), int):
                return int(content[name])
    return None


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises RllcError where a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise RllcError(
                f"{what} holds {bad} numbers that are not finite in {name}.", "The training has failed there: take an earlier checkpoint."
            )


def _shards(folder: Path, index: Path) -> list[Path]:
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise RllcError(f"{index} does not say which shard holds what.", "Download the folder again.")
    files = [folder / name for name in sorted(set(map(str, places.values())))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise RllcError(
            f"{folder} lacks {len(missing)} of its {len(files)} shards: {', '.join(missing[:4])}.", "The download is not finished: start it again."
        )
    return files


def _read_file(file: Path, names: Callable[[str], bool] | None) -> Iterator[tuple[str, Tensor]]:
    with file.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise RllcError(f"{file} is a pointer of git-lfs and holds no weights.", "Run `git lfs pull` in its folder.")
    if file.suffix in SAFE:
        try:
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118  # it is no mapping
                    if names is None or names(name):
                        yield name, content.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RllcError(f"{file} cannot be read: {error}.", "The download is not finished, or the file is damaged: fetch it again.") from error
        return
    for name, tensor in _state(file, _unpickled(file)).items():
        if names is None or names(name):
            yield name, tensor


def _state(file: Path, content: Any) -> dict[str, Tensor]:
    """The state dict in what a pickle holds."""
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    found = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)} if isinstance(content, Mapping) else {}
    if not found:
        raise RllcError(f"{file} holds no state dict.", "Save model.state_dict() with safetensors.torch.save_file.")
    return found


def _unpickled(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RllcError(
            f"{file} is a pickle that holds more than numbers, and loading it could run code: it is not opened.",
            "Where you trust it, convert it once: safetensors.torch.save_file(torch.load(FILE, weights_only=False), 'model.safetensors').",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise RllcError(f"{file} cannot be read: {str(error).splitlines()[0]}.", "The download is not finished, or the file is damaged.") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RllcError(f"{file} cannot be read: {error}.", "The download is not finished, or the file is damaged: fetch it again.") from error
    if not isinstance(content, dict):
        raise RllcError(f"{file} does not hold a table.", "Fetch it again.")
    return content

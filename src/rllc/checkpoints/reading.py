"""Foreign checkpoints from disk: tensors and config, whatever tool wrote them, without executing anything from a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rllc.checkpoints.weight_files import SUFFIXES, load_torch, open_weights, refuse_stand_ins
from rllc.core.errors import RllcError
from rllc.core.files import parse_json, read_text

_USUAL = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "weights.safetensors")
_SHARD = re.compile(r"^(.+)-(\d+)-of-(\d+)\.(safetensors|bin)$")
_BESIDE = re.compile(r"^(training_args|optimizer|scheduler|scaler|rng_state|random_states)\b|^rng_state")  # what trainers save beside the weights
_INTEGER_BUFFERS = re.compile(r"(^|\.)(position_ids|num_batches_tracked)$")
_MASKS = re.compile(r"(^|\.)(IGNORE|mask|masked_bias|causal_mask|attn_mask)$")  # buffers in which an infinity means "not seen"
_WRAPPERS = re.compile(r"^((_orig_mod|module)\.)+")
_LARGEST = 100_000_000  # bytes of a JSON file
_AGAIN = "Run the download again; it goes on from there."


def read_state(path: Path, *, names: Callable[[str], bool] | None = None, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The weights at `path` by name, on the CPU.

    `path` is a file (`.safetensors`, or a torch file: `.pt`, `.pth`, `.bin`, `.ckpt`) or a folder in the layout of Hugging Face, whole or in shards.
    A state dict may be nested under "model", "state_dict" or "model_state_dict"; prefixes of torch.compile, data parallelism and Lightning that all
    names share are taken off.

    Args:
        names: which tensors, by their names without such prefixes; the others are not read. All of them by default.
        dtype: what floating weights are converted to; by default each keeps its own.

    Tensors are read shard by shard and may stay mapped to the file, which must not be overwritten in place while they are used.
    Raises RllcError where there are no weights, where a file is half downloaded or would execute code, where two shards hold one tensor, where
    `names` chooses nothing, and where weights are integers or quantised. Whether they are finite is for `check_finite`.
    """
    tensors: dict[str, Tensor] = {}
    owner: dict[str, Path] = {}
    promised: dict[str, str] = {}
    files = [path]
    if path.is_dir():
        files, promised = _files_of(path)
    for file in files:
        with open_weights(file) as stream:
            for name in stream.names:
                if name in owner:
                    raise RllcError(f"Two shards hold the tensor {name}: {owner[name]} and {file.name}.", "Delete the shard of an older save.")
                owner[name] = Path(file.name)
                if names is None or names(name):
                    tensors[name] = _floating(stream.tensor(name), name, file, dtype)
    lost = next((name for name in promised if name not in owner and _WRAPPERS.sub("", name) not in owner), None)
    if lost is not None:
        raise RllcError(f"The index of {path} promises the tensor {lost} in {promised[lost]}, which does not hold it.", _AGAIN)
    if not tensors:
        some = ", ".join(sorted(owner)[:5])
        raise RllcError(f"None of the {len(owner)} tensors of {path} was chosen; they are called {some}, and so on.", "Choose by those names.")
    return tensors


def read_config(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its model: `model_args` of nanoGPT, `cfg` of TransformerLens, or the `config.json` beside the weights.

    A file may have it one folder up: `checkpoints/step_100.pth` and `config.json`. Empty where there is none.
    Raises RllcError where the file is damaged or would execute code.
    """
    facts = read_facts(path)
    for key in ("model_args", "cfg"):
        if isinstance(facts.get(key), Mapping):
            return dict(facts[key])
    for folder in (path,) if path.is_dir() else (path.parent, path.parent.parent):
        beside = folder / "config.json"
        if beside.exists() or beside.is_symlink():
            return read_object(beside)
    return {}


def read_facts(path: Path) -> dict[str, Any]:
    """What a torch file holds beside its weights (nanoGPT's "iter_num", say); empty for safetensors and for shards.

    Raises RllcError where the file is missing, damaged or would execute code.
    """
    if not path.exists():
        raise RllcError(f"There is no checkpoint at {path}.", "Check the path.")
    files = _files_of(path)[0] if path.is_dir() and holds_weights(path) else [path]
    if len(files) != 1 or files[0].is_dir() or files[0].suffix == ".safetensors":
        return {}
    return {key: value for key, value in load_torch(files[0]).items() if not isinstance(value, Tensor) or value.numel() == 1}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object at `path`. Raises RllcError where the file is missing, a stand-in, or something else."""
    refuse_stand_ins(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than any such file")
        content = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise RllcError(f"{path} is not readable as JSON: {error}.", "Download it again.") from error
    if not isinstance(content, dict):
        raise RllcError(f"{path} holds a {type(content).__name__}, not an object.", "Check that it is the model's own file.")
    return content


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raises RllcError with the name of the first tensor of `what` that holds NaN or infinity; buffers of masks may."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or _MASKS.search(name):
            continue
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise RllcError(
                f"{what} is not finite: {wrong} of {tensor.numel()} values of {name} are NaN or infinite.",
                "Take an earlier checkpoint, or weights in another dtype: float16 overflows beyond 65504.",
            )


def holds_weights(folder: Path) -> bool:
    """Whether a folder has a file of weights, or what is left of one."""
    return any((folder / name).exists() for name in _USUAL) or bool(weights_in(folder))


def _files_of(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that hold a folder's weights, and which tensor an index promises in which of them."""
    usual = next((folder / name for name in _USUAL if (folder / name).exists() or (folder / name).is_symlink()), None)
    if usual is not None and usual.suffix == ".json":
        return _indexed(usual)
    if usual is not None:
        return [usual], {}
    found = weights_in(folder)
    if not found:
        _refuse_empty(folder)
    shards = [match for path in found if (match := _SHARD.match(path.name))]
    if shards and len(shards) == len(found) and len({(m[1], m[3], m[4]) for m in shards}) == 1:
        have, total = {int(match[2]) for match in shards}, int(shards[0][3])
        missing = sorted(set(range(1, total + 1)) - have)
        if missing:
            raise RllcError(f"{folder} lacks {len(missing)} of {total} shards: number {', '.join(map(str, missing))}.", _AGAIN)
        return found, {}
    if len(found) > 1:
        listed = ", ".join(path.name for path in found[:8])
        raise RllcError(f"{folder} holds {len(found)} files of weights: {listed}.", "Name the file, or open the folder as a series of checkpoints.")
    return found, {}


def _indexed(index: Path) -> tuple[list[Path], dict[str, str]]:
    """The shards that an index names."""
    promised = read_object(index).get("weight_map")
    if not isinstance(promised, dict) or not promised or not all(isinstance(name, str) and Path(name).name == name for name in promised.values()):
        raise RllcError(f"{index} does not name its shards: expected a weight_map from tensors to files beside it.", "Download it again.")
    names = sorted(set(promised.values()))
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise RllcError(f"{index.parent} lacks {len(missing)} of {len(names)} shards that its index names: {', '.join(missing)}.", _AGAIN)
    return [index.parent / name for name in names], promised


def weights_in(folder: Path) -> list[Path]:
    """Files of weights in a folder by their suffix; safetensors hide all others."""
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and not _BESIDE.match(path.name) and not path.is_dir())
    return [path for path in found if path.suffix == ".safetensors"] or found


def _refuse_empty(folder: Path) -> None:
    """Say why there are no weights in a folder."""
    places = [folder, folder / ".cache" / "huggingface" / "download"]
    if folder.parent.name == "snapshots":
        places.append(folder.parent.parent / "blobs")
    cut = [path.name for place in places if place.is_dir() for path in place.glob("*.incomplete")]
    if cut:
        raise RllcError(f"{folder} holds no weights yet: a download was cut off ({', '.join(sorted(cut)[:3])}).", _AGAIN)
    there = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    listed = f"it holds {', '.join(there[:12])}{' and more' if len(there) > 12 else ''}" if there else "it is empty"
    raise RllcError(f"There are no weights in {folder}: {listed}.", f"Give a folder or file with weights ({', '.join(SUFFIXES)}).")


def _floating(tensor: Tensor, name: str, file: Path, dtype: torch.dtype | None) -> Tensor:
    """A tensor as a weight: floating and wide enough to stand for itself. Masks and positions pass as they are."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or type(tensor) not in (Tensor, torch.nn.Parameter):
        raise RllcError(
            f"The tensor {name} of {file} is no plain array of numbers: {type(tensor).__name__}, {tensor.layout}, on {tensor.device}.",
            "Save the weights as dense tensors.",
        )
    if tensor.is_floating_point() and tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), file.stat().st_size):
        raise RllcError(f"The tensor {name} of {file} claims {tensor.numel():,} numbers, more than the file holds.", "Save the weights again.")
    if tensor.is_floating_point() and tensor.element_size() > 1:
        return tensor if dtype is None else tensor.to(dtype)
    mask = tensor.dtype == torch.bool or (tensor.ndim == 4 and tensor.shape[:2] == (1, 1))  # GPT-2's causal mask was once uint8
    if mask or _INTEGER_BUFFERS.search(name):
        return tensor
    raise RllcError(
        f"The tensor {name} of {file} is {str(tensor.dtype).removeprefix('torch.')}, where floating weights are expected: the model is quantised.",
        "Take the weights in float32, bfloat16 or float16, as they were before quantisation.",
    )

"""One file of weights, opened so that nothing in it is executed: safetensors, or a torch file by `weights_only`."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rllc.core.errors import RllcError

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
NESTED = ("model", "state_dict", "model_state_dict")  # where training scripts put the weights within what they save
_LFS = b"version https://git-lfs.github.com/spec/"
_AGAIN = "Download it again."


@dataclass(frozen=True)
class OpenFile:
    """The weights of an open file: their names, and each tensor by its name, read when it is asked for."""

    names: tuple[str, ...]
    tensor: Callable[[str], Tensor]


@contextmanager
def open_weights(path: Path) -> Iterator[OpenFile]:
    """Open a file of weights by its suffix; names lose the prefix that a compiler, a parallel wrapper or Lightning put before all of them.

    Raises RllcError where the file is missing, half downloaded, or would execute code.
    """
    refuse_stand_ins(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt", device="cpu") as stream:
                yield _without_prefix(list(stream.keys()), stream.get_tensor, ())
        except (SafetensorError, OSError) as error:
            raise RllcError(
                f"{path} is not a whole safetensors file: {error}.", f"{_AGAIN} The usual cause is a download that was cut off."
            ) from error
    elif path.suffix in SUFFIXES:
        content = load_torch(path)
        state = _state(path, content)
        extra = ("model.",) if "pytorch-lightning_version" in content else ()
        yield _without_prefix(list(state), state.__getitem__, extra)
    else:
        raise RllcError(f"{path} is no file of weights that rllc knows by its name.", f"Give a file that ends in {', '.join(SUFFIXES)}, or a folder.")


def load_torch(path: Path) -> dict[str, Any]:
    """What a torch file holds, with its tensors mapped from disk where the format allows; nothing in it is executed.

    Raises RllcError where reading it would execute code, where it is cut off, and where it holds no mapping.
    """
    start = refuse_stand_ins(path)
    whole = zipfile.is_zipfile(path)
    if not whole and start.startswith(b"PK"):
        raise RllcError(f"{path} is cut off: its table of contents, at the end, is missing.", _AGAIN)
    if whole:
        _refuse_compressed(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=whole)
    except pickle.UnpicklingError as error:
        raise RllcError(
            f"{path} is refused: it holds more than tensors and plain values, and reading it could execute code ({_objection(error)}).",
            f"If you trust who made it, save its weights as safetensors, then read those: {resaving_line(path)}",
        ) from error
    except Exception as error:  # a damaged pickle may raise anything: KeyError, IndexError, AssertionError, struct.error, …
        raise RllcError(f"{path} could not be read as a torch file: {_one_line(error)}.", _AGAIN) from error
    if not isinstance(content, Mapping):
        raise RllcError(f"{path} holds a {type(content).__name__}, not a mapping of names to tensors.", "Save the model's state_dict().")
    return dict(content)


def _refuse_compressed(path: Path) -> None:
    """Torch stores what it saves as it is: a file that claims to hold more than it is long would fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise RllcError(f"{path} could not be read as a torch file: {_one_line(error)}.", _AGAIN) from error
    if claimed > path.stat().st_size:
        raise RllcError(
            f"{path} has {path.stat().st_size:,} bytes and claims to hold {claimed:,}: torch did not write it.",
            "Save the weights again by torch.save.",
        )


def resaving_line(path: Path) -> str:
    """The shell line that turns a torch file which one trusts into safetensors beside it."""
    here, there, keys = (json.dumps(value) for value in (str(path), str(path.with_suffix(".safetensors")), NESTED))
    plain = 'c = c.state_dict() if hasattr(c, "state_dict") else c; '
    code = (
        f'import torch, safetensors.torch as s; c = torch.load({here}, map_location="cpu", weights_only=False); {plain}'
        f"c = next((c[k] for k in {keys} if k in c), c); {plain}"
        f"s.save_file({{k: v.clone().contiguous() for k, v in c.items()}}, {there})"
    )
    return f"python -c {shlex.quote(code)}"


def refuse_stand_ins(path: Path) -> bytes:
    """The first bytes of a file.

    Raises RllcError where `path` is missing, unreadable, empty, a half-downloaded file, or a pointer of git-LFS in place of the file.
    """
    if path.suffix == ".incomplete":
        raise RllcError(f"{path} is a download that was cut off.", "Run the download again; it goes on from there.")
    if path.is_symlink() and not path.exists():
        raise RllcError(f"{path} is a link to a file that is missing: the download was cut off, or the cache was cleaned.", _AGAIN)
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_LFS))
    except OSError as error:
        raise RllcError(f"{path} could not be read: {error.strerror or error}.", "Check the path.") from error
    if start == _LFS:
        raise RllcError(f"{path} is a pointer of git-LFS, not the weights themselves.", "Run `git lfs pull` in that folder, or download the file.")
    if not start:
        raise RllcError(f"{path} is empty.", _AGAIN)
    return start


def _state(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict within a torch file: the one under a usual key, or all of it."""
    nested = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
    state = content if nested is None else nested
    wrong = next((name for name, value in state.items() if not isinstance(value, Tensor)), None)
    if wrong is not None or not state:
        found = f"{wrong!r} is a {type(state[wrong]).__name__}" if wrong is not None else "it is empty"
        raise RllcError(
            f"{path} holds no state dict, which maps names to tensors: {found}.",
            f"Save the model's state_dict(), alone or under one of {', '.join(NESTED)}.",
        )
    return {str(name): tensor for name, tensor in state.items()}


def _without_prefix(names: list[str], tensor: Callable[[str], Tensor], extra: tuple[str, ...]) -> OpenFile:
    """Names without what wrappers put before all of them: `torch.compile`, data parallelism, and `extra` once.

    "model." alone is no reason: a Llama with tied embeddings has it before every name of its own.
    """
    prefix, left = "", list(extra)
    while found := next((p for p in ("_orig_mod.", "module.", *left) if names and all(name.startswith(prefix + p) for name in names)), None):
        prefix += found
        if found in left:
            left.remove(found)
    cut = len(prefix)
    return OpenFile(tuple(name[cut:] for name in names), lambda name: tensor(prefix + name))


def _objection(error: BaseException) -> str:
    """What torch would have had to call, from its message."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it calls {found[1]}" if found else "torch refused it"


def _one_line(error: BaseException) -> str:
    """The beginning of an error's words, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__

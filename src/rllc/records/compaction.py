"""From many immutable records to one sharded, consolidated Zarr with all traces, for other programs to read (STACK, Store).

What opens a run's table is the index (`rllc.records.index`), which needs no trace.

The copy is named by the digest of the set of files it was made from, so it is never updated: when the set changes, another one is made and the older
are deleted. A reader that dies or a second writer can therefore never see half of one.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.errors import ZarrUserWarning

from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.files import disk_error
from rllc.records.places import LocalPlace
from rllc.records.store import COMPACTED, Store
from rllc.records.table import SparseError, dataset

COPIES = f"{'[0-9a-f]' * 16}.zarr"  # what they are called, as a pattern of `glob`
_KIND = "sample"
_CHUNK_BYTES = 2**20
_SHARD_BYTES = 64 * 2**20


def compact(store: Store, run: str = "") -> Path:
    """Write the sample records as one Zarr folder under `compacted/` and return it; where it is up to date, only return it.

    It is made in memory and on a disk: of a store elsewhere there is none.

    Raises RllcError then, where `compacted` is a link and where the disk refuses, and DamagedRecordError as `Store.records` does; in every case
    an older copy stays. Raises SparseError as `dataset` does; then no copy of these records can be made, and older ones, which are of others, go.
    """
    if not isinstance(store.place, LocalPlace):
        raise RllcError(f"{store.root} is no folder, where a Zarr of its records could lie.", "Copy the records to a folder first.")
    folder = store.place.root / COMPACTED
    target = folder / f"{digest.of_json([store.fingerprint(_KIND), run])[:16]}.zarr"
    if folder.is_symlink():
        raise disk_error(folder, OSError(errno.ELOOP, "it is a link"))
    if target.exists():
        return target
    try:
        labelled = dataset(store.records(_KIND), run)
    except SparseError:
        _remove_others(folder)
        raise
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            _write(labelled, aside / target.name)
            (aside / target.name).replace(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another writer put the same copy there first
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _remove_others(folder, target)
    except OSError as error:
        raise disk_error(target, error) from error
    return target


def _remove_others(folder: Path, target: Path | None = None) -> None:
    for other in folder.glob(COPIES):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def open_compacted(store: Store, run: str = "") -> xr.Dataset:
    """The compacted table in memory, made first where it is missing or out of date. Errors as in `compact`.

    It is read whole: a chunk that another process deletes under a lazy reader would come back as NaN without a word.
    """
    while True:
        path = compact(store, run)
        with xr.open_zarr(path, consolidated=True, chunks=None) as lazy:
            loaded = lazy.load()
        if path.exists():
            break
    for name, variable in loaded.variables.items():
        if variable.dtype.kind in "OT":
            loaded[name] = variable.astype(object).astype(str)
    return loaded


def _write(labelled: xr.Dataset, path: Path) -> None:
    encoding = {str(name): _encoding(variable, labelled.sizes) for name, variable in labelled.variables.items()}
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata is outside the format's specification; every array is here before it is consolidated
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=ZarrUserWarning)
        labelled.to_zarr(path, zarr_format=3, consolidated=True, encoding=encoding, write_empty_chunks=True, mode="w-")


def _encoding(variable: xr.Variable, sizes: Mapping[Any, int]) -> dict[str, Any]:
    """Chunks and shards hold whole checkpoints, as many as fit their sizes, so that a grid of any size makes few files."""
    if variable.dtype.kind in "OUT":
        return {"dtype": np.dtypes.StringDType()}
    if "step" not in variable.dims or variable.ndim < 2 or variable.size == 0:
        return {}
    steps = sizes["step"]
    per_step = variable.nbytes // steps
    chunk = max(1, min(steps, _CHUNK_BYTES // per_step))
    shard = chunk * max(1, min(-(-steps // chunk), _SHARD_BYTES // (chunk * per_step)))
    return {name: tuple(n if dim == "step" else sizes[dim] for dim in variable.dims) for name, n in (("chunks", chunk), ("shards", shard))}

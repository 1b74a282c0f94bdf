"""What the record store costs at 10⁵ records: putting, finding, opening the table, the Zarr copy, disk; in a folder, and through fsspec.

    python benchmarks/store.py [--records 100000] [--folder DIR] [--out store.json]

The records are made up: keys, headers and traces of the demo's size (4 chains × 61 evaluations). The first thousand are put as a run puts them,
flushed to the disk; the others are written without the flushes, or the benchmark would take an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rllc.core.files import sync_folder
from rllc.records.compaction import compact, open_compacted
from rllc.records.index import opened, path_of
from rllc.records.packing import key_digest, pack
from rllc.records.places import LocalPlace
from rllc.records.store import Store
from rllc.records.table import export, stored_frame

TRACES = ("losses", "gradient_dot", "sq_distance", "sq_gradient", "force_dot", "stein", "log_acceptance")
DATA = ("mixture", "code", "prose", "echo", "brackets")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--flushed", type=int, default=1000, help="how many are put as a run puts them")
    parser.add_argument("--folder", type=Path, default=None, help="where to make them; a temporary folder otherwise, removed at the end")
    parser.add_argument("--out", type=Path, default=None, help="the numbers as JSON")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="rllc-store-", dir="."))
    try:
        found = measure(folder / "records", arguments.records, min(arguments.flushed, arguments.records))
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    for name, value in found.items():
        print(f"{name:44} {value}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(root: Path, count: int, flushed: int) -> dict[str, Any]:
    """All numbers of a store of `count` records; it may be there already."""
    found: dict[str, Any] = {"records": count}
    store = Store(root)
    keys = [made_up_key(i) for i in range(count)]
    arrays = made_up_arrays()
    there = set(store.listing("sample"))
    if len(there) < count:
        spent = [timed(lambda i=i: store.put("sample", keys[i], arrays, made_up_meta(i, keys[i])))[0] for i in range(flushed)]
        found["put, flushed, ms (median)"] = round(1e3 * statistics.median(spent), 2)
        found["put, flushed, ms (mean)"] = round(1e3 * statistics.mean(spent), 2)
        found["  of it packing, ms (median)"] = round(1e3 * statistics.median(packing(keys[:200], arrays)), 2)
        found["  of it the two flushes, ms (median)"] = round(1e3 * statistics.median(flushes(root)), 2)
        for i in range(flushed, count):
            name = f"sample/{key_digest('sample', keys[i])}-0.npz"
            store.place.write(name, pack("sample", keys[i], made_up_arrays(i), made_up_meta(i, keys[i]), 0), durable=False)
    digests = [key_digest("sample", key) for key in keys]
    found["has, by digest, µs"] = round(1e6 * timed(lambda: [store.has("sample", name) for name in digests])[0] / count, 1)
    some = digests[:: max(1, count // 1000)]
    found["get, ms"] = round(1e3 * timed(lambda: [store.get("sample", name) for name in some])[0] / len(some), 2)
    found["listing with sizes and times, s"] = round(timed(lambda: store.listing("sample"))[0], 2)
    index = root / path_of("sample")
    index.unlink(missing_ok=True)
    found["compaction from nothing, s"] = round(timed(lambda: opened(store, "sample"))[0], 1)
    found["opening the table, s"] = round(timed(lambda: stored_frame(Store(root)))[0], 2)
    last = root / "sample" / f"{digests[-1]}-0.npz"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content)
    found["opening after one record is new, s"] = round(timed(lambda: stored_frame(Store(root)))[0], 2)
    table = stored_frame(Store(root))
    assert len(table) == count
    found["table as CSV besides, s"] = round(timed(lambda: export(table, "csv"))[0], 1)
    found["records on disk, MB"] = round(sum(size for size, _ in store.listing("sample").values()) / 1e6, 1)
    found["  in whole blocks, MB"] = round(sum(entry.stat().st_blocks * 512 for entry in os.scandir(root / "sample")) / 1e6, 1)
    found["index on disk, MB"] = round(index.stat().st_size / 1e6, 1)
    found["most memory until here, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    for older in (root / "compacted").glob("*.zarr"):
        shutil.rmtree(older)
    took, copy = timed(lambda: compact(store))
    found["Zarr copy, s"] = round(took, 1)
    found["Zarr copy, files"] = sum(path.is_file() for path in copy.rglob("*"))
    found["Zarr copy, MB"] = round(sum(path.stat().st_size for path in copy.rglob("*")) / 1e6, 1)
    found["opening the Zarr copy whole, s"] = round(timed(lambda: open_compacted(store))[0], 1)
    found["most memory, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    return found | remote(keys[:2000], arrays)


def remote(keys: list[dict[str, Any]], arrays: dict[str, Any]) -> dict[str, Any]:
    """The same calls through fsspec, against its memory: what our side costs where the network is free."""
    store = Store("memory://benchmark")
    put, _ = timed(lambda: [store.put("sample", key, arrays, made_up_meta(i, key)) for i, key in enumerate(keys)])
    has, _ = timed(lambda: [Store("memory://benchmark").has("sample", key) for key in keys[:20]])
    opened(store, "sample")
    table, _ = timed(lambda: stored_frame(Store("memory://benchmark")))
    return {
        "memory://, put, ms": round(1e3 * put / len(keys), 2),
        "memory://, open and has, ms": round(1e3 * has / 20, 2),
        f"memory://, opening {len(keys)}, s": round(table, 2),
    }


def packing(keys: list[dict[str, Any]], arrays: dict[str, Any]) -> list[float]:
    """Seconds of making the bytes of a record."""
    return [timed(lambda i=i, key=key: pack("sample", key, arrays, made_up_meta(i, key), 0))[0] for i, key in enumerate(keys)]


def flushes(root: Path) -> list[float]:
    """Seconds that a flushed write takes more than one without: of a file of 12 kB and of its folder."""
    place, content, more = LocalPlace(root), os.urandom(12_000), list[float]()
    sync_folder(root)
    for i in range(200):
        plain = timed(lambda i=i: place.write(f"probe/{i}", content, durable=False))[0]
        more.append(timed(lambda i=i: place.write(f"probe/{i}-durable", content))[0] - plain)
    shutil.rmtree(root / "probe")
    return more


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def made_up_key(i: int) -> dict[str, Any]:
    """A key as runs make them; the grid is checkpoints × data × heads."""
    heads = 16
    step, data, head = i // (heads * len(DATA)), DATA[i // heads % len(DATA)], i % heads
    sampler = {"sampler": "sgld", "step_size": 1e-3, "localization": 200.0, "nbeta": 30.0, "chains": 4, "burn_in": 15}
    return {"weights": f"{step:064x}", "step": step, "part": f"{head // 8}:{head % 8}", "data": {"name": data}, "sampler": sampler, "seed": 0}


def made_up_arrays(i: int = 0) -> dict[str, Any]:
    """Traces of four chains, which do not compress; others for every record."""
    rng = np.random.default_rng(i)
    return {name: rng.normal(size=(4, 61)) for name in TRACES} | {"baseline": rng.normal(size=61)}


def made_up_meta(i: int, key: dict[str, Any]) -> dict[str, Any]:
    """What a record says: the demo's header has 34 numbers, 12 counts and 12 texts."""
    numbers = {f"number_{n}": float(np.sin(i + n)) for n in range(28)}
    counts = {f"count_{n}": n for n in range(6)}
    meta = {"step": key["step"], "part": key["part"], "data": key["data"]["name"], "evaluated_on": key["data"]["name"], "outcome": "ok"}
    meta |= key["sampler"] | {"draws": 45, "df": 7, "seed": 0, "estimator": "paired-4", "reason": "No diagnostic objects to this estimate."}
    meta |= {"llc": float(np.cos(i)), "stderr": 0.1, "ci_low": -1.0, "ci_high": 1.0, "seconds": 1.0, "geweke": None, "control_variate": False}
    return meta | numbers | counts | {"segments": [[61, 16]], "history": [{"draws": 45, "how": "begun"}], "prolonged": ""}


if __name__ == "__main__":
    main()

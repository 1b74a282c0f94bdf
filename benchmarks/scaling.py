"""What a step costs as the work grows: time against chains, heads, context, vocabulary and width; memory against chains.

    python benchmarks/scaling.py [--layer 0 1] [--threads 1] [--rounds 5] [--format table|json] [--quick]

One size is changed at a time around a model of width 128. Told are milliseconds of a step of all chains and the exponent between neighbours and over
the range, `log(t_last / t_first) / log(n_last / n_first)`: 1 is proportional. Memory is what sampling adds at its highest to a process that has the
model already, in a process of its own: from its growth with the chains follow the megabytes of a chain, and what is left at none. That a chain of
one head takes as much in a model of twice as many layers shows that no chain holds a model.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from engine_work import paper_work, step_seconds
from peers_timing import keep_pages, machine, peak_of

from rllc.model.shape import ModelShape

BASE = ModelShape(n_layers=2, d_model=128, n_heads=4, d_head=32, d_vocab=2000, n_ctx=128)
QUICK = ModelShape(n_layers=2, d_model=16, n_heads=2, d_head=8, d_vocab=50, n_ctx=8)


@dataclass(frozen=True)
class Curve:
    """One size varied in one layer."""

    layer: int
    varied: str
    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    exponent: float


def curves(base: ModelShape, layer: int, rounds: int) -> list[Curve]:
    """Time against every size."""
    step = 2 if base is BASE else 1
    varied: dict[str, list[tuple[int, ModelShape, dict[str, int]]]] = {
        "chains": [(n, base, {"chains": n}) for n in (1, 2, 4, 8, 16)],
        "heads sampled": [(n, base, {"heads": n}) for n in (1, 2, 4) if n <= base.n_heads],
        "context": [(base.n_ctx * f // 2, replace(base, n_ctx=base.n_ctx * f // 2), {}) for f in (1, 2, 4, 8)],
        "vocabulary": [(base.d_vocab * f // step, replace(base, d_vocab=base.d_vocab * f // step), {}) for f in (1, 2, 4, 8)],
        "width, heads of equal size": [
            (base.d_model * f, replace(base, d_model=base.d_model * f, n_heads=base.n_heads * f), {"heads": base.n_heads}) for f in (1, 2, 4)
        ],
        "layers": [(n, replace(base, n_layers=n), {}) for n in (2, 4, 8)],
    }
    found: list[Curve] = []
    for name, cases in varied.items():
        sizes, ms = [], []
        for size, shape, options in cases:
            at = layer if layer == 0 else shape.n_layers - 1
            work = paper_work(shape, at, batch=4, chains=options.get("chains", 4), heads=options.get("heads", 0))
            sizes.append(size)
            ms.append(1e3 * step_seconds(work, rounds))
        found.append(Curve(layer, name, tuple(sizes), tuple(ms), exponent(sizes, ms)))
    return found


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of the least-squares line through the logarithms.

    >>> round(exponent([1, 2, 4], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def megabytes(layer: int, layers: int, chains: int, quick: bool) -> float:
    """What a step of chains of one head adds to the memory, seen in a process of its own."""
    command = [sys.executable, __file__, "--peak", str(layer), str(layers), str(chains), *(["--quick"] if quick else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


def peak(base: ModelShape, layer: int, layers: int, chains: int) -> float:
    """The same, in that process."""
    keep_pages()
    shape = replace(base, n_layers=layers)
    work = paper_work(shape, layer if layer == 0 else layers - 1, batch=4, chains=chains, heads=1)
    return peak_of(lambda: work(5))


def memory(layer: int, quick: bool) -> dict[str, Any]:
    """Memory against chains, in two models."""
    page: dict[str, Any] = {"layer": layer}
    for layers in (2, 4):
        few, many = (megabytes(layer, layers, n, quick) for n in (4, 32))
        page[f"{layers} layers"] = {"4 chains": few, "32 chains": many, "a chain": (many - few) / 28}
    return page


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, nargs="+", choices=[0, 1], default=[0, 1], help="0 for the first, 1 for the last")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a toy, to see that it runs")
    parser.add_argument("--peak", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base = QUICK if given.quick else BASE
    if given.peak:
        print(peak(base, *given.peak))
        return
    page: dict[str, Any] = {"machine": machine(), "curves": [], "memory": []}
    if given.format == "table":
        print(", ".join(f"{name}: {value}" for name, value in page["machine"].items()))
    for layer in given.layer:
        for curve in curves(base, layer, given.rounds):
            page["curves"].append(asdict(curve))
            if given.format == "table":
                points = "  ".join(f"{size}: {ms:.1f}" for size, ms in zip(curve.sizes, curve.ms, strict=True))
                name = "first" if layer == 0 else "last"
                print(f"{name} layer, {curve.varied:28} exponent {curve.exponent:5.2f}   ms: {points}", flush=True)
        page["memory"].append(memory(layer, given.quick))
        if given.format == "table":
            for name, row in page["memory"][-1].items():
                if isinstance(row, dict):
                    print(f"{'first' if layer == 0 else 'last'} layer of {name}: " + ", ".join(f"{k} {v:.1f} MB" for k, v in row.items()), flush=True)
    if given.format == "json":
        print(json.dumps(page))


if __name__ == "__main__":
    main()

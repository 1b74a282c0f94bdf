"""The sampler benchmark of arXiv 2507.21449 in small, ours and devinterp 2.0.1 side by side: deep linear networks whose local value is known.

    python benchmarks/samplers.py [--format table|json] [--chains 4] [--draws 800]

Every shape is sampled by each of our samplers and by each of devinterp's with equal nβ, γ, chains and draws; the two SGLDs and the two
RMSProp-SGLDs have equal steps too. Told are the relative error, its median, and whether the order of the shapes is preserved (Kendall τ over pairs
whose truths differ by more than a tenth). devinterp's `llc` averages its burn-in in; beside it stands what its stored draws give by hand.
Without devinterp (`pip install -e '.[peers]'`) ours stand alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from itertools import combinations, count

import numpy as np
import torch
from trust_cases import Case, Chain

from rllc.core import seeds
from rllc.posterior.sampling import sample
from rllc.posterior.settings import SamplerName, SamplerSettings
from rllc.posterior.toys.deep_linear import DeepLinear
from rllc.posterior.truths.points import LinearPoint
from rllc.posterior.truths.singular import smooth_llc
from rllc.posterior.validation.linear import NBETA, SHAPES, Shape, network_settings

peer = importlib.import_module("peers_devinterp") if importlib.util.find_spec("devinterp") else None
OURS: tuple[SamplerName, ...] = ("sgld", "leimkuhler-matthews", "rmsprop-sgld", "sgnht")
THEIRS = {"sgmcmc_sgld": "sgld", "rmsprop_sgld": "rmsprop-sgld"}
LARGEST = 1100  # parameters


@dataclass(frozen=True)
class Row:
    """One shape by one sampler."""

    shape: str
    by: str
    truth: float
    estimate: float
    seconds: float

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return self.estimate / self.truth - 1


def ours(shape: Shape, point: LinearPoint, settings: SamplerSettings) -> Row:
    """By our chains, paired."""
    started = time.perf_counter()
    noise = [seeds.derive(0, "samplers", str(shape), settings.sampler, chain) for chain in range(settings.chains)]
    result = sample(DeepLinear.at([point]), count(), settings, noise_seeds=[noise]).results[0]
    value = math.nan if result.estimate is None else result.estimate.llc
    return Row(str(shape), f"rllc {settings.sampler}", smooth_llc(point.weights), value, time.perf_counter() - started)


def theirs(shape: Shape, point: LinearPoint, settings: SamplerSettings, method: str) -> list[Row]:
    """By devinterp: its `llc`, and its stored draws."""
    assert peer is not None
    started = time.perf_counter()
    weights = [torch.tensor(w, dtype=torch.float32) for w in point.weights]
    sizes = [w.numel() for w in weights]
    teacher = product(weights)

    def loss(w: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        layers = [piece.view_as(layer) for piece, layer in zip(w[0].split(sizes), weights, strict=True)]
        return ((product(layers) - teacher) ** 2).sum().expand(1, len(items)) / 2

    chain = Chain(settings.step_size, settings.localization, settings.nbeta, settings.draws, settings.burn_in, settings.chains)
    origin = torch.cat([w.flatten() for w in weights])
    case = Case(str(shape), "", loss, origin, chain, smooth_llc(point.weights), math.nan, items=4)
    extra = {"rmsprop_eps": settings.rmsprop_stabilizer, "rmsprop_alpha": settings.rmsprop_decay} if method == "rmsprop_sgld" else {}
    answer = peer.ask(case, 0, sampling_method=method, num_init_loss_batches=1, **extra)
    seconds = time.perf_counter() - started
    names = (f"devinterp {method}", answer.llc), (f"devinterp {method}, its draws", answer.from_draws)
    return [Row(str(shape), name, case.truth, value, seconds) for name, value in names]


def product(layers: list[torch.Tensor]) -> torch.Tensor:
    """The end-to-end map; the first layer comes first."""
    result = layers[0]
    for layer in layers[1:]:
        result = layer @ result
    return result


def kendall(rows: list[Row]) -> float:
    """τ over pairs of shapes whose truths differ by more than a tenth."""
    signs = [
        np.sign((a.estimate - b.estimate) * (a.truth - b.truth))
        for a, b in combinations(rows, 2)
        if abs(a.truth - b.truth) > 0.1 * min(a.truth, b.truth)
    ]
    return float(np.mean(signs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=800)
    parser.add_argument("--largest", type=int, default=LARGEST, help="parameters of the largest shape")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for shape in SHAPES:
        point = shape.point()
        if point.parameters > given.largest:
            continue
        by = {name: replace(network_settings(name, point, NBETA), chains=given.chains, draws=given.draws) for name in OURS}
        rows += [ours(shape, point, settings) for settings in by.values()]
        if peer is not None:
            for method, name in THEIRS.items():
                rows += theirs(shape, point, by[name], method)  # type: ignore[index]
    names = list(dict.fromkeys(row.by for row in rows))
    groups = {name: [row for row in rows if row.by == name] for name in names}
    summary = {
        name: {
            "median_error": float(np.median([abs(row.error) for row in group])),
            "worst_error": float(max((row.error for row in group), key=abs)),
            "kendall": kendall(group),
            "seconds": sum(row.seconds for row in group),
        }
        for name, group in groups.items()
    }
    if given.format == "json":
        print(json.dumps({"rows": [asdict(row) for row in rows], "summary": summary}, indent=1))
        return
    shapes = list(dict.fromkeys(row.shape for row in rows))
    print(f"Relative error of λ̂ in per cent; {given.chains} chains × {given.draws} draws, population loss, 1 thread.")
    print(f"{'':<36}{'median':>8}{'worst':>8}{'τ':>7}{'seconds':>9}   " + "  ".join(shapes))
    for name, group in groups.items():
        s = summary[name]
        errors = "  ".join(f"{100 * row.error:>{len(row.shape)}.1f}" for row in group)
        head = f"{name:<36}{100 * s['median_error']:>8.2f}{100 * s['worst_error']:>8.1f}{s['kendall']:>7.2f}{s['seconds']:>9.1f}"
        print(f"{head}   {errors}")
    if peer is None:
        print("devinterp is not installed, so ours stand alone: pip install -e '.[peers]'")


if __name__ == "__main__":
    main()

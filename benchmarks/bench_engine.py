"""One evaluation of all heads × chains of a layer, ours against looping over variants with the plain model, side by side in one run.

python -m pytest benchmarks --benchmark-only        (make bench)
python benchmarks/bench_engine.py [--format json]   the ratios alone, sides alternating, medians of 5
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial

import pytest
import torch

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.evaluation import PartObjective
from rllc.model.objective import build_objective
from rllc.model.parts import insert
from rllc.model.shape import ModelShape

SHAPE = ModelShape(n_layers=2, d_model=128, n_heads=8, d_head=16, d_vocab=512, n_ctx=64)  # the demo's model
CHAINS, BATCH, ROUNDS = 4, 8, 5


def work(layer: int) -> tuple[PartObjective, dict[str, torch.Tensor], fw.Params, torch.Tensor, tuple[Part, ...]]:
    """Objective, variants, weights and tokens of the heads of one layer."""
    params = fw.init_params(SHAPE, 0)
    parts = tuple(Part.of_head(layer, h) for h in range(SHAPE.n_heads))
    objective = build_objective(SHAPE, params, parts, 0)
    generator = torch.Generator().manual_seed(0)
    variants = {
        name: t.repeat_interleave(CHAINS, 0) + 0.01 * torch.randn((t.shape[0] * CHAINS, *t.shape[1:]), generator=generator)
        for name, t in objective.origin.items()
    }
    return objective, variants, params, torch.randint(0, SHAPE.d_vocab, (BATCH, SHAPE.n_ctx), generator=generator), parts


def batched(objective: PartObjective, variants: dict[str, torch.Tensor], tokens: torch.Tensor) -> None:
    """All variants in one pass."""
    objective.evaluate(variants, objective.prepare(tokens))


def looped(variants: dict[str, torch.Tensor], params: fw.Params, tokens: torch.Tensor, parts: tuple[Part, ...]) -> None:
    """One variant after another on the whole model, gradients of the head's slices alone."""
    names = list(variants)
    for p, part in enumerate(parts):
        own = [name.replace(f"[{parts[0].atoms[0].head}]", f"[{part.atoms[0].head}]") for name in names]
        for chain in range(CHAINS):
            values = {o: variants[n][p * CHAINS + chain].clone().requires_grad_() for o, n in zip(own, names, strict=True)}
            torch.autograd.grad(fw.losses(SHAPE, insert(SHAPE, params, part, values), tokens)[0], list(values.values()))


@pytest.mark.parametrize("layer", [0, 1])
def test_batched(benchmark, layer):
    """All heads × chains of a layer in one pass."""
    objective, variants, _, tokens, _ = work(layer)
    benchmark(batched, objective, variants, tokens)


@pytest.mark.parametrize("layer", [0, 1])
def test_looped(benchmark, layer):
    """The same work, one variant at a time."""
    _, variants, params, tokens, parts = work(layer)
    benchmark(looped, variants, params, tokens, parts)


def ratios() -> dict[str, float]:
    """Milliseconds of each side and their ratio, by layer."""
    found: dict[str, float] = {"threads": torch.get_num_threads()}
    for layer in range(SHAPE.n_layers):
        objective, variants, params, tokens, parts = work(layer)
        times: dict[str, list[float]] = {"batched": [], "looped": []}
        sides = {"batched": partial(batched, objective, variants, tokens), "looped": partial(looped, variants, params, tokens, parts)}
        for turn in range(ROUNDS + 1):
            for name, call in sides.items():
                started = time.perf_counter()
                call()
                if turn:  # the first warms up
                    times[name].append(1e3 * (time.perf_counter() - started))
        medians = {name: statistics.median(values) for name, values in times.items()}
        found |= {f"layer {layer} {name} ms": round(value, 1) for name, value in medians.items()}
        found[f"layer {layer} ratio"] = round(medians["looped"] / medians["batched"], 2)
    return found


if __name__ == "__main__":
    result = ratios()
    print(json.dumps(result) if "json" in sys.argv else "\n".join(f"{name}: {value}" for name, value in result.items()))

"""Everything that needs a CUDA device, in one command under ten minutes: the figures of `docs/performance.md` that no CPU can give.

    python benchmarks/gpu.py [--out runs/gpu.json] [--minutes 9] [--cpu]

1. The paper's cell: all 16 heads × 4 chains × 200 draws of 32 contexts of 1,024 tokens (METHOD 2), in fp32 and with bf16 products. A few steps of
   each layer are timed and multiplied; where the whole takes less than a minute it is sampled. From it the hours for 107 checkpoints.
2. devinterp 2.0.1 on the same device, one head, where it is installed: chain-steps a second, and what the same cell would take.
3. The roofline of both layers.
4. That bf16 products move λ̂ by less than a quarter of its standard error, on the paper's shape.

What is done is written at once, so that a run that is cut off keeps what it has. `--cpu` goes through the same on a toy, to see that it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_work import PAPER, paper_work, step_seconds
from peers_timing import machine
from roofline import row

from rllc.core.names import Part
from rllc.model import forward as fw
from rllc.model.objective import build_objective
from rllc.posterior.chains import run_chains
from rllc.posterior.estimate import paired, standard_error
from rllc.posterior.settings import SamplerSettings

CHAINS, DRAWS, CHECKPOINTS = 4, 200, 107


class Page:
    """What was found so far, on disk at once, within a time."""

    def __init__(self, path: Path, minutes: float) -> None:
        self.path, self.until, self.found = path, time.monotonic() + 60 * minutes, dict[str, Any]()

    def add(self, name: str, make: Callable[[], Any]) -> Any:
        """Make one thing, unless the time is up, and write it down; what fails is written down too."""
        if time.monotonic() > self.until:
            self.found[name] = "not done: the time was up"
        else:
            started = time.monotonic()
            try:
                self.found[name] = make()
            except Exception as error:  # the rest is still worth having
                self.found[name] = f"failed: {type(error).__name__}: {error}"
            self.found[name + " took s"] = round(time.monotonic() - started, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        print(f"{name}: {self.found[name]}", flush=True)
        return self.found[name]


def cell(shape: Any, batch: int, chunk: int, products: torch.dtype, device: torch.device) -> dict[str, float]:
    """Seconds of the paper's cell: all heads of all layers."""
    page: dict[str, float] = {}
    total = 0.0
    for layer in range(shape.n_layers):
        work = paper_work(shape, layer, batch, CHAINS, products, device, chunk=chunk)
        each = step_seconds(work, 3)
        if each * DRAWS < 60:
            started = time.perf_counter()
            work(DRAWS + 1)
            if device.type == "cuda":
                torch.cuda.synchronize()
            each = (time.perf_counter() - started) / (DRAWS + 1)
        page[f"layer {layer} ms a chain-step"] = 1e3 * each / (CHAINS * shape.n_heads)
        total += each * (DRAWS + 1)
    if device.type == "cuda":
        page["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    return page | {"cell s": total, f"{CHECKPOINTS} checkpoints h": total * CHECKPOINTS / 3600}


def peer(shape: Any, batch: int, device: torch.device) -> Any:
    """One head by devinterp: seconds a chain-step, and of the cell."""
    if not (importlib.util.find_spec("devinterp") and importlib.util.find_spec("transformer_lens")):
        return "devinterp or transformer-lens is not installed"
    from devinterp.slt.sampling import sample
    from peers_language import head_masks, pool, quiet, twin

    params = fw.init_params(shape, 0)
    model = twin(shape, params).to(device)
    data = pool(torch.randint(0, shape.d_vocab, (batch * 24, shape.n_ctx), generator=torch.Generator().manual_seed(0)))
    times: dict[int, float] = {}
    for draws in (5, 15, 5, 15):  # the difference of two lengths is steps alone
        with quiet() as (path, _):
            started = time.perf_counter()
            options: dict[str, Any] = {"num_init_loss_batches": 1, "shuffle": False, "device": device.type, "output_path": path}
            masks = head_masks(shape, model, Part.of_head(0, 0))
            sample(
                model,
                data,
                {},
                param_masks=masks,
                num_chains=1,
                num_draws=draws,
                batch_size=batch,
                lr=1e-3,
                n_beta=30.0,
                localization=200.0,
                **options,
            )
            times[draws] = time.perf_counter() - started
    each = (times[15] - times[5]) / 10
    heads = shape.n_layers * shape.n_heads
    return {
        "ms a chain-step": 1e3 * each,
        "cell s": each * CHAINS * DRAWS * heads,
        f"{CHECKPOINTS} checkpoints h": each * CHAINS * DRAWS * heads * CHECKPOINTS / 3600,
    }


def short_products(shape: Any, batch: int, chunk: int, device: torch.device) -> dict[str, Any]:
    """λ̂ of the first layer's heads with fp32 and bf16 products, same noise and minibatches, in units of the standard error."""
    params = {name: tensor.to(device) for name, tensor in fw.init_params(shape, 0).items()}
    settings = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=CHAINS, draws=40, burn_in=15)
    parts = tuple(Part.of_head(0, head) for head in range(shape.n_heads))
    found = []
    for products in (torch.float32, torch.bfloat16):
        objective = build_objective(shape, params, parts, chunk, products)
        generator = torch.Generator().manual_seed(0)
        data = (torch.randint(0, shape.d_vocab, (batch, shape.n_ctx), generator=generator).to(device) for _ in range(settings.steps + 1))
        series = paired(run_chains(objective, objective.origin, data, settings, [[10 * h + c for c in range(CHAINS)] for h in range(len(parts))]))
        found.append((series.mean(axis=(1, 2)), standard_error(series)[0]))
    moved = np.abs(found[0][0] - found[1][0]) / found[0][1]
    return {"largest move in standard errors": float(moved.max()), "median": float(np.median(moved))}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--cpu", action="store_true", help="a toy on the CPU")
    given = parser.parse_args()
    if not (given.cpu or torch.cuda.is_available()):
        parser.exit(2, "torch finds no CUDA device here. Give --cpu to see that the script runs.\n")
    device = torch.device("cpu" if given.cpu else "cuda")
    shape, batch = replace(PAPER, n_ctx=1024), 32
    if given.cpu:
        shape, batch = replace(PAPER, d_model=16, n_heads=2, d_head=8, d_vocab=50, n_ctx=8), 2
    chunk = 0 if given.cpu else 16
    page = Page(given.out, given.minutes)
    page.add("machine", lambda: machine() | {"device": "toy on the CPU" if given.cpu else torch.cuda.get_device_name(), "torch": torch.__version__})
    page.add("the paper's cell, fp32", lambda: cell(shape, batch, chunk, torch.float32, device))
    page.add("the paper's cell, bf16 products", lambda: cell(shape, batch, chunk, torch.bfloat16, device))
    page.add("devinterp", lambda: peer(shape, batch, device))
    for layer in range(shape.n_layers):
        products = torch.bfloat16 if layer == 0 else torch.float32
        page.add(f"roofline, layer {layer}", lambda layer=layer, products=products: asdict(row(shape, layer, batch, CHAINS, 3, products, device)))
    page.add("bf16 products against fp32", lambda: short_products(shape, batch, chunk, device))


if __name__ == "__main__":
    main()

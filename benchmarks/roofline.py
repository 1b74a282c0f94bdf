"""How near the machine's limit: what the needed matrix products take by themselves, over what a chain-step takes.

    python benchmarks/roofline.py [--layer 0 1] [--threads 1] [--products float32|bfloat16] [--device cpu|cuda] [--format table|json] [--quick]

Every product that a step of one chain needs is timed alone, at its own shape, in the buffers it has in the engine: what the machine can do, not what
its data sheet says. `products` is their sum over the measured time of a whole chain-step, sampler and shared prefix included; `with softmax` adds
the passes over the logits without which there is no loss. `textbook` is what the same step would take if nothing but the two products of the whole
unembedding were computed, [tokens, width] × [width, vocabulary] and back, as every other program does: above 1, the engine is faster than that.
Beside it stand the rates of that product in fp32 and bf16, which say whether `engine.products = "bfloat16"` pays here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from engine_work import PAPER, paper_work, step_seconds
from peers_timing import machine

from rllc.model.attention import attend
from rllc.model.cross_entropy import row_blocks
from rllc.model.shape import ModelShape

Product = tuple[str, float, Callable[[], object], float]  # name, operations of one call, the call, calls a chain-step


@dataclass(frozen=True)
class Row:
    """One layer."""

    layer: int
    products: str
    step_ms: float  # of one chain
    product_ms: float
    softmax_ms: float
    share: float  # of the products in the step
    share_with_softmax: float
    textbook: float
    gflops: float  # of the products, alone
    fp32_gflops: float  # of the whole unembedding's product
    bf16_gflops: float


def seconds(call: Callable[[], object], device: torch.device, least: float = 0.03) -> float:
    """Median time of a call, of as many as fill `least` seconds, five at the least."""
    times: list[float] = []
    call()
    while len(times) < 5 or (sum(times) < least and len(times) < 200):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def needed(shape: ModelShape, layer: int, batch: int, variants: int, chains: int, dtype: torch.dtype, device: torch.device) -> list[Product]:
    """The products of one step, forward and backward, as the engine makes them."""
    d, k, h, v, t = shape.d_model, shape.d_head, shape.n_heads, shape.d_vocab, shape.n_ctx
    n, rows = batch * t, batch * (t - 1)
    found: list[Product] = []

    def random(*size: int, of: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(size, device=device).to(of)

    def product(name: str, m: int, inner: int, width: int, calls: float, of: torch.dtype = torch.float32, into: bool = False) -> None:
        a, b, out = random(m, inner, of=of), random(inner, width, of=of), random(m, width, of=of)
        call = (lambda: out.addmm_(a, b)) if into else (lambda: torch.mm(a, b, out=out))
        found.append((name, 2.0 * m * inner * width, call, calls))

    def attention(heads: int, calls: float) -> None:
        q = random(batch, t, heads, k).transpose(1, 2).requires_grad_()
        up = random(batch, t, heads, k).transpose(1, 2)

        def both() -> object:
            return torch.autograd.grad(attend(shape, q, q, q), q, up)

        # causal: half of two products forward, and of five backward
        found.append((f"attention of {heads} heads", 7.0 * batch * heads * t * t * k, both, calls))

    product("Q, K, V", n, d, 3 * variants * k, 1 / variants)
    product("gradients of W_Q, W_K, W_V", d, n, 3 * variants * k, 1 / variants)
    attention(variants, 1 / variants)
    blocks = row_blocks(rows, v, device.type)
    block = blocks[0].stop
    if layer == shape.n_layers - 1 and not shape.d_mlp:
        product("rest · W_O", rows, d, k, 1)
        product("its gradient", k, rows, d, 1)
        product("W_O · unembedding", variants * k, d, v, 1 / variants)
        product("its gradient", variants * k, v, d, 1 / variants)
        product("logits of the head", block, k, v, len(blocks), into=True)
        product("logits without the head", block, k, v, len(blocks) / chains, into=True)
        product("gradient of z", block, v, k, len(blocks))
        product("gradient of W_O · unembedding", k, block, v, len(blocks), into=True)
        product("logits of all", block, d, v, len(blocks) / variants)
    else:
        product("z · W_O", n, k, d, 1)
        product("gradient of z", n, d, k, 1)
        product("gradient of W_O", k, n, d, 1)
        behind = shape.n_layers - 1 - layer
        product("Q, K, V, O behind, both ways", n, d, h * k, 8 * behind)
        attention(h, behind)
        product("unembedding", block, d, v, len(blocks), of=dtype)
        product("its gradient", block, v, d, len(blocks), of=dtype)
    return found


def row(shape: ModelShape, layer: int, batch: int, chains: int, rounds: int, products: torch.dtype, device: torch.device) -> Row:
    """Everything of one layer."""
    variants = chains * shape.n_heads
    step = step_seconds(paper_work(shape, layer, batch, chains, products, device), rounds) / variants
    parts = [
        (flops * calls, seconds(call, device) * calls) for _, flops, call, calls in needed(shape, layer, batch, variants, chains, products, device)
    ]
    blocks = row_blocks(batch * (shape.n_ctx - 1), shape.d_vocab, device.type)
    logits = torch.randn(blocks[0].stop, shape.d_vocab, device=device)
    room = torch.empty_like(logits)

    def passes() -> object:
        return logits.amax(1), torch.softmax(logits, 1, out=room), room.amax(1)

    softmax = seconds(passes, device) * len(blocks)
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        x, w = (torch.randn(size, device=device).to(dtype) for size in ((blocks[0].stop, shape.d_model), (shape.d_model, shape.d_vocab)))
        rates.append(2.0 * x.shape[0] * w.numel() / seconds(lambda x=x, w=w: x @ w, device))
    flops, alone = (sum(column) for column in zip(*parts, strict=True))
    wide = 4.0 * batch * (shape.n_ctx - 1) * shape.d_model * shape.d_vocab / max(rates[0], rates[1] if products == torch.bfloat16 else 0)
    return Row(
        layer,
        str(products).removeprefix("torch."),
        step_ms=1e3 * step,
        product_ms=1e3 * alone,
        softmax_ms=1e3 * softmax,
        share=alone / step,
        share_with_softmax=(alone + softmax) / step,
        textbook=wide / step,
        gflops=flops / alone / 1e9,
        fp32_gflops=rates[0] / 1e9,
        bf16_gflops=rates[1] / 1e9,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--products", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a toy shape, to see that it runs")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = replace(PAPER, n_ctx=given.context)
    if given.quick:
        shape = replace(PAPER, d_model=32, n_heads=2, d_head=16, d_vocab=100, n_ctx=16)
    device = torch.device(given.device)
    rows = [row(shape, layer, given.batch, given.chains, given.rounds, getattr(torch, given.products), device) for layer in given.layer]
    if given.format == "json":
        print(json.dumps({"machine": machine(), "threads": given.threads, "rows": [asdict(r) for r in rows]}))
        return
    print(", ".join(f"{name}: {value}" for name, value in machine().items()))
    for r in rows:
        print(
            f"layer {r.layer}, {r.products}: {r.step_ms:.1f} ms a chain-step; products alone {r.product_ms:.1f} ms ({r.share:.0%}), with softmax "
            f"{r.share_with_softmax:.0%}; textbook {r.textbook:.2f}; {r.gflops:.0f} GFLOP/s at these shapes, of the whole unembedding "
            f"{r.fp32_gflops:.0f} in fp32 and {r.bf16_gflops:.0f} in bf16"
        )


if __name__ == "__main__":
    main()

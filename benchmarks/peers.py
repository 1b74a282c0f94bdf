"""The same work in rllc, in devinterp 2.0.1 and in canonical-interp 0.2.7: chain-steps per second, their ratio, and peak memory.

    python benchmarks/peers.py [--layer 0 1] [--rounds 5] [--threads 1] [--context 256] [--batch 8] [--format table|json] [--quick]

The work: SGLD on every head of a layer of the paper's model (2 layers, 8 heads, width 256, vocabulary 5,000, attention-only, shortformer positions;
fresh weights), four chains a head, on contexts of this machine's own Python sources, with equal ε, γ and nβ. rllc advances all heads and chains of
the layer in one pass. The others take a head a call; every head costs them the same, so a round samples one of them. devinterp has `observables={}`,
its own head masks, and appears twice: with a HookedTransformer, as its documentation has it, and with a plain module that suits it better. That
logits, losses and masks are ours is checked beforehand, and a difference is an error.

The clock: the interval between two evaluations of a chain is a whole step. A round's figure is the median of its steps, so that what a call does
once, or for the first time, is not in it (`set-up` is that). Rounds alternate the sides; told are medians over rounds, and the ratio is the median
of the rounds' own ratios. Memory: what a call adds, at its highest, to the resident memory of a process of its own that made it once before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from peers_sides import ABOUT, CANONICAL, LENS, MISSING, NAMES, OURS, Work, canonical, devinterp, quick_work, sides
from peers_timing import Timed, keep_pages, machine, peak_of

from rllc.model.slices import size

Row = dict[str, Any]
COLUMNS = ("layer", "by", "ms a chain-step", "chain-steps/s", "ratio", "lowest", "highest", "set-up s", "peak MB", "remark")


def measured(work: Work, only: Sequence[str] = NAMES, memory: Callable[[str, int], float] | None = None) -> Row:
    """Every layer: its sides by turns, then the memory of each."""
    page: Row = {"versions": versions(), "machine": machine(), "model": work.shape.as_dict()}
    page |= {"weights of a head": size(work.shape, work.parts(0)[0]), "batch": work.batch, "chains": work.chains, "steps": work.steps}
    page |= {"rounds": work.rounds, "sampler": dict(work.sampler), "about": ABOUT, "largest differences": {}, "rows": []}
    page["missing"] = [MISSING[name] for name, peer in ((LENS, devinterp), (CANONICAL, canonical)) if peer is None]
    for layer in work.layers:
        calls, page["largest differences"] = sides(work, layer, only)
        times: dict[str, list[Timed]] = {name: [] for name in calls}
        failed: dict[str, str] = {}
        for turn in range(work.rounds):
            if sys.stderr.isatty():
                print(f"layer {layer}, round {turn + 1} of {work.rounds}", file=sys.stderr)
            for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
                try:
                    times[name].append(calls[name](turn))
                except Exception as error:  # a peer that cannot run here is told as such
                    if name == OURS:
                        raise
                    failed[name] = f"cannot run here: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
                    del calls[name]
        for name, rounds in times.items():
            row: Row = {"layer": layer, "by": name}
            row |= {"remark": failed[name]} if name in failed else summary(rounds, times.get(OURS, []))
            if memory is not None and name not in failed:
                row["peak MB"] = memory(name, layer)
            page["rows"].append(row)
    return page


def summary(rounds: Sequence[Timed], ours: Sequence[Timed]) -> Row:
    """Medians over rounds, and how many of our chain-steps fit into one of theirs."""
    step = statistics.median(t.step for t in rounds)
    ratios = [theirs.step / own.step for theirs, own in zip(rounds, ours, strict=True)] if ours else [math.nan]
    return {
        "ms a chain-step": 1e3 * step,
        "chain-steps/s": 1 / step,
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "set-up s": statistics.median(t.setup for t in rounds),
    }


def versions() -> Row:
    """Of what was run."""
    names = ["rllc", "torch"] + ["devinterp", "transformer-lens"] * (devinterp is not None) + ["canonical-interp"] * (canonical is not None)
    return {name: importlib.metadata.version(name) for name in names}


def cell(value: Any) -> str:
    """A number with three figures."""
    return str(value) if not isinstance(value, float) else "–" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown(page: Row) -> str:
    """The figures as text."""
    model, sampler = page["model"], page["sampler"]
    cells = [list(COLUMNS), *([cell(row.get(column, "")) for column in COLUMNS] for row in page["rows"])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    differences = [f"{name}: {', '.join(f'{what} {most:.1g}' for what, most in d.items())}" for name, d in page["largest differences"].items()]
    paragraphs = [
        ", ".join(f"{name} {version}" for name, version in page["versions"].items()),
        ", ".join(f"{name} {value}" for name, value in page["machine"].items()),
        f"{model['n_layers']} layers, {model['n_heads']} heads, width {model['d_model']}, vocabulary {model['d_vocab']}, context {model['n_ctx']}; "
        f"batch {page['batch']}, {page['chains']} chains of each head ({page['weights of a head']} weights), {page['rounds']} rounds of "
        f"{page['steps']} steps; {', '.join(f'{name} {value:g}' for name, value in sampler.items())}",
        *(["Largest differences from rllc's logits and losses at w*: " + "; ".join(differences) + "."] if differences else []),
        "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells),
        "\n".join(f"{name}: {page['about'][name]}." for name in dict.fromkeys(row["by"] for row in page["rows"])),
        *page["missing"],
    ]
    return "\n\n".join(paragraphs)


def plain(value: Any) -> Any:
    """The same with null for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def peak_in_child(arguments: Sequence[str], name: str, layer: int) -> float:
    """The memory of one side's call, by a process of its own with these arguments."""
    command = [sys.executable, __file__, *arguments, "--layer", str(layer), "--only", name, "--peak"]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, nargs="+", default=[0, 1], choices=[0, 1])
    parser.add_argument("--rounds", type=int, default=0, help="5, or 2 with --quick")
    parser.add_argument("--threads", type=int, default=0, help="of torch; its own choice unless given")
    parser.add_argument("--context", type=int, default=0, help="256 tokens")
    parser.add_argument("--batch", type=int, default=0, help="8 contexts")
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES, help="some of the sides")
    parser.add_argument("--allocator", choices=["keep", "default"], default="keep", help="whether glibc is asked to keep freed memory, for all sides")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out, as --quick does")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--quick", action="store_true", help="a toy, to see that everything runs")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)  # the memory of the one side and layer that are given
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    work = quick_work() if given.quick else Work()
    shape = replace(work.shape, n_ctx=given.context or work.shape.n_ctx)
    work = replace(work, shape=shape, layers=tuple(given.layer), batch=given.batch or work.batch, rounds=given.rounds or work.rounds)
    if given.peak:
        calls, _ = sides(work, given.layer[0], given.only)
        print(peak_of(lambda: calls[given.only[0]](0)))
        return
    kept = given.allocator == "keep" and keep_pages()
    amount = {"--threads": given.threads, "--context": given.context, "--batch": given.batch}
    arguments = [word for name, value in amount.items() for word in (name, str(value))]
    page = measured(work, given.only, None if given.quick or given.no_memory else lambda name, layer: peak_in_child(arguments, name, layer))
    page["machine"]["freed memory"] = "kept" if kept else "returned"
    print(json.dumps(plain(page), ensure_ascii=False) if given.format == "json" else shown(page))


if __name__ == "__main__":
    main()

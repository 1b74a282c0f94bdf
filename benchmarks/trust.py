"""How far the numbers can be trusted: the same cases through rllc and through devinterp 2.0.1, in one process.

    python benchmarks/trust.py [--format table|json] [--seeds 20] [--quick]

Three tables: estimates (bias, spread over seeds against the error that is told, coverage), failing chains, and an output folder that is used
again. Nothing in them is written down beforehand. Without devinterp (`pip install -e '.[peers]'`) rllc is measured alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trust_cases
from ours_rllc import KIND, key_of, ours
from scipy.special import stdtrit
from trust_cases import Case

from rllc.core import digest
from rllc.posterior.settings import SamplerName
from rllc.records.store import Store

peer: Any = importlib.import_module("peers_devinterp") if importlib.util.find_spec("devinterp") else None

Row = dict[str, Any]
CONFIDENCE = 0.90
LEGEND = """ESTIMATES. truth: of the posterior. aim: what the chain's average tends to, SGLD's finite step included; errors are judged by it.
expected: of this average of so many draws from w*, where it can be written down. sd: over seeds. stderr told: rllc's; devinterp tells the spread of
its chains, llc_std, and no error, which is then llc_std/√(chains - 1). held: aims inside the interval at nominal 90 %; held expected: the same of
expected, which leaves burn-in out of it. seconds: a run."""


# --- estimates


@dataclass(frozen=True)
class Told:
    """What a tool told of one seed; NaN where it told nothing."""

    llc: float
    stderr: float = math.nan
    reach: float = math.nan  # half the interval at nominal 90 %
    spread: float = math.nan  # devinterp's llc_std itself
    mark: str = ""


def told_by_us(case: Case, seed: int, sampler: SamplerName = "sgld") -> Told:
    """The estimate with its interval."""
    result = ours(case, seed, sampler).results[0]
    if result.estimate is None:
        return Told(math.nan, mark=str(result.outcome))
    e = result.estimate
    return Told(e.llc, e.stderr, (e.ci_high - e.ci_low) / 2, mark=str(result.outcome))


def told_unpaired(case: Case, seed: int) -> Told:
    """The number for parity with peers, which has no error."""
    estimate = ours(case, seed).results[0].estimate
    return Told(math.nan if estimate is None else estimate.llc_unpaired)


def told_by_peer(case: Case, seed: int, **options: Any) -> Told:
    """llc_mean, and the standard error that llc_std is good for if chains are independent: their spread over √C, with Student's quantile."""
    answer = peer.ask(case, seed, **options)
    chains = len(answer.per_chain)
    stderr = answer.llc_std / math.sqrt(chains - 1)  # llc_std divides by C, not by C - 1
    reach = float(stdtrit(chains - 1, (1 + CONFIDENCE) / 2)) * stderr
    return Told(answer.llc, stderr, reach, answer.llc_std, "warned" if answer.warnings else "")


def told_by_hand(case: Case, seed: int) -> Told:
    """From the draws that devinterp stores and its llc leaves aside."""
    return Told(peer.ask(case, seed).from_draws)


def estimates(case: Case, seed_count: int) -> list[Row]:
    """A row for each way to estimate the case."""
    ways: list[tuple[str, Callable[[int], Told], str]] = [
        ("rllc sgld", lambda seed: told_by_us(case, seed), "draws"),
        ("rllc leimkuhler-matthews", lambda seed: told_by_us(case, seed, "leimkuhler-matthews"), ""),
    ]
    noisy, relaxing = case.name.startswith("shared"), case.name.startswith("burn-in") and case.chain.burn_in > 0
    steps = case.chain.burn_in + case.chain.draws
    if noisy:
        ways.append(("rllc sgld, unpaired", lambda seed: told_unpaired(case, seed), "draws"))
    if peer is not None:
        ways.append(("devinterp sgld", lambda seed: told_by_peer(case, seed), "all"))
        if noisy:
            ways.append((f"  num_init_loss_batches={steps}", lambda seed: told_by_peer(case, seed, num_init_loss_batches=steps), "all"))
            own = {"match_sampling_input_ids_across_chains": False}
            ways.append(("  the same, batches of their own", lambda seed: told_by_peer(case, seed, num_init_loss_batches=steps, **own), "all"))
        if relaxing:
            ways.append(("  its stored draws, by hand", lambda seed: told_by_hand(case, seed), "stored"))
    rows = [summary(case, name, tell, seed_count, case.expected.get(average, math.nan)) for name, tell, average in ways]
    if peer is not None and case.name == "quadratic":
        rows.append({"case": case.name, "by": "devinterp leimkuhler-matthews", "remark": f"cannot: its samplers are {peer.SAMPLERS}"})
    return rows


def summary(case: Case, name: str, tell: Callable[[int], Told], seed_count: int, expected: float) -> Row:
    """What is seen over seeds 1, 2, … in one way of estimating."""
    started = time.perf_counter()
    told = [tell(seed) for seed in range(1, seed_count + 1)]
    llc = np.array([t.llc for t in told])
    given = np.isfinite(llc)
    # an error bar speaks of where the chain's own average tends; Leimkuhler–Matthews' is the posterior's
    aim = case.truth if "leimkuhler" in name or math.isnan(case.limit) else case.limit
    sd = float(llc[given].std(ddof=1))

    def held(reach: np.ndarray[Any, Any], value: float = aim) -> float:
        return float((np.abs(llc - value) <= reach)[given].mean()) if np.isfinite(reach[given]).all() and not math.isnan(value) else math.nan

    reach = np.array([t.reach for t in told])
    spread = np.array([t.spread for t in told])
    stderr = float(np.mean([t.stderr for t, there in zip(told, given, strict=True) if there]))
    return {
        "case": case.name,
        "by": name,
        "truth": case.truth,
        "aim": aim,
        "expected": expected,
        "mean": float(llc[given].mean()),
        "bias": float(llc[given].mean()) - case.truth,
        "bias stderr": sd / math.sqrt(int(given.sum())),
        "sd": sd,
        "stderr told": stderr,
        "sd / told": sd / stderr,
        "held": held(reach),
        "held expected": held(reach, expected),
        "llc_std": float(spread[given].mean()),
        "held by 1.64 llc_std": held(1.645 * spread),
        "marks": dict(Counter(t.mark for t in told if t.mark)),
        "seconds": (time.perf_counter() - started) / seed_count,
    }


# --- failing chains


@dataclass(frozen=True)
class Fate:
    """What became of one cell whose chains may have failed."""

    finite: int  # evaluations of the chain that failed first, until it did
    hit: bool  # some chain did fail
    llc: float  # what was told
    words: str  # what else was said


def fate_by_us(case: Case, seed: int, always: bool) -> Fate:
    """With the outcome."""
    sampled = ours(case, seed)
    result = sampled.results[0]
    first = sampled.traces[0].first_nonfinite()
    steps = case.chain.burn_in + case.chain.draws + 1
    finite = int(np.where(first < 0, steps, first).min())
    return Fate(finite, always or finite < steps, math.nan if result.estimate is None else result.estimate.llc, str(result.outcome))


def fate_by_peer(case: Case, seed: int, always: bool) -> Fate:
    """With the warning, if any, and the stamp that the folder got."""
    answer = peer.ask(case, seed)
    finite = min(answer.finite_steps)
    words = ("warning" if answer.warnings else "no warning") + (", stamped complete" if answer.completed else ", not stamped")
    return Fate(finite, always or finite < answer.steps, answer.llc, words)


def failing(case: Case, seed_count: int) -> list[Row]:
    """A row for each tool."""
    always = math.isnan(case.limit)  # the step is unstable at w* itself
    tools: list[tuple[str, Callable[[int], Fate]]] = [("rllc", lambda seed: fate_by_us(case, seed, always))]
    if peer is not None:
        tools.append(("devinterp", lambda seed: fate_by_peer(case, seed, always)))
    rows: list[Row] = []
    for name, tell in tools:
        fates = [tell(seed) for seed in range(1, seed_count + 1)]
        hit, fine = [f for f in fates if f.hit], [f for f in fates if not f.hit]
        numbers = [f.llc for f in hit if math.isfinite(f.llc)]
        rows.append(
            {
                "case": case.name,
                "by": name,
                "cells": len(fates),
                "with a failed chain": len(hit),
                "first lost after": min((f.finite for f in hit), default=math.nan),
                "finite numbers given": len(numbers),
                "truth": case.truth,
                "their mean": float(np.mean(numbers)) if numbers else math.nan,
                "sound cells'": float(np.mean([f.llc for f in fine])) if fine else math.nan,
                "said": dict(Counter(f.words for f in hit)),
                "sound cells refused": sum(math.isnan(f.llc) for f in fine),
            }
        )
    return rows


# --- an output folder used again


def reuse() -> list[Row]:
    """One sampling, then another that differs in one thing, both told to use one folder."""
    base = trust_cases.two_checkpoints(second=False)
    mask = torch.cat([torch.ones(8), torch.zeros(8)])
    changes: list[tuple[str, Case, dict[str, Any]]] = [
        ("nothing", base, {}),
        ("the weights", trust_cases.two_checkpoints(second=True), {}),
        ("the data", trust_cases.two_checkpoints(second=False, steep=True), {"first": base.items}),
        ("the part sampled", replace(base, truth=base.truth / 2), {"mask": mask}),
        ("the step size", replace(base, chain=replace(base.chain, step_size=1e-4)), {}),
    ]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "records")
        store.put(KIND, key_of(base), {"losses": np.zeros(1)}, {})
        for number, (what, case, options) in enumerate(changes):
            after = key_of(case, options.get("first", 0), "0:1" if "mask" in options else "0:0")
            row: Row = {
                "changed": what,
                "truth": case.truth,
                "rllc key": digest.of_json(after)[:12],
                "rllc": "the record is taken" if store.has(KIND, after) else "sampled anew",
            }
            if peer is not None:
                row |= asked_again(base, case, options, Path(folder) / f"{number}.zarr")
            rows.append(row)
    return rows


def asked_again(base: Case, case: Case, options: dict[str, Any], path: Path) -> Row:
    """The second answer at the same path, and what it says at a path of its own."""
    settings: dict[str, Any] = {"data": peer.pool(case.items, options.get("first", 0))}
    if "mask" in options:
        settings["param_masks"] = {"w": options["mask"]}
    first = peer.ask(base, 1, path=path)
    own = peer.ask(case, 1, **settings)
    try:
        again = peer.ask(case, 1, path=path, **settings)
    except RuntimeError as error:
        return {"devinterp": "refused: " + " ".join(str(error).partition("Delete")[0].split()[3:]), "in a folder of its own": own.llc}
    same = "the first answer" if again.llc == first.llc else "a new answer"
    return {"devinterp": f"{same}, {again.llc:.3g}", "in a folder of its own": own.llc}


# --- the page


def versions() -> Row:
    """What was run, where it matters."""
    names = ["rllc", "torch", "numpy", *(["devinterp", "zarr", "datasets"] if peer is not None else [])]
    return {name: importlib.metadata.version(name) for name in names} | {"threads": torch.get_num_threads()}


def measured(seed_count: int, quick: bool) -> Row:
    """All three tables."""
    started = time.perf_counter()
    cases, failures = trust_cases.statistics(), trust_cases.failures()
    if quick:
        cases, failures = [shorter(case) for case in cases[:2]], [shorter(case) for case in failures[-1:]]
    found: Row = versions() | {"seeds": seed_count}
    found["about"] = {case.name: case.about for case in [*cases, *failures]}
    found["estimates"] = [row for case in cases for row in estimates(case, seed_count)]
    found["failing chains"] = [row for case in failures for row in failing(case, seed_count)]
    found["a folder used again"] = reuse()
    return found | {"seconds": time.perf_counter() - started}


def shorter(case: Case) -> Case:
    """Fewer draws, to see whether everything runs."""
    return replace(case, chain=replace(case.chain, draws=40, burn_in=10), expected={})


def shown(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}" if abs(value) >= 1e4 else f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{n}× {text}" for text, n in value.items())
    return str(value)


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Rows under each other, columns aligned."""
    lines = [list(columns), *([shown(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def in_words(row: Row) -> Row:
    """An estimate's row with its bias ± error, shares in percent, and marks."""
    words = {name: f"{100 * row[name]:.0f} %" for name in ("held", "held expected", "held by 1.64 llc_std") if row.get(name, math.nan) >= 0}
    if "bias" in row:
        words["bias"] = f"{row['bias']:+.2f} ± {row['bias stderr']:.2f}"
    return row | words | {"marks": row.get("marks") or row.get("remark", "")}


def page(found: Row) -> str:
    """The tables with what their columns mean."""
    rows = [in_words(row) for row in found["estimates"]]
    peers = [] if peer is None else ["llc_std", "held by 1.64 llc_std"]
    columns = ["case", "by", "truth", "aim", "expected", "mean", "bias", "sd", "stderr told", "sd / told", "held", "held expected"]
    paragraphs = [
        ", ".join(f"{name} {found[name]}" for name in versions()) + f", {found['seeds']} seeds, {found['seconds']:.0f} s",
        *(["devinterp is not installed here, so rllc was measured alone: pip install -e '.[peers]' adds it."] if peer is None else []),
        "\n".join(f"{name}: {about}" for name, about in found["about"].items()),
        LEGEND,
        table(rows, [*columns, *peers, "seconds", "marks"]),
        "FAILING CHAINS",
        table(found["failing chains"], list(found["failing chains"][0])),
        "A FOLDER USED AGAIN, after a run that differed in one thing",
        table(found["a folder used again"], list(found["a folder used again"][0])),
    ]
    return "\n\n".join(paragraphs)


def plain(value: Any) -> Any:
    """The same with null for NaN and words for infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--seeds", type=int, default=0, help="runs of each case (20, or 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="short chains and few cases, to see that everything runs")
    arguments = parser.parse_args()
    found = measured(arguments.seeds or (3 if arguments.quick else 20), arguments.quick)
    print(json.dumps(plain(found), ensure_ascii=False) if arguments.format == "json" else page(found))


if __name__ == "__main__":
    main()

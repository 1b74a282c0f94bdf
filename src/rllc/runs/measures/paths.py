"""Ablation of every direct path: from a head to a later one's query, key, value or all three, and from a head to the logits (METHOD 5, 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import Edges
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.paths import direct_effects, edges, path_effects
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, stacked, steps_of

INPUTS = ("Q", "K", "V", "QKV")


def _key(bench: Bench) -> Key:
    kind, contexts = bench.settings.ablation.main, bench.settings.paths.contexts
    drawn = {"seed": bench.seed} if kind == "resample" else {}
    return {"probes": bench.probes_digest("paths", contexts), "data": list(bench.data), "kind": kind} | drawn


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    shape, params, kind = subject.shape, subject.params, bench.settings.ablation.main
    pairs = [(edge.sender, edge.receiver) for edge in edges(shape, ("Q",))]
    rows: dict[str, list[Any]] = {"effect": [], "stderr": [], "direct": [], "direct_stderr": [], "loss": []}
    for data in bench.data:
        contexts = bench.heldout(data, bench.settings.paths.contexts, "paths")
        effect, stderr = np.zeros((2, len(INPUTS), 0))
        if pairs:
            each = [contexts.mean(path_effects(shape, params, contexts, edges(shape, (name,)), kind, seed=bench.seed)) for name in INPUTS]
            effect, stderr = (np.stack(values) for values in zip(*each, strict=True))  # [I, E]
        direct = contexts.mean(direct_effects(shape, params, contexts, kind, seed=bench.seed))
        loss = contexts.mean(context_losses(shape, params, contexts))[0]
        for name, values in zip(rows, (effect, stderr, *direct, loss), strict=True):
            rows[name].append(values)
    arrays: Arrays = {name: np.stack(values, -1) for name, values in rows.items()}
    return arrays, {"pairs": [[str(a), str(b)] for a, b in pairs], "data": list(bench.data), "kind": kind, "inputs": list(INPUTS)}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    meta = records[0].meta
    found = Edges(
        ablation=meta["kind"],
        heads=tuple(meta["heads"]),
        pairs=tuple((a, b) for a, b in meta["pairs"]),
        steps=steps_of(records),
        data=tuple(meta["data"]),
        inputs=tuple(meta["inputs"]),
        effect=stacked(records, "effect", 2),
        stderr=stacked(records, "stderr", 2),
        direct=stacked(records, "direct", 1),
        direct_stderr=stacked(records, "direct_stderr", 1),
        loss=stacked(records, "loss", 0),
    )
    return {"paths": found}


MEASURE = Measure("paths", _key, _take, _read)

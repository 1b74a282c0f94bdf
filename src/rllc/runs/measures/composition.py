"""Composition scores of every pair of heads, from the weights (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import Composition
from rllc.behaviour.composition import composition
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, stacked, steps_of


def _key(bench: Bench) -> Key:  # noqa: ARG001
    return {}


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:  # noqa: ARG001
    found = composition(subject.shape, subject.params)
    heads = subject.shape.heads()
    pairs = [(i, j) for i, a in enumerate(heads) for j, b in enumerate(heads) if a.layer < b.layer]
    earlier, later = np.array(pairs).T
    arrays: Arrays = {kind: getattr(found, kind)[earlier, later] for kind in "qkv"}
    arrays |= {f"{kind}_{name}": getattr(found, name)[kind][earlier, later] for kind in "qkv" for name in ("deviation", "freedom")}
    arrays["baseline"] = np.array(found.baseline)
    return arrays, {"pairs": [[str(heads[i]), str(heads[j])] for i, j in pairs]}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    first = records[0]
    found = Composition(
        pairs=tuple((a, b) for a, b in first.meta["pairs"]),
        steps=steps_of(records),
        scores={kind: stacked(records, kind, 1) for kind in "qkv"},
        baseline=float(first.arrays["baseline"]),
        deviation={kind: stacked(records, f"{kind}_deviation", 1) for kind in "qkv"},
        freedom={kind: stacked(records, f"{kind}_freedom", 1) for kind in "qkv"},
    )
    return {"composition": found}


MEASURE = Measure("composition", _key, _take, _read)

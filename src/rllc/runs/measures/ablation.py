"""The mean effect of ablating each head, on every kind of data (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import HeadEffects
from rllc.behaviour.contexts import ratio_and_stderr
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, stacked, steps_of

_NUMBERS = ("effect", "stderr", "normalised", "normalised_stderr")


def _key(bench: Bench) -> Key:
    settings = bench.settings.ablation
    drawn = {"seed": bench.seed} if "resample" in settings.kinds else {}
    return {"probes": bench.probes_digest("ablation", settings.contexts), "data": list(bench.data), "kinds": list(settings.kinds)} | drawn


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    each: list[Arrays] = []
    for data in bench.data:
        contexts, losses = bench.ablated(data), subject.losses(data)
        found: Arrays = dict(zip(("loss", "loss_stderr"), contexts.mean(losses), strict=True))
        for kind in bench.settings.ablation.kinds:
            rises = subject.effects(data, kind)
            numbers = (*contexts.mean(rises), *ratio_and_stderr(contexts.totals(rises), contexts.totals(losses)))
            found |= {f"{kind}/{name}": values for name, values in zip(_NUMBERS, numbers, strict=True)}
        each.append(found)
    arrays: Arrays = {name: np.stack([found[name] for found in each], -1) for name in each[0]}  # [N] and [H, N]
    return arrays, {"data": list(bench.data), "kinds": list(bench.settings.ablation.kinds)}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    meta = records[0].meta
    by_kind = {name: {kind: stacked(records, f"{kind}/{name}", 1) for kind in meta["kinds"]} for name in _NUMBERS}
    found = HeadEffects(
        heads=tuple(meta["heads"]),
        steps=steps_of(records),
        data=tuple(meta["data"]),
        **by_kind,
        loss=stacked(records, "loss", 0),
        loss_stderr=stacked(records, "loss_stderr", 0),
    )
    return {"ablation": found}


MEASURE = Measure("ablation", _key, _take, _read)

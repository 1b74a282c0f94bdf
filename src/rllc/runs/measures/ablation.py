"""The mean effect of ablating each head, on every kind of data (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import HeadEffects
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, mean_and_stderr, ratio_and_stderr, stacked, steps_of

_NUMBERS = ("effect", "stderr", "normalised", "normalised_stderr")


def _key(bench: Bench) -> Key:
    settings = bench.settings.ablation
    drawn = {"seed": bench.seed} if "resample" in settings.kinds else {}
    return {"probes": bench.probes_digest("ablation", settings.contexts), "data": list(bench.data), "kinds": list(settings.kinds)} | drawn


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    losses = np.stack([subject.losses(data).mean(1) for data in bench.data])  # [N, B]
    arrays: Arrays = dict(zip(("loss", "loss_stderr"), mean_and_stderr(losses), strict=True))
    for kind in bench.settings.ablation.kinds:
        rises = np.stack([subject.effects(data, kind).mean(2) for data in bench.data], 1)  # [H, N, B]
        numbers = (*mean_and_stderr(rises), *ratio_and_stderr(rises, losses[None]))
        arrays |= {f"{kind}/{name}": values for name, values in zip(_NUMBERS, numbers, strict=True)}
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


MEASURE = Measure("ablation", "ablation-1", _key, _take, _read)

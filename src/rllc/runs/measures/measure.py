"""What a kind of measurement is: one file of this folder makes one `MEASURE`, and its name in `behaviour.settings` enters it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.settings import MeasureName
from rllc.core.errors import RllcError
from rllc.model.shape import ModelShape
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.kinds import REVISIONS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
Meta = dict[str, Any]
Key = dict[str, Any]


class Subject:
    """One checkpoint that is being measured: what several measurements need of it is computed once.

    Raises RllcError where weights are not finite.
    """

    def __init__(self, shape: ModelShape, params: Mapping[str, Tensor], bench: Bench) -> None:
        for name, tensor in params.items():
            if not torch.isfinite(tensor).all():
                raise RllcError(f"The weights hold numbers that are not finite, in {name}.", "Measure an earlier checkpoint, and train again.")
        self.shape, self.params, self._bench = shape, params, bench
        self._effects: dict[tuple[str, str], Floats] = {}
        self._losses: dict[str, Floats] = {}

    def effects(self, data: str, kind: str) -> Floats:
        """Rise of every prediction's loss on the contexts for ablation, [H, B, T-1] nats, when each head is ablated."""
        if (data, kind) not in self._effects:
            self._effects[data, kind] = ablation_effects(self.shape, self.params, self._bench.ablated(data), kind, seed=self._bench.seed)
        return self._effects[data, kind]

    def losses(self, data: str) -> Floats:
        """The whole model's losses on these contexts, [B, T-1] nats."""
        if data not in self._losses:
            self._losses[data] = context_losses(self.shape, self.params, self._bench.ablated(data))
        return self._losses[data]


@dataclass(frozen=True)
class Measure:
    """One kind of measurement.

    Args:
        kind: of its records; equal to its name in the settings. `REVISIONS` has its revision.
        key: what decides the numbers beside weights, dtype and revision, as JSON: the digest of its probes, and its settings.
        take: measures one checkpoint: the arrays of its record, and what else the record says.
        read: from records by step to the fields of `analysis.measured.Measured` that it fills.
    """

    kind: MeasureName
    key: Callable[[Bench], Key]
    take: Callable[[Subject, Bench], tuple[Arrays, Meta]]
    read: Callable[[Sequence[Record], Bench], Mapping[str, Any]]

    def record_key(self, bench: Bench, weights_digest: str, dtype: str) -> Key:
        """The key of one checkpoint's record."""
        return {"revision": REVISIONS[self.kind], "weights": weights_digest, "dtype": dtype, **self.key(bench)}


def find(kind: MeasureName) -> Measure:
    """The measurement of that name; its file is loaded here."""
    return importlib.import_module(f"rllc.runs.measures.{kind}").MEASURE


def stacked(records: Sequence[Record], name: str, axis: int) -> NDArray[Any]:
    """One array of every record, stacked over checkpoints along a new axis."""
    return np.stack([record.arrays[name] for record in records], axis=axis)


def steps_of(records: Sequence[Record]) -> Ints:
    """The steps of some records [S]."""
    return np.array([record.meta["step"] for record in records], dtype=np.int64)

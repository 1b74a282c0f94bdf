"""Curvature, Fisher information and norms of every head: what λ̂ is held against (METHOD 5, appendix)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rllc.analysis.measured import Baselines
from rllc.behaviour.baselines import COLUMNS, baselines
from rllc.behaviour.curvature import Prior
from rllc.records.store import Record
from rllc.runs.experiment import MIXTURE
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, stacked, steps_of


def _key(bench: Bench) -> Key:
    settings = bench.settings.baselines
    numbers = {name: getattr(settings, name) for name in ("top", "probes", "draws")}
    numbers["twin"] = asdict(_prior(bench))
    return {"contexts": bench.probes_digest("baselines", settings.contexts, (MIXTURE,)), "seed": bench.seed} | numbers


def _prior(bench: Bench) -> Prior:
    """Of the posterior that the run samples, so that the twin stands beside its estimates."""
    settings, sampler = bench.settings.baselines, bench.experiment.sampler
    return Prior(sampler.nbeta, sampler.precision, settings.twin_probes, settings.twin_steps)


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    settings = bench.settings.baselines
    contexts = bench.heldout(MIXTURE, settings.contexts, "baselines")
    found = baselines(
        subject.shape, subject.params, contexts, top=settings.top, probes=settings.probes, draws=settings.draws, seed=bench.seed,
        prior=_prior(bench),
    )  # fmt: skip
    arrays: Arrays = {f"value/{name}": values for name, values in found.values.items()}
    arrays |= {f"stderr/{name}": values for name, values in found.stderr.items()}
    return arrays, {"names": list(found.values)}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    names = records[0].meta["names"]
    found = Baselines(
        heads=tuple(records[0].meta["heads"]),
        steps=steps_of(records),
        values={name: stacked(records, f"value/{name}", 1) for name in names},
        stderr={name: stacked(records, f"stderr/{name}", 1) for name in names},
        units={name: COLUMNS[name] for name in names},
    )
    return {"baselines": found}


MEASURE = Measure("baselines", _key, _take, _read)

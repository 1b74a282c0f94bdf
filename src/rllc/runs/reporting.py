"""The last two stages: what the records say together, and the page that tells it."""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
from importlib import metadata
from typing import Any

import numpy as np

from rllc.analysis.analyse import analyse
from rllc.analysis.curves import curves_of
from rllc.analysis.evidence import Evidence, Sibling
from rllc.analysis.findings import Behaviour, Findings, Patterns
from rllc.analysis.stored import from_json, patterns_from_arrays, patterns_to_arrays, to_json
from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.files import write_atomic
from rllc.core.names import Part
from rllc.corpus.batches import Mixture
from rllc.corpus.tokens import open_corpus
from rllc.model.shape import ModelShape
from rllc.model.slices import size
from rllc.records import table
from rllc.records.compaction import compact
from rllc.records.store import Record, Store
from rllc.report.build import build_report
from rllc.report.data import Domain, ReportData
from rllc.runs.comparing import paired_errors
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.layout import RunFolder
from rllc.runs.mapping import plain
from rllc.runs.progress import Reporter
from rllc.runs.reading import planned_records, read_measured
from rllc.runs.recorded import planned_samples
from rllc.runs.selecting import is_own

# Attention patterns are kept of every checkpoint, but the page shows at most this many, evenly chosen, to stay small.
SHOWN_PATTERNS = 7
PATTERNS = "patterns"


def planned_measurements(experiment: Experiment, folder: RunFolder, store: Store) -> list[Record]:
    """The records of behaviour, by step. Raises as `planned_samples`, and RllcError where there is none."""
    found = planned_records(experiment, folder, store, "behaviour")
    if not found:
        raise RllcError(f"{folder.root} holds no measurement of behaviour for this experiment.", "Run `rllc run` on it first.")
    return found


def analyse_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """From records to findings and the tidy table. Raises RllcError where a record is damaged."""
    with reporter.stage("Analysing", 1.0) as bar:
        store = Store(folder.records)
        samples = planned_samples(experiment, folder, store)
        measurements = planned_measurements(experiment, folder, store)
        rows = table.frame(samples, run=folder.root.resolve().name)
        bar.note("clusters, stages, claims")
        evidence = evidence_of(experiment, folder, store, samples, measurements)
        findings = analyse(evidence, experiment.analysis, seeds.derive(experiment.seed, "analysis"))
        patterns = evidence.patterns
        write_atomic(folder.table, table.export(rows, "csv"))
        if patterns is not None:
            arrays, meta = patterns_to_arrays(patterns)
            store.put(PATTERNS, _patterns_key(measurements), arrays, meta)
        write_atomic(folder.findings, to_json(findings))
        compact(store, run=folder.root.resolve().name)
    types = ", ".join(f"{head} {kind}" for head, kind in zip(findings.types.heads, findings.types.types, strict=True) if kind != "other")
    reporter.line(f"Head types: {types or 'none but other'}.")


def evidence_of(experiment: Experiment, folder: RunFolder, store: Store, samples: list[Record], measurements: list[Record]) -> Evidence:
    """What a run and its siblings have recorded, as the analysis takes it. Raises as `planned_samples`."""
    columns = _own_columns(samples)
    refined = [name for name, refinement in experiment.refinements.items() if isinstance(refinement.reference, str)]
    layers = {name: experiment.sibling(str(experiment.refinements[name].reference)).model.n_layers for name in refined}
    siblings = {name: _sibling(experiment.sibling(name), folder.sibling(name)) for name in _seeds_of(experiment)}
    return Evidence(
        curves=curves_of(columns, heads=True),
        full=curves_of(columns, heads=False),
        behaviour=behaviour_of(measurements),
        reference=MIXTURE,
        patterns=patterns_of(measurements),
        planted_share=planted_share(experiment, folder),
        paired_stderr=paired_errors(samples, MIXTURE),
        measured=read_measured(experiment, folder, store),
        siblings={name: found for name, found in siblings.items() if found is not None},
        circuit=next((name for name in refined if layers[name] < experiment.model.n_layers), ""),
        nbeta=experiment.sampler.nbeta,
    )


def _own_columns(samples: list[Record]) -> dict[str, np.ndarray[Any, Any]]:
    return table.columns(table.frame(filter(is_own, samples)))  # what was evaluated elsewhere is no learning coefficient


def _seeds_of(experiment: Experiment) -> list[str]:
    """Siblings of the experiment's own shape."""
    return [name for name in experiment.siblings if experiment.sibling(name).model == experiment.model]


def _sibling(experiment: Experiment, folder: RunFolder) -> Sibling | None:
    """What a sibling has recorded; None before it was measured."""
    if not folder.records.exists():
        return None
    store = Store(folder.records)
    measurements = planned_records(experiment, folder, store, "behaviour")
    if not measurements:
        return None
    return Sibling(curves_of(_own_columns(planned_samples(experiment, folder, store)), heads=True), behaviour_of(measurements))


def behaviour_of(measurements: list[Record]) -> Behaviour:
    """Scores of heads and losses over checkpoints, from records by step."""
    first = measurements[0]
    names = [name.removeprefix("score/") for name in first.arrays if name.startswith("score/")]
    data = tuple(first.meta["data"])
    return Behaviour(
        heads=tuple(first.meta["heads"]),
        steps=np.array([record.meta["step"] for record in measurements], dtype=np.int64),
        scores={name: np.stack([record.arrays[f"score/{name}"] for record in measurements], axis=1) for name in names},
        data=data,
        losses=np.stack([record.arrays["losses"] for record in measurements], axis=1),
        icl=np.array([record.arrays["icl"][data.index(MIXTURE)] for record in measurements]),
        score_stderr={name: np.stack([record.arrays[f"score_stderr/{name}"] for record in measurements], axis=1) for name in names},
    )


def patterns_of(measurements: list[Record]) -> Patterns | None:
    """Attention patterns of at most SHOWN_PATTERNS checkpoints, the first and the last among them; None where no snippet was asked for."""
    first = measurements[0]
    if not first.meta["snippets"]:
        return None
    chosen = np.unique(np.linspace(0, len(measurements) - 1, min(SHOWN_PATTERNS, len(measurements))).round().astype(int))
    kept = [measurements[i] for i in chosen]
    return Patterns(
        heads=tuple(first.meta["heads"]),
        steps=np.array([record.meta["step"] for record in kept], dtype=np.int64),
        snippets=tuple(first.meta["snippets"]),
        tokens=tuple(tuple(tokens) for tokens in first.meta["tokens"]),
        weights=tuple(np.stack([record.arrays[f"pattern/{i}"] for record in kept]) for i in range(len(first.meta["snippets"]))),
    )


def planted_share(experiment: Experiment, folder: RunFolder) -> float:
    """Share of the training mixture's sequences that a program made up."""
    domains = open_corpus(folder.corpus).domains
    return sum(share for name, share in Mixture(MIXTURE, experiment.mixture).weights.items() if domains[name].planted)


def report_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """The page, and the figures as PNG and SVG where matplotlib is installed. Raises RllcError where findings or records are damaged."""
    with reporter.stage("Writing the page", 1.0) as bar:
        store = Store(folder.records)
        measurements = planned_measurements(experiment, folder, store)
        key = _patterns_key(measurements)
        stored = store.get(PATTERNS, key) if store.has(PATTERNS, key) else None
        findings = from_json(folder.findings.read_text(encoding="utf-8"), patterns_from_arrays(stored.arrays, stored.meta) if stored else None)
        build_report(_report_data(experiment, folder, store, findings), folder.report)
        bar.note("figures")
        if importlib.util.find_spec("matplotlib"):
            from rllc.figures.static import write_static

            write_static(findings, folder.figures)
        else:
            reporter.line('No PNG and SVG figures were written, for matplotlib is not installed. Install it with: pip install "rllc[paper]"')


def _patterns_key(measurements: list[Record]) -> dict[str, list[str]]:
    return {"behaviour": [record.digest for record in measurements]}


def _report_data(experiment: Experiment, folder: RunFolder, store: Store, findings: Findings) -> ReportData:
    from rllc.runs.pipeline import read_timings

    corpus = open_corpus(folder.corpus)
    shares = Mixture(MIXTURE, experiment.mixture).weights
    settings = experiment.as_dict()
    described = corpus.describe()["domains"]
    return ReportData(
        findings=findings,
        title=experiment.title,
        settings=settings,
        model=describe_model(experiment.model),
        domains=tuple(
            Domain(name, d["documents"], d["tokens"], shares.get(name, 0.0), d["planted"], d["description"]) for name, d in described.items()
        ),
        sampler=used_settings(experiment),
        machine=describe_machine(),
        versions={name: metadata.version(name) for name in ("rllc", "torch", "numpy", "scikit-learn", "arviz-stats", "tokenizers")}
        | {"python": platform.python_version()},
        seconds=read_timings(folder),
        table=table.frame(planned_samples(experiment, folder, store), run=folder.root.resolve().name),
        mixture=MIXTURE,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def used_settings(experiment: Experiment) -> dict[str, Any]:
    """The settings of sampler and minibatches that had a say in this run: not those of other samplers, nor options that are off."""
    sampler, sampling = plain(experiment.sampler), plain(experiment.sampling)
    of_one = {"rmsprop-sgld": ("rmsprop_decay", "rmsprop_stabilizer"), "sgnht": ("thermostat_diffusion",), "mala": ("full_batch",)}
    silent = {name for owner, names in of_one.items() if owner != experiment.sampler.sampler for name in names} | {"keep_state", "share_contexts"}
    silent |= {"batch_size"} if experiment.sampler.sampler == "mala" else set()
    silent |= set() if experiment.sampler.control_variate else {"control_variate", "control_batches"}
    silent |= {name for name, value in (sampler | sampling).items() if name in ("weight_decay", "bounding_box", "fixed_contexts") and not value}
    return {name: value for name, value in (sampler | sampling).items() if name not in silent}


def describe_model(shape: ModelShape) -> dict[str, int | str]:
    """The model's shape in a reader's words."""
    return {
        "layers": shape.n_layers,
        "heads in a layer": shape.n_heads,
        "width": shape.d_model,
        "head dimension": shape.d_head,
        "vocabulary": shape.d_vocab,
        "context": shape.n_ctx,
        "MLP width": shape.d_mlp or "none (attention only)",
        "positions": shape.positions,
        "norm": shape.norm,
        "parameters": size(shape, Part.parse("full")),
        "parameters of a head": size(shape, Part.of_head(0, 0)),
    }


def describe_machine() -> dict[str, str]:
    """What the run ran on, without its name."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count()), "memory": f"{pages / 2**30:.0f} GiB"}

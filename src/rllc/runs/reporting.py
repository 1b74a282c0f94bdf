"""The last two stages: what the records say together, and the page that tells it."""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
from dataclasses import replace
from importlib import metadata
from typing import Any

from rllc.analysis.analyse import analyse
from rllc.analysis.findings import Findings
from rllc.analysis.stored import LARGEST, from_json, patterns_from_arrays, patterns_to_arrays, to_json
from rllc.core import seeds
from rllc.core.errors import RllcError
from rllc.core.files import read_regular, write_atomic
from rllc.core.names import Part
from rllc.corpus.batches import Mixture
from rllc.corpus.tokens import open_corpus
from rllc.figures.whole_set import draw_all, write_all
from rllc.model.shape import ModelShape
from rllc.model.slices import size
from rllc.records import table
from rllc.records.compaction import compact
from rllc.records.index import opened
from rllc.records.places import LocalPlace
from rllc.records.store import Record, Store
from rllc.report.build import build_report
from rllc.report.data import Domain, ReportData
from rllc.report.text import report_markdown
from rllc.runs.evidence import evidence_of, planned_measurements
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.keys import KIND
from rllc.runs.layout import RunFolder
from rllc.runs.mapping import plain
from rllc.runs.material import material_of
from rllc.runs.progress import Reporter
from rllc.runs.recorded import planned_samples

PATTERNS = "patterns"


def analyse_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """From records to findings and the tidy table. Raises RllcError where a record is damaged."""
    with reporter.stage("Analysing", 1.0) as bar:
        store = folder.store()
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
        opened(store, KIND)  # so that whoever looks at the run next need not read its records
        if isinstance(store.place, LocalPlace):
            try:
                compact(store, run=folder.root.resolve().name)
            except table.SparseError as error:
                reporter.line(f"No copy of the records was made for readers of Zarr. {error.problem}")
    types = ", ".join(f"{head} {kind}" for head, kind in zip(findings.types.heads, findings.types.types, strict=True) if kind != "other")
    reporter.line(f"Head types: {types or 'none but other'}.")


def report_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """The figures, as files where matplotlib is installed, and the page. Raises RllcError where findings or records are damaged."""
    with reporter.stage("Writing the page", 1.0) as bar:
        store = folder.store()
        measurements = planned_measurements(experiment, folder, store)
        key = _patterns_key(measurements)
        stored = store.get(PATTERNS, key) if store.has(PATTERNS, key) else None
        findings = from_json(_findings(folder), patterns_from_arrays(stored.arrays, stored.meta) if stored else None)
        drawn = draw_all(material_of(experiment, folder, store, findings))
        data = replace(_report_data(experiment, folder, store, findings), drawn=drawn)
        build_report(data, folder.report)
        write_atomic(folder.words, report_markdown(data))
        bar.note("figures")
        if importlib.util.find_spec("matplotlib"):
            write_all(drawn, folder.figures)
        else:
            reporter.line('No PNG and SVG figures were written, for matplotlib is not installed. Install it with: pip install "rllc[paper]"')


def _findings(folder: RunFolder) -> str:
    try:
        return read_regular(folder.findings, LARGEST).decode(errors="replace")
    except OSError as error:
        raise RllcError(f"{folder.findings} could not be read: {error.strerror or error}.", "Run `rllc analyse` again; it takes seconds.") from error


def _patterns_key(measurements: list[Record]) -> dict[str, list[str]]:
    return {"behaviour": [record.digest for record in measurements]}


def _report_data(experiment: Experiment, folder: RunFolder, store: Store, findings: Findings) -> ReportData:
    from rllc.runs.pipeline import read_timings

    corpus = open_corpus(folder.corpus)
    shares = Mixture(MIXTURE, experiment.mixture).weights
    settings = replace(experiment, engine=replace(experiment.engine, records="")).as_dict()  # whose place is nobody's business
    described = corpus.describe()["domains"]
    return ReportData(
        findings=findings,
        title=experiment.title,
        settings=settings,
        model=describe_model(experiment.model),
        domains=tuple(
            Domain(name, d["documents"], d["tokens"], shares.get(name, 0.0), d["planted"], d["description"], d["structure"].get("kind", ""))
            for name, d in described.items()
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
    silent = {name for owner, names in of_one.items() if owner != experiment.sampler.sampler for name in names}
    silent |= {"keep_state", "share_contexts", "share_at"}
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

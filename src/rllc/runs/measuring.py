"""The measuring stage: every checkpoint looks at the same probes, and what it does is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rllc.behaviour.measure import Measurement, Probes, measure
from rllc.checkpoints.store import load
from rllc.core import digest, seeds
from rllc.corpus.batches import Mixture, contexts, snippets
from rllc.corpus.planted import repeated_segments
from rllc.corpus.tokens import Corpus, open_corpus
from rllc.records.store import Store
from rllc.runs.device import choose_device
from rllc.runs.experiment import MIXTURE, Experiment
from rllc.runs.grid import checkpoints_by_step
from rllc.runs.layout import RunFolder
from rllc.runs.local import set_threads
from rllc.runs.memory import cores
from rllc.runs.progress import Reporter

KIND = "behaviour"
# The revision of the measurements: raise it with every change that moves a number.
REVISION = "behaviour-1"


def make_probes(experiment: Experiment, corpus: Corpus) -> Probes:
    """The probes of an experiment: held-out text, random segments, snippets; equal for every checkpoint."""
    settings, context, seed = experiment.behaviour, experiment.model.n_ctx, experiment.seed
    segment = settings.segment_length(context)
    rng = seeds.generator(seed, "probes", "repeated")
    repeated = repeated_segments(rng, settings.sequences, segment, settings.repeats, corpus.vocabulary, corpus.bos)
    mixtures = {MIXTURE: Mixture(MIXTURE, experiment.mixture)} | {name: Mixture.of(name) for name in corpus.domains}

    def heldout(name: str, n: int, purpose: str) -> NDArray[np.int64]:
        return contexts(corpus, mixtures[name], "heldout", n, context, seeds.generator(seed, "probes", purpose, name))

    length = min(settings.snippet_length, context)
    shown: dict[str, NDArray[np.int64]] = {}
    for name in corpus.domains:
        rows = snippets(corpus, name, settings.snippets, length, seed) if settings.snippets else []
        shown |= {f"{name} {i + 1}" if settings.snippets > 1 else name: row for i, row in enumerate(rows)}
    return Probes(
        text=heldout(MIXTURE, settings.sequences, "text"),
        repeated=repeated,
        segment=segment,
        contexts={name: heldout(name, settings.contexts, "losses") for name in mixtures},
        snippets=shown,
    )


def record_key(probes: Probes, weights_digest: str, dtype: str) -> dict[str, Any]:
    """What decides a measurement."""
    arrays = {"text": probes.text, "repeated": probes.repeated}
    arrays |= {f"contexts/{name}": tokens for name, tokens in probes.contexts.items()}
    arrays |= {f"snippets/{name}": tokens for name, tokens in probes.snippets.items()}
    return {"revision": REVISION, "weights": weights_digest, "probes": digest.of_arrays(arrays), "segment": probes.segment, "dtype": dtype}


def measure_stage(experiment: Experiment, folder: RunFolder, reporter: Reporter) -> None:
    """Measure every checkpoint that has no record yet. Raises RllcError where a checkpoint is missing or not finite."""
    store = Store(folder.records)
    corpus = open_corpus(folder.corpus)
    probes = make_probes(experiment, corpus)
    infos = checkpoints_by_step(experiment, folder)
    keys = {step: record_key(probes, infos[step].digest, experiment.engine.dtype) for step in experiment.checkpoints()}
    missing = [step for step, key in keys.items() if not store.has(KIND, key)]
    if not missing:
        return
    set_threads(experiment.engine.training_threads or cores())
    device, dtype = choose_device(experiment.engine.device), getattr(torch, experiment.engine.dtype)
    with reporter.stage("Measuring behaviour", len(missing)) as bar:
        for step in missing:
            shape, weights, _ = load(infos[step].folder, experiment.model)
            params = {name: tensor.to(device=device, dtype=dtype) for name, tensor in weights.items()}
            measured = measure(shape, params, probes)
            store.put(KIND, keys[step], *_record(step, measured, probes, corpus))
            bar.advance(1, f"step {step}")
    reporter.line(f"Measured the behaviour of {experiment.model.n_layers * experiment.model.n_heads} heads at {len(missing)} checkpoints.")


def _record(step: int, measured: Measurement, probes: Probes, corpus: Corpus) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {f"score/{name}": values for name, values in measured.scores.items()}
    for name in ("losses", "losses_stderr", "position_losses", "icl", "icl_stderr"):
        arrays[name] = getattr(measured, name)
    arrays |= {f"pattern/{i}": pattern for i, pattern in enumerate(measured.patterns)}
    meta = {
        "step": step,
        "heads": [str(head) for head in measured.heads],
        "data": list(measured.data),
        "snippets": list(measured.snippets),
        "tokens": [corpus.decode(probes.snippets[name]) for name in measured.snippets],
    }
    return arrays, meta

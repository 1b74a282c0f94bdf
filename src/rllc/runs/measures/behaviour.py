"""Attention scores, held-out losses, attention patterns: the record that every checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rllc.behaviour.measure import Probes, measure
from rllc.core import digest, seeds
from rllc.corpus.planted import repeated_segments
from rllc.records.store import Record
from rllc.runs.experiment import MIXTURE
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject


def make_probes(bench: Bench) -> Probes:
    """The probes: held-out text, random segments, snippets; equal for every checkpoint."""
    settings, corpus = bench.settings, bench.corpus
    segment = settings.segment_length(bench.experiment.model.n_ctx)
    rng = seeds.generator(bench.seed, "probes", "repeated")
    return Probes(
        text=bench.packed(MIXTURE, settings.sequences, "text"),
        repeated=repeated_segments(rng, settings.sequences, segment, settings.repeats, corpus.vocabulary, corpus.bos),
        segment=segment,
        contexts={name: bench.heldout(name, settings.contexts, "losses") for name in bench.mixtures},
        snippets=bench.snippets,
    )


def _probes(bench: Bench) -> Probes:
    return bench.kept(lambda: make_probes(bench), "behaviour")


def _key(bench: Bench) -> Key:
    probes = _probes(bench)
    arrays = {"text": probes.text, "repeated": probes.repeated}
    arrays |= {f"snippets/{name}": tokens for name, tokens in probes.snippets.items()}
    losses = bench.probes_digest("losses", bench.settings.contexts, tuple(bench.mixtures))
    return {"probes": digest.of_arrays(arrays), "losses": losses, "segment": probes.segment}


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    probes = _probes(bench)
    measured = measure(subject.shape, subject.params, probes)
    arrays: Arrays = {f"score/{name}": values for name, values in measured.scores.items()}
    arrays |= {f"score_stderr/{name}": values for name, values in measured.scores_stderr.items()}
    for name in ("losses", "losses_stderr", "position_losses", "icl", "icl_stderr"):
        arrays[name] = getattr(measured, name)
    arrays |= {f"pattern/{i}": pattern for i, pattern in enumerate(measured.patterns)}
    tokens = [bench.corpus.decode(probes.snippets[name]) for name in measured.snippets]
    return arrays, {"data": list(measured.data), "snippets": list(measured.snippets), "tokens": tokens}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    return {}  # `analysis.findings.Behaviour` and `Patterns` hold these, and `reporting` fills them


MEASURE = Measure("behaviour", _key, _take, _read)

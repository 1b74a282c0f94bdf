"""How much of the training text's n-grams and skip n-grams the model knows (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import NgramScores
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.ngram_scores import bigram_score, ngram_probes, probe_score, skip_probes
from rllc.core import seeds
from rllc.records.store import Record
from rllc.runs.experiment import MIXTURE
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Ints, Key, Measure, Meta, Subject, stacked, steps_of

_BIGRAM = ("score", "stderr", "floor", "excess", "excess_stderr")
_PROBE = ("score", "stderr", "loss")


def _key(bench: Bench) -> Key:
    probes = bench.probes_digest("losses", bench.settings.contexts, (MIXTURE,))
    return {"probes": probes, "text": bench.text_key, "number": bench.settings.ngrams.probes, "seed": bench.seed}


def _probes(bench: Bench) -> dict[str, Ints | None]:
    """By "2", "3", …, "skip"; None where the text holds fewer than two that fit a context."""

    def make() -> dict[str, Ints | None]:
        text, most, context = bench.text, bench.settings.ngrams.probes, bench.experiment.model.n_ctx
        found: dict[str, Ints | None] = {}
        for n in range(2, text.ngrams.longest + 1):
            enough = np.count_nonzero(text.ngrams.level(n).counts) >= 2 and n < context
            found[str(n)] = ngram_probes(text.ngrams, n, most) if enough else None
        rng = seeds.generator(bench.seed, "probes", "skip")
        enough = len(text.skips) >= 2 and text.skips.window + 3 <= context
        found["skip"] = skip_probes(text.skips, text.ngrams.level(1).mass, rng, most) if enough else None
        return found

    return bench.kept(make, "ngrams")


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    contexts = bench.heldout(MIXTURE, bench.settings.contexts, "losses")
    bigram = bigram_score(subject.shape, subject.params, contexts, bench.text.ngrams)
    arrays: Arrays = {f"bigram/{name}": np.array(getattr(bigram, name)) for name in _BIGRAM}
    losses = context_losses(subject.shape, subject.params, contexts)
    for name, rows in _probes(bench).items():
        score = probe_score(subject.shape, subject.params, rows, losses, contexts.counted) if rows is not None else None
        arrays[name] = np.array([np.nan if score is None else getattr(score, field) for field in _PROBE])
    orders = list(range(2, bench.text.ngrams.longest + 1))
    arrays["entropy"] = np.array([bench.text.ngrams.entropy(n) for n in orders])
    return arrays, {"orders": orders}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    orders = tuple(records[0].meta["orders"])
    bigram = {name: stacked(records, f"bigram/{name}", 0) for name in _BIGRAM}
    ngram = np.stack([stacked(records, str(n), 0) for n in orders])  # [L, S, 3]
    skip = stacked(records, "skip", 0)
    found = NgramScores(
        steps=steps_of(records),
        bigram=bigram["score"],
        bigram_stderr=bigram["stderr"],
        bigram_floor=float(bigram["floor"][0]),
        bigram_excess=bigram["excess"],
        bigram_excess_stderr=bigram["excess_stderr"],
        orders=orders,
        ngram=ngram[..., 0],
        ngram_stderr=ngram[..., 1],
        ngram_loss=ngram[..., 2],
        skip=skip[:, 0],
        skip_stderr=skip[:, 1],
        skip_loss=skip[:, 2],
        entropy=records[0].arrays["entropy"],
    )
    return {"ngrams": found}


MEASURE = Measure("ngrams", _key, _take, _read)

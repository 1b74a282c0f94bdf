"""Which n-grams and skip n-grams of the training text each head holds, and how many by other thresholds (METHOD 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import Held, Memorised
from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.classes import classify
from rllc.behaviour.contexts import Contexts
from rllc.behaviour.memorised import MemorisedRules, counts, examples, memorised, sensitivity
from rllc.behaviour.patterns import PatternRules, Patterns, find_patterns
from rllc.core import digest
from rllc.records.store import Record
from rllc.runs.experiment import MIXTURE
from rllc.runs.mapping import plain
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Key, Measure, Meta, Subject, stacked, steps_of

# Of the settings, what decides a record.
_SETTINGS = ("threshold", "within", "consistency", "false_discoveries", "thresholds", "withins", "examples")


def _key(bench: Bench) -> Key:
    settings, kind = bench.settings.memorised, bench.settings.ablation.main
    found = {
        "contexts": bench.probes_digest("memorised", settings.contexts, (MIXTURE,)),
        "text": bench.text_key,
        "probability": bench.settings.ngrams.probability,
        "kind": kind,
        "rules": {name: plain(getattr(settings, name)) for name in _SETTINGS},
    }
    return found | ({"seed": bench.seed} if kind == "resample" else {})


def _contexts(bench: Bench) -> Contexts:
    return bench.heldout(MIXTURE, bench.settings.memorised.contexts, "memorised")


def _patterns(bench: Bench) -> Patterns:
    """The patterns of the text that stand in enough of the contexts; where a context repeats its own bigram, that is copied and not remembered."""

    def make() -> Patterns:
        settings, text, tokens = bench.settings, bench.text, _contexts(bench).tokens
        rules = PatternRules(settings.ngrams.least, settings.ngrams.probability)
        classes = classify(tokens, text.ngrams, text.skips, bench.brackets, rules)
        fewest = min(settings.memorised.within, *settings.memorised.withins)
        return find_patterns(tokens, text.ngrams, text.skips, fewest, rules, classes.counted & ~classes.of("induction"))

    return bench.kept(make, "patterns")


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    settings, patterns = bench.settings.memorised, _patterns(bench)
    effects = ablation_effects(subject.shape, subject.params, _contexts(bench), bench.settings.ablation.main, seed=bench.seed)
    rules = MemorisedRules(settings.threshold, settings.within, settings.consistency, settings.false_discoveries)
    held = memorised(effects, patterns, rules)
    found_by, own_by = sensitivity(effects, patterns, settings.thresholds, settings.withins, rules)
    arrays: Arrays = {
        "found": counts(held.found, patterns),
        "own": counts(held.own, patterns),
        "found_by": found_by,
        "own_by": own_by,
        "held": np.packbits(held.own, axis=1),
    }
    shown = [examples(held, patterns, head, bench.names, settings.examples) for head in range(len(subject.shape.heads()))]
    meta = {
        "kinds": list(patterns.kinds),
        "tried": held.tried,
        "rules": {"threshold": settings.threshold, "within": settings.within},
        "thresholds": list(settings.thresholds),
        "withins": list(settings.withins),
        "examples": [[[e.text, e.kind, e.mean, e.stderr, e.contexts] for e in head] for head in shown],
        "patterns": digest.of_arrays({"tokens": patterns.tokens, "occurrences": patterns.occurrences}),
        "count": len(patterns),
    }
    return arrays, meta


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:  # noqa: ARG001
    meta = records[-1].meta
    found = Memorised(
        heads=tuple(meta["heads"]),
        steps=steps_of(records),
        kinds=tuple(meta["kinds"]),
        found=stacked(records, "found", 1),
        own=stacked(records, "own", 1),
        tried=meta["tried"],
        threshold=meta["rules"]["threshold"],
        contexts=meta["rules"]["within"],
        thresholds=tuple(meta["thresholds"]),
        least=tuple(meta["withins"]),
        found_by=stacked(records, "found_by", 1),
        own_by=stacked(records, "own_by", 1),
        examples=tuple(tuple(Held(*example) for example in head) for head in meta["examples"]),
        patterns=meta["patterns"],
        held=np.stack([np.unpackbits(record.arrays["held"], axis=1, count=meta["count"]) for record in records], 1).astype(bool),
    )
    return {"memorised": found}


MEASURE = Measure("memorised", _key, _take, _read)

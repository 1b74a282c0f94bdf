"""Which predictions a head's ablation hurts: by class of token in context, on snippets, the most affected ones, and which heads share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import Affected, ClassShares, TokenEffects
from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.affected import correlations, most_affected, overlaps
from rllc.behaviour.classes import CLASSES, TokenClasses, classify
from rllc.behaviour.contexts import ratio_and_stderr
from rllc.behaviour.patterns import PatternRules
from rllc.behaviour.shares import class_shares, effects_by_depth
from rllc.core import digest, seeds
from rllc.records.store import Record
from rllc.runs.experiment import MIXTURE
from rllc.runs.mapping import plain
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Ints, Key, Measure, Meta, Subject, stacked, steps_of

_SETTINGS = ("fractions", "draws", "overlap", "examples", "before")
_SHARES = ("shares", "low", "high", "excess_low", "excess_high", "effect", "effect_stderr", "base")


def _key(bench: Bench) -> Key:
    return {
        "probes": bench.probes_digest("ablation", bench.settings.ablation.contexts, tuple(dict.fromkeys((*bench.data, MIXTURE)))),
        "snippets": digest.of_arrays(bench.snippets),
        "data": list(bench.data),
        "text": bench.text_key,
        "probability": bench.settings.ngrams.probability,
        "kind": bench.settings.ablation.main,
        "settings": {name: plain(getattr(bench.settings.tokens, name)) for name in _SETTINGS},
        "seed": bench.seed,
    }


def _classes(bench: Bench, tokens: Ints, *name: str) -> TokenClasses:
    rules = PatternRules(bench.settings.ngrams.least, bench.settings.ngrams.probability)
    return bench.kept(lambda: classify(tokens, bench.text.ngrams, bench.text.skips, bench.brackets, rules), "classes", *name)


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    each = [_on_data(subject, bench, data) for data in bench.data]
    arrays: Arrays = {name: np.stack([numbers[name] for numbers in each]) for name in each[0]}  # [N, …]
    reference = bench.ablated(MIXTURE)
    for i, (name, tokens) in enumerate(bench.snippets.items()):
        kind = bench.settings.ablation.main
        effects = ablation_effects(subject.shape, subject.params, tokens[None], kind, reference, bench.seed)[:, 0]
        arrays[f"snippet/{i}"] = np.pad(effects, ((0, 0), (1, 0)))
        arrays[f"primary/{i}"] = np.pad(_classes(bench, tokens[None], "snippet", name).primary[0], (1, 0), constant_values=-1)
    shown = [bench.corpus.decode(tokens) for tokens in bench.snippets.values()]
    meta = {"data": list(bench.data), "kind": bench.settings.ablation.main, "classes": list(CLASSES), "snippets": list(bench.snippets)}
    settings = bench.settings.tokens
    return arrays, meta | {"tokens": shown, "fractions": list(settings.fractions), "overlap": settings.overlap}


def _on_data(subject: Subject, bench: Bench, data: str) -> Arrays:
    """Everything of one kind of data; heads first."""
    settings, tokens = bench.settings.tokens, bench.ablated(data).tokens
    effects, classes = subject.effects(data, bench.settings.ablation.main), _classes(bench, tokens, data)
    rng = seeds.generator(bench.seed, "tokens", data)
    found = class_shares(effects, classes.flags, classes.counted, rng, settings.fractions, settings.draws)
    members = classes.flags.astype(np.float64)
    by_class = ratio_and_stderr(np.einsum("hbs,kbs->hkb", effects, members), members.sum(2)[None])
    arrays: Arrays = {
        "shares": found.shares,
        "low": found.interval[..., 0],
        "high": found.interval[..., 1],
        "base": found.base,
        "excess_low": found.excess_interval[..., 0],
        "excess_high": found.excess_interval[..., 1],
        "effect": by_class[0],
        "effect_stderr": by_class[1],
        "overlap_heads": overlaps(effects, classes.counted, settings.overlap),
    }
    closer_effect, closer_stderr, closers = effects_by_depth(effects, classes.of("bracket"), classes.depth)
    arrays |= {"closer_effect": closer_effect, "closer_stderr": closer_stderr, "closers": closers}
    arrays["correlation"], arrays["correlation_stderr"] = correlations(effects, classes.counted)
    if settings.examples:
        context, place, rise = most_affected(effects, classes.counted, settings.examples)
        back = place[..., None] + 1 + np.arange(-settings.before, 1)  # prediction p is that of token p + 1
        arrays["most/tokens"] = np.where(back >= 0, tokens[context[..., None], back], -1)
        arrays["most/effect"], arrays["most/flags"] = rise, np.moveaxis(classes.flags[:, context, place], 0, -1)
    return arrays


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:
    meta, last = records[-1].meta, records[-1]
    heads, steps, data, classes = tuple(meta["heads"]), steps_of(records), tuple(meta["data"]), tuple(meta["classes"])

    def by_head(name: str) -> Any:
        """[S, N, H, …] as [H, S, N, …]."""
        return np.moveaxis(stacked(records, name, 0), 2, 0)

    def by_heads(name: str) -> Any:
        """[S, N, H, H] as [H, H, S, N]."""
        return np.moveaxis(stacked(records, name, 0), (2, 3), (0, 1))

    shares = ClassShares(
        ablation=meta["kind"],
        heads=heads,
        steps=steps,
        data=data,
        classes=classes,
        fractions=tuple(meta["fractions"]),
        base=last.arrays["base"],
        **{name: by_head(name) for name in _SHARES if name != "base"},
        closers=last.arrays["closers"],
        closer_effect=by_head("closer_effect"),
        closer_stderr=by_head("closer_stderr"),
    )
    effects = TokenEffects(
        ablation=meta["kind"],
        heads=heads,
        steps=steps,
        snippets=tuple(meta["snippets"]),
        tokens=tuple(tuple(texts) for texts in meta["tokens"]),
        effects=tuple(stacked(records, f"snippet/{i}", 1) for i in range(len(meta["snippets"]))),
        classes=classes,
        primary=tuple(last.arrays[f"primary/{i}"] for i in range(len(meta["snippets"]))),
        data=data,
        most=_most(last, bench.names, classes),
        correlation=by_heads("correlation"),
        correlation_stderr=by_heads("correlation_stderr"),
        overlap=by_heads("overlap_heads"),
        overlap_fraction=meta["overlap"],
    )
    return {"shares": shares, "tokens": effects}


def _most(record: Record, names: list[str], classes: tuple[str, ...]) -> tuple[tuple[tuple[Affected, ...], ...], ...]:
    if "most/tokens" not in record.arrays:
        return tuple(tuple(() for _ in record.meta["heads"]) for _ in record.meta["data"])

    def one(window: list[int], effect: float, flags: list[bool]) -> Affected:
        *before, token = window
        kinds = tuple(name for name, flag in zip(classes, flags, strict=True) if flag)
        return Affected(tuple(names[i] for i in before if i >= 0), names[token], effect, kinds)

    windows, rises, flags = (record.arrays[f"most/{name}"].tolist() for name in ("tokens", "effect", "flags"))
    return tuple(
        tuple(
            tuple(one(*each) for each in zip(*head, strict=True) if each[1] > 0)  # padded where fewer losses rise
            for head in zip(*data, strict=True)
        )
        for data in zip(windows, rises, flags, strict=True)
    )


MEASURE = Measure("tokens", _key, _take, _read)

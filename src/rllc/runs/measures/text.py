"""n-grams and skip n-grams of the training text, counted once a corpus and kept as a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllc.behaviour.ngrams import Level, NgramTable, Stretch, count_ngrams
from rllc.behaviour.settings import NgramSettings
from rllc.behaviour.skips import SkipTable, count_skips
from rllc.corpus.tokens import Corpus
from rllc.records.store import Record, Store

KIND = "text_ngrams"
REVISION = "text-ngrams-1"


@dataclass(frozen=True)
class TextTables:
    """What the training text holds of both."""

    ngrams: NgramTable
    skips: SkipTable


def text_key(corpus: Corpus, shares: Mapping[str, float], settings: NgramSettings) -> dict[str, Any]:
    """What decides the tables."""
    counted = {name: getattr(settings, name) for name in ("longest", "least", "window", "information", "tokens")}
    return {"revision": REVISION, "corpus": corpus.digest, "shares": dict(shares), **counted}


def text_tables(store: Store, corpus: Corpus, shares: Mapping[str, float], settings: NgramSettings) -> TextTables:
    """The tables, from the store where they lie in it; else counted, and put there. Raises RllcError where the text was changed meanwhile."""
    key = text_key(corpus, shares, settings)
    if store.has(KIND, key):
        return _read(store.get(KIND, key))
    stretches = [_training(corpus, name, settings.tokens) for name in shares]
    ngrams = count_ngrams(stretches, settings.longest, corpus.vocabulary, corpus.bos, settings.least, list(shares.values()))
    skips = count_skips(stretches, corpus.vocabulary, corpus.bos, settings.window, settings.least, settings.information)
    found = TextTables(ngrams, skips)
    arrays = {f"skips/{name}": getattr(skips, name) for name in _SKIPS}
    for n, level in enumerate(ngrams.levels, 1):
        arrays |= {f"{n}/{name}": getattr(level, name) for name in _LEVEL}
    meta = {"vocabulary": corpus.vocabulary, "bos": corpus.bos, "least": settings.least, "window": settings.window, "tested": skips.tested}
    corpus.check_untouched()
    store.put(KIND, key, arrays, meta | {"longest": settings.longest})
    return found


_LEVEL = ("keys", "counts", "mass", "followed")
_SKIPS = ("tokens", "counts", "probabilities", "information")


def _training(corpus: Corpus, domain: str, most: int) -> Stretch:
    """The beginning of a domain's training documents."""
    found = corpus.domains[domain]
    return found.tokens[: min(most, int(found.starts[found.train_documents]))]


def _read(record: Record) -> TextTables:
    meta, arrays = record.meta, record.arrays
    levels = [Level(*(np.asarray(arrays[f"{n}/{name}"]) for name in _LEVEL)) for n in range(1, meta["longest"] + 1)]
    skips = SkipTable(meta["vocabulary"], meta["bos"], meta["window"], *(arrays[f"skips/{name}"] for name in _SKIPS), tested=meta["tested"])
    return TextTables(NgramTable(meta["vocabulary"], meta["bos"], meta["least"], tuple(levels)), skips)

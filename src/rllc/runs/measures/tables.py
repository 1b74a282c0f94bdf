"""What heads say in tokens: OV and QK circuits as tables, and direct logit attribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllc.analysis.measured import Entry, TokenTables
from rllc.behaviour.logits import TokenTable, logit_attribution, ov_table, qk_table
from rllc.model.shape import ModelShape
from rllc.records.store import Record
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import Arrays, Floats, Ints, Key, Measure, Meta, Subject, stacked, steps_of


def _key(bench: Bench) -> Key:
    settings = bench.settings.tables
    probes = bench.probes_digest("tables", settings.contexts)
    return {"probes": probes, "data": list(bench.data), "entries": settings.entries, "row": settings.row, "specials": list(bench.corpus.specials)}


def _take(subject: Subject, bench: Bench) -> tuple[Arrays, Meta]:
    shape, params, settings = subject.shape, subject.params, bench.settings.tables
    # Special tokens, which no text holds, have weights that nobody trained: their rows would stand first. What the model has beyond the corpus too.
    rows = np.setdiff1d(np.arange(min(shape.d_vocab, bench.corpus.vocabulary)), bench.corpus.specials)
    most = min(settings.row, shape.d_vocab)
    ov = [ov_table(shape, params, head, most, rows) for head in shape.heads()]
    arrays = _strongest("ov", ov, settings.entries)
    arrays["copying"] = np.array([(table.tokens == table.rows[:, None]).any(1).mean() for table in ov])
    if not _normed_together(shape):
        arrays |= _strongest("qk", [qk_table(shape, params, head, most, rows) for head in shape.heads()], settings.entries)
    texts = [bench.heldout(data, settings.contexts, "tables") for data in bench.data]
    attributed = [contexts.mean(logit_attribution(shape, params, contexts)) for contexts in texts]
    arrays["attribution"], arrays["attribution_stderr"] = (np.stack(values, 1) for values in zip(*attributed, strict=True))
    return arrays, {"data": list(bench.data)}


def _strongest(name: str, tables: list[TokenTable], most: int) -> Arrays:
    """The entries of every head's table: pairs of ids [H, n, 2], and values [H, n]."""
    found = [table.strongest(most) for table in tables]
    tokens: Ints = np.array([[entry[:2] for entry in entries] for entries in found], np.int64)
    values: Floats = np.array([[entry[2] for entry in entries] for entries in found])
    return {f"{name}/tokens": tokens, f"{name}/values": values}


def _read(records: Sequence[Record], bench: Bench) -> Mapping[str, Any]:
    def texts(name: str) -> tuple[tuple[tuple[Entry, ...], ...], ...]:
        return tuple(_entries(record, name, bench.names) for record in records)

    found = TokenTables(
        heads=tuple(records[0].meta["heads"]),
        steps=steps_of(records),
        data=tuple(records[0].meta["data"]),
        ov=texts("ov"),
        qk=texts("qk"),
        copying=stacked(records, "copying", 1),
        attribution=stacked(records, "attribution", 1),
        attribution_stderr=stacked(records, "attribution_stderr", 1),
    )
    return {"tables": found}


def _entries(record: Record, name: str, names: list[str]) -> tuple[tuple[Entry, ...], ...]:
    if f"{name}/tokens" not in record.arrays:
        return tuple(() for _ in record.meta["heads"])

    def text(token: int) -> str:
        return names[token] if token < len(names) else f"token {token}"

    tokens, values = record.arrays[f"{name}/tokens"].tolist(), record.arrays[f"{name}/values"].tolist()
    return tuple(
        tuple(Entry(text(a), text(b), value) for (a, b), value in zip(pairs, row, strict=True)) for pairs, row in zip(tokens, values, strict=True)
    )


def _normed_together(shape: ModelShape) -> bool:
    return bool(shape.qk_norm) and shape.qk_norm_over == "layer"


MEASURE = Measure("tables", _key, _take, _read)

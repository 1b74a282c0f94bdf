"""What a run has recorded of which tokens carry λ̂."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rllc.analysis.token_shares import TokenShares, stacked_shares
from rllc.core.errors import RllcError
from rllc.core.names import DataKey
from rllc.corpus.tokens import open_corpus
from rllc.records.store import Record, Store, key_digest
from rllc.records.table import part_order
from rllc.runs.experiment import Experiment, load
from rllc.runs.grid import weights_of
from rllc.runs.keys import KIND, SHARES, record_key, shares_key
from rllc.runs.layout import existing
from rllc.runs.plan import make_plan
from rllc.runs.token_probe import shares_of


def token_shares(folder: Path | str, data: str = "mixture", step: int | None = None, parts: Sequence[str] = ()) -> TokenShares:
    """The shares of tokens that a run with `sampling.share_contexts` has recorded.

    Args:
        folder: of the run.
        data: by which the chains moved.
        step: of the checkpoint; the last one that was sampled unless given.
        parts: names of parts; all unless given.

    Raises RllcError where the run has recorded none of them.
    """
    place = existing(Path(folder))
    experiment = load(place.experiment)
    corpus, weights, store = open_corpus(place.corpus), weights_of(experiment, place), place.store()
    found: dict[tuple[int, str], tuple[str, list[Record]]] = {}
    for cell in make_plan(experiment).cells:
        if cell.data == DataKey.parse(data) and (not parts or str(cell.part) in parts):
            digest = key_digest(KIND, record_key(experiment, cell, weights, corpus.digest))
            if store.has(KIND, digest) and (records := _recorded(experiment, store, digest)):
                found[cell.step, str(cell.part)] = store.get(KIND, digest).meta["outcome"], records
    steps = sorted({at for at, _ in found})
    chosen = step if step is not None else steps[-1] if steps else 0
    if chosen not in steps:
        raise RllcError(
            f"{folder} holds no shares of tokens of {', '.join(parts) or 'any part'} on {data}" + (f" at step {step}." if step is not None else "."),
            f"There are some at {', '.join(map(str, steps))}." if steps else "Give the experiment's [sampling] share_contexts = 4 and run it again.",
        )
    return stacked_shares(
        [
            shares_of(part, data, at, outcome, records[0].meta["names"], [(r.arrays, r.meta["draws"]) for r in records], corpus.decode)
            for (at, part), (outcome, records) in sorted(found.items(), key=lambda item: part_order(item[0][1]))
            if at == chosen
        ]
    )


def _recorded(experiment: Experiment, store: Store, digest: str) -> list[Record]:
    """The shares of a cell's segments; of some there may be none, where they were asked for later."""
    keys = [shares_key(experiment, digest, segment) for segment in range(store.segments(KIND, digest))]
    return [store.get(SHARES, key) for key in keys if store.has(SHARES, key)]

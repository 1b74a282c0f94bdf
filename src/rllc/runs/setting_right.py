"""What is damaged in a store is set aside before a run computes anything, and with it what was kept of chains that are there no more. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rllc.records.index import fresh_problems, opened
from rllc.records.store import Store, key_digest, named
from rllc.runs.keys import KIND, SHARES, STATE, state_key


def set_right(store: Store) -> list[str]:
    """Set aside what is damaged, then the states and shares of segments that are missing or have other draws; what was done, in sentences.

    Raises RllcError where something cannot be read or moved.
    """
    told = [str(problem) for problem in fresh_problems(store)]
    for kind, what in ((STATE, "states of chains"), (SHARES, "shares of tokens")):
        if stale := _stale(store, kind):
            store.retire(kind, stale)
            told.append(f"{len(stale)} kept {what} were of segments that are there no more; they now lie in {store.place.shown('damaged')}.")
    return told


def forget(store: Store, digest: str, segment: int, shares: Iterable[Mapping[str, Any]] = ()) -> None:
    """Set aside the state behind a segment, and shares of its tokens by their keys, where there are any."""
    for kind, key in ((STATE, state_key(digest, segment)), *((SHARES, key) for key in shares)):
        if store.has(kind, key):
            store.retire(kind, [f"{key_digest(kind, key)}-0.npz"])


def _stale(store: Store, kind: str) -> list[str]:
    """The files of a kind that belong to segments that are not there, or are of other draws."""
    kept = opened(store, kind)  # before the samples: whoever samples beside us writes those first
    if not kept.stamps:
        return []
    samples = opened(store, KIND)
    drawn = dict(zip(map(named, samples.stamps), samples.columns["draws"].plain(), strict=True)) if samples.stamps else {}
    found: list[str] = []
    rows = zip(kept.stamps, *(kept.columns[name].plain() for name in ("key/of", "key/segment", "draws")), strict=True)
    for file, of, segment, draws in rows:
        # a state is behind all draws until then, shares are of one segment's
        there = drawn.get((of, segment))
        before = drawn.get((of, segment - 1), 0) if kind == SHARES else 0
        if there is None or there - before != draws:
            found.append(file)
    return found

"""What the recorded traces of heads share, as the analysis takes it for the errors of differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from rllc.analysis.aligned import Aligned
from rllc.analysis.curves import is_head
from rllc.analysis.findings import Curves
from rllc.posterior.estimate import means_of, series
from rllc.posterior.traces import Floats
from rllc.records.store import Record
from rllc.runs.recording import traces_of
from rllc.runs.selecting import is_own, is_refused


def aligned_of(records: Iterable[Record], curves: Mapping[str, Curves]) -> dict[str, Aligned]:
    """By data, what the errors of differences of heads' λ̂ are taken from (METHOD 2, Error): means of chains and of batches, aligned by draw.

    Those of cells with the settings and draws that most of all have: whatever has others, or was refused, is NaN, and the errors of its differences
    are those of independent numbers.

    Args:
        records: of samples.
        curves: of whole heads, by data name.
    """
    means: dict[tuple[str, str, int], tuple[object, tuple[Floats, Floats]]] = {}
    for record in records:
        if is_head(record.meta["part"]) and is_own(record) and not is_refused(record):
            traces = traces_of(record)
            place = str(record.meta["data"]), str(record.meta["part"]), int(record.meta["step"])
            means[place] = (traces.settings, traces.kept.tobytes(), traces.fixed_losses is None), means_of(series(traces)[0])
    if not means:
        return {}
    usual = Counter(key for key, _ in means.values()).most_common(1)[0][0]
    taken = {place: found for place, (key, found) in means.items() if key == usual}
    chains, batches = (len(values) for values in next(iter(taken.values())))
    found: dict[str, Aligned] = {}
    for name, of in curves.items():
        shape = len(of.parts), len(of.steps)
        aligned = Aligned(of.parts, of.steps, np.full((*shape, chains), np.nan), np.full((*shape, batches), np.nan))
        for p, part in enumerate(of.parts):
            for s, step in enumerate(of.steps.tolist()):
                if (name, part, step) in taken:
                    aligned.chains[p, s], aligned.batches[p, s] = taken[name, part, step]
        found[name] = aligned
    return found

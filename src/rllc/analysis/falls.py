"""Whether a head's curve has fallen from its largest estimate, or the largest of many estimates is large by its noise alone."""

from __future__ import annotations

import numpy as np

from rllc.analysis.comparisons import Falls
from rllc.analysis.curves import is_head
from rllc.analysis.errors import noise
from rllc.analysis.findings import Curves
from rllc.analysis.ordering import holm
from rllc.core import seeds

_DRAWS = 20_000


def falls(curves: Curves, seed: int, *, draws: int = _DRAWS) -> Falls:
    """Of every head that has two estimates with errors: the fall from its largest to its last, and the chance of one as large.

    The chance is that of a curve which does not change: of all curves that never fall it is the one that seems to fall furthest. Its estimates differ
    by their errors alone, drawn by t with the degrees of freedom of each and taken as independent between checkpoints.
    """
    heads: list[str] = []
    found: list[tuple[int, float, float]] = []
    for row, head in enumerate(curves.parts):
        fine = np.flatnonzero(np.isfinite(curves.llc[row]) & np.isfinite(curves.stderr[row]))
        if not is_head(head) or fine.size < 2:
            continue
        values = curves.llc[row, fine]
        top = int(np.argmax(values))
        fall, chance = float(values[top] - values[-1]), 1.0
        if fall > 0:
            drawn = noise(curves.stderr[row, fine], curves.freedom[row, fine], draws, seeds.generator(seed, "falls", head))
            chance = float((1 + ((drawn.max(axis=1) - drawn[:, -1]) >= fall).sum()) / (1 + draws))
        heads.append(head)
        found.append((int(curves.steps[fine[top]]), fall, chance))
    p = np.array([row[2] for row in found], dtype=np.float64)
    return Falls(tuple(heads), np.array([row[0] for row in found], dtype=np.int64), np.array([row[1] for row in found], dtype=np.float64), p, holm(p))

"""What the refined LLC adds to a Hessian: the estimate less its curvature twin, head by head (METHOD 3.1c)."""

from __future__ import annotations

import numpy as np

from rllc.analysis.comparisons import Twins
from rllc.analysis.errors import joined
from rllc.analysis.findings import Curves
from rllc.analysis.measured import Baselines

TWIN = "curvature_twin"


def twins(curves: Curves, baselines: Baselines | None) -> Twins | None:
    """Both of every head at every checkpoint that both were measured at; None where there is none."""
    if baselines is None or TWIN not in baselines.values:
        return None
    heads = tuple(head for head in curves.parts if head in baselines.heads)
    steps = np.intersect1d(curves.steps, baselines.steps)
    if not heads or not len(steps):
        return None
    common: list[int] = steps.tolist()
    ours = np.ix_([curves.parts.index(head) for head in heads], [curves.steps.tolist().index(step) for step in common])
    theirs = np.ix_([baselines.heads.index(head) for head in heads], [baselines.steps.tolist().index(step) for step in common])
    llc, llc_stderr = curves.llc[ours], curves.stderr[ours]
    twin, twin_stderr = baselines.values[TWIN][theirs], baselines.stderr[TWIN][theirs]
    llc_df = curves.freedom[ours]
    stderr, df = joined((llc_stderr, llc_df), (twin_stderr, np.inf))
    return Twins(heads, steps, llc, llc_stderr, twin, twin_stderr, llc - twin, stderr, llc_df, df)

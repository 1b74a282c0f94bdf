"""Specialisation: how the final refined LLC of a head differs between kinds of data (METHOD 1 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rllc.analysis.aligned import Aligned, cells, difference
from rllc.analysis.curves import at, select
from rllc.analysis.findings import Curves, Specialisation


def specialisation(
    curves: Mapping[str, Curves], reference: str, aligned: Mapping[str, Aligned] | None = None
) -> tuple[tuple[Specialisation, ...], tuple[str, ...]]:
    """λ̂ on each kind of data minus λ̂ on the reference, per head, at the last checkpoint both have; then reasons where there is none.

    Args:
        curves: curves of heads by data name.
        reference: name of the data that the others are compared with, usually the training mixture.
        aligned: by data, what makes the errors of the differences; without it those of both are taken as independent, `√(s² + s_ref²)`.

    A head without an estimate at that checkpoint has NaN: an earlier checkpoint never stands in.
    """
    if reference not in curves:
        return (), (f"There is no specialisation: no head was measured on {reference}.",)
    base = curves[reference]
    found: list[Specialisation] = []
    reasons: list[str] = []
    for name, other in curves.items():
        if name == reference:
            continue
        steps = np.intersect1d(base.steps, other.steps)
        heads = tuple(head for head in base.parts if head in other.parts)
        if len(steps) == 0 or not heads:
            reasons.append(f"There is no specialisation on {name}: it shares no checkpoint or no head with {reference}.")
            continue
        last = steps[-1:]
        value, base_value = (at(select(which, heads), slice(None), np.searchsorted(which.steps, last)).llc[:, 0] for which in (other, base))
        error = difference(*[cells(which, aligned or {}, heads, last) for which in (other, base)])
        stderr = np.where(np.isfinite(value - base_value), error.stderr[:, 0], np.nan)
        found.append(Specialisation(heads, name, reference, value - base_value, stderr, int(last[0]), error.df[:, 0]))
    return tuple(found), tuple(reasons)

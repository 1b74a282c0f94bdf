"""Specialisation: how the final refined LLC of a head differs between kinds of data (METHOD 1 and 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rllc.analysis.findings import Curves, Floats, Specialisation


def specialisation(
    curves: Mapping[str, Curves], reference: str, paired_stderr: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[tuple[Specialisation, ...], tuple[str, ...]]:
    """λ̂ on each kind of data minus λ̂ on the reference, per head, at the last checkpoint both have; then reasons where there is none.

    Args:
        curves: curves of heads by data name.
        reference: name of the data that the others are compared with, usually the training mixture.
        paired_stderr: by data and head, the standard error of the difference of traces aligned by draw; without it the errors of both
            are taken as independent, `√(s² + s_ref²)`.

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
        (value, error), (base_value, base_error) = (_at(which, heads, int(steps[-1])) for which in (other, base))
        difference = value - base_value
        stderr = np.hypot(error, base_error)
        given = (paired_stderr or {}).get(name, {})
        stderr = np.array([given.get(head, independent) for head, independent in zip(heads, stderr, strict=True)])
        found.append(Specialisation(heads, name, reference, difference, np.where(np.isfinite(difference), stderr, np.nan), int(steps[-1])))
    return tuple(found), tuple(reasons)


def _at(curves: Curves, heads: tuple[str, ...], step: int) -> tuple[Floats, Floats]:
    rows = [curves.parts.index(head) for head in heads]
    column = int(np.searchsorted(curves.steps, step))
    return curves.llc[rows, column], curves.stderr[rows, column]

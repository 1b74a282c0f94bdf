"""Lines, labels and legends of heads, as every drawing of heads shows them: coloured by type, "other" underneath."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rllc.analysis.errors import CONFIDENCE, quantile, reach
from rllc.analysis.findings import Curves, Floats, HeadTypes
from rllc.core.outcome import Outcome
from rllc.figures.drawing import Line, Points
from rllc.figures.palette import MUTED, TYPES, Style, type_color, type_style
from rllc.figures.told import type_of

if TYPE_CHECKING:
    from jaxtyping import Float, Num

REFUSED = tuple(o.value for o in Outcome if o.refused)
MARKED = tuple(o.value for o in Outcome if not o.refused and o is not Outcome.OK)
REACH = float(quantile((1 + CONFIDENCE) / 2))  # standard errors that are known, of a band; those of λ̂ are rough: see `errors.reach`
FAINT_LINE = Style("#8791a0", "solid", "circle", "o", 0.9)
KEY = "Hollow: a number with a warning; a cross on the floor: a refused cell, without a number."


def curve_line(curves: Curves, row: int, style: Style, name: str, **more: Any) -> Line:
    """One curve with its intervals and the marks of its outcomes."""
    outcome = curves.outcome[row]
    return Line(
        curves.steps,
        curves.llc[row],
        style,
        name,
        low=curves.ci_low[row],
        high=curves.ci_high[row],
        hollow=np.isin(outcome, MARKED),
        refused=np.isin(outcome, REFUSED),
        **more,
    )


def type_lines(
    heads: Sequence[str],
    steps: Num[NDArray[Any], " S"],
    values: Float[Floats, "H S"],
    types: HeadTypes | None,
    stderr: Float[Floats, "H S"] | None = None,
    named: Iterable[str] | None = None,
    df: Float[Floats, "H S"] | None = None,
) -> tuple[Line, ...]:
    """A line a head, coloured by type, with 95 % bands where there are errors (known, or with `df` degrees of freedom).

    The heads of `named` (all with a type, unless told) get a label.
    """
    kinds = type_of(types)
    labelled = set(named) if named is not None else {h for h in heads if kinds.get(h, "other") != "other"}
    lines: list[Line] = []
    for row in typed_last(heads, kinds):
        head, kind = heads[row], kinds.get(heads[row], "other")
        half = None if stderr is None else reach(stderr[row], None if df is None else df[row])
        band: dict[str, Any] = {} if half is None else {"low": values[row] - half, "high": values[row] + half}
        shade = 0.06 if kind == "other" else 0.14
        lines.append(Line(steps, values[row], type_style(kind), head, end=head if head in labelled else "", group=kind, shade=shade, **band))
    return tuple(lines)


def typed_last(heads: Sequence[str], kinds: Mapping[str, str]) -> list[int]:
    """Rows of heads, those of type "other" first, so that the rest are drawn over them."""
    return sorted(range(len(heads)), key=lambda r: kinds.get(heads[r], "other") != "other")


def type_legend(types: HeadTypes | None, heads: Iterable[str]) -> tuple[tuple[str, Style], ...]:
    """Entries of the types that occur among these heads."""
    kinds = type_of(types)
    found = {kinds.get(h, "other") for h in heads}
    return tuple((name, TYPES[name]) for name in TYPES if name in found)


def type_colors(types: HeadTypes | None, heads: Iterable[str]) -> tuple[str, ...]:
    """Colours of the heads' names."""
    kinds = type_of(types)
    return tuple(type_color(kinds.get(h, "other")) for h in heads)


def by_type(heads: Sequence[str], values: Float[Floats, " H"], types: HeadTypes | None) -> list[tuple[str, float, int]]:
    """Each type's mean over its heads that have a number, and how many these are; the smallest mean first."""
    kinds = type_of(types)
    found: list[tuple[str, float, int]] = []
    for kind in dict.fromkeys(kinds.get(h, "other") for h in heads):
        own = np.array([v for h, v in zip(heads, values, strict=True) if kinds.get(h, "other") == kind and np.isfinite(v)])
        if own.size:
            found.append((kind, float(own.mean()), int(own.size)))
    return sorted(found, key=lambda entry: entry[1])


def dots(
    heads: Sequence[str], values: Float[Floats, " H"], low: Floats | None, high: Floats | None, types: HeadTypes | None, shift: float = 0.0
) -> tuple[Points, ...]:
    """A dot a head at its own height (row 0 on top), with intervals, coloured by type."""
    kinds = type_of(types)
    found: list[Points] = []
    for kind in dict.fromkeys(kinds.get(h, "other") for h in heads):
        rows = np.array([r for r, h in enumerate(heads) if kinds.get(h, "other") == kind])
        edges: dict[str, Any] = {} if low is None or high is None else {"x_low": low[rows], "x_high": high[rows]}
        name = ", ".join(heads[int(r)] for r in rows)
        style = type_style(kind) if kind != "other" else Style(MUTED, "dot", "circle-open", "o", 1.5)
        found.append(Points(values[rows], rows + shift, style, f"{kind}: {name}", group=kind, **edges))
    return tuple(found)

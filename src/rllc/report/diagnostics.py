"""One table of the chains' diagnostics: the worst cell of each, and the share of cells that pass its usual limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rllc.figures.health import Row, data_of, number
from rllc.figures.told import listed
from rllc.report.markup import Markup, minus, paragraph
from rllc.report.tables import Words

# column, name, how far a cell is from what is wanted (larger is worse), the usual limit of that, in words
_ROWS: tuple[tuple[str, str, Callable[[float], float], float, str], ...] = (
    ("rhat", "split R-hat", lambda v: v, 1.1, "at most 1.1"),
    ("ess", "effective draws", lambda v: -v, -10.0, "at least 10"),
    ("stein_ratio", "Stein ratio over its value at equilibrium", lambda v: abs(v - 1), 0.1, "1 within 0.1"),
    ("geweke", "Geweke's z, first tenth against last half", abs, 1.96, "within ±1.96, which 95 % of settled chains are"),
    ("hw_discard", "Heidelberger and Welch, share of draws to leave out", lambda v: v, 0.0, "0"),
    ("hw_halfwidth", "Heidelberger and Welch, relative half width", abs, 0.1, "at most 0.1"),
    ("raftery_lewis", "Raftery and Lewis, draws over independent ones", lambda v: v, 5.0, "at most 5"),
)


def diagnostics_table(rows: Sequence[Row]) -> Markup:
    """The diagnostics that these cells have, on the page; a sentence where they have none."""
    return diagnostics_told(rows).html or paragraph("No diagnostic of chains was recorded.")


def diagnostics_told(rows: Sequence[Row]) -> Words:
    """Of each diagnostic that these cells have, how many of them pass its limit, and the worst."""
    told: list[list[str]] = []
    missing: list[str] = []
    for column, name, badness, limit, wanted in _ROWS:
        known = [(row, value) for row in rows if (value := _value(row, column)) is not None]
        if not known:
            missing += [] if (author := name.partition(",")[0]) in missing else [author]
            continue
        bad = np.array([badness(value) for _, value in known])
        row, value = known[int(np.argmax(bad))]
        where = f"{row['part']}, step {int(row['step']):,}, {data_of(row)}"
        told.append(
            [
                name,
                wanted,
                f"{100 * float(np.mean(bad <= limit)):.0f} %",
                minus(f"{value:.3g}") if math.isfinite(value) else "more than half",
                where,
                f"{len(known):,}",
            ]
        )
    head = ("diagnostic", "wanted", "cells that have it so", "worst", "of the cell", "cells")
    lacking = f" No cell has what {listed(missing)} take: they need longer chains." if missing else ""
    caption = f"Diagnostics of each cell, of its chain-averaged paired series.{lacking}"
    return Words(head, told, caption, numbers=(2, 3, 5), long=(4,))


def _value(row: Row, column: str) -> float | None:
    value = number(row.get(column))
    if column == "hw_discard" and value is None and number(row.get("geweke")) is not None:
        draws = (number(row.get("draws")) or 0) - (number(row.get("burn_in")) or 0)
        return math.inf if draws >= 16 else None  # even half of the draws is not enough; of fewer there is no test
    if column != "stein_ratio" or value is None:
        return value
    expected = number(row.get("stein_expected"))
    return value / expected if expected else value

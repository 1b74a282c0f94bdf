"""Results as a notebook shows them: small tables without scripts, everything from outside escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rllc.core.outcome import Outcome
from rllc.figures.palette import OUTCOMES
from rllc.report.markup import Markup, decimals, join, measure, minus, tag, value_text

DASH = "–"
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"
_SETTINGS = ("sampler", "step_size", "localization", "nbeta", "chains", "draws", "burn_in", "batch_size", "context", "dtype", "seed", "road")
_SHORT = 96  # characters of a reason in a table of many


def result_card(
    meta: Mapping[str, Any],
    llc: float,
    stderr: float,
    interval: tuple[float, float],
    outcome: Outcome,
    reason: str,
    notes: Sequence[str] = (),
    elsewhere: Sequence[tuple[str, float, float]] = (),
) -> str:
    """One cell: λ̂ ± its error, the interval, the outcome with its sentence, the settings. What has no number has a dash.

    Args:
        meta: names and settings, by the names of the table's columns.
        llc: λ̂; NaN where there is none, as of the other numbers.
        stderr: its standard error.
        interval: its ends.
        outcome: what became of the cell.
        reason: why, as sentences.
        notes: sentences that belong to the number.
        elsewhere: name of other data, nβ (E[l] - l(w*)) there for the same chains, and its standard error.
    """
    away = meta.get("evaluated_on", meta["data"]) != meta["data"]
    rows: list[tuple[object, object]] = [
        ("nβ (E[l] − l(w*))" if away else "λ̂", tag("b", number(llc, stderr))),
        ("interval", ends(interval, stderr)),
        ("outcome", join([badge(outcome), reason], " ")),
    ]
    rows += [(f"evaluated on {name}", f"{number(value, error)}, with the chains of {meta['data']}") for name, value, error in elsewhere]
    rows += [("note", note) for note in notes]
    settings = ", ".join(f"{name.replace('_', ' ')} {value_text(meta[name])}" for name in _SETTINGS if meta.get(name) not in (None, "", 0))
    rows.append(("settings", settings))
    title = f"{meta['part']} on {meta['data']}, step {value_text(meta['step'])}" + (f", evaluated on {meta['evaluated_on']}" if away else "")
    body = join(tag("tr", tag("th", name, scope="row", style=_CELL), tag("td", value, style=_CELL)) for name, value in rows)
    return str(tag("table", tag("caption", title, style="text-align:left;font-weight:600"), tag("tbody", body), style=_STYLE))


def cells_table(rows: Sequence[tuple[int, str, str, str, float, float, tuple[float, float], Outcome, str]]) -> str:
    """Several cells, a row each: step, the data that was sampled on and evaluated on, part, λ̂ ± its error, its interval, the outcome with the
    beginning of its reason.
    """
    if not rows:
        return str(tag("p", "There are no results yet."))
    away = any(data != on for _, data, on, *_ in rows)
    names = ("step", "data", "evaluated on", "part", "nβ (E[l] − l(w*))" if away else "λ̂", "interval", "outcome", "reason")
    head = tag("tr", *(tag("th", name, scope="col", style=_CELL) for name in names))
    body = []
    for step, data, on, part, llc, stderr, interval, outcome, reason in rows:
        said = "" if outcome == Outcome.OK else reason if len(reason) <= _SHORT else reason[: _SHORT - 1] + "…"
        cells = (value_text(step), data, on, part, number(llc, stderr), ends(interval, stderr), badge(outcome), said)
        body.append(tag("tr", *(tag("td", cell, style=_CELL) for cell in cells), title=None if outcome == Outcome.OK else reason))
    return str(tag("table", tag("thead", head), tag("tbody", join(body)), style=_STYLE))


def number(llc: float, stderr: float) -> str:
    """λ̂ ± its error, or a dash.

    >>> number(7.6123, 0.312), number(float("nan"), float("nan"))
    ('7.61 ± 0.31', '–')
    """
    return measure(llc, stderr) if math.isfinite(llc) else DASH


def ends(interval: tuple[float, float], stderr: float) -> str:
    """The interval, to the decimals that its error leaves meaningful, or a dash.

    >>> ends((-0.513, 1.2), 0.4), ends((float("nan"), float("nan")), float("nan"))
    ('−0.51 to 1.20', '–')
    """
    if not all(map(math.isfinite, interval)):
        return DASH
    digits = decimals(stderr)
    return minus(f"{interval[0]:,.{digits}f} to {interval[1]:,.{digits}f}")


def badge(outcome: Outcome) -> Markup:
    """The outcome on its colour."""
    ink = "#ffffff" if outcome.refused else "#1f2630"
    style = f"background:{OUTCOMES[outcome.value]};color:{ink};padding:1px 7px;border-radius:8px"
    return tag("span", outcome.value, style=style)

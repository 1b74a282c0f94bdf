"""A validation report as text: a table to read, or JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal

from rich.text import Text

from rllc.posterior.validation.validate import APART, LARGEST_MEDIAN, LEAST_KENDALL, RESOLVED, Ordering, Report, Row

_LEFT = ("case", "sampler", "outcome", "verdict")
_VERDICTS = {True: "ok", False: "FAILED", None: "told"}
_STYLES = {True: "", False: "bold red", None: "dim"}


def render(report: Report, format: Literal["table", "json"]) -> Text:  # noqa: A002
    """The text for the standard output."""
    return Text(_json(report)) if format == "json" else _table(report)


def _json(report: Report) -> str:
    whole: dict[str, Any] = {
        "passed": report.passed,
        "rows": [_finite(dataclasses.asdict(row)) for row in report.rows],
        "orderings": [_finite(dataclasses.asdict(ordering)) for ordering in report.orderings],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what a refused cell does not have is null."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}


def _table(report: Report) -> Text:
    """Aligned columns, a case named where it changes; what failed is red on a terminal."""
    lines: list[dict[str, str]] = []
    for before, row in zip([None, *report.rows], report.rows, strict=False):
        lines.append(_line(row) | ({"case": "", "section": ""} if before is not None and before.case == row.case else {}))
    names = list(_line(report.rows[0]))
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    text = Text()
    styled = [(line, _STYLES[row.passed]) for line, row in zip(lines, report.rows, strict=True)]
    for line, style in [(dict(zip(names, names, strict=True)), "dim"), *styled]:
        cells = [line[name].ljust(widths[name]) if name in _LEFT else line[name].rjust(widths[name]) for name in names]
        text.append("  ".join(cells).rstrip() + "\n", style)
    text.append("\n")
    for ordering in report.orderings:
        text.append(_ordering(ordering) + "\n", _STYLES[ordering.passed])
    return text.append("\n" + _remarks(report) + "\n")


def _line(row: Row) -> dict[str, str]:
    percent = 100.0 if row.truth else 1.0
    unit = "%" if row.truth else ""
    return {
        "case": row.case,
        "section": row.section,
        "sampler": row.sampler,
        "d": str(row.dimension),
        "estimate": f"{row.estimate:.5g}",
        "truth": f"{row.truth:.5g}",
        "error": f"{percent * row.error:+.2f}{unit}",
        "stderr": f"{percent * row.stderr / (abs(row.truth) or 1):.2f}{unit}",
        "tolerance": "" if row.tolerance is None else f"{percent * row.tolerance:g}{unit}",
        "outcome": row.outcome,
        "seconds": f"{row.seconds:.1f}" if row.seconds >= 0.05 else "",
        "verdict": _VERDICTS[row.passed],
    }


def _ordering(ordering: Ordering) -> str:
    return (
        f"{ordering.sampler}: {ordering.networks} linear networks, Kendall τ {ordering.kendall:.3f} over {ordering.pairs} pairs more than "
        f"{100 * APART:g} % apart (at least {LEAST_KENDALL:g}), median error {100 * ordering.median_error:.2f} % "
        f"(at most {100 * LARGEST_MEDIAN:g} %): {_VERDICTS[ordering.passed]}"
    )


def _remarks(report: Report) -> str:
    judged = [row for row in report.rows if row.passed is not None]
    failed = [row for row in judged if not row.passed]
    lines = [
        f"{len(judged)} answers judged, {len(failed)} beyond tolerance or unresolved (a standard error above {100 * RESOLVED:g} % of the tolerance); "
        f"{sum(row.seconds for row in report.rows):.0f} s of sampling."
    ]
    outcomes = {row.outcome for row in report.rows}
    if "drifting" in outcomes:
        lines.append(
            "drifting: draws from w* on where that is meant, or flat directions that still spread, on which the λ̂ of a network does not depend."
        )
    if "tilted" in outcomes:
        lines.append("tilted: the gradient at w* is part of the case, and of its truth.")
    if any(row.passed is None for row in report.rows):
        lines.append("told: what a setting outside its range does to an estimate, shown beside its cure and not judged.")
    lines += [f"{row.case}, {row.sampler}: {row.reason}" for row in failed if math.isnan(row.estimate)]
    return "\n".join(lines)

"""Comparisons as text: a table to read, CSV, JSON, and what has to be said beside the numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any, Literal

from rich.text import Text

from rllc.runs.comparing import Comparison, Comparisons

COLUMNS: tuple[str, ...] = ("what", "a", "b", "llc_a", "llc_b", "difference", "stderr", "ci_low", "ci_high", "p", "p_holm", "aligned", "marks")
_MORE = ("joint_low", "joint_high", "df", "stderr_independent", "draws_a", "draws_b")  # in files, beside them
_LEFT = ("what", "a", "b", "marks")
_SHARED = {"part": "the minibatches", "step": "minibatches and noise", "data": "the chains' noise"}


def render(comparisons: Comparisons, format: Literal["table", "csv", "json"]) -> tuple[Text, str]:  # noqa: A002
    """The text for the standard output, and what to tell beside it: nothing where the text itself tells it."""
    if format == "json":
        return Text(_json(comparisons)), ""
    notes = remarks(comparisons)
    if format == "csv":
        return Text(_csv(comparisons)), notes
    text = _table(comparisons)
    return text.append(f"\n{notes}\n"), ""


def row_of(row: Comparison) -> dict[str, Any]:
    """A comparison as one flat row."""
    values = dataclasses.asdict(row)
    return values.pop("found") | values


def remarks(c: Comparisons) -> str:
    """How many differences there are and how many remain after the correction; what the errors are; what was left out and why."""
    level, several = f"{100 * (1 - c.confidence):.3g} %", len(c.rows) > 1
    differing = sum(c.differs(row) for row in c.rows)
    lines = [
        f"{len(c.rows)} difference{'s' * several} compared, a − b; {differing} differ{'s' * (differing == 1)} from zero at a family-wise level "
        f"of {level} (p_holm, Holm's correction over {'all of them' if several else 'this one'}). ci_low … ci_high hold with "
        f"{100 * c.confidence:.3g} % each."
    ]
    unaligned = sum(not row.found.aligned for row in c.rows)
    if unaligned < len(c.rows):
        lines.append(
            f"Errors are those of the difference, draw by draw: the cells share {_SHARED[c.across]}. They cover noise and minibatches at these "
            "checkpoints, not the seed of the training."
        )
    if unaligned:
        lines.append(f"{unaligned} pair{'s' * (unaligned > 1)} had no draws in common (aligned no): their errors are those of independent cells.")
    if any(row.marks for row in c.rows):
        lines.append("Marked cells were compared with the rest: `rllc table` tells the reason of each mark.")
    lines += [f"Refused and not compared: {reason}" for reason in c.refused]
    return "\n".join(lines)


def _csv(c: Comparisons) -> str:
    stream = io.StringIO()
    names = (*COLUMNS, *_MORE)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in c.rows:
        values = row_of(row)
        writer.writerow([values[name] for name in names])
    return stream.getvalue()


def _json(c: Comparisons) -> str:
    rows = [{name: row_of(row)[name] for name in (*COLUMNS, *_MORE)} | {"differs": c.differs(row)} for row in c.rows]
    whole = {
        "across": c.across,
        "confidence": c.confidence,
        "compared": len(rows),
        "differ": sum(row["differs"] for row in rows),
        "refused": list(c.refused),
        "comparisons": rows,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(c: Comparisons) -> Text:
    """Aligned columns; rows that differ after the correction are bold on a terminal, and `what` stands where it changes."""
    smallest = min((row.found.stderr for row in c.rows if row.found.stderr > 0), default=0.01)
    digits = min(6, max(2, 1 - math.floor(math.log10(smallest))))  # two digits of the smallest error
    lines: list[dict[str, str]] = []
    before = None
    for row in c.rows:
        values = row_of(row)
        numbers = {name: f"{values[name]:.{digits}f}" for name in ("llc_a", "llc_b", "stderr")}
        signed = {name: f"{values[name]:+.{digits}f}" for name in ("difference", "ci_low", "ci_high")}
        chances = {name: _chance(values[name]) for name in ("p", "p_holm")}
        told = {"what": row.what if row.what != before else "", "aligned": "yes" if row.found.aligned else "no"}
        lines.append({name: str(values[name]) for name in COLUMNS} | numbers | signed | chances | told)
        before = row.what
    shown = [name for name in COLUMNS if name != "marks" or any(line["marks"] for line in lines)]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in shown}
    text = Text()
    for line, style in [
        (dict(zip(shown, shown, strict=True)), "dim"),
        *((line, "bold" * c.differs(row)) for line, row in zip(lines, c.rows, strict=True)),
    ]:
        cells = [line[name].ljust(widths[name]) if name in _LEFT else line[name].rjust(widths[name]) for name in shown]
        text.append("  ".join(cells).rstrip() + "\n", style)
    return text


def _chance(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"

"""A verification as a table to read."""

from __future__ import annotations

import math

from rllc.runs.agreement import PROMISE, Verified
from rllc.runs.verifying import Verification

_NAMES = ("cell", "draws", "compared", "apart, nats", "λ̂ recorded", "λ̂ again", "")


def render(found: Verification) -> str:
    """The cells that were chosen, and whatever else differs, one a line; then what was promised and what came of it."""
    shown = [cell for cell in found.cells if cell.chosen or cell.problem]
    rows = [_NAMES, *(_row(cell) for cell in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_NAMES) - 1)]
    lines = ["  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]
    chosen, wrong = sum(cell.chosen for cell in found.cells), sum(bool(cell.problem) for cell in found.cells)
    beside = len(found.cells) - chosen
    lines += [
        "",
        f"{chosen} of {found.recorded} recorded cells were chosen and computed again"
        + (f", and {beside} more that share their units" if beside else "")
        + f": {f'{wrong} differ' + 's' * (wrong == 1) if wrong else 'none differs'}.",
        "Bit for bit: threads, number type, chunk, device and torch are those of the record, so that nothing at all may differ. "
        f"Otherwise every loss agrees to {PROMISE[found.dtype]:g} nats, and λ̂ to 2 nβ times that.",
    ]
    if wrong:
        lines.append("A record that differs is not what this program computes: set it aside (move its file out of the store) and run again.")
    return "\n".join(lines) + "\n"


def _row(cell: Verified) -> tuple[str, ...]:
    again, of = cell.draws
    draws = f"{again}" if again == of else f"{again} of {of}"
    return (
        cell.cell,
        draws if of else "–",
        ("bit for bit" if cell.bits else "to the promise") if of else "–",
        "–" if math.isnan(cell.apart) else f"{cell.apart:.2g}",
        *("–" if math.isnan(number) else f"{number:.6g}" for number in cell.llc),
        cell.problem or "agrees",
    )

"""Chain health: every cell of the grid, the refused ones in sight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from rllc.analysis.findings import Curves
from rllc.figures.axis import short
from rllc.figures.layout import Grid, nothing, on, panels
from rllc.figures.palette import INK, MARKS, MUTED, OUTCOMES, PAPER
from rllc.figures.text import label

Row = Mapping[str, Any]
HIGH = 1.1  # R-hat from which a number is set bold
ORDER = ("", "ok", "tilted", "drifting", "unstable", "nonfinite")  # from nothing to worst


def rows_of_curves(*tables: Mapping[str, Curves]) -> list[dict[str, Any]]:
    """Rows of the planned cells of some curves, for a run without a table of its own."""
    return [
        {"data": c.data, "part": part, "step": int(step), "llc": float(c.llc[p, s]), "stderr": float(c.stderr[p, s]), "outcome": str(c.outcome[p, s])}
        for table in tables
        for c in table.values()
        for p, part in enumerate(c.parts)
        for s, step in enumerate(c.steps)
        if c.outcome[p, s]
    ]


def data_of(row: Row) -> str:
    """The data of a row, with the data it was evaluated on where that is another."""
    data, on_what = str(row.get("data", "")), row.get("evaluated_on")
    return data if not isinstance(on_what, str) or not on_what or on_what == data else f"{data}@{on_what}"


def chain_health(rows: Sequence[Row], heads: Sequence[str] = (), data: Sequence[str] = ()) -> go.Figure:
    """Parts by checkpoints, a panel a kind of data: the colour is the outcome, the number is split R-hat; hovering gives the rest.

    Where several rows describe one cell, the worst of them is shown. `heads` and `data` give the order
    of parts and panels; others follow. R-hat above 1.1 is bold.
    """
    if not rows:
        return nothing("No cell was sampled.")
    sampled = dict.fromkeys(data_of(r) for r in rows)
    names = [n for n in data if n in sampled] + [n for n in sampled if n not in set(data)]
    steps = sorted({int(r["step"]) for r in rows})
    known = dict.fromkeys(str(r["part"]) for r in rows)
    parts = [h for h in heads if h in known] + [p for p in known if p not in set(heads)]
    worst: dict[tuple[str, str, int], Row] = {}
    for r in rows:
        key = (data_of(r), str(r["part"]), int(r["step"]))
        if key not in worst or _severity(r) > _severity(worst[key]):
            worst[key] = r
    grid = Grid(len(names), min(2, len(names)), 1, 20 * len(parts), gap=(26, 70), margin=(62, 14, 34, 50), share_y=True, every_x=True)
    x = {"type": "category", "showline": False, "ticks": "", "tickangle": 0, "tickfont": {"size": 11, "color": MUTED}}
    y = {
        "type": "category",
        "autorange": "reversed",
        "showgrid": False,
        "tickfont": {"size": 12, "color": INK},
        "tickmode": "linear",
        "ticksuffix": " ",
    }
    figure = panels(grid, [label(n) for n in names], None, x, y)
    labels = [short(s) for s in steps]
    for panel, name in enumerate(names):
        cells = [[worst.get((name, part, step)) for step in steps] for part in parts]
        figure.add_trace(_heatmap(cells, labels, parts, steps, **on(panel)))
    return figure


def _severity(row: Row) -> int:
    outcome = str(row.get("outcome", ""))
    return ORDER.index(outcome) if outcome in ORDER else len(ORDER)


def _heatmap(cells: list[list[Row | None]], labels: list[str], parts: list[str], steps: list[int], **trace: Any) -> go.Heatmap:
    levels = len(ORDER)
    scale = [[edge, color] for i, name in enumerate(ORDER) for color in [OUTCOMES[name]] for edge in (i / levels, (i + 1) / levels)]
    codes = [[min(_severity(c), levels - 1) if c else 0 for c in row] for row in cells]
    return go.Heatmap(
        z=codes,
        x=labels,
        y=[label(p) for p in parts],
        zmin=-0.5,
        zmax=levels - 0.5,
        colorscale=scale,
        showscale=False,
        xgap=1.5,
        ygap=1.5,
        text=[[_cell_text(c) for c in row] for row in cells],
        texttemplate="%{text}",
        textfont={"size": 10, "color": INK},
        customdata=[[_hover(c, part, step) for c, step in zip(row, steps, strict=True)] for row, part in zip(cells, parts, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
        **trace,
    )


def _cell_text(row: Row | None) -> str:
    if row is None:
        return ""
    outcome = str(row.get("outcome", ""))
    color = f'<span style="color:{PAPER}"><b>×</b></span>'
    if MARKS.get(outcome) == "×":
        return color
    rhat = number(row.get("rhat"))
    text = MARKS.get(outcome, "?") + (f"{rhat:.2f}" if rhat is not None else "")
    return f"<b>{text}</b>" if rhat is not None and rhat > HIGH else text


def _hover(row: Row | None, part: str, step: int) -> str:
    title = f"<b>{label(part)}</b>, step {step:,}"
    if row is None:
        return f"{title}<br>not planned"
    lines = [title, f"outcome: {label(str(row.get('outcome', '')))}"]
    llc, stderr = number(row.get("llc")), number(row.get("stderr"))
    lines.append(f"LLC {llc:.3f}" + (f" ± {stderr:.3f}" if stderr is not None else "") if llc is not None else "no number")
    for key, name in (
        ("rhat", "R-hat"),
        ("ess", "effective draws"),
        ("stein_ratio", "Stein ratio"),
        ("tilt", "tilt"),
        ("chains", "chains"),
        ("draws", "draws"),
    ):
        if (value := number(row.get(key))) is not None:
            lines.append(f"{name} {value:.4g}")
    return "<br>".join(lines)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None

"""A cell's diagnostics one by one: the number, what was expected of it, the verdict and the remedy, from the recorded traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.figures.text import on_terminal
from rllc.posterior.diagnostics import Diagnostics, Extras
from rllc.posterior.result import Result, assess, assess_elsewhere
from rllc.posterior.settings import Verdicts
from rllc.posterior.traces import Traces
from rllc.records.store import Record
from rllc.runs.experiment import load
from rllc.runs.layout import existing
from rllc.runs.recorded import planned_samples
from rllc.runs.recording import origin_of, traces_of
from rllc.runs.selecting import AXES, Axis, canonical, chosen, is_own, title

Row = tuple[str, str, str, str]  # diagnostic, value, what is expected, verdict with its words


def explain_cells(root: Path, parts: Sequence[str] = (), data: Sequence[str] = (), steps: Sequence[int] = ()) -> list[tuple[str, Table, str]]:
    """A heading, a table and what to do for every chosen cell of a run; all cells that are not `ok` where nothing is named.

    Raises RllcError for a folder without a run and for a name that nothing recorded has.
    """
    folder = existing(root)
    records = planned_samples(load(folder.experiment), folder, folder.store())
    named: dict[Axis, list[str]] = {
        "part": [canonical("part", name) for name in parts],
        "data": [canonical("data", name) for name in data],
        "step": [canonical("step", str(step)) for step in steps],
    }
    selected = chosen(records, {axis: set(names) for axis, names in named.items()}, named)
    if not any(named.values()):
        selected = [record for record in records if record.meta["outcome"] != Outcome.OK]
        if not selected:
            raise RllcError(f"No cell of {root} is marked or refused.", "Name cells with --part, --data and --step to look at them all the same.")
    own = {_place(record): record for record in records if is_own(record)}
    return [(_heading(record), _table(rows_of(record, own[_place(record)])), Outcome(record.meta["outcome"]).text) for record in selected]


def rows_of(record: Record, own: Record | None = None) -> list[Row]:
    """Every diagnostic of a recorded cell; `own` is that of its chains on their own data, itself unless it was evaluated elsewhere."""
    own = own or record
    traces, limits = traces_of(record), Verdicts()
    measured = {name: own.meta.get(name) for name in ("halving", "halving_stderr", "twin")}  # what traces cannot tell
    extras = Extras(**{name: None if value is None else np.array([value], np.float64) for name, value in measured.items()})
    result = assess(traces_of(own), origin_of(own), limits, extras)[0]
    if record is not own:
        result = assess_elsewhere(result, traces, limits)
    d, told = result.diagnostics, {check.diagnostic: check for check in result.checks}
    rows: list[Row] = []
    for name, value, expected in _expectations(d, result, traces, limits):
        check = told.get(name)
        verdict = "" if check is None else f"{check.outcome}: {check.text}" if check.text else str(check.outcome)
        rows.append((name, value, expected, verdict))
    return rows


def _place(record: Record) -> tuple[int, str, str]:
    """Which chains: those of one part at one checkpoint on one kind of data."""
    return record.meta["step"], record.meta["data"], record.meta["part"]


def _expectations(d: Diagnostics, result: Result, traces: Traces, v: Verdicts) -> list[tuple[str, str, str]]:
    llc = abs(result.estimate.llc) if result.estimate is not None else float("nan")
    failed = int((traces.first_nonfinite() >= 0).sum())
    return [
        ("finite", f"{traces.settings.chains - failed} of {traces.settings.chains} chains", "all"),
        ("stiffness", _number(d.stiffness), f"below {v.stiffness:g}; εA/4 of what carries the loss"),
        ("distance_share", _number(d.distance_share), f"below {v.distance:g}; ‖w - w*‖² of what the prior allows"),
        ("excess_share", _number(d.excess_share), f"below {v.excess:g}; loss of what equipartition allows"),
        ("drift", _with_error(d.drift, d.drift_reach), f"none, or below {_number(v.drift_share * llc)}"),
        ("rhat", _number(d.rhat), f"below {v.rhat:g}, or what chance allows at few effective draws"),
        ("stein_ratio", _with_error(d.stein_ratio, d.stein_stderr), f"{_number(d.stein_expected)} under the prior"),
        ("distance_drift", _with_error(d.distance_drift, d.distance_drift_reach), "0; growth of ‖w - w*‖² as a share"),
        ("tilt", _with_error(d.tilt, d.tilt_stderr), "0 at a minimum; at most how far the gradient lowers the estimate"),
        ("ess", _number(d.ess), f"{v.ess:g} or more effective draws"),
        (
            "step_limit",
            _number(d.step_limit),
            f"well above the step size {traces.settings.largest_step:g}; steepest curvature {_number(d.top_curvature)}",
        ),
        ("halving", _with_error(d.halving, d.halving_stderr), "0; change at half the step size ([checks] halving)"),
        ("gradient_ratio", _number(d.gradient_ratio), "2 on a quadratic, 2k on w^2k"),
        ("twin", _number(d.twin), "what the estimate would be on a quadratic ([checks] twin_dimension)"),
        ("share_below_zero", _number(d.share_below_zero), "small; of paired differences"),
        ("rhat_chains", _number(d.rhat_chains), "no verdict; chains share their minibatches"),
        ("acceptance", _number(d.acceptance), "no verdict; falls with the dimension"),
        ("geweke", _number(d.geweke), "no verdict; standard normal"),
        ("heidelberger_welch", f"{_number(d.hw_discard)}, {_number(d.hw_halfwidth)}", "no verdict; 0 left out, relative half width below 0.1"),
        ("raftery_lewis", _number(d.raftery_lewis), "no verdict; below 5"),
        ("step lengths", f"{_number(d.gradient_step)}, {_number(d.prior_step)}, {_number(d.noise_step)}", "gradient, prior, noise"),
    ]


def _number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.3g}"


def _with_error(value: float, error: float) -> str:
    return f"{_number(value)} ± {_number(error)}" if np.isfinite(value) else "–"


def _heading(record: Record) -> str:
    meta = record.meta
    number = "no number" if meta.get("llc") is None else f"{meta['llc']:.3g} ± {meta['stderr']:.2g}"
    prolonged = f" ({meta['prolonged']})" if meta.get("prolonged") else ""
    return f"{title(record, reversed(AXES))}: {meta['outcome']}, {number}; {meta['chains']} chains × {meta['draws']} draws{prolonged}"


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("diagnostic", "value", "expected", "verdict"):
        table.add_column(header, overflow="fold", justify="left")
    for row in rows:
        table.add_row(*(escape(on_terminal(cell)) for cell in row))
    return table

"""What a page is made of: the findings, and the run's own description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rllc.analysis.findings import Curves, Findings
from rllc.figures.curves import training_mixture
from rllc.figures.health import rows_of_curves
from rllc.figures.whole_set import Drawn

Row = Mapping[str, Any]
# What a page that grew too large leaves out, one after the other until it fits.
LEFT_OUT = ("attention patterns", "clusterings but the first", "figures that lie in files", "cells before the last checkpoint")


@dataclass(frozen=True)
class Domain:
    """One kind of text of the corpus, as the page describes it.

    Args:
        name: as the experiment calls it.
        documents: how many, train and held-out together.
        tokens: how many, train and held-out together.
        share: of the sequences of the training mixture, 0..1; 0 for a domain that is only measured.
        planted: made by a program with known structure, not found.
        description: where it comes from, in a sentence.
        kind: of a planted domain: "echo", "brackets" or "markov".
    """

    name: str
    documents: int
    tokens: int
    share: float
    planted: bool = False
    description: str = ""
    kind: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page says. All of it is text or numbers; whatever is missing is left empty, and the page says so.

    Args:
        findings: what the analysis found.
        title: of the run.
        settings: the experiment's settings, nested as in its file.
        model: shape of the model by name, e.g. {"layers": 2, "parameters": 164864}.
        domains: the corpus.
        sampler: settings of the sampler by name, e.g. {"step_size": 1e-3}.
        machine: of the run, e.g. {"processor": "…", "memory": "24 GiB"}.
        versions: of the software by name.
        seconds: wall time by stage, in the order of the stages.
        table: tidy rows of all cells, as `rllc table` writes them: a data frame or mappings by column.
        notes: further sentences for the reader.
        mixture: name of the training mixture among the data; empty takes the reference of the comparisons, or what `training_mixture` finds.
        without: what is left out to keep the page small, of `LEFT_OUT`; the page says so where it would stand.
        drawn: figures of the catalogue, and why others could not be drawn.
        created: when the run ended, as text; empty leaves it out.
    """

    findings: Findings
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    domains: tuple[Domain, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    table: pd.DataFrame | Sequence[Row] = ()
    notes: tuple[str, ...] = ()
    mixture: str = ""
    without: tuple[str, ...] = ()
    drawn: Drawn = field(default_factory=Drawn)
    created: str = ""


def mixture_of(data: ReportData) -> str:
    """Name of the training mixture among the data of the findings; "" where there is none."""
    return data.mixture or training_mixture(data.findings)


def reference_curves(data: ReportData) -> Curves | None:
    """The curves of the heads on the training mixture, or on the first data there is; None where no head was sampled."""
    curves = data.findings.curves
    return curves.get(mixture_of(data), next(iter(curves.values()), None))


def table_rows(data: ReportData) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table as plain Python values; whatever is absent or not finite is None."""
    table = data.table
    if isinstance(table, pd.DataFrame):
        columns = [str(c) for c in table.columns]
        rows: Sequence[Row] = [dict(zip(columns, values, strict=True)) for values in table.itertuples(index=False, name=None)]
    else:
        rows = list(table)
        columns = list(dict.fromkeys(str(c) for row in rows for c in row))
    return columns, [{c: _plain(row.get(c)) for c in columns} for row in rows]


def shown_rows(data: ReportData) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the table that the page holds: all, unless it had to grow smaller."""
    columns, rows = table_rows(data)
    if LEFT_OUT[3] not in data.without:
        return columns, rows
    last = max((row["step"] for row in rows if row.get("step") is not None), default=None)
    return columns, [row for row in rows if row.get("step") == last]


def cells(data: ReportData) -> list[dict[str, Any]]:
    """Rows of the table that are cells; where there is no table, the planned cells of the curves."""
    _, rows = table_rows(data)
    rows = [r for r in rows if r.get("step") is not None and r.get("part") is not None]
    return rows or rows_of_curves(data.findings.curves, data.findings.full)


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)

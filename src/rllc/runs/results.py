"""What the notebook API returns: one cell with everything about it, and collections of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rllc.analysis.token_shares import TokenShares
from rllc.core import digest
from rllc.core.errors import RllcError
from rllc.core.names import Part
from rllc.core.outcome import Outcome
from rllc.posterior.diagnostics import Diagnostics
from rllc.posterior.estimate import series
from rllc.posterior.result import Result as Assessed
from rllc.posterior.traces import Floats, OriginGradient, Traces
from rllc.records.store import Record
from rllc.records.table import frame
from rllc.report.card import cells_table, result_card
from rllc.runs.recording import arrays_of
from rllc.runs.selecting import Axis

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import xarray as xr


@dataclass(frozen=True)
class Result:
    """The local learning coefficient of one part, at one checkpoint, on one kind of data, with its error and its health.

    Args:
        traces: of every chain, with P = 1; the losses are in nats per token.
        assessed: outcome, estimate and checks.
        origin: what is known of the checkpoint itself; None where no minibatches were spent on it.
        meta: settings, names and numbers by the names of the table's columns.
        notes: sentences that belong to the number: what the part shares with others, which road was taken and why.
        elsewhere: by name of other data, nβ (E[l] - l(w*)) *there*, for the same chains, which this result's own data moved. That is no learning
            coefficient of the other data, whose own posterior would be another one: it says how much of it these weights hold.
        token_shares: what every token of `share_contexts` contexts adds to λ̂ evaluated on them; None where none were asked for.
    """

    traces: Traces = field(repr=False)
    assessed: Assessed = field(repr=False)
    origin: OriginGradient | None = field(repr=False)
    meta: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    elsewhere: Mapping[str, Result] = field(default_factory=dict)
    token_shares: TokenShares | None = field(default=None, repr=False)

    @property
    def part(self) -> str:
        """Name of the part."""
        return str(self.meta["part"])

    @property
    def data(self) -> str:
        """Name of the data."""
        return str(self.meta["data"])

    @property
    def evaluated_on(self) -> str:
        """Name of the data that the loss is of; other than `data`, on which the chains moved, where it was evaluated elsewhere."""
        return str(self.meta["evaluated_on"])

    @property
    def step(self) -> int:
        """Training step of the checkpoint."""
        return int(self.meta["step"])

    @property
    def road(self) -> str:
        """The road that was taken: "native" or "general"."""
        return str(self.meta["road"])

    @property
    def llc(self) -> float:
        """λ̂, dimensionless; NaN where the cell was refused."""
        return np.nan if self.assessed.estimate is None else self.assessed.estimate.llc

    @property
    def stderr(self) -> float:
        """Standard error of λ̂; NaN where the cell was refused."""
        return np.nan if self.assessed.estimate is None else self.assessed.estimate.stderr

    @property
    def interval(self) -> tuple[float, float]:
        """The two-sided interval of λ̂, at 90 % unless `verdicts` said otherwise; NaN where the cell was refused."""
        estimate = self.assessed.estimate
        return (np.nan, np.nan) if estimate is None else (estimate.ci_low, estimate.ci_high)

    @property
    def outcome(self) -> Outcome:
        """What became of the cell."""
        return self.assessed.outcome

    @property
    def reason(self) -> str:
        """Why, and what to do, as sentences."""
        return self.assessed.reason

    @property
    def diagnostics(self) -> Diagnostics:
        """Health of the chains."""
        return self.assessed.diagnostics

    @property
    def draws(self) -> Floats:
        """`nβ (l_B(w_t) - l_B(w*))` of every kept draw [chains, draws], whose mean is λ̂; all NaN where the cell was refused."""
        values = series(self.traces)[0]
        return np.full_like(values, np.nan) if self.outcome.refused else values

    @cached_property
    def record(self) -> Record:
        """The cell as the table's room reads it. Its key is a digest of settings and traces: equal keys, equal results."""
        arrays = arrays_of(self.traces)
        key = {"part": self.part, "data": self.data, "step": self.step, "seed": self.meta["seed"], "traces": digest.of_arrays(arrays)}
        key |= {"evaluated_on": self.evaluated_on} if self.evaluated_on != self.data else {}
        settings = {name: self.meta[name] for name in ("sampler", "step_size", "localization", "nbeta", "burn_in", "estimator")}
        key |= {name: str(value) for name, value in settings.items()}
        return Record("sample", digest.of_json(key), key, arrays, dict(self.meta))

    def to_pandas(self) -> pd.DataFrame:
        """One row with the columns of `rllc table`, and one for each data that it was evaluated on elsewhere."""
        return frame([self.record, *(other.record for other in self.elsewhere.values())])

    def to_xarray(self) -> xr.DataTree:
        """All of it as a tree that devinterp's readers understand too; `result_trees.result_tree` says what lies where."""
        from rllc.runs.result_trees import result_tree

        return result_tree(self)

    def to_arviz(self) -> xr.DataTree:
        """The draws as ArviZ reads them: a group `posterior` with `llc` (chain, draw), and `sample_stats`."""
        from rllc.runs.result_trees import arviz_tree

        return arviz_tree(self)

    def plot(self) -> go.Figure:
        """The losses above the baseline by chain, and λ̂ with its interval as the draws add up."""
        from rllc.figures.chains import chain_traces

        kept = self.traces.kept
        return chain_traces(
            self.traces.losses[0] - self.traces.baseline[0],
            kept,
            self.draws,
            self.llc,
            self.interval,
            title=f"{self.part} on {self._where}",
            refused=self.reason if self.outcome.refused else "",
        )

    def _repr_html_(self) -> str:
        others = [(name, other.llc, other.stderr) for name, other in self.elsewhere.items()]
        return result_card(self.meta, self.llc, self.stderr, self.interval, self.outcome, self.reason, self.notes, others)

    @property
    def _where(self) -> str:
        return self.data if self.evaluated_on == self.data else f"{self.data}, evaluated on {self.evaluated_on}"

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        number = "–" if self.outcome.refused else f"{self.llc:.3g} ± {self.stderr:.2g}"
        sign = "λ̂" if self.evaluated_on == self.data else "nβ (E[l] - l(w*))"
        return f"{self.part} on {self._where} at step {self.step}: {sign} = {number} ({self.outcome})"


@dataclass(frozen=True)
class Results(Mapping[str, Result]):
    """Several cells, in the order in which they were measured: a mapping by part where parts are all that differ, else by "step, data, part"."""

    cells: tuple[Result, ...]

    @cached_property
    def _by_name(self) -> dict[str, Result]:
        same = len({(r.step, r.data) for r in self.cells}) <= 1
        return {r.part if same else f"step {r.step}, {r.data}, {r.part}": r for r in self.cells}

    @property
    def _all(self) -> list[Result]:
        """Each cell, and behind it its chains' evaluations on other data."""
        return [one for r in self.cells for one in (r, *r.elsewhere.values())]

    def __getitem__(self, name: str) -> Result:
        if name in self._by_name:
            return self._by_name[name]
        try:
            return self._by_name[str(Part.parse(name))]
        except (KeyError, RllcError):
            known = ", ".join(list(self._by_name)[:8])
            raise KeyError(f"{name!r} is none of the results, which are {known}{', …' if len(self) > 8 else ''}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def select(self, *, part: str | Iterable[str] = (), data: str | Iterable[str] = (), step: int | Iterable[int] = ()) -> Results:
        """The cells of these names alone; a name that is left out means all. Raises RllcError where none is left."""
        wanted = {"part": _set(part), "data": _set(data), "step": _set(step)}
        kept = tuple(r for r in self.cells if all(not names or getattr(r, axis) in names for axis, names in wanted.items()))
        if not kept:
            raise RllcError("No result has these names.", f"There are {', '.join(list(self._by_name)[:8])}.")
        return Results(kept)

    def to_pandas(self, run: str = "") -> pd.DataFrame:
        """Tidy rows with the columns of `rllc table`, ordered by data, part and step."""
        return frame([r.record for r in self._all], run)

    def to_xarray(self) -> xr.DataTree:
        """Labelled arrays over (step, part, data), and the traces with (chain, draw) after them, at the root of a tree.

        Where something was evaluated on other data too, a dimension `setting` comes first, and `data` is what the chains moved by.
        """
        from rllc.runs.result_trees import results_tree

        return results_tree(self.cells)

    def to_arviz(self) -> xr.DataTree:
        """The draws as ArviZ reads them: a group `posterior` with `llc` (chain, draw, step, part, data)."""
        from rllc.runs.result_trees import arviz_trees

        return arviz_trees(self.cells)

    def differences(self, across: Axis, against: str = "", confidence: float = 0.90) -> pd.DataFrame:
        """Differences of λ̂ between cells that differ along one axis alone, with the errors of differences: what cells share cancels.

        Cells of one seed share the chains' noise (of a part) and the minibatches (of the data), so that a difference has a smaller error than its
        ends. Refused cells are left out.

        Args:
            across: "part", "data" or "step": parts and data each with each, steps each with the one before.
            against: a name on that axis; its cells are subtracted from all others, and nothing else is compared.
            confidence: of the intervals.

        Returns a row a pair: what is common, a, b, llc_a, llc_b, difference, stderr, ci_low, ci_high, p, p_holm (over all rows), aligned, marks.

        Raises RllcError where there are no two cells to compare.
        """
        from rllc.runs.result_trees import difference_frame

        return difference_frame(self.cells, across, against, confidence)

    def plot(self) -> go.Figure:
        """λ̂ of every part with its interval; of several steps, curves over training."""
        from rllc.figures.chains import intervals

        return intervals([(r.step, r.data, r.part, r.llc, *r.interval, str(r.outcome)) for r in self.cells])

    def _repr_html_(self) -> str:
        return cells_table([(r.step, r.data, r.evaluated_on, r.part, r.llc, r.stderr, r.interval, r.outcome, r.reason) for r in self._all])

    def __repr__(self) -> str:
        return "\n".join(map(str, self._all)) or "no results"


def _set(names: Any) -> set[Any]:
    if isinstance(names, str | int):
        return {names}
    return set(names)

"""Results as xarray trees, for devinterp's readers and for ArviZ, and as tables of differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from rllc.core.errors import RllcError
from rllc.posterior.estimate import paired
from rllc.records.table import DIMS, dataset, part_order
from rllc.runs.comparing import compare_records
from rllc.runs.selecting import Axis

if TYPE_CHECKING:
    from rllc.runs.results import Result

_LIBRARIES = ("torch", "numpy", "xarray")
_BY_DRAW = ("sq_distance", "gradient_dot", "sq_gradient", "force_dot", "stein", "log_acceptance")


def result_tree(result: Result) -> xr.DataTree:
    """Everything about one cell.

    The root is the layout of devinterp 2's `sample`, so that its `compute_llc` and whatever else reads that layout runs on it:

    - `sampling_loss_micro` (chain, step, batch_sampling, token_pos): the minibatch's loss before every step, from w* on, burn-in included; the last
      two axes have length 1, since losses are means over a minibatch;
    - `sampling_loss` (chain, draw, batch, token_pos): the losses of the kept draws;
    - `init_loss` (chain, token_pos): the loss at w* on minibatches of its own, equal for all chains; where none was taken, of the chains' own;
    - `metadata` in the attributes: `config.sampler` with `n_beta` and the other settings by devinterp's names.

    What that reader makes of it is the unpaired estimate, without an error and without a refusal: ours is in the other groups.

    - `rllc`: llc, stderr, interval and diagnostics as numbers; every trace over (chain, evaluation) from w* on, `baseline` over evaluation; the
      settings, notes and versions as attributes;
    - `posterior` and `sample_stats`: as `arviz_tree`;
    - `elsewhere/<name>`: as `rllc`, of the same chains evaluated on other data.
    """
    traces, settings = result.traces, result.traces.settings
    last = traces.losses.shape[-1] - 1
    init = float(result.origin.loss[0]) if result.origin is not None else float(traces.baseline[0].mean())
    metadata = {
        "config": {
            "sampler": {
                "n_beta": settings.nbeta,
                "lr": settings.step_size,
                "localization": settings.localization,
                "num_chains": settings.chains,
                "num_draws": settings.draws,
                "num_steps_bw_draws": 1,
                "num_burnin_steps": settings.burn_in,
                "batch_size": int(result.meta["batch_size"]),
                "seed": int(result.meta["seed"]),
                "sampling_method": settings.sampler,
            },
            "observables": [],
        }
    }
    root = xr.Dataset(
        {
            "sampling_loss_micro": (("chain", "step", "batch_sampling", "token_pos"), traces.losses[0, :, :last, None, None]),
            "sampling_loss": (("chain", "draw", "batch", "token_pos"), traces.losses[0][:, traces.kept, None, None]),
            "init_loss": (("chain", "token_pos"), np.full((settings.chains, 1), init)),
        },
        attrs={"metadata": metadata} | _attributes(result),
    )
    groups = {"/": root, "/rllc": _own_group(result)} | {f"/elsewhere/{name}": _own_group(other) for name, other in result.elsewhere.items()}
    return xr.DataTree.from_dict(groups | _arviz_groups(result))


def arviz_tree(result: Result) -> xr.DataTree:
    """`posterior` with `llc` (chain, draw), nats times nβ, whose mean is λ̂, and `sample_stats` with the losses and inner products of the same draws.

    Of a refused cell `llc` is NaN throughout, so that no summary makes a number of it; its losses are there as they were.
    """
    return xr.DataTree.from_dict(_arviz_groups(result))


def arviz_trees(results: Sequence[Result]) -> xr.DataTree:
    """`posterior` with `llc` (chain, draw, step, part, data) of all results; NaN where a cell was refused, does not exist or has fewer draws."""
    _some(results)
    places: dict[str, list[Any]] = {
        "step": sorted({r.step for r in results}),
        "part": sorted({r.part for r in results}, key=part_order),
        "data": sorted({r.data for r in results}),
    }
    sizes = [max(r.draws.shape[axis] for r in results) for axis in range(2)]
    full = np.full((*sizes, *(len(places[dim]) for dim in DIMS)), np.nan)
    for r in results:
        chains, draws = r.draws.shape
        full[(slice(chains), slice(draws), *(places[dim].index(getattr(r, dim)) for dim in DIMS))] = r.draws
    coords = {"chain": np.arange(sizes[0]), "draw": np.arange(sizes[1])} | places
    posterior = xr.Dataset({"llc": (("chain", "draw", *DIMS), full)}, coords=coords, attrs=_versions())
    return xr.DataTree.from_dict({"/posterior": posterior})


def results_tree(results: Sequence[Result]) -> xr.DataTree:
    """The labelled table's arrays (`records.table.dataset`) at the root: dimensions step, part, data, and of traces chain and draw, w* first.

    Where something was evaluated on other data too, the table's dimension `setting` comes first: "evaluated_on=prose".
    """
    _some(results)
    arrays = dataset([one.record for r in results for one in (r, *r.elsewhere.values())])
    # texts of fixed length have no specification in Zarr 3, and are no type of netCDF
    arrays = arrays.assign({name: v.astype(object) for name, v in arrays.data_vars.items() if v.dtype.kind == "U"})
    arrays = arrays.assign_coords({name: c.astype(object) for name, c in arrays.coords.items() if c.dtype.kind == "U"})
    arrays.attrs |= _versions() | {"notes": " ".join(dict.fromkeys(note for r in results for note in r.notes))}
    return xr.DataTree.from_dict({"/": arrays})


def difference_frame(results: Sequence[Result], across: Axis, against: str, confidence: float) -> pd.DataFrame:
    """The comparisons of `runs.comparing` as a table, a row a pair. Raises RllcError where there is nothing to compare."""
    if across not in DIMS:
        raise RllcError(f"Nothing can be compared across {across!r}.", f"Choose one of: {', '.join(DIMS)}.")
    if not 0 < confidence < 1:
        raise RllcError(f"The confidence is {confidence:g}, but must lie between 0 and 1.", "Use 0.9, for example.")
    known = sorted({str(getattr(r, across)) for r in results})
    if against and against not in known:
        raise RllcError(f"There is no result of {across} {against!r}.", f"There are {', '.join(known)}.")
    found = compare_records([r.record for r in results], across, against, confidence)
    columns = ("llc_a", "llc_b", "difference", "stderr", "ci_low", "ci_high", "p", "aligned")
    rows = [
        {"what": row.what, "a": row.a, "b": row.b}
        | {name: getattr(row.found, name) for name in columns}
        | {"p_holm": row.p_holm, "differs": found.differs(row), "marks": row.marks}
        for row in found.rows
    ]
    return pd.DataFrame(rows)


def _own_group(result: Result) -> xr.Dataset:
    """Numbers, traces and attributes of one cell."""
    numbers = {"llc": result.llc, "stderr": result.stderr, "ci_low": result.interval[0], "ci_high": result.interval[1]}
    numbers |= {f"diagnostic_{name}": value for name, value in dataclasses.asdict(result.diagnostics).items()}
    own: dict[str, Any] = {name: ((), float(value)) for name, value in numbers.items()}
    for name, array in result.traces.arrays().items():
        if name == "fixed_baseline":
            own[name] = ((), float(array[0]))
        else:
            own[name] = (("evaluation",) if name == "baseline" else ("chain", "evaluation"), array[0])
    return xr.Dataset(own, attrs=_attributes(result))


def _arviz_groups(result: Result) -> dict[str, xr.Dataset]:
    traces, settings = result.traces, result.traces.settings
    coords = {"chain": np.arange(settings.chains), "draw": np.arange(settings.draws)}
    dims = ("chain", "draw")
    stats: dict[str, Any] = {name: (dims, getattr(traces, name)[0][:, traces.kept]) for name in ("losses", *_BY_DRAW)}
    stats["baseline"] = ("draw", traces.baseline[0, traces.kept])
    stats["paired"] = (dims, paired(traces)[0])
    posterior = xr.Dataset({"llc": (dims, result.draws)}, coords=coords, attrs=_attributes(result))
    return {"/posterior": posterior, "/sample_stats": xr.Dataset(stats, coords=coords)}


def _attributes(result: Result) -> dict[str, Any]:
    """Names, settings, verdict and versions: plain values that Zarr and netCDF can hold."""
    numbers = {field.name for field in dataclasses.fields(result.diagnostics)} | {"llc", "stderr", "ci_low", "ci_high", "df", "llc_unpaired"}
    plain: Mapping[str, Any] = {name: value for name, value in result.meta.items() if name not in numbers and isinstance(value, str | int | float)}
    kept = {name: int(value) if isinstance(value, bool) else value for name, value in plain.items()}
    return kept | {"notes": " ".join(result.notes)} | _versions()


def _versions() -> dict[str, str]:
    from rllc import __version__

    return {"inference_library": "rllc", "inference_library_version": __version__} | {f"{name}_version": version(name) for name in _LIBRARIES}


def _some(results: Sequence[Result]) -> None:
    if not results:
        raise RllcError("There are no results yet.", "Measure a part first.")

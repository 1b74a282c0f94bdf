"""Records whose digest is right and whose content is nonsense: whoever reads a run's store gets a sound record, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.core.errors import RllcError
from rllc.core.outcome import Outcome
from rllc.posterior.estimate import estimate
from rllc.posterior.result import assess
from rllc.posterior.settings import SamplerSettings
from rllc.posterior.traces import Segment, Traces
from rllc.records.index import opened
from rllc.records.store import DamagedRecordError, Store
from rllc.records.table import dataset, export, stored_frame
from rllc.runs.contents import CHECKS
from rllc.runs.keys import ESTIMATOR
from rllc.runs.recording import arrays_of, meta_of, origin_of, prolonged, traces_of
from rllc.runs.selecting import data_name, said
from rllc.runs.setting_right import set_right

from .bounds import examples, outcome
from .hostile import values

KEY = {"step": 1, "part": "1:6", "estimator": ESTIMATOR}


def sound() -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Arrays and meta of a cell as sampling records them."""
    settings = SamplerSettings("sgld", step_size=1e-3, localization=200.0, nbeta=30.0, chains=2, draws=12, burn_in=3)
    rng = np.random.default_rng(0)
    shape = (1, 2, 16)
    names = ("losses", "gradient_dot", "sq_distance", "sq_gradient", "force_dot", "stein", "log_acceptance")
    arrays = {name: 1 + 0.1 * rng.random(shape) for name in names}
    traces = Traces.of(settings, 8, arrays | {"baseline": np.ones((1, 16))}, [Segment(16, 4)])
    common = {"step": 1, "part": "1:6", "data": "mixture", "evaluated_on": "mixture", "estimator": ESTIMATOR, "seconds": 1.0}
    common |= {"chunk": 4, "threads": 1, "dtype": "float32", "batch_size": 2}
    return arrays_of(traces), meta_of(traces, assess(traces)[0], None) | prolonged(None, traces, None) | common


ARRAYS, META = sound()
ODD = {
    "nothing": np.zeros(0),
    "single": np.float64(1.0) * np.ones(()),
    "text": np.full((2, 16), "x"),
    "whole": np.ones((2, 16), dtype=np.int64),
    "short": np.ones((2, 5)),
    "one chain": np.ones((1, 16)),
    "many": np.ones((2, 16, 2)),
    "nan": np.full((2, 16), np.nan),
}


def use(folder: Path) -> None:
    """What the verbs do with records: status and table by the index, prolonging and verifying by the record, the report by all of them."""
    store = Store(folder, checks=CHECKS)
    export(stored_frame(store, "mine"), "csv")
    for row in said(opened(store, "sample")):
        Outcome(str(row["outcome"]))
        assert (row["step"], data_name(row), row["part"], row["reason"]) is not None
    for name in store.digests("sample"):
        record = store.get("sample", name)
        estimate(traces_of(record))
        origin_of(record)
        assert sum(step["draws"] for step in record.meta["history"]) == record.meta["draws"]
    set_right(store)
    dataset(store.records("sample"))


def put(folder: Path, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    try:
        Store(folder).put("sample", KEY, arrays, meta)
    except (ValueError, TypeError):
        return  # it cannot even be written


@pytest.mark.parametrize("without", ["", "raftery_lewis"])  # the second: as records were before it was a diagnostic
def test_a_sound_record_is_sound(tmp_path: Path, without: str) -> None:
    put(tmp_path, ARRAYS, {name: value for name, value in META.items() if name != without})
    use(tmp_path)
    assert len(Store(tmp_path).digests("sample")) == 1


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no meta": (ARRAYS, {}),
    "outcome": (ARRAYS, META | {"outcome": "<b>x"}),
    "llc": (ARRAYS, META | {"llc": "abc"}),
    "no arrays": ({}, META),
    "no estimator": (ARRAYS, META | {"estimator": None, "history": None}),
    "another estimator": (ARRAYS, META | {"estimator": "paired-1"}),
    "step": (ARRAYS, META | {"step": 10**30}),
    "part": (ARRAYS, META | {"part": "\x1b[31m"}),
    "half a character": (ARRAYS, META | {"reason": "\ud800"}),
    "segments": (ARRAYS, META | {"segments": [[37, 5]]}),
    "history": (ARRAYS, META | {"history": []}),
    "draws": (ARRAYS, META | {"draws": 99}),
    "other traces": (ARRAYS | {"secret": np.zeros(3)}, META),
    **{f"losses: {name}": (ARRAYS | {"losses": array}, META) for name, array in ODD.items() if name != "nan"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nonsense_is_damaged_and_set_aside(tmp_path: Path, name: str) -> None:
    put(tmp_path, *HOSTILE[name])
    (problem,) = Store(tmp_path, sets_aside=False, checks=CHECKS).check()
    assert "is damaged: " in problem.problem
    assert len(set_right(Store(tmp_path, checks=CHECKS))) == 1
    assert Store(tmp_path).digests("sample") == []
    put(tmp_path, ARRAYS, META)
    use(tmp_path)


def one_use(folder: Path) -> None:
    """The first use may find what is wrong; the second finds nothing any more."""
    found = outcome(lambda: use(folder))
    if isinstance(found, RllcError):
        assert isinstance(found, DamagedRecordError)
    assert outcome(lambda: use(folder)) is None


@examples(40)
@given(st.dictionaries(st.sampled_from([*META, "origin_batches", "fixed_baseline", "extra"]), st.none() | values, min_size=1, max_size=3))
def test_any_meta(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("records")
    put(folder, ARRAYS, META | changes)
    one_use(folder)


@examples(20)
@given(
    st.sets(st.sampled_from([*META]), min_size=1, max_size=3), st.dictionaries(st.sampled_from([*ARRAYS, "fixed_losses"]), st.sampled_from([*ODD]))
)
def test_any_gap_and_any_array(tmp_path_factory: pytest.TempPathFactory, gone: set[str], arrays: dict[str, str]) -> None:
    folder = tmp_path_factory.mktemp("records")
    put(folder, ARRAYS | {name: ODD[odd] for name, odd in arrays.items()}, {name: value for name, value in META.items() if name not in gone})
    one_use(folder)

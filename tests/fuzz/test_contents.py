"""Records whose digest is right and whose content is nonsense: whoever reads a run's store gets a sound record, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllc.behaviour.attention import SCORES
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
from rllc.runs.evidence import behaviour_of, patterns_of
from rllc.runs.keys import ESTIMATOR
from rllc.runs.measures.kinds import REVISIONS
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


MEASURED: dict[str, Any] = {
    "key": {"revision": REVISIONS["behaviour"], "weights": "w", "dtype": "float32", "probes": "p", "losses": "l", "segment": 5},
    "meta": {"step": 1, "heads": ["0:0", "0:1"], "data": ["mixture", "prose"], "snippets": ["prose"], "tokens": [["a", "b", "c"]], "seconds": 0.5},
    "arrays": {
        **{f"{what}/{name}": np.ones(2) for name in SCORES for what in ("score", "score_stderr")},
        **{name: np.ones(2) for name in ("losses", "losses_stderr", "icl", "icl_stderr")},
        "position_losses": np.ones((2, 4)),
        "pattern/0": np.ones((2, 3, 3), np.uint8),
    },
}
ODD_MEASURED = {**ODD, "row": np.ones(2), "whole row": np.ones(2, np.int64), "long row": np.ones(3), "square": np.ones((2, 2))}


def use_measured(folder: Path) -> None:
    """What the analysis takes from the records of behaviour."""
    store = Store(folder, checks=CHECKS)
    for name in store.digests("behaviour"):
        found = behaviour_of([store.get("behaviour", name)])
        patterns = patterns_of([store.get("behaviour", name)])
        assert found.losses.shape == (2, 1)
        assert {scores.shape for scores in found.scores.values()} == {(len(found.heads), 1)}
        assert patterns is None or all(patterns.weights[0].shape[-1] == len(tokens) for tokens in patterns.tokens[:1])


def one_use_of(folder: Path, arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    try:
        Store(folder).put("behaviour", MEASURED["key"], arrays, meta)
    except (ValueError, TypeError):
        return
    found = outcome(lambda: use_measured(folder))
    assert found is None or isinstance(found, DamagedRecordError), found
    assert outcome(lambda: use_measured(folder)) is None


def test_a_sound_measurement_is_sound(tmp_path: Path) -> None:
    Store(tmp_path).put("behaviour", MEASURED["key"], MEASURED["arrays"], MEASURED["meta"])
    use_measured(tmp_path)
    assert len(Store(tmp_path).digests("behaviour")) == 1


@pytest.mark.parametrize("name", ["no arrays", "no meta", "one axis more", "text"])
def test_a_measurement_of_nonsense_is_damaged(tmp_path: Path, name: str) -> None:
    arrays, meta = MEASURED["arrays"], MEASURED["meta"]
    if name == "no meta":
        meta = {"step": 1}
    else:
        change: Any = {"no arrays": None, "one axis more": lambda a: a[..., None], "text": lambda _: np.array(["<b>"] * 3)}[name]
        arrays = {} if change is None else {n: change(array) for n, array in arrays.items()}
    Store(tmp_path).put("behaviour", MEASURED["key"], arrays, meta)
    (problem,) = Store(tmp_path, sets_aside=False, checks=CHECKS).check()
    assert "is damaged: " in problem.problem
    assert len(set_right(Store(tmp_path, checks=CHECKS))) == 1


@examples(40)
@given(
    st.dictionaries(st.sampled_from([*MEASURED["meta"]]), st.none() | values, max_size=2),
    st.dictionaries(st.sampled_from([*MEASURED["arrays"]]), st.sampled_from([*ODD_MEASURED]), max_size=2),
    st.sets(st.sampled_from([*MEASURED["meta"], *MEASURED["arrays"]]), max_size=1),
)
def test_any_measurement(tmp_path_factory: pytest.TempPathFactory, meta: dict[str, Any], arrays: dict[str, str], gone: set[str]) -> None:
    changed = MEASURED["arrays"] | {name: ODD_MEASURED[odd] for name, odd in arrays.items()}
    kept = {name: array for name, array in changed.items() if name not in gone}
    one_use_of(tmp_path_factory.mktemp("records"), kept, {name: value for name, value in (MEASURED["meta"] | meta).items() if name not in gone})


SAMPLER = {"sampler": "sgld", "step_size": 1e-3, "localization": 200.0, "nbeta": 30.0, "chains": 2, "burn_in": 3}
FULL_KEY = KEY | {
    "data": {"name": "mixture", "split": "train", "context": 24},
    "sampler": SAMPLER,
    "sampling": {"batch_size": 2, "full_batch": 64, "fixed_contexts": 0},
    "dtype": "float32",
    "seed": 3,
}
FULL_META = META | {"seed": 3, "context": 24, "fixed_contexts": 0}
DENIALS: dict[str, Any] = {
    "step": 2, "part": "0:1", "data": "prose", "evaluated_on": "prose", "seed": 4, "dtype": "float64", "batch_size": 64, "context": 12,
    "fixed_contexts": 8, "nbeta": 3.0, "localization": 100.0, "step_size": 1e-4,
}  # fmt: skip


def denied(tmp_path: Path, key: dict[str, Any], meta: dict[str, Any]) -> list[str]:
    Store(tmp_path).put("sample", key, ARRAYS, meta)
    return [problem.problem for problem in Store(tmp_path, sets_aside=False, checks=CHECKS).check()]


@pytest.mark.parametrize("name", DENIALS)
def test_a_record_that_denies_its_key_is_damaged(tmp_path: Path, name: str) -> None:
    (problem,) = denied(tmp_path, FULL_KEY, FULL_META | {name: DENIALS[name]})
    assert f"its {name} is not that of its key" in problem


@pytest.mark.parametrize(
    ("key", "meta"),
    [
        ({}, {}),
        ({"called": "mixture^23", "sampler": SAMPLER | {"nbeta": 23.0}}, {"data": "mixture^23", "evaluated_on": "mixture^23", "nbeta": 23.0}),
        ({"evaluated_on": {"name": "prose", "split": "heldout"}}, {"evaluated_on": "prose/heldout"}),
        ({"sampler": SAMPLER | {"sampler": "mala"}}, {"sampler": "mala", "batch_size": 64}),
    ],
)
def test_a_record_that_says_what_its_key_says_is_sound(tmp_path: Path, key: dict[str, Any], meta: dict[str, Any]) -> None:
    assert denied(tmp_path, FULL_KEY | key, FULL_META | meta) == []


@pytest.mark.parametrize("how", ["restarted", "continued", None])
def test_chains_that_were_never_begun_are_damaged(tmp_path: Path, how: str | None) -> None:
    put(tmp_path, ARRAYS, META | {"history": [{"draws": 12, "how": how}]})
    (problem,) = Store(tmp_path, sets_aside=False, checks=CHECKS).check()
    assert "its history is not that of its segment" in problem.problem

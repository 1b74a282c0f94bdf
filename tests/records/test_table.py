from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from rllc.core.errors import RllcError
from rllc.records.names import COLUMNS
from rllc.records.store import Record, Store, key_digest
from rllc.records.table import columns, dataset, export, frame, part_order

PROMISED = """run step part data evaluated_on sampler step_size localization nbeta chains draws burn_in estimator llc stderr ci_low ci_high
llc_unpaired tilt rhat ess stein_ratio outcome seconds key"""


def meta(step: int = 0, part: str = "0:0", data: str = "code", **more: Any) -> dict[str, Any]:
    base = {"step": step, "part": part, "data": data, "evaluated_on": data, "sampler": "sgld", "step_size": 1e-3, "chains": 4, "draws": 5}
    return {**base, "burn_in": 1, "estimator": "paired-1", "llc": 1 / 3, "stderr": 0.1, "outcome": "ok", **more}


def record(step: int = 0, part: str = "0:0", data: str = "code", draws: int = 5, **more: Any) -> Record:
    rng = np.random.default_rng([step, len(part), draws])
    content = meta(step, part, data, **more)
    return Record("sample", key_digest("sample", content), {}, {"losses": rng.normal(size=(4, draws)), "baseline": rng.normal(size=draws)}, content)


def grid() -> list[Record]:
    return [record(step, part, data) for step in (100, 0, 10) for part in ("full", "1:10", "1:2") for data in ("prose", "code")]


def test_the_columns_are_those_promised_and_the_rows_are_in_order() -> None:
    table = frame(grid(), run="demo")
    assert [name for name in table.columns if name in PROMISED.split()] == PROMISED.split()
    assert list(table.columns) == list(COLUMNS)
    assert list(table["data"]) == ["code"] * 9 + ["prose"] * 9
    assert list(table["part"][:9]) == ["1:2"] * 3 + ["1:10"] * 3 + ["full"] * 3
    assert list(table["step"][:3]) == [0, 10, 100]
    assert set(table["run"]) == {"demo"}


def test_absent_values_are_empty_and_extra_ones_follow() -> None:
    seed = 2**62 + 1  # more digits than a float holds
    table = frame([record(seed=seed, extra=0.5, note="x", listed=[1], chains=None), record(1, llc=None)])
    assert list(table.columns[len(COLUMNS) :]) == ["extra", "note", "seed"]
    assert int(table["seed"][0]) == seed
    assert np.isnan(table["extra"][1])
    assert table["note"][1] == ""
    assert table["reason"][0] == ""
    assert pd.isna(table["chains"][0])
    assert np.isnan(table["llc"][1])
    assert np.isnan(table["rhat"]).all()


@pytest.mark.parametrize("outcome", ["nonfinite", "unstable"])
def test_a_refused_cell_has_no_number_whatever_its_record_says(outcome: str) -> None:
    table = frame([record(outcome=outcome, ci_low=0.1, llc_unpaired=1.0), record(1, outcome="tilted")])
    assert table.loc[0, ["llc", "stderr", "ci_low", "llc_unpaired"]].isna().all()
    assert table.loc[1, "llc"] == 1 / 3


def test_columns_are_plain_arrays() -> None:
    arrays = columns(frame([record(llc=None), record(1, chains=None)]))
    assert arrays["llc"].dtype == np.float64
    assert np.isnan(arrays["llc"][0])
    assert arrays["chains"].tolist() == [4, -1]
    assert arrays["step"].dtype == np.int64
    assert arrays["part"].dtype.kind == "U"


def test_every_format_returns_every_digit() -> None:
    table = frame([record(), record(1, llc=None, outcome="nonfinite", note='a "quoted", comma')])
    csv = pd.read_csv(io.BytesIO(export(table, "csv")), dtype=str)
    rows = json.loads(export(table, "json"))
    parquet = pd.read_parquet(io.BytesIO(export(table, "parquet")))
    assert float(csv["llc"][0]) == rows[0]["llc"] == parquet["llc"][0] == 1 / 3
    assert pd.isna(csv["llc"][1])
    assert rows[1]["llc"] is None
    assert np.isnan(parquet["llc"][1])
    assert csv["note"][1] == rows[1]["note"] == parquet["note"][1] == 'a "quoted", comma'
    assert rows[0]["step"] == 0
    assert list(csv.columns) == list(rows[0]) == list(parquet.columns) == list(table.columns)


def test_an_empty_table_has_its_columns_in_every_format() -> None:
    table = frame([])
    assert export(table, "csv").decode().strip() == ",".join(COLUMNS)
    assert json.loads(export(table, "json")) == []
    assert list(pd.read_parquet(io.BytesIO(export(table, "parquet"))).columns) == list(COLUMNS)
    assert dict(dataset([]).sizes) == {"step": 0, "part": 0, "data": 0}


def test_another_format_and_a_missing_library_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RllcError, match=r"'xlsx' is not a format of tables\. Choose one of csv, json, parquet"):
        export(frame([]), "xlsx")  # pyright: ignore[reportArgumentType]
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", _without_pyarrow)
    with pytest.raises(RllcError, match=r"needs pyarrow.*rllc\[data\]"):
        export(frame([]), "parquet")


def _without_pyarrow(*args: object, **kwargs: object) -> None:
    raise ImportError("pyarrow")


def test_the_labelled_arrays_hold_each_number_at_its_place() -> None:
    records = grid()
    records[0] = record(100, "full", "prose", llc=7.0, draws=3)
    labelled = dataset(records[:-1], run="demo")  # the last cell was never computed
    assert dict(labelled.sizes) == {"step": 3, "part": 3, "data": 2, "chain": 4, "draw": 5}
    assert "head" not in labelled.dims
    assert callable(labelled.head)  # the method is not hidden
    assert labelled["part"].values.tolist() == ["1:2", "1:10", "full"]
    cell = labelled.sel(step=100, part="full", data="prose")
    assert float(cell["llc"]) == 7.0
    np.testing.assert_array_equal(cell["losses"].values[:, :3], records[0].arrays["losses"])
    assert np.isnan(cell["losses"].values[:, 3:]).all()
    np.testing.assert_array_equal(cell["baseline"].values[:3], records[0].arrays["baseline"])
    absent = labelled.sel(step=10, part="1:2", data="code")
    assert np.isnan(absent["llc"])
    assert absent["outcome"] == ""
    assert absent["chains"] == -1
    assert labelled.attrs == {"run": "demo"}
    assert labelled["step_size"].attrs["long_name"] == "step size ε"


def test_two_settings_of_one_cell_get_a_dimension_of_their_own() -> None:
    labelled = dataset([record(nbeta=30.0, llc=1.0), record(nbeta=23.0, llc=2.0), record(1, nbeta=30.0)])
    assert dict(labelled.sizes)["setting"] == 2
    assert float(labelled["llc"].sel(setting="nbeta=30.0", step=0, part="0:0", data="code")) == 1.0
    assert float(labelled["llc"].sel(setting="nbeta=23.0", step=0, part="0:0", data="code")) == 2.0
    assert np.isnan(labelled["llc"].sel(setting="nbeta=23.0", step=1)).all()


def test_settings_that_the_columns_do_not_tell_apart_are_told_apart_by_key() -> None:
    records = [record(llc=1.0), record(llc=2.0)]
    labelled = dataset(records)
    assert sorted(labelled["llc"].values.ravel()) == [1.0, 2.0]
    assert set(labelled["setting"].values) == {found.digest[:8] for found in records}


def test_a_store_reads_as_the_same_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for found in grid():
        store.put("sample", found.meta, found.arrays, found.meta)
    table, direct = frame(store.records("sample")), frame(grid())
    pd.testing.assert_frame_equal(table.drop(columns="key"), direct.drop(columns="key"))
    xr.testing.assert_identical(dataset(store.records("sample")).drop_vars("key"), dataset(grid()).drop_vars("key"))


def test_parts_that_no_grammar_knows_come_last() -> None:
    assert sorted(["conv1!", "full", "0:1"], key=part_order) == ["0:1", "full", "conv1!"]

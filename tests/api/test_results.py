"""What comes back: tables, trees that others read, figures, what a notebook shows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import rllc
from rllc.posterior.difference import difference

from .toys import SMALL, Bowl, Ours, height, tokens


@pytest.fixture(scope="module")
def one():
    return rllc.estimate(Ours(), tokens(), "1:0", **(SMALL | {"burn_in": 0}))


@pytest.fixture(scope="module")
def several():
    return rllc.estimate(Ours(), tokens(), ["1:0", "1:1", "0:0"], step=7, **SMALL)


def test_nothing_heavy_is_loaded_until_it_is_used():
    code = (
        "import sys, rllc\n"
        "assert {'estimate', 'sweep', 'Result'} <= set(dir(rllc))\n"
        "rllc.SamplerSettings, rllc.Stopping, rllc.Part, rllc.Outcome, rllc.ModelShape\n"
        "assert 'torch' not in sys.modules and 'xarray' not in sys.modules\n"
        "try: rllc.estimat\n"
        "except AttributeError as e: assert 'estimat' in str(e)\n"
        "else: raise SystemExit('no error')\n"
        "rllc.estimate\n"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules and 'datasets' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_exported_name_is_there_and_known_to_type_checkers():
    names = {name: home for home, names in rllc._HOMES.items() for name in names}
    assert all(hasattr(rllc, name) for name in names)
    assert names.keys() <= set(dir(rllc))
    stub = ast.parse(Path(rllc.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert homes == names


def test_the_tree_is_what_readers_of_devinterp_expect(one):
    """`compute_llc` of devinterp 2.0.1, by its documented formula: nβ times mean sampling_loss_micro minus mean init_loss."""
    tree = one.to_xarray()
    root = tree.dataset
    assert root["sampling_loss_micro"].dims == ("chain", "step", "batch_sampling", "token_pos")
    assert root["sampling_loss"].dims == ("chain", "draw", "batch", "token_pos")
    assert root["init_loss"].dims == ("chain", "token_pos")
    nbeta = float(root.metadata["config"]["sampler"]["n_beta"])
    theirs = nbeta * (float(root["sampling_loss_micro"].mean()) - float(root["init_loss"].mean()))
    assert np.isclose(theirs, one.meta["llc_unpaired"], rtol=1e-12)
    assert root.sizes["step"] == one.traces.settings.steps


def test_the_tree_holds_everything_of_ours(one):
    tree = one.to_xarray()
    assert float(tree["rllc"]["llc"]) == one.llc
    assert float(tree["rllc"]["diagnostic_rhat"]) == one.diagnostics.rhat
    np.testing.assert_array_equal(tree["rllc"]["losses"], one.traces.losses[0])
    np.testing.assert_array_equal(tree["rllc"]["baseline"], one.traces.baseline[0])
    assert tree["rllc"].attrs["step_size"] == 1e-3
    assert tree.attrs["inference_library_version"] == rllc.__version__
    assert tree["posterior"].to_dataset().sizes == {"chain": 2, "draw": 8}
    assert np.isclose(float(tree["posterior"]["llc"].mean()), one.llc)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_the_trees_survive_zarr(one, several, tmp_path):
    for name, tree in {"one": one.to_xarray(), "arviz": one.to_arviz(), "several": several.to_xarray()}.items():
        tree.to_zarr(tmp_path / name)
        back = xr.open_datatree(tmp_path / name, engine="zarr")
        xr.testing.assert_equal(back.load(), tree)
        assert back.attrs == tree.attrs
    assert xr.open_datatree(tmp_path / "one", engine="zarr").attrs["metadata"]["config"]["sampler"]["n_beta"] == 30.0


def test_the_posterior_fits_netcdf(one, tmp_path):
    for name in ("posterior", "sample_stats"):
        dataset = one.to_arviz()[name].to_dataset()
        dataset.to_netcdf(tmp_path / f"{name}.nc", engine="scipy")
        back = xr.load_dataset(tmp_path / f"{name}.nc", engine="scipy")
        xr.testing.assert_equal(back, dataset)


def test_arviz_computes_on_the_draws(one):
    from arviz_stats.base import array_stats

    draws = one.to_arviz()["posterior"]["llc"]
    assert draws.dims == ("chain", "draw")
    assert 1 < float(array_stats.ess(draws.to_numpy(), chain_axis=0, draw_axis=1)) < 200


def test_a_collection_is_labelled_by_step_part_and_data(several):
    root = several.to_xarray().dataset
    assert root["llc"].dims == ("step", "part", "data")
    assert float(root["llc"].sel(step=7, part="1:1", data="data")) == several["1:1"].llc
    posterior = several.to_arviz()["posterior"]["llc"]
    np.testing.assert_array_equal(posterior.sel(step=7, part="1:1", data="data"), several["1:1"].draws)
    assert several.to_pandas()["part"].tolist() == ["0:0", "1:0", "1:1"]
    assert list(several.select(part=["1:0", "0:0"])) == ["1:0", "0:0"]
    with pytest.raises(rllc.RllcError, match="No result"):
        several.select(data="other")


def test_differences_of_parts_are_those_of_the_sampler(several):
    table = several.differences("part", against="1:0")
    assert table[["a", "b"]].to_numpy().tolist() == [["0:0", "1:0"], ["1:1", "1:0"]]
    expected = difference(several["1:1"].traces, several["1:0"].traces, shared_noise=False)
    assert table["difference"][1] == expected.difference
    assert table["stderr"][1] == expected.stderr
    assert table["aligned"].all()
    assert (table["p_holm"] >= table["p"]).all()
    assert len(several.differences("part")) == 3


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"across": "chain"}, "step, part, data"),
        ({"across": "part", "against": "9:9"}, "no result of part '9:9'"),
        ({"across": "data"}, "nothing to compare"),
        ({"across": "part", "confidence": 2.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_compared(several, given, problem):
    with pytest.raises(rllc.RllcError, match=problem):
        several.differences(**given)


def test_the_card_says_it_and_runs_nothing(one, several):
    html = one._repr_html_()
    assert f"{one.llc:.2f}".replace("-", "−")[:4] in html
    for text in ("sgld", "interval", one.outcome.value, "step size 0.001", "1:0 on data, step 0"):
        assert text in html
    assert "<script" not in html
    rows = several._repr_html_()
    assert rows.count("<tr") == 4
    assert "There are no results" in rllc.Results(())._repr_html_()


def test_names_from_outside_are_escaped():
    evil = "<script>alert(1)</script>"
    r = rllc.estimate(Ours(), tokens(), "1:0", data_name=evil, **SMALL)
    for html in (r._repr_html_(), rllc.Results((r,))._repr_html_()):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
    assert "<script" not in r.plot().layout.annotations[0].text
    assert "<script" not in rllc.Results((r,)).plot().to_json().replace("\\u003c", "<")


def test_the_figure_shows_what_the_chains_did(one):
    figure = one.plot()
    lines = [trace for trace in figure.data if trace.mode == "lines" and not trace.fill]
    above = one.traces.losses[0] - one.traces.baseline[0]
    for chain in range(2):
        np.testing.assert_allclose(lines[chain].y, above[chain])
    running = lines[-1]
    assert np.isclose(running.y[-1], one.llc)
    shaded = next(trace for trace in figure.data if trace.fill == "toself")
    assert {min(shaded.y), max(shaded.y)} == set(one.interval)


def test_the_figure_of_a_collection(several):
    figure = several.plot()
    assert list(figure.data[0].x) == ["1:0", "1:1", "0:0"]
    np.testing.assert_allclose(figure.data[0].y, [r.llc for r in several.cells])
    ends = np.array(figure.data[0].y) + np.array(figure.data[0].error_y.array)
    np.testing.assert_allclose(ends, [r.interval[1] for r in several.cells])


def test_a_refused_cell_leaves_a_gap_in_every_collection():
    settings = {"loss": height, "step_size": 1e-2, "draws": 40, "batch_size": 1, "origin_batches": 3}
    rs = rllc.estimate(Bowl([1e6, 1.0]), torch.zeros(3, 1), {"steep": "w[0]", "flat": "w[1]"}, **settings)
    assert rs["steep"].outcome.refused
    assert not rs["flat"].outcome.refused
    assert np.isnan(rs.to_xarray()["llc"].sel(part="steep")).all()
    assert np.isnan(rs.to_arviz()["posterior"]["llc"].sel(part="steep")).all()
    assert ">–<" in rs._repr_html_()
    assert np.isnan(rs.plot().data[0].y).sum() == 1
    with pytest.raises(rllc.RllcError, match="Refused: "):
        rs.differences("part")

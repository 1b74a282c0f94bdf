"""One call: the numbers are those of a run, exact answers come out, and what failed has no number."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import rllc
from rllc.corpus.batches import ContextPool, Mixture
from rllc.corpus.tokens import open_corpus
from rllc.posterior import exact
from rllc.records.names import COLUMNS
from rllc.records.store import Store
from rllc.runs.layout import RunFolder
from rllc.runs.pipeline import run_experiment
from rllc.runs.recording import arrays_of

from ..runs.conftest import experiment_text
from .toys import SHAPE, SMALL, Bowl, Ours, height, tokens


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    text = experiment_text(folder).replace("extra = [0, 3, 6, 9, 12]", "extra = [0, 12]")
    text = text.replace('parts = ["heads", "full"]\ndata = ["mixture"]', 'parts = ["heads"]\ndata = ["prose"]\ncheckpoints = [12]')
    run_experiment(text, folder / "run", "sample", None, None, quiet=True)
    return RunFolder(folder / "run")


def test_a_run_and_a_notebook_give_the_same_numbers_bit_for_bit(run):
    pool = ContextPool(open_corpus(run.corpus), Mixture.of("prose"), "train", 24)
    recorded = {r.meta["part"]: r for r in Store(run.records).records("sample") if (r.meta["step"], r.meta["data"]) == (12, "prose")}
    settings = {"chains": 2, "draws": 16, "burn_in": 4, "batch_size": 2, "origin_batches": 4, "seed": 3}
    found = rllc.estimate(run.checkpoints / "step-00000012", pool, ["heads", "0.attn"], data_name="prose", **settings)
    assert set(found) == set(recorded) == {"0:0", "0:1", "1:0", "1:1", "0.attn"}
    for part, record in recorded.items():
        for name, array in arrays_of(found[part].traces).items():
            np.testing.assert_array_equal(array, record.arrays[name], err_msg=f"{part} {name}")
        for name in ("llc", "stderr", "ci_low", "ci_high", "llc_unpaired", "tilt", "outcome", "reason", "step", "chunk", "context", "dtype"):
            assert found[part].meta[name] == record.meta[name] or math.isnan(found[part].meta[name]), name
    table = found.to_pandas()
    assert list(table.columns)[: len(COLUMNS)] == list(COLUMNS)
    assert table["step"].tolist() == [12] * 5
    assert len(set(table["key"])) == 5


def test_the_answer_of_a_quadratic_is_exact_within_the_error():
    curvature = [0.5, 3.0, 10.0, 20.0, 40.0, 0.0]
    r = rllc.estimate(
        Bowl(curvature), torch.zeros(3, 1), "w", loss=height, step_size=5e-3, localization=10.0, nbeta=10.0, chains=24, draws=800, burn_in=200
    )
    expected = float(exact.llc(curvature, r.traces.settings).sum())
    assert 0 < r.stderr < 0.03 * expected
    assert abs(r.llc - expected) < 3 * r.stderr
    assert r.interval[0] < r.llc < r.interval[1]
    assert r.traces.dimension == len(curvature)
    assert (r.road, r.outcome) == ("general", "ok")
    # the whole module, and a slice: the coordinates are independent
    part = rllc.estimate(
        Bowl(curvature), torch.zeros(3, 1), "w[1:3]", loss=height, step_size=5e-3, localization=10.0, nbeta=10.0, chains=24, draws=800, burn_in=200
    )
    assert abs(part.llc - float(exact.llc(curvature[1:3], part.traces.settings).sum())) < 3 * part.stderr < 0.2


def test_chunks_and_companions_do_not_change_a_part():
    alone = rllc.estimate(Ours(), tokens(), "1:1", **SMALL)
    together = rllc.estimate(Ours(), tokens(), ["1:0", "1:1", "0.attn"], chunk=1, **SMALL)
    assert list(together) == ["1:0", "1:1", "0.attn"]
    np.testing.assert_allclose(alone.traces.losses, together["1:1"].traces.losses, rtol=0, atol=1e-6)
    assert np.abs(alone.traces.losses - together["1:0"].traces.losses).max() > 1e-5  # another head has another trace
    assert together["L1H1"] is together["1:1"]
    with pytest.raises(KeyError, match=r"1:0, 1:1, 0\.attn"):
        together["0:0"]


def test_seed_and_data_name_change_the_numbers_and_nothing_else_does():
    def llc(**how):
        return rllc.estimate(Ours(), tokens(), "1:0", **(SMALL | how)).llc

    first = llc()
    assert llc() == first
    assert len({first, llc(seed=1), llc(data_name="other")}) == 3


def test_a_failed_chain_is_no_number():
    r = rllc.estimate(Bowl([1e6]), torch.zeros(3, 1), "w", loss=height, step_size=1e-2, draws=40, batch_size=1)
    assert r.outcome.refused
    assert math.isnan(r.llc)
    assert math.isnan(r.stderr)
    assert all(map(math.isnan, r.interval))
    assert np.isnan(r.draws).all()
    assert r.reason
    assert "–" in str(r)
    assert math.isnan(r.to_pandas()["llc"][0])
    assert np.isnan(r.to_arviz()["posterior"]["llc"]).all()
    html = r._repr_html_()
    assert ">–<" in html
    assert "nan" not in html.lower().replace("nonfinite", "")
    figure = r.plot()
    assert "No number" in figure.to_json()
    second = [trace for trace in figure.data if trace.xaxis == "x2"]
    assert [trace.y for trace in second] == [(None,)]  # the panel is there, and empty


def test_stopping_and_other_settings_reach_the_sampler():
    stopping = rllc.Stopping(target_stderr=1e-9, max_draws=16)
    r = rllc.estimate(Ours(), tokens(), "1:0", stopping=stopping, sampler="leimkuhler-matthews", weight_decay=0.5, **SMALL)
    assert r.traces.settings.draws == 16
    assert (r.traces.settings.sampler, r.traces.settings.weight_decay) == ("leimkuhler-matthews", 0.5)
    whole = dataclasses.replace(r.traces.settings, draws=8)
    assert rllc.estimate(Ours(), tokens(), "1:0", sampler=whole, batch_size=3).traces.settings == whole


def test_mala_and_a_fixed_set():
    mala = rllc.estimate(Ours(), tokens(), "1:0", sampler="mala", full_batch=5, **SMALL)
    assert len(set(mala.traces.baseline[0])) == 1  # one batch
    assert mala.meta["batch_size"] == 5
    fixed = rllc.estimate(Ours(), tokens(), "1:0", fixed_contexts=4, **SMALL)
    assert fixed.traces.fixed_losses is not None
    assert np.isclose(fixed.draws.mean(), fixed.llc)


def test_float64_where_the_weights_are_or_it_is_asked_for():
    model = Ours()
    assert rllc.estimate(model, tokens(), "1:0", **SMALL).meta["dtype"] == "float32"
    assert rllc.estimate(model, tokens(), "1:0", dtype="float64", **SMALL).meta["dtype"] == "float64"
    model.params = {name: tensor.half() for name, tensor in model.params.items()}
    assert rllc.estimate(model, tokens(), "1:0", **SMALL).meta["dtype"] == "float32"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"step_sise": 1e-3}, "Perhaps you meant 'step_size'"),
        ({"chains": 0}, "chains"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"origin_batches": 2}, "at least 3, or 0"),
        ({"road": "native", "loss": height}, "Leave road and loss out"),
        ({"road": "vmap"}, "auto, native, general"),
        ({"stopping": rllc.Stopping(0.1, max_draws=4)}, "max_draws is 4"),
        ({"part": "7:0"}, "does not exist"),
        ({"part": "nonsense"}, "not a part"),
        ({"part": []}, "No part is named"),
        ({"part": {"a": ["w"]}}, "general road"),
        ({"model": 3}, "int, which is no model"),
        ({"step": 1.5}, "no whole number"),
    ],
)
def test_mistakes_are_sentences(given, problem):
    call = {"model": Ours(), "data": tokens(), "part": "1:0"} | SMALL | given
    with pytest.raises(rllc.RllcError, match=problem):
        rllc.estimate(**call)


def test_a_sampler_is_described_once():
    whole = rllc.SamplerSettings("sgld", 1e-3, 200.0, 30.0, 2, 8, 0)
    with pytest.raises(rllc.RllcError, match="nbeta beside it"):
        rllc.estimate(Ours(), tokens(), "1:0", sampler=whole, nbeta=10.0)


def test_weights_and_folders_that_do_not_fit(run, tmp_path):
    model = Ours()
    del model.params["unembed.b_U"]
    with pytest.raises(rllc.RllcError, match=r"unembed.b_U is absent"):
        rllc.estimate(model, tokens(), "1:0", **SMALL)
    with pytest.raises(rllc.RllcError, match="holds 2 checkpoints"):
        rllc.estimate(run.checkpoints, tokens(), "1:0", **SMALL)
    with pytest.raises(rllc.RllcError, match="no checkpoint"):
        rllc.estimate(str(tmp_path), tokens(), "1:0", **SMALL)


def test_without_batches_at_the_checkpoint_there_is_no_unpaired_number():
    r = rllc.estimate(Ours(), tokens(), "1:0", **(SMALL | {"origin_batches": 0}))
    assert r.origin is None
    assert math.isnan(r.meta["llc_unpaired"])
    assert math.isfinite(r.llc)


def test_the_model_is_left_as_it_is():
    model, before = Ours(), Ours()
    rllc.estimate(model, tokens(), ["full", "1:0"], **SMALL)
    assert all(torch.equal(model.params[name], before.params[name]) for name in SHAPE.tensors())

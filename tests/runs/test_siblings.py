"""Models trained beside the main one: a smaller one to be held against, and other seeds."""

from __future__ import annotations

import io
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rllc.analysis.stored import from_json
from rllc.checkpoints.store import list_checkpoints, load
from rllc.core.errors import RllcError
from rllc.model import forward as fw
from rllc.model.batch import TokenBatch
from rllc.records.store import Store
from rllc.runs.evidence import evidence_of, planned_measurements
from rllc.runs.experiment import parse
from rllc.runs.layout import RunFolder
from rllc.runs.overview import describe_plan, describe_status, export_table
from rllc.runs.pipeline import run_experiment
from rllc.runs.plan import make_plan
from rllc.runs.recorded import planned_samples
from rllc.runs.sampling import OpenedUnit, Work

BLOCK = '[[sample]]\nparts = ["heads"]\ndata = ["{}"]\ncheckpoints = [12]\n'
SIBLINGS = """
[siblings.one-layer]
n_layers = 1
[siblings.seed-7]
seed = 7
checkpoints = [6]
[[siblings.seed-7.sample]]
parts = ["1:0"]
data = ["prose"]
checkpoints = [12]

[refinements.circuit]
data = "prose"
reference = "one-layer"
"""


def text_of(finished: Path, data: str = "circuit", more: str = SIBLINGS) -> str:
    """The finished run's experiment with siblings, and one block of a grid."""
    text = (finished / "experiment.toml").read_text()
    return text[: text.index("[[sample]]")] + BLOCK.format(data) + more + text[text.index("[behaviour]") :]


@pytest.fixture(scope="module")
def together(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of it up to the samples."""
    folder = RunFolder(tmp_path_factory.mktemp("together") / "run")
    run_experiment(text_of(finished), folder.root, "sample", None, None, quiet=True)
    return folder


def test_a_sibling_of_another_seed_is_the_run_of_that_seed(finished: Path, together: RunFolder, tmp_path: Path) -> None:
    alone = text_of(finished, "prose", "").replace("seed = 3", "seed = 7").replace("[training]", "[training]\nseed = 7")
    run_experiment(alone.replace('parts = ["heads"]', 'parts = ["1:0"]'), tmp_path / "alone", "sample", None, None, quiet=True)
    other, sibling = RunFolder(tmp_path / "alone"), together.sibling("seed-7")
    assert [info.step for info in list_checkpoints(sibling.checkpoints)] == [0, 6, 12]
    weights = {folder.root: load(list_checkpoints(folder.checkpoints)[-1].folder)[1] for folder in (other, sibling, together)}
    assert all(torch.equal(weights[other.root][name], tensor) for name, tensor in weights[sibling.root].items())
    assert not torch.equal(weights[together.root]["embed.W_E"], weights[sibling.root]["embed.W_E"])
    (found,), (expected,) = (list(Store(folder.records).records("sample")) for folder in (sibling, other))
    np.testing.assert_array_equal(found.arrays["losses"], expected.arrays["losses"])
    assert found.digest == expected.digest


def test_the_reference_is_the_sibling_s_last_checkpoint(finished: Path, together: RunFolder) -> None:
    experiment = parse(text_of(finished))
    shape, params, info = load(list_checkpoints(together.sibling("one-layer").checkpoints)[-1].folder)
    assert (shape.n_layers, info.step) == (1, 12)
    unit = OpenedUnit(Work(together.root, experiment, make_plan(experiment).units[0]))
    for batch in islice(unit.data.stream("sample"), 2):
        assert isinstance(batch, TokenBatch)
        expected = fw.logits(shape, params, batch.tokens)[:, :-1].flatten(0, 1).softmax(-1)
        torch.testing.assert_close(batch.reference, expected, rtol=0, atol=1e-6)
    assert unit.weights["one-layer"] == info.digest
    records = planned_samples(experiment, together, Store(together.records))
    assert len(records) == 4
    assert {record.meta["data"] for record in records} == {"circuit"}


def test_another_reference_makes_other_records(finished: Path, together: RunFolder) -> None:
    against_itself = parse(text_of(finished).replace('reference = "one-layer"', "reference = 12"))
    assert planned_samples(against_itself, together, Store(together.records)) == []


def test_plan_status_and_table_know_of_siblings(finished: Path, together: RunFolder) -> None:
    plan = describe_plan(parse(text_of(finished)))
    assert "beside it   one-layer: seed 3, 1 layers, 12 steps of training; measuring behaviour at 2 checkpoints; " in plan
    assert "beside it   seed-7: seed 7, 2 layers, 12 steps of training; 1 cells" in plan
    status = describe_status(together.root)
    assert "beside it, one-layer: training done; 0 cells recorded, 0 planned" in status
    assert "beside it, seed-7: training done; 1 cells recorded, 1 planned" in status
    table = pd.read_csv(io.BytesIO(export_table(together.root, "csv")))
    assert table["run"].value_counts().to_dict() == {"run": 4, "run/seed-7": 1}


def test_a_second_run_computes_nothing(finished: Path, together: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rllc.runs.grid.sample_unit", lambda _: pytest.fail("sampled again"))
    monkeypatch.setattr("rllc.training.loop.train", lambda *_, **__: pytest.fail("trained again"))
    run_experiment(text_of(finished), together.root, "sample", None, None, quiet=True)


@pytest.mark.parametrize(("change", "sentence"), [
    (('reference = "one-layer"', 'reference = "two-layer"'), r"refers to 'two-layer', which is no sibling\. There are one-layer, seed-7"),
    (("n_layers = 1", "n_layers = 0"), r"A sibling is the experiment's own model"),
    (("[siblings.one-layer]", '[siblings."../x"]'), r"A sibling is called '\.\./x', but its folder is called that too"),
    (('parts = ["1:0"]', 'parts = ["2:0"]'), r"2:0"),
    (("checkpoints = [6]", "checkpoints = [13]"), r"names step 13, but training runs from step 0 to 12"),
])  # fmt: skip
def test_a_sibling_that_cannot_be_is_refused(finished: Path, change: tuple[str, str], sentence: str) -> None:
    text = text_of(finished)
    assert change[0] in text
    with pytest.raises(RllcError, match=sentence):
        parse(text.replace(*change))


def test_the_analysis_is_given_siblings_of_the_same_shape_and_the_circuit(finished: Path, together: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(together.root, tmp_path / "run"))
    run_experiment(text_of(finished), folder.root, "measure", None, None, quiet=True)
    experiment, store = parse(text_of(finished)), Store(folder.records)
    samples = planned_samples(experiment, folder, store)
    evidence = evidence_of(experiment, folder, store, samples, planned_measurements(experiment, folder, store))
    assert evidence.circuit == "circuit"
    assert list(evidence.curves) == ["circuit"]
    assert list(evidence.siblings) == ["seed-7"]  # the one-layer model is no other seed of this one
    other = evidence.siblings["seed-7"]
    assert other.curves["prose"].parts == ("1:0",)
    assert other.behaviour.steps.tolist() == [0, 6, 12]
    assert not np.array_equal(other.behaviour.scores["previous_token"][:, -1], evidence.behaviour.scores["previous_token"][:, -1])
    assert evidence.nbeta == experiment.sampler.nbeta
    run_experiment(text_of(finished), folder.root, "analyse", None, None, quiet=True)
    found = from_json(folder.findings.read_text(encoding="utf-8"))
    assert found.seeds is not None
    assert found.seeds.counts.seeds == ("this model", "seed-7")
    assert {claim.id for claim in found.claims} >= {"stages", "circuit-falls", "seeds"}

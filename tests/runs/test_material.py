"""A tiny run of everything that the paper shows: what its figures are drawn from is what it recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rllc.analysis.analyse import MAIN
from rllc.analysis.calibrated import CalibrationMap, Point
from rllc.analysis.findings import Findings
from rllc.analysis.stored import from_json, map_to_json
from rllc.core.errors import RllcError
from rllc.figures.material import Material
from rllc.figures.whole_set import draw_all
from rllc.records.store import Store
from rllc.runs.experiment import Experiment, parse
from rllc.runs.keys import SHARES
from rllc.runs.layout import MAP, RunFolder
from rllc.runs.material import material_of
from rllc.runs.pipeline import run_experiment
from rllc.runs.status import status_of
from rllc.runs.token_shares import token_shares

from .conftest import experiment_text

MORE = """
[siblings.one-layer]
n_layers = 1
[siblings.seed-7]
seed = 7
[[siblings.seed-7.sample]]
parts = ["heads"]
data = ["mixture"]
checkpoints = [12]

[refinements.circuit]
data = "mixture"
reference = "one-layer"

[refinements.shuffled]
data = "mixture"
shuffled = true

[[sample]]
parts = ["heads"]
data = ["circuit", "shuffled", "prose"]
[[sample]]
parts = ["random"]
data = ["mixture"]
[[sample]]
parts = ["full"]
data = ["mixture^23"]

[behaviour]
measures = ["behaviour", "composition", "ablation", "ngrams", "tokens", "paths", "tables", "memorised", "baselines"]
data = ["mixture", "prose"]
"""
# what so small a run cannot have: a bend in four checkpoints' curves, a head's own n-grams,
# heads enough for a regression, an order or a layer's clusters
SMALL = {
    "wrllc-on-multigrams",
    "kmeans-clusters",
    "nested-closers",
    "threshold-sensitivity",
    "multigram-table",
    "orderings",
    "sensitivity",
    "most-affected",
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Experiment]:
    place = tmp_path_factory.mktemp("paper")
    text = (
        experiment_text(place)
        .replace("\n[behaviour]\n", MORE)
        .replace("batch_size = 2\n", 'batch_size = 2\nshare_contexts = 2\nshare_at = "last"\n', 1)
    )
    text = text.replace(
        "[analysis]", "[behaviour.ablation]\ncontexts = 4\n[behaviour.paths]\ncontexts = 4\n[behaviour.tables]\ncontexts = 4\n[analysis]"
    )
    text = text.replace(
        "[analysis]", "[behaviour.memorised]\ncontexts = 16\nwithin = 2\nwithins = [2, 3]\n[behaviour.baselines]\ncontexts = 2\n[analysis]"
    )
    assert "share_at" in text
    assert text.count("[behaviour]") == 1
    run_experiment(text, place / "run", "report", None, None, quiet=True)
    return RunFolder(place / "run"), parse(text)


@pytest.fixture(scope="module")
def findings(paper: tuple[RunFolder, Experiment]) -> Findings:
    return from_json(paper[0].findings.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def material(paper: tuple[RunFolder, Experiment], findings: Findings) -> Material:
    folder, experiment = paper
    return material_of(experiment, folder, Store(folder.records), findings)


def test_the_run_draws_the_set_of_the_paper(paper: tuple[RunFolder, Experiment]) -> None:
    told = json.loads((paper[0].figures / "captions.json").read_text())
    assert set(told["lacking"]) <= SMALL, told["lacking"]
    for name in told["drawn"]:
        for kind in ("png", "svg", "html"):
            assert (paper[0].figures / f"{name}.{kind}").stat().st_size > 1000
    page = paper[0].report.read_text()
    for name in ("against-one-layer", "edges", "paths-to-logits", "painted-shares", "types-by-seed", "controls", "ov-circuits"):
        assert f'id="figure-{name}"' in page, name


def test_what_is_no_kind_of_text_is_not_compared_with_it(findings: Findings, material: Material) -> None:
    assert findings.apart == ("circuit", "shuffled")
    assert set(findings.texts) == {"mixture", "prose", "echo/heldout"}
    assert {s.data for s in findings.specialisation} == {"prose", "echo/heldout"}
    assert set(material.data_partings) == {"prose", "echo/heldout"}
    assert material.head_partings is not None
    assert material.head_partings.data == "mixture"
    assert material.against_reference is findings.curves["circuit"]


def test_status_counts_cells_at_another_temperature_as_asked_for(paper: tuple[RunFolder, Experiment]) -> None:
    found = status_of(paper[0].root)["stages"]["sample"]
    assert (found["recorded"], found["other_settings"], found["done"]) == (found["planned"], 0, True)


def test_controls_are_random_parts_shuffled_tokens_and_the_first_checkpoint(findings: Findings, material: Material) -> None:
    assert list(material.controls) == ["random weights", "shuffled tokens", "the untrained model"]
    assert material.controls["random weights"].parts == ("0.random0", "1.random0")
    untrained, heads = material.controls["the untrained model"], findings.curves["mixture"]
    assert untrained.steps.tolist() == [0]
    np.testing.assert_array_equal(untrained.llc[:, 0], heads.llc[:, 0])
    assert "full" in findings.full["mixture"].parts
    assert [one.nbeta for one in findings.temperatures] == [23.0]
    assert "mixture^23" not in findings.full


def test_seeds_hold_the_curves_of_their_own_run(paper: tuple[RunFolder, Experiment], findings: Findings, material: Material) -> None:
    assert list(material.seeds) == [MAIN, "seed-7"]
    assert material.seeds["seed-7"].curves.steps.tolist() == [12]
    assert not np.array_equal(material.seeds["seed-7"].curves.llc[:, -1], findings.curves["mixture"].llc[:, -1])
    assert findings.seeds is not None
    (match,) = findings.seeds.matches
    assert {match.one, match.other} == {MAIN, "seed-7"}


def test_shares_are_kept_at_the_last_checkpoint_alone(paper: tuple[RunFolder, Experiment], material: Material) -> None:
    folder, experiment = paper
    assert material.shares is not None
    assert (material.shares.step, material.shares.data) == (12, "mixture")
    assert {token_shares(folder.root, data).step for data in ("prose", "circuit")} == {12}
    with pytest.raises(RllcError, match=r"at step 0\. There are some at 12\."):
        token_shares(folder.root, "mixture", 0)
    at_last = {(cell, data) for data in ("mixture", "prose", "echo/heldout", "circuit", "shuffled") for cell in ("0:0", "0:1", "1:0", "1:1")}
    others = {
        ("full", "mixture"),
        ("full", "mixture^23"),
        ("0.random0", "mixture"),
        ("1.random0", "mixture"),
        ("0.attn", "prose"),
        ("0.attn", "echo/heldout"),
    }
    assert len(Store(folder.records).digests(SHARES)) == len(at_last | others)
    assert [experiment.shares_at(step) for step in (0, 12)] == [False, True]


def test_a_calibration_beside_the_run_is_drawn(paper: tuple[RunFolder, Experiment], findings: Findings) -> None:
    folder, experiment = paper
    point = Point(0.015, 0.1, 30.0, "ε 0.001")
    grid = np.array([[[1.0, float("nan")], [2.0, 3.0]]])
    found = CalibrationMap(
        np.array([0.005, 0.015]), np.array([0.05, 0.1]), np.array([30.0]), grid, grid / 4, np.full(grid.shape, ""), None, point, 4, "step 12, mixture"
    )
    folder.calibration.mkdir()
    (folder.calibration / MAP).write_text(map_to_json(found))
    material = material_of(experiment, folder, Store(folder.records), findings)
    assert material.calibration is not None
    assert material.calibration.own == point
    np.testing.assert_array_equal(material.calibration.llc, grid)
    assert "sensitivity" in draw_all(material).drawings
    (folder.calibration / MAP).write_text("{")
    with pytest.raises(RllcError, match="calibration is damaged"):
        material_of(experiment, folder, Store(folder.records), findings)

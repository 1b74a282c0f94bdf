"""The controls in a run: random parts beside heads, shuffled text beside text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rllc.core.errors import RllcError
from rllc.model.batch import TokenBatch
from rllc.model.objective import GeneralObjective
from rllc.records.store import Store
from rllc.runs.evidence import evidence_of, planned_measurements
from rllc.runs.experiment import Experiment, parse
from rllc.runs.grid import keyed_units
from rllc.runs.keys import KIND, data_key
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan
from rllc.runs.sampling import OpenedUnit, Work, sample_unit

SHUFFLED = '[refinements.shuffled]\ndata = "mixture"\nshuffled = true\n'


def controlled(finished: Path, parts: str, data: str = "mixture", more: str = SHUFFLED, changes: tuple[str, str] = ("", "")) -> Experiment:
    """The experiment of the finished run, with another grid."""
    text = (finished / "experiment.toml").read_text()
    block = f'[[sample]]\nparts = {parts}\ndata = ["{data}"]\ncheckpoints = [0, 12]\n'
    return parse((text[: text.index("[[sample]]")] + block + more + text[text.index("[behaviour]") :]).replace(*changes, 1))


def works(finished: Path, experiment: Experiment) -> list[Work]:
    return [Work(finished, experiment, unit) for unit in make_plan(experiment).units]


def test_random_is_one_part_a_layer_each_in_a_pass_of_its_own(finished: Path) -> None:
    experiment = controlled(finished, '["heads", "random", "1.random1"]')
    plan = make_plan(experiment)
    groups = {tuple(map(str, unit.parts)) for unit in plan.units}
    assert groups == {("0:0", "0:1"), ("1:0", "1:1"), ("0.random0",), ("1.random0",), ("1.random1",)}
    assert len(plan.cells) == 2 * 7
    with pytest.raises(RllcError, match=r"'2\.random0'"):
        controlled(finished, '["2.random0"]')


def test_a_random_part_is_sampled_with_the_same_weights_at_every_checkpoint(finished: Path) -> None:
    units = [OpenedUnit(work) for work in works(finished, controlled(finished, '["1.random0"]'))]
    assert [unit.unit.step for unit in units] == [0, 12]
    found = []
    for unit in units:
        assert isinstance(unit.objective, GeneralObjective)
        whole = unit._params["blocks.1.attn.W_Q"].flatten()
        values = unit.objective.origin["blocks.1.attn.W_Q[random0]"][0]
        assert len(values) == len(whole) // 2
        found.append(np.flatnonzero(np.isin(whole.numpy(), values.numpy())))
    np.testing.assert_array_equal(*found)
    samples = [sample for work in works(finished, controlled(finished, '["1.random0"]')) for sample in sample_unit(work)]
    heads = [sample for work in works(finished, controlled(finished, '["1:0"]')) for sample in sample_unit(work)]
    assert [sample.meta["dimension"] for sample in samples] == [sample.meta["dimension"] for sample in heads]
    assert all(np.isfinite(sample.meta["llc"]) for sample in samples)
    assert str(samples[0].cell.part) == "1.random0"


def test_shuffled_is_data_like_any_other(finished: Path) -> None:
    experiment = controlled(finished, '["1:0"]', "shuffled")
    unit = OpenedUnit(works(finished, experiment)[-1])
    plain = OpenedUnit(works(finished, controlled(finished, '["1:0"]'))[-1])
    for batch in islice(unit.data.stream("sample"), 2):
        assert isinstance(batch, TokenBatch)
        assert (batch.tokens[:, 0] == unit.corpus.bos).all()
        assert batch.rows is not None
        assert (batch.tokens[:, 1:].flatten()[batch.rows] != unit.corpus.bos).all()
    (sample,) = sample_unit(works(finished, experiment)[-1])
    assert sample.meta["data"] == "shuffled"
    assert sample.key["data"] == data_key(plain.experiment, plain.unit.data, plain.weights, plain.corpus.digest) | {
        "name": "shuffled",
        "shuffled": True,
    }


IMPORTED = """
[imported]
source = "series"
steps = [100, 200]
[siblings.untrained.imported]
source = "untrained"
steps = [0]
[[siblings.untrained.sample]]
parts = ["heads", "random"]
"""


def test_an_untrained_model_stands_beside_an_imported_series(tiny: str) -> None:
    start, end = tiny.index("[training]"), tiny.index("[sampler]")
    text = (tiny[:start] + tiny[end:]).replace("checkpoints = [0, 12]\n", "")
    sibling = parse(text + IMPORTED).sibling("untrained")
    assert sibling.checkpoints() == (0,)
    assert {str(cell.part) for cell in make_plan(sibling).cells} == {"0:0", "0:1", "1:0", "1:1", "0.random0", "1.random0"}


def test_another_temperature_is_the_same_text_at_another_nbeta(finished: Path) -> None:
    tempered = [sample for work in works(finished, controlled(finished, '["1:0", "full"]', "mixture^23")) for sample in sample_unit(work)]
    alone = controlled(finished, '["1:0", "full"]', changes=("nbeta = 30\n", "nbeta = 23\n"))
    assert alone.sampler.nbeta == 23
    colder = [sample for work in works(finished, alone) for sample in sample_unit(work)]
    assert [str(sample.cell.data) for sample in tempered] == ["mixture^23"] * 4
    for a, b in zip(tempered, colder, strict=True):
        assert a.cell.part == b.cell.part
        assert a.meta["nbeta"] == b.meta["nbeta"] == 23
        assert a.meta["llc"] == b.meta["llc"]
        assert a.key != b.key  # for a record tells what its data is called
        np.testing.assert_array_equal(a.arrays["losses"], b.arrays["losses"])


def test_the_full_model_at_another_temperature_is_what_the_analysis_compares(finished: Path, tmp_path: Path) -> None:
    experiment = controlled(finished, '["heads", "full"]', 'mixture", "mixture^23", "prose^23')
    folder = RunFolder(finished)
    store = Store(tmp_path)
    for work in works(finished, experiment):
        for sample in sample_unit(work):
            sample.put(store)
    samples = [store.get(KIND, key) for _, keys in keyed_units(experiment, folder) for key in keys]
    evidence = evidence_of(experiment, folder, folder.store(), samples, planned_measurements(experiment, folder, folder.store()))
    assert list(evidence.temperatures) == [23.0]
    assert evidence.temperatures[23.0].steps.tolist() == [0, 12]
    assert set(evidence.curves) == set(evidence.full) == {"mixture"}
    assert not np.array_equal(evidence.temperatures[23.0].llc, evidence.full["mixture"].llc)

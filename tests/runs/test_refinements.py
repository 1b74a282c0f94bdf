"""Refined data in a run: from the experiment file to the records."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from rllc.core.errors import RllcError
from rllc.corpus.batches import ContextPool, Mixture
from rllc.corpus.refinement import followed_before
from rllc.model.batch import TokenBatch
from rllc.records.store import Store
from rllc.runs.experiment import Experiment, parse
from rllc.runs.keys import record_key
from rllc.runs.layout import RunFolder
from rllc.runs.plan import make_plan
from rllc.runs.recorded import planned_samples
from rllc.runs.sampling import OpenedUnit, Sample, Work, sample_unit

REFINEMENTS = """
[refinements.spaces]
data = "prose"
of = ["s"]
[refinements.again]
data = "echo"
induction = true
[refinements.itself]
data = "prose"
reference = 12
[refinements.both]
data = { prose = 3, echo = 1 }
[refinements.both-again]
data = { prose = 3, echo = 1 }
induction = true
"""


def refined(finished: Path, data: str, more: str = REFINEMENTS) -> Experiment:
    """The experiment of the finished run, sampled on one kind of data at its last checkpoint instead."""
    text = (finished / "experiment.toml").read_text()
    first = text.index("[[sample]]")
    block = f'[[sample]]\nparts = ["heads"]\ndata = ["{data}"]\ncheckpoints = [12]\n'
    return parse(text[:first] + block + more + text[text.index("[behaviour]") :])


def works(finished: Path, data: str) -> list[Work]:
    experiment = refined(finished, data)
    return [Work(finished, experiment, unit) for unit in make_plan(experiment).units]


@pytest.mark.parametrize("data", ["spaces", "again/heldout"])
def test_the_chains_see_refined_minibatches(finished: Path, data: str) -> None:
    work = works(finished, data)[-1]
    unit = OpenedUnit(work)
    for batch in islice(unit.data.stream("sample"), 3):
        assert isinstance(batch, TokenBatch)
        assert batch.rows is not None
        chosen = unit.corpus.decode(batch.tokens[:, 1:].flatten()[batch.rows].numpy())
        assert data != "spaces" or all(name.lstrip("␣").startswith("s") for name in chosen)
        assert 0 < len(chosen) < batch.tokens[:, 1:].numel()
    samples = sample_unit(work)
    assert {sample.meta["data"] for sample in samples} == {data}
    assert all(sample.meta["llc"] is None or abs(sample.meta["llc"]) > 0 for sample in samples)


def test_a_refinement_mixes_domains_of_its_own(finished: Path) -> None:
    unit = OpenedUnit(works(finished, "both")[0])
    batches = list(islice(unit.data.stream("sample"), 40))
    rows = torch.cat([batch.tokens for batch in batches if isinstance(batch, TokenBatch)]).numpy()
    # which domain a context is of shows in how much of it repeats
    repeats = followed_before(rows).mean(1)
    pools = [ContextPool(unit.corpus, Mixture.of(name), "train", rows.shape[1]) for name in ("prose", "echo")]
    of_prose, of_echo = (followed_before(pool.draw(np.random.default_rng(0), 400)).mean(1) for pool in pools)
    apart = of_echo.mean() - of_prose.mean()
    spread = np.sqrt((repeats.var() / len(repeats)) + (of_prose.var() + of_echo.var()) / 400) / apart
    assert spread < 0.08
    assert abs((repeats.mean() - of_prose.mean()) / apart - 0.25) < 3.5 * spread
    for batch in batches:
        assert isinstance(batch, TokenBatch)
        assert batch.rows is not None
        counted = batch.tokens[:, 1:].flatten()[batch.rows]
        assert (counted != unit.corpus.bos).all()
        assert len(counted) == (batch.tokens[:, 1:] != unit.corpus.bos).sum()


def test_against_itself_a_checkpoint_is_at_its_minimum(finished: Path) -> None:
    """Then the gradient at w* is zero on every minibatch and λ̂ has no tilt, whatever the training has left."""
    unit = OpenedUnit(works(finished, "itself")[0])
    batch = next(unit.data.stream("sample"))
    assert isinstance(batch, TokenBatch)
    assert batch.reference is not None
    assert torch.allclose(batch.reference.sum(1), torch.ones(len(batch.reference)))
    found = unit.objective.evaluate(unit.objective.origin, unit.objective.prepare(batch))
    assert found.gradients is not None
    assert max(gradient.abs().max().item() for gradient in found.gradients.values()) < 1e-6
    entropy = -(batch.reference * batch.reference.log()).sum(1).double().mean()
    assert found.baseline[0].item() == pytest.approx(entropy.item(), rel=1e-6)


def test_each_kind_of_data_has_records_of_its_own(finished: Path) -> None:
    keys = []
    for data in ("prose", "spaces", "itself", "both", "both-again", "mixture"):
        experiment = refined(finished, data)
        cell = make_plan(experiment).cells[0]
        keys.append(record_key(experiment, cell, {12: "weights"}, "corpus"))
    assert len({str(key) for key in keys}) == 6
    assert [key["loss"] for key in keys[:3]] == ["labels", "labels", "reference"]
    assert keys[3]["data"]["weights"] == keys[5]["data"]["weights"] == {"echo": 0.25, "prose": 0.75}
    # refinements that are merely defined change no record of other data
    without = refined(finished, "prose", more="")
    assert record_key(without, make_plan(without).cells[0], {12: "weights"}, "corpus") == keys[0]


def test_records_are_found_again(finished: Path, tmp_path: Path) -> None:
    experiment = refined(finished, "spaces")
    folder, store = RunFolder(finished), Store(tmp_path)
    samples: list[Sample] = [sample for work in works(finished, "spaces") for sample in sample_unit(work)]
    for sample in samples:
        sample.put(store)
    assert len(planned_samples(experiment, folder, store)) == len(samples) == 4


@pytest.mark.parametrize(("more", "sentence"), [
    ('[refinements.x]\ndata = "prise"\ninduction = true\n', r"The refinement 'x' is of 'prise', but the corpus has prose, echo"),
    ('[refinements.x]\ndata = {prose = 1, prise = 1}\n', r"The refinement 'x' is of 'prise', but the corpus has prose, echo"),
    ('[refinements.x]\ndata = {prose = 0}\n', r"A refinement mixes \{'prose': 0.0\}"),
    ('[refinements.x]\ndata = "prose"\n', r"The refinement of 'prose' refines nothing"),
    ('[refinements.prose]\ndata = "echo"\ninduction = true\n', r"The refinement 'prose' has the name of other data"),
    ('[refinements.x]\nreference = 5\n', r"The refinement 'x' refers to step 5, of which there is no checkpoint"),
    ('[refinements.x]\ninductive = true\n', r"unknown key 'refinements\.x\.inductive'"),
])  # fmt: skip
def test_a_refinement_that_cannot_be_is_refused(finished: Path, more: str, sentence: str) -> None:
    with pytest.raises(RllcError, match=sentence):
        refined(finished, "prose", more)

"""A measurement and λ̂ are of the same loss, where documents are packed and where each has a row of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rllc.behaviour.curvature import curvature
from rllc.checkpoints.store import load as load_checkpoint
from rllc.core.names import DataKey, Part
from rllc.corpus.tokens import open_corpus
from rllc.model.batch import TokenBatch, counted
from rllc.model.forward import losses
from rllc.model.objective import build_objective
from rllc.records.store import Record, Store
from rllc.runs.experiment import Experiment, parse
from rllc.runs.layout import RunFolder
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.steps import asked_digest
from rllc.runs.pipeline import run_experiment
from rllc.runs.reading import planned_records
from rllc.runs.unit_data import UnitData

from .conftest import EXPERIMENT, experiment_text

KINDS = ["packed", "one a row"]
MEASURED = """
measures = ["ablation", "ngrams", "paths", "tables", "baselines"]
data = ["echo"]
[behaviour.ablation]
contexts = 12
kinds = ["zero"]
[behaviour.ngrams]
least = 3
probes = 20
[behaviour.paths]
contexts = 6
[behaviour.tables]
contexts = 6
[behaviour.baselines]
contexts = 4
top = 1
"""
GRID = EXPERIMENT[EXPERIMENT.index("[[sample]]") : EXPERIMENT.index("[behaviour]")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The tiny experiment on documents of 11 tokens, half a context, of which two thirds are in the mixture; its trained model."""
    folder = tmp_path_factory.mktemp("loss")
    text = experiment_text(folder).replace("document_tokens = 24\nsegment = [3, 6]", "document_tokens = 11\nsegment = [3, 5]")
    text = text.replace("extra = [0, 3, 6, 9, 12]", "extra = [12]").replace("echo = 0.25", "echo = 1.5")
    text = text.replace(GRID, '[[sample]]\nparts = ["heads"]\n').replace("snippets = 1\n", "snippets = 1\n" + MEASURED)
    run_experiment(text, folder / "run", "train", None, None, quiet=True)
    return text, folder / "run"


@pytest.fixture(scope="module", params=KINDS)
def measured(request: pytest.FixtureRequest, trained: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, RunFolder]:
    folder = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(trained[1], folder)
    text = trained[0].replace("[sampling]", f'[sampling]\ndocuments = "{request.param}"')
    run_experiment(text, folder, "measure", None, None, quiet=True)
    return parse(text), RunFolder(folder)


def model(measured: tuple[Experiment, RunFolder]) -> tuple[Any, Any]:
    return load_checkpoint(measured[1].checkpoints / "step-00000012")[:2]


def record(measured: tuple[Experiment, RunFolder], kind: Any) -> Record:
    *_, found = planned_records(*measured, Store(measured[1].records), kind)
    return found


def batch(measured: tuple[Experiment, RunFolder], purpose: str, n: int, data: str = "echo") -> TokenBatch:
    """The contexts of a measurement as a minibatch of sampling: what counts of them, the chains' own data says."""
    experiment, folder = measured
    tokens = Bench(experiment, open_corpus(folder.corpus), Store(folder.records)).heldout(data, n, purpose).tokens
    corpus = open_corpus(folder.corpus)
    refused = pytest.fail
    given = UnitData(experiment, folder, DataKey.parse(data), corpus, torch.device("cpu"), lambda *_: refused("no reference"))._given(tokens)
    return given if isinstance(given, TokenBatch) else counted(given, torch.ones_like(given, dtype=torch.bool))


def test_contexts_are_cut_as_those_of_chains(measured: tuple[Experiment, RunFolder]) -> None:
    """Rows of the chains' minibatches are of the same kind: BOS behind BOS is padding, and stands there with one document a row alone."""
    experiment, folder = measured
    corpus = open_corpus(folder.corpus)
    bench = Bench(experiment, corpus, Store(folder.records))
    one = experiment.sampling.documents == "one a row"
    own = bench.heldout("echo", 12, "ablation")
    chains = next(UnitData(experiment, folder, DataKey.parse("echo"), corpus, torch.device("cpu"), pytest.fail).stream("sample"))
    assert isinstance(chains, TokenBatch)
    for tokens in (own.tokens, chains.tokens.numpy()):
        assert bool(((tokens[:, 1:] == corpus.bos) & (tokens[:, :-1] == corpus.bos)).any()) == one
        assert ((tokens[:, 1:] == corpus.bos).any(1)).all()  # documents of 11 tokens in contexts of 24
    assert (own.counted == (own.tokens[:, 1:] != corpus.bos)).all()
    text = bench.packed("echo", 12, "text")
    assert not ((text[:, 1:] == corpus.bos) & (text[:, :-1] == corpus.bos)).any()  # what predicts nothing sees no padding


def test_ablation_is_of_the_loss_of_the_objective_that_chains_have(measured: tuple[Experiment, RunFolder]) -> None:
    """A head whose W_O is 0 is an ablated one: what the sampler's objective says of it, on the same contexts."""
    shape, params = model(measured)
    own, found = batch(measured, "ablation", 12), record(measured, "ablation")
    assert found.arrays["loss"][0] == pytest.approx(float(losses(shape, params, own)), rel=1e-6)
    for h, head in enumerate(shape.heads()):
        objective = build_objective(shape, params, (Part.of_head(head.layer, head.index),), 0)
        name = next(name for name in objective.origin if "W_O" in name)
        variant = dict(objective.origin) | {name: torch.zeros_like(objective.origin[name])}
        told = objective.evaluate(variant, objective.prepare(own), gradients=False)
        rise = float(told.losses[0] - told.baseline[0])
        assert found.arrays["zero/effect"][h, 0] == pytest.approx(rise, abs=2e-6)
        assert found.arrays["zero/normalised"][h, 0] == pytest.approx(rise / float(told.baseline[0]), abs=2e-6)


def test_losses_paths_scores_and_baselines_are_of_that_loss(measured: tuple[Experiment, RunFolder]) -> None:
    shape, params = model(measured)
    behaviour = record(measured, "behaviour")
    for i, data in enumerate(behaviour.meta["data"]):
        assert behaviour.arrays["losses"][i] == pytest.approx(float(losses(shape, params, batch(measured, "losses", 4, data))), rel=1e-6)
    assert record(measured, "paths").arrays["loss"][0] == pytest.approx(float(losses(shape, params, batch(measured, "paths", 6))), rel=1e-6)
    score, _, loss = record(measured, "ngrams").arrays["2"]
    assert score * loss == pytest.approx(float(losses(shape, params, batch(measured, "losses", 4, "mixture"))), rel=1e-6)
    own = batch(measured, "baselines", 4, "mixture")
    free = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    losses(shape, free, own).sum().backward()
    slices = [free[f"blocks.1.attn.{name}"].grad[1] for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    assert record(measured, "baselines").arrays["value/gradient_norm"][3] == pytest.approx(
        float(torch.cat([g.flatten() for g in slices]).norm()), rel=1e-4
    )
    plain = curvature(shape, params, Part.parse("1:1"), own.tokens.numpy(), top=0).gradient_norm
    assert record(measured, "baselines").arrays["value/gradient_norm"][3] != pytest.approx(plain, rel=1e-2)  # so that the line above can fail


def test_attribution_is_of_the_predictions_that_count(measured: tuple[Experiment, RunFolder]) -> None:
    from rllc.behaviour.logits import logit_attribution

    shape, params = model(measured)
    own = batch(measured, "tables", 6)
    each = logit_attribution(shape, params, own.tokens.numpy()).reshape(4, -1)
    assert own.rows is not None
    np.testing.assert_allclose(record(measured, "tables").arrays["attribution"][:, 0], each[:, own.rows.numpy()].mean(1), rtol=1e-5, atol=1e-9)


def test_how_documents_are_cut_is_part_of_what_was_asked(trained: tuple[str, Path]) -> None:
    packed, one = (parse(trained[0].replace("[sampling]", f'[sampling]\ndocuments = "{kind}"')) for kind in KINDS)
    assert asked_digest(packed) != asked_digest(one)

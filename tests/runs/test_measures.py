"""Every kind of measurement, by the run's road: recorded, found again, equal to asking the room."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllc.analysis.measured import Measured
from rllc.behaviour.ablation import ablation_effects
from rllc.behaviour.attention import attention_scores
from rllc.behaviour.baselines import baselines
from rllc.behaviour.composition import composition
from rllc.behaviour.contexts import Contexts, ratio_and_stderr
from rllc.behaviour.curvature import Prior
from rllc.behaviour.loss_scores import context_losses
from rllc.behaviour.paths import Edge, direct_effects, path_effects
from rllc.behaviour.settings import MEASURES, BehaviourSettings, chosen
from rllc.checkpoints.store import list_checkpoints, load
from rllc.core.names import Head
from rllc.core.seeds import generator
from rllc.corpus.batches import Mixture, contexts
from rllc.corpus.tokens import open_corpus
from rllc.records.packing import pack
from rllc.records.store import DamagedRecordError, Store
from rllc.runs.evidence import behaviour_of
from rllc.runs.experiment import Experiment, parse
from rllc.runs.layout import RunFolder
from rllc.runs.measures.behaviour import make_probes
from rllc.runs.measures.bench import Bench
from rllc.runs.measures.measure import find
from rllc.runs.measures.steps import planned_steps
from rllc.runs.measures.unit import files_of_measures, take_unit, works_of
from rllc.runs.measuring import planned_keys
from rllc.runs.overview import describe_status
from rllc.runs.pipeline import run_experiment
from rllc.runs.reading import planned_records, read_measured

from .faulty import assert_same_records

SETTINGS = f"""
measures = {list(MEASURES)}
[behaviour.ablation]
contexts = 6
[behaviour.ngrams]
least = 3
probes = 40
[behaviour.tokens]
draws = 20
examples = 3
before = 4
[behaviour.paths]
contexts = 3
at = 2
[behaviour.tables]
entries = 4
contexts = 3
[behaviour.memorised]
contexts = 40
threshold = -5.0
consistency = 0.0
withins = [5]
at = 2
[behaviour.baselines]
contexts = 3
top = 1
"""
SIBLING = '[siblings.one-layer]\nn_layers = 1\ncheckpoints = [6]\n[[siblings.one-layer.sample]]\nparts = ["0:0"]\ncheckpoints = [6]\n'


def text_of(finished: Path, settings: str = SETTINGS) -> str:
    text = (finished / "experiment.toml").read_text()
    return text.replace("snippets = 1\n", "snippets = 1\n" + settings)


@pytest.fixture(scope="module")
def measured(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with every measurement, and a one-layer sibling."""
    folder = RunFolder(tmp_path_factory.mktemp("measured") / "run")
    shutil.copytree(finished, folder.root)
    run_experiment(text_of(finished) + SIBLING, folder.root, "measure", None, None, quiet=True)
    return folder


def read(folder: RunFolder) -> tuple[Experiment, Measured]:
    experiment = parse(folder.experiment.read_text())
    return experiment, read_measured(experiment, folder)


def probes(folder: RunFolder, experiment: Experiment, purpose: str, n: int, data: str = "mixture") -> Contexts:
    mixture = Mixture(data, experiment.mixture if data == "mixture" else {data: 1.0})
    rng = generator(experiment.seed, "probes", purpose, data)
    corpus = open_corpus(folder.corpus)
    tokens = contexts(corpus, mixture, "heldout", n, experiment.model.n_ctx, rng)
    return Contexts(tokens, tokens[:, 1:] != corpus.bos)


def last(folder: RunFolder) -> tuple[Any, Any]:
    shape, params, _ = load(list_checkpoints(folder.checkpoints)[-1].folder)
    return shape, params


def test_every_kind_is_recorded_and_read_back(measured: RunFolder) -> None:
    experiment, found = read(measured)
    assert all(getattr(found, name) is not None for name in Measured.__dataclass_fields__)
    everywhere = (0, 3, 6, 9, 12)
    for name in MEASURES:
        steps = {"paths": (0, 12), "memorised": (0, 12), "tables": (12,), "baselines": (12,)}.get(name, everywhere)
        assert tuple(r.meta["step"] for r in planned_records(experiment, measured, Store(measured.records), name)) == steps
    assert found.ablation is not None
    assert found.ablation.data == ("mixture", "echo", "prose")
    assert found.ablation.effect["mean"].shape == (4, 5, 3)
    assert found.tokens is not None
    assert [len(tokens) for tokens in found.tokens.tokens] == [effects.shape[2] for effects in found.tokens.effects]
    assert "  measure  done" in describe_status(measured.root)


def test_a_measurement_unlike_those_of_other_checkpoints_is_set_aside(measured: RunFolder, tmp_path: Path) -> None:
    """Its digest is right and it fits itself; stacking it over checkpoints ended in a traceback, at every call."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(measured.root, folder.root)
    experiment, store = parse(folder.experiment.read_text()), folder.store()
    record = planned_records(experiment, folder, store, "behaviour")[1]
    (path,) = store.files("behaviour", record.digest)
    shorter = record.arrays | {"position_losses": record.arrays["position_losses"][:, 1:]}
    path.write_bytes(pack("behaviour", record.key, shorter, record.meta, 0))
    with pytest.raises(DamagedRecordError, match="not those of the same measurement at other checkpoints"):
        planned_records(experiment, folder, store, "behaviour")
    assert not path.exists()
    assert len(planned_records(experiment, folder, store, "behaviour")) == 4


def test_two_workers_measure_as_one_does_bit_for_bit(measured: RunFolder, tmp_path: Path) -> None:
    """Of every kind, in processes of their own; with some of a checkpoint's measurements there already, and some not."""
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(measured.root, folder.root)
    whole, other = Store(measured.records), Store(folder.records)
    experiment = parse(measured.experiment.read_text())
    planned = [record for kind in MEASURES for record in planned_records(experiment, measured, whole, kind)]
    gone = [record for record in planned if record.meta["step"] == 12 or record.kind == "tokens"]
    assert {record.meta["step"] for record in gone} == {0, 3, 6, 9, 12}
    for path in (path for record in gone for path in other.files(record.kind, record.digest)):
        path.unlink()
    text = measured.experiment.read_text().replace("workers = 1", "workers = 2")
    (folder.root / "log.jsonl").unlink()
    run_experiment(text, folder.root, "measure", None, None, quiet=True)
    assert_same_records(whole, Store(folder.records), [(record.kind, record.digest) for record in gone])
    assert (folder.root / "log.jsonl").read_text().count('"measured"') == 5 + len(
        MEASURES
    ) - 2  # tokens at five steps, at the last with ablation; the others each for itself


def test_a_measurement_reads_no_more_than_the_files_that_go_to_its_worker(measured: RunFolder, tmp_path: Path) -> None:
    """As on a machine that does not see the run's folder: on copies of those files, elsewhere, nothing else is missed."""
    experiment = parse(measured.experiment.read_text())
    for name, folder in ((None, measured), ("one-layer", measured.sibling("one-layer"))):
        asked = experiment if name is None else experiment.sibling(name)
        bench = Bench.of(asked, folder)
        step = asked.checkpoints()[-1]
        info = next(info for info in list_checkpoints(folder.checkpoints) if info.step == step)
        wanted = [(measure, planned_keys(asked, folder, bench, measure)[step]) for measure in map(find, ("behaviour", "tokens"))]
        for work in works_of(folder, asked, bench, info, wanted):
            files = files_of_measures(folder, bench)
            for path in files.of(work):
                (there := tmp_path / path.relative_to(files.root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there)
            (taken,) = take_unit(files.moved(work, tmp_path))
            expected = folder.store().get(taken.kind, taken.key)
            assert expected.arrays.keys() == taken.arrays.keys()
            for array in expected.arrays:
                np.testing.assert_array_equal(taken.arrays[array], expected.arrays[array])
        shutil.rmtree(tmp_path)


def test_scores_come_with_their_errors(measured: RunFolder) -> None:
    experiment, shape_params = read(measured)[0], last(measured)
    records = planned_records(experiment, measured, Store(measured.records), "behaviour")
    seen = make_probes(Bench.of(experiment, measured))
    expected, told = attention_scores(*shape_params, seen.text, seen.repeated, seen.segment), behaviour_of(records)
    assert set(told.score_stderr) == set(told.scores) == set(expected)
    for name, (values, stderr) in expected.items():
        assert told.error(name).shape == told.scores[name].shape == (4, 5)
        np.testing.assert_allclose(told.scores[name][:, -1], values, rtol=1e-6)
        np.testing.assert_allclose(told.error(name)[:, -1], stderr, rtol=1e-5)
        assert (stderr > 0).all()
    losses, icl = told.errors
    assert losses.shape == told.losses.shape
    np.testing.assert_array_equal(losses[:, -1], records[-1].arrays["losses_stderr"])
    assert icl[-1] == records[-1].arrays["icl_stderr"][0] > 0


def test_ablation_is_what_the_room_says(measured: RunFolder) -> None:
    experiment, found = read(measured)
    shape, params = last(measured)
    tokens = probes(measured, experiment, "ablation", 6, "prose")
    loss, loss_stderr = tokens.mean(context_losses(shape, params, tokens))
    effect, stderr = tokens.mean(ablation_effects(shape, params, tokens, "resample", seed=experiment.seed))
    assert found.ablation is not None
    n = found.ablation.data.index("prose")
    np.testing.assert_array_equal(found.ablation.effect["resample"][:, -1, n], effect)
    np.testing.assert_array_equal(found.ablation.stderr["resample"][:, -1, n], stderr)
    np.testing.assert_allclose(found.ablation.normalised["resample"][:, -1, n], effect / loss)
    assert (found.ablation.loss[-1, n], found.ablation.loss_stderr[-1, n]) == pytest.approx((float(loss), float(loss_stderr)), rel=1e-12)
    quantity = found.ablation.quantity("resample", "prose")
    assert quantity.steps == (0, 3, 6, 9, 12)


def test_circuits_are_what_the_rooms_say(measured: RunFolder) -> None:
    experiment, found = read(measured)
    shape, params = last(measured)
    scores = composition(shape, params)
    assert found.composition is not None
    heads = tuple(str(head) for head in shape.heads())
    np.testing.assert_array_equal(found.composition.table("k", -1, heads), scores.k)
    np.testing.assert_array_equal(found.composition.freedom["v"][:, -1].reshape(2, 2), scores.freedom["v"][:2, 2:])
    tokens = probes(measured, experiment, "paths", 3, "echo")
    edge = Edge(Head(0, 1), Head(1, 0), "V")
    assert found.paths is not None
    table = found.paths.table("V", "echo", -1)
    assert table[1, 2] == pytest.approx(tokens.mean(path_effects(shape, params, tokens, [edge], "mean"))[0][0], rel=1e-9, abs=1e-12)
    assert np.isnan(table[2, 1])
    n = found.paths.data.index("echo")
    direct = tokens.mean(direct_effects(shape, params, tokens, "mean"))
    np.testing.assert_allclose(found.paths.direct[:, -1, n], direct[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.paths.direct_stderr[:, -1, n], direct[1], rtol=1e-9, atol=1e-12)
    assert found.tables is not None
    assert [len(entries) for entries in found.tables.ov[0]] == [4] * 4


def test_baselines_are_what_the_room_says(measured: RunFolder) -> None:
    experiment, found = read(measured)
    shape, params = last(measured)
    tokens = probes(measured, experiment, "baselines", 3)
    settings, sampler = experiment.behaviour.baselines, experiment.sampler
    prior = Prior(sampler.nbeta, sampler.precision, settings.twin_probes, settings.twin_steps)
    expected = baselines(shape, params, tokens, heads=(Head(1, 1),), top=1, seed=experiment.seed, prior=prior)
    assert "curvature_twin" in expected.values
    assert found.baselines is not None
    for name, values in expected.values.items():
        assert found.baselines.values[name][3, 0] == pytest.approx(values[0], rel=1e-4), name
    assert set(found.baselines.quantities()) == set(expected.values)


def test_patterns_and_classes_are_counted(measured: RunFolder) -> None:
    _, found = read(measured)
    assert found.memorised is not None
    assert found.memorised.tried > 0
    assert (found.memorised.found.sum(-1) == found.memorised.tried).all()  # a threshold far below every rise finds all
    assert (found.memorised.own.sum(-1) == found.memorised.held.sum(-1)).all()
    assert all(len(held) == min(20, own) for held, own in zip(found.memorised.examples, found.memorised.multigrams()[:, -1], strict=True))
    assert found.shares is not None
    assert found.shares.classes[0] == "induction"
    assert found.shares.base[1, 0] > found.shares.base[2, 0]  # echo repeats itself more than prose
    assert found.tokens is not None
    for affected in found.tokens.most[0]:
        assert [a.effect for a in affected] == sorted((a.effect for a in affected), reverse=True)
        assert all(len(a.before) <= 4 and a.effect > 0 for a in affected)


def test_a_sibling_is_measured_where_it_has_cells_and_at_its_end(measured: RunFolder) -> None:
    sibling, folder = parse(measured.experiment.read_text()).sibling("one-layer"), measured.sibling("one-layer")
    assert planned_steps(sibling, folder, "behaviour") == (0, 6, 12)
    assert planned_steps(sibling, folder, "ablation") == (6, 12)
    assert planned_steps(sibling, folder, "baselines") == (12,)
    found, main = read_measured(sibling, folder), read(measured)[1]
    assert found.composition is None  # one layer has no pairs
    assert found.ablation is not None
    assert found.ablation.steps.tolist() == [6, 12]
    assert found.paths is not None
    assert found.paths.effect.shape[:2] == (4, 0)
    assert found.memorised is not None
    assert main.memorised is not None
    assert found.memorised.patterns == main.memorised.patterns  # so that they can be compared one by one
    assert not Store(folder.records).digests("text_ngrams")


KNOBS = {
    "contexts = 6": ("ablation", "tokens"),
    "least = 3": ("ngrams", "tokens", "memorised"),
    "draws = 20": ("tokens",),
    "contexts = 3\nat = 2": ("paths",),
    "entries = 4": ("tables",),
    "withins = [5]": ("memorised",),
    "top = 1": ("baselines",),
}


@pytest.mark.parametrize(("knob", "moved"), KNOBS.items())
def test_a_key_changes_with_its_own_settings_alone(measured: RunFolder, knob: str, moved: tuple[str, ...]) -> None:
    text = measured.experiment.read_text()
    assert text.count(knob) == 1
    changed = text.replace(knob, re.sub(r"\d+", lambda number: str(int(number[0]) + 1), knob, count=1))
    keys = [keys_of(parse(each), measured) for each in (text, changed)]
    assert {name for name in MEASURES if keys[0][name] != keys[1][name]} == set(moved)


def keys_of(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    bench = Bench.of(experiment, folder)
    return {name: planned_keys(experiment, folder, bench, find(name))[12] for name in MEASURES}


def test_checkpoints_are_chosen_evenly() -> None:
    assert BehaviourSettings().asked() == ("behaviour", "composition", "ablation", "ngrams")
    assert chosen(3, (0, 1, 2, 3, 4)) == (0, 2, 4)


def test_the_error_of_a_ratio() -> None:
    """Against many draws of contexts."""
    rng = np.random.default_rng(0)
    bottom = rng.uniform(1, 3, (4000, 50))
    top = 0.5 * bottom + rng.normal(0, 0.3, bottom.shape)
    ratios, errors = ratio_and_stderr(top, bottom)
    assert errors.mean() == pytest.approx(ratios.std(), rel=0.05)
    assert np.isnan(ratio_and_stderr(np.ones((1, 2)), np.zeros((1, 2)))[0]).all()
